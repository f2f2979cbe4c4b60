//! One program at a time changes a data set.

use std::path::Path;

use shared::files::{LockedFile, try_lock};

use super::{DatasetError, OWN_FOLDER};

/// The right to change a data set, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: LockedFile,
}

impl FolderLock {
    /// Takes the right to change the data set in `root`, which is made where it is missing.
    ///
    /// # Errors
    /// [`DatasetError::Busy`] where another program has it, or [`DatasetError::File`].
    pub fn acquire(root: &Path) -> Result<Self, DatasetError> {
        let path = root.join(OWN_FOLDER).join("lock");
        let file = try_lock(&path).map_err(|source| DatasetError::File { path, source })?;
        let file = file.ok_or_else(|| DatasetError::Busy(root.to_path_buf()))?;
        Ok(Self { _file: file })
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
