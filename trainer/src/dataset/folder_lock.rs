//! One program at a time changes a data set.

use std::path::Path;

use shared::files::{LockedFile, at, try_lock};

use super::{DatasetError, OWN_FOLDER, below};

/// The right to change a data set, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: LockedFile,
}

impl FolderLock {
    /// Takes the right to change the data set in `root`, which is made where it is missing. Its own folder must not be
    /// a link to somewhere else, as what is changed is written there.
    ///
    /// # Errors
    /// [`DatasetError::Busy`] where another program has it, or [`DatasetError::File`].
    pub fn acquire(root: &Path) -> Result<Self, DatasetError> {
        let path = root.join(OWN_FOLDER).join("lock");
        let locked = std::fs::create_dir_all(root.join(OWN_FOLDER))
            .and_then(|()| below(root, &path))
            .and_then(|()| try_lock(&path));
        let file = locked.map_err(at(&path))?;
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

    #[cfg(unix)]
    #[test]
    fn a_linked_own_folder_is_refused() {
        let (folder, elsewhere) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(OWN_FOLDER)).expect("a link");
        let refused = FolderLock::acquire(folder.path());
        assert!(matches!(refused, Err(DatasetError::File(_))));
        assert!(!elsewhere.path().join("lock").exists());
    }
}
