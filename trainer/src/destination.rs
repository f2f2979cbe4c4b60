//! Where results are written: never over what is there, folders whole or not at all, and by one program at a time.
//!
//! A new folder is made under a temporary name beside its place and then renamed, so that a killed program leaves none
//! in part. An empty folder that was there before is filled instead, from a temporary one within it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::files::{self, FileError, LockedFile, TEMPORARY, UNFINISHED, at, real_path, sha256_hex, try_lock};
use tempfile::TempDir;

/// How the name of a folder begins in which is made what will fill the folder around it.
const FILLING: &str = ".ikat-filling-";

/// Why results cannot be written to their place.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The file is there already.
    #[error("{0} exists already, and is never overwritten")]
    Exists(PathBuf),
    /// The folder holds something already.
    #[error("{0} is not empty, and what it holds is never overwritten")]
    Occupied(PathBuf),
    /// Another program is writing it.
    #[error("another trainer is writing {0}: wait until it has ended, or choose another folder")]
    Busy(PathBuf),
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The right to write one folder, until it is dropped or the process ends, however it ends. Nothing of it lies beside
/// the folder.
#[derive(Debug)]
pub struct Claim {
    _file: LockedFile,
}

impl Claim {
    /// Takes the right to write `folder`, for all programs that keep their locks in `locks`, and removes what others
    /// left that had it and were killed.
    ///
    /// # Errors
    /// [`DestinationError::Busy`] where another program has it, or [`DestinationError::File`].
    pub fn acquire(folder: &Path, locks: &Path) -> Result<Self, DestinationError> {
        // By one name, however the folder is reached.
        let place = real_path(folder).map_err(at(folder))?;
        let digits = &sha256_hex(place.as_os_str().as_encoded_bytes())[..16];
        let path = locks.join(format!("run-{digits}.lock"));
        let file = try_lock(&path).map_err(at(&path))?;
        let file = file.ok_or_else(|| DestinationError::Busy(folder.to_path_buf()))?;
        clear_leftovers(&place);
        Ok(Self { _file: file })
    }
}

/// A folder that is being made. Dropped before it is finished, nothing remains of it.
#[derive(Debug)]
pub struct NewFolder {
    folder: PathBuf,
    /// Whether it is there already, and empty. It may be a link, the working folder, or a disk of its own, and keeps
    /// its permissions: it is not replaced.
    is_there: bool,
    partial: TempDir,
}

impl NewFolder {
    /// Begins what will be at `folder`. One program at a time may do so ([`Claim`]).
    ///
    /// # Errors
    /// [`DestinationError::Occupied`] where `folder` holds something, and what the file system says.
    pub fn begin(folder: &Path) -> Result<Self, DestinationError> {
        check_vacant(folder)?;
        let is_there = folder.is_dir();
        let (place, prefix) = if is_there {
            (folder, FILLING.to_owned())
        } else {
            beside(folder)
        };
        fs::create_dir_all(place).map_err(at(place))?;
        let partial = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(TEMPORARY)
            .tempdir_in(place)
            // The error itself names the temporary folder.
            .map_err(|error| at(place)(error.kind().into()))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            is_there,
            partial,
        })
    }

    /// Writes the file `name` within the folder, and the folders on the way.
    ///
    /// # Errors
    /// What the file system says, of the file as it would be named in the end.
    pub fn write(&self, name: &Path, bytes: &[u8]) -> Result<(), FileError> {
        files::write_atomically(&self.partial.path().join(name), bytes).map_err(at(&self.folder.join(name)))
    }

    /// Whether it has a file or folder `name`.
    pub fn holds(&self, name: &Path) -> bool {
        self.partial.path().join(name).exists()
    }

    /// Gives the folder its name. Where it was there already, what it is made of moves up into it, `last` after all
    /// else.
    ///
    /// # Errors
    /// [`DestinationError::Occupied`] where something came there meanwhile, and what the file system says.
    pub fn finish(self, last: Option<&str>) -> Result<(), DestinationError> {
        if self.is_there {
            return self.fill(last);
        }
        fs::rename(self.partial.path(), &self.folder).map_err(at(&self.folder))?;
        // The folder lives on under its final name.
        let _ = self.partial.keep();
        Ok(())
    }

    fn fill(&self, last: Option<&str>) -> Result<(), DestinationError> {
        let folder = &self.folder;
        // Nothing that came meanwhile is written over.
        check_vacant(folder)?;
        let entries = fs::read_dir(self.partial.path()).map_err(at(folder))?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(at(folder))?;
        names.sort_by_key(|name| last.is_some_and(|last| name == last));
        for name in names {
            let path = folder.join(&name);
            fs::rename(self.partial.path().join(&name), &path).map_err(at(&path))?;
        }
        Ok(())
    }
}

