//! One program at a time writes a run folder.

use std::path::Path;

use shared::files::{LockedFile, at, real_path, sha256_hex, try_lock};

use super::RunError;

/// The right to write the run in one folder, until it is dropped or the process ends, however it ends. Nothing of it
/// lies beside the run.
#[derive(Debug)]
pub struct Claim {
    _file: LockedFile,
}

impl Claim {
    /// Takes the right to write the run in `folder`, for all programs that keep their locks in `locks`.
    ///
    /// # Errors
    /// [`RunError::Busy`] where another program has it, or [`RunError::File`].
    pub fn acquire(folder: &Path, locks: &Path) -> Result<Self, RunError> {
        // By one name, however the folder is reached.
        let place = real_path(folder).map_err(at(folder))?;
        let digits = &sha256_hex(place.as_os_str().as_encoded_bytes())[..16];
        let path = locks.join(format!("run-{digits}.lock"));
        let file = try_lock(&path).map_err(at(&path))?;
        let file = file.ok_or_else(|| RunError::Busy(folder.to_path_buf()))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_turned_away_by_whatever_name_it_comes() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("inner")).expect("a folder");
        let first = Claim::acquire(&at("run"), &at("locks")).expect("free");
        for name in ["run", "inner/../run", "./run/"] {
            let second = Claim::acquire(&at(name), &at("locks"));
            assert!(matches!(second, Err(RunError::Busy(_))), "{name}");
        }
        Claim::acquire(&at("other"), &at("locks")).expect("free");
        drop(first);
        Claim::acquire(&at("run"), &at("locks")).expect("free again");
        assert!(!at("run").exists());
    }
}
