//! Moving a file of the user's without ever writing over another.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Moves the file `from` to `to`, or, where that name is taken, beside it as `name-2.jpg`, `name-3.jpg` and so on.
/// Gives where it is now. Folders on the way are made. A process that is killed leaves the file under its old name,
/// under its new one, or under both.
///
/// # Errors
/// What the file system answers; the file is then where it was.
pub fn relocate(from: &Path, to: &Path) -> io::Result<PathBuf> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut target = to.to_path_buf();
    for number in 2_u32.. {
        match rename_to_vacant(from, &target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => target = numbered(to, number),
            result => return result.map(|()| target),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A second name for the file is refused by the system where the name is taken, whoever takes it meanwhile; a rename
/// would replace what is there.
fn rename_to_vacant(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Some file systems know no second names.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Whether there is the same under both names, as a move leaves it that was cut off.
pub fn same_file(left: &Path, right: &Path) -> bool {
    match (fs::read(left), fs::read(right)) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_gets_a_number_and_nothing_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for (name, contents) in [("a", "one"), ("b", "two"), ("c", "three")] {
            fs::write(at(name), contents).expect("written");
        }
        assert_eq!(relocate(&at("a"), &at("new/x.jpg")).expect("moved"), at("new/x.jpg"));
        assert_eq!(relocate(&at("b"), &at("new/x.jpg")).expect("moved"), at("new/x-2.jpg"));
        assert_eq!(relocate(&at("c"), &at("new/x.jpg")).expect("moved"), at("new/x-3.jpg"));
        for (name, contents) in [("new/x.jpg", "one"), ("new/x-2.jpg", "two"), ("new/x-3.jpg", "three")] {
            assert_eq!(fs::read_to_string(at(name)).expect("there"), contents);
        }
        assert!(!at("a").exists() && !at("b").exists());
        assert!(relocate(&at("gone"), &at("new/y.jpg")).is_err());
    }
}
