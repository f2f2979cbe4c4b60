//! Files of a job, written piece by piece.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use shared::files::{AtomicFile, at};

use super::BatchError;

/// A file under its temporary name, written through a buffer.
pub(super) struct NewFile {
    path: PathBuf,
    writer: BufWriter<AtomicFile>,
}

impl NewFile {
    /// Begins the file that will be at `path`.
    pub(super) fn create(path: &Path) -> Result<Self, BatchError> {
        let file = AtomicFile::create(path).map_err(at(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            writer: BufWriter::new(file),
        })
    }

    /// Gives it its name.
    pub(super) fn finish(self) -> Result<(), BatchError> {
        let Self { path, writer } = self;
        let file = writer.into_inner().map_err(|error| at(&path)(error.into_error()))?;
        Ok(file.finish().map_err(at(&path))?)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}
