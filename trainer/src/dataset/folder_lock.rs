//! One program at a time changes a data set.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::{DatasetError, OWN_FOLDER};

/// The right to change a data set, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the right to change the data set in `root`, which is made where it is missing.
    ///
    /// # Errors
    /// [`DatasetError::Busy`] where another program has it, or [`DatasetError::File`].
    pub fn acquire(root: &Path) -> Result<Self, DatasetError> {
        let folder = root.join(OWN_FOLDER);
        let path = folder.join("lock");
        let failed = |source| DatasetError::File {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DatasetError::Busy(root.to_path_buf())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_turned_away_until_the_first_is_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = FolderLock::acquire(folder.path()).expect("free");
        assert!(matches!(FolderLock::acquire(folder.path()), Err(DatasetError::Busy(_))));
        drop(first);
        FolderLock::acquire(folder.path()).expect("free again");
    }
}