/// Checks that `folder` does not exist or is empty, but for what programs left that were killed while they filled it.
///
/// # Errors
/// [`DestinationError::Occupied`], and [`DestinationError::File`] where it cannot be looked into.
pub fn check_vacant(folder: &Path) -> Result<(), DestinationError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.all(|entry| entry.is_ok_and(|entry| begins_with(&entry.file_name(), FILLING))) {
                Ok(())
            } else {
                Err(DestinationError::Occupied(folder.to_path_buf()))
            }
        }
        // A name that is there is that of a link to nowhere, which no folder can take.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(folder).is_err() => Ok(()),
        Err(error) => Err(at(folder)(error).into()),
    }
}

/// Where a folder is made that is not there yet, and how its name begins until it is whole.
fn beside(folder: &Path) -> (&Path, String) {
    let place = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = folder.file_name().unwrap_or_default();
    let digits = &sha256_hex(name.as_encoded_bytes())[..16];
    (place, format!("{UNFINISHED}new-{digits}-"))
}

/// Removes what programs that were killed left of `folder`.
fn clear_leftovers(folder: &Path) {
    let (place, prefix) = beside(folder);
    for (place, prefix) in [(place, prefix.as_str()), (folder, FILLING)] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if begins_with(&entry.file_name(), prefix) {
                // Where it cannot be removed, it is in nobody's way.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn begins_with(name: &OsStr, prefix: &str) -> bool {
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_second_is_turned_away_by_whatever_name_it_comes() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("inner")).expect("a folder");
        let first = Claim::acquire(&at("run"), &at("locks")).expect("free");
        for name in ["run", "inner/../run", "./run/"] {
            let second = Claim::acquire(&at(name), &at("locks"));
            assert!(matches!(second, Err(DestinationError::Busy(_))), "{name}");
        }
        Claim::acquire(&at("other"), &at("locks")).expect("free");
        drop(first);
        Claim::acquire(&at("run"), &at("locks")).expect("free again");
        assert!(!at("run").exists());
    }

    #[test]
    fn a_folder_is_whole_or_not_at_all_and_what_a_killed_program_left_goes() {
        let (place, locks) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        for was_there in [false, true] {
            let out = place.path().join(format!("out-{was_there}"));
            if was_there {
                fs::create_dir(&out).expect("a folder");
            }
            let began = || {
                let new = NewFolder::begin(&out).expect("begun");
                new.write(Path::new("a/1.jpg"), b"one").expect("written");
                assert!(new.holds(Path::new("a/1.jpg")) && !out.join("a").exists());
                assert_eq!(out.exists(), was_there);
                new
            };
            let before = names(place.path());
            drop(began());
            assert!(names(place.path()) == before && check_vacant(&out).is_ok());
            // As a program leaves it that is killed.
            std::mem::forget(began());
            let other = place.path().join(".ikat-new-other.tmp");
            fs::create_dir(&other).expect("a folder");
            let _claim = Claim::acquire(&out, locks.path()).expect("free");
            assert!(other.exists(), "that of another folder stays");
            fs::remove_dir(&other).expect("removed");
            assert!(names(place.path()) == before && check_vacant(&out).is_ok());
            began().finish(Some("a")).expect("finished");
            assert_eq!(names(&out), ["a"]);
            assert_eq!(fs::read(out.join("a/1.jpg")).expect("a file"), b"one");
            assert!(matches!(NewFolder::begin(&out), Err(DestinationError::Occupied(_))));
        }
        assert_eq!(names(place.path()), ["out-false", "out-true"]);
    }
}
