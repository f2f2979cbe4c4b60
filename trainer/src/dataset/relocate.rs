//! Moving a file of the user's without ever writing over another, and without leaving the data set.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{EXCLUDED, OWN_FOLDER};

/// The file at `path` below `root`. Whoever shares a data set may have written the journal that names it, or a link on
/// the way: it must be a place for an image of the data set, also an excluded one, and lie below `root` on disk.
///
/// # Errors
/// Where it leads elsewhere, or what the file system answers.
pub(crate) fn inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    if !named_inside(path) {
        return Err(outside());
    }
    let file = root.join(path);
    below(root, &file)?;
    Ok(file)
}

/// Whether `path` names a place for an image of a data set, also an excluded one. Where links lead it does not ask:
/// they change, and a journal tells of earlier.
pub(crate) fn named_inside(path: &Path) -> bool {
    let shown = path.strip_prefix(Path::new(OWN_FOLDER).join(EXCLUDED)).unwrap_or(path);
    let plain = |part: Component| matches!(part, Component::Normal(name) if !name.as_encoded_bytes().starts_with(b"."));
    !shown.as_os_str().is_empty() && shown.components().all(plain)
}

/// Sees that the folder of `file`, or as much of it as there is, lies below `root` whatever links lead there.
///
/// # Errors
/// Where it does not, or what the file system answers.
pub(crate) fn below(root: &Path, file: &Path) -> io::Result<()> {
    let root = fs::canonicalize(root)?;
    for folder in file.ancestors().skip(1) {
        match fs::canonicalize(folder) {
            Ok(real) if real.starts_with(&root) => return Ok(()),
            Ok(_) => break,
            // Not made yet. A name that is there and leads nowhere is a link, and no place to put a file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(folder).is_err() => {}
            Err(error) => return Err(error),
        }
    }
    Err(outside())
}

fn outside() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "it leads out of the data set, by its name or by a link",
    )
}

/// Moves the file `from` to `to`, or, where that name is taken, beside it as `name-2.jpg`, `name-3.jpg` and so on.
/// Gives where it is now. Folders on the way are made. A process that is killed leaves the file under its old name,
/// under its new one, or under both.
///
/// # Errors
/// What the file system answers; the file is then where it was.
pub fn relocate(from: &Path, to: &Path) -> io::Result<PathBuf> {
    make_folder_of(to)?;
    for target in names(to) {
        match rename_to_vacant(from, &target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| target),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// As [`relocate`], to this name or not at all.
///
/// # Errors
/// What the file system answers, also that the name is taken; the file is then where it was.
pub(crate) fn relocate_exactly(from: &Path, to: &Path) -> io::Result<()> {
    make_folder_of(to)?;
    rename_to_vacant(from, to)
}

fn make_folder_of(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A second name for the file is refused by the system where the name is taken, whoever takes it meanwhile; a rename
/// would replace what is there.
fn rename_to_vacant(from: &Path, to: &Path) -> io::Result<()> {
    match second_name(from, to) {
        Ok(()) => fs::remove_file(from).inspect_err(|_| {
            // Its folder does not let go of it: then it is in no other either.
            if fs::symlink_metadata(from).is_ok() {
                let _ = fs::remove_file(to);
            }
        }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Some file systems know no second names.
        Err(_) => check_free(fs::symlink_metadata(to)).and_then(|()| fs::rename(from, to)),
    }
}

/// Sees that nothing was `found` under a name. A disk that does not answer has told nothing of it.
fn check_free(found: io::Result<Metadata>) -> io::Result<()> {
    match found {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn second_name(from: &Path, to: &Path) -> io::Result<()> {
    // From another folder a relative link would lead elsewhere.
    #[cfg(unix)]
    if let Ok(target) = fs::read_link(from)
        && target.is_relative()
    {
        return std::os::unix::fs::symlink(relative_from(to, from, &target)?, to);
    }
    fs::hard_link(from, to)
}

/// The relative `target` of the link `from`, as it reads in the folder of `to`. It is followed one step: where that is
/// a link itself, it stays one on the way. Whoever moves a link there and back finds it as it was.
#[cfg(unix)]
fn relative_from(to: &Path, from: &Path, target: &Path) -> io::Result<PathBuf> {
    let folder_of = |file: &Path| fs::canonicalize(file.parent().unwrap_or(file));
    let (mut place, folder) = (folder_of(from)?, folder_of(to)?);
    let mut rest = target.components().peekable();
    // Up from a real folder. A `..` further on may stand behind a link, and is kept.
    while let Some(part) = rest.next_if(|part| !matches!(part, Component::Normal(_))) {
        if part == Component::ParentDir {
            place.pop();
        }
    }
    place.extend(rest);
    let common = folder.components().zip(place.components());
    let common = common.take_while(|(one, other)| one == other).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    Ok(up.chain(place.components().skip(common)).collect())
}

/// `wanted`, or beside it the first name with a number that is not taken.
pub(crate) fn vacant(wanted: &Path, taken: impl Fn(&Path) -> bool) -> PathBuf {
    names(wanted)
        .find(|name| !taken(name))
        .unwrap_or_else(|| wanted.to_path_buf())
}

/// `path`, then the same with numbers.
fn names(path: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(path.to_path_buf()).chain((2..=u32::MAX).map(move |number| numbered(path, number)))
}

/// `path` with a number at the end of its name.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Whether one file, or a link to one, stands under both names, as a move leaves it that was cut off: either name can
/// go without anything being lost. What merely has the same content is another file.
pub fn same_file(left: &Path, right: &Path) -> bool {
    let (Ok(one), Ok(other)) = (fs::symlink_metadata(left), fs::symlink_metadata(right)) else {
        return false;
    };
    // A linked folder shows one name of a file in two places.
    let (Some(left_place), Some(right_place)) = (place(left), place(right)) else {
        return false;
    };
    if left_place == right_place {
        return false;
    }
    two_names(&one, &other) || (one.is_symlink() && other.is_symlink() && same_target(left, right))
}

/// Where a name really is; what it links to does not matter.
fn place(path: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(path.parent()?).ok()?;
    Some(folder.join(path.file_name()?))
}

fn same_target(left: &Path, right: &Path) -> bool {
    matches!((fs::canonicalize(left), fs::canonicalize(right)), (Ok(left), Ok(right)) if left == right)
}

#[cfg(unix)]
fn two_names(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    // With a single name, a file system that does not tell case apart has shown it twice.
    (one.dev(), one.ino()) == (other.dev(), other.ino()) && one.nlink() > 1
}

/// Elsewhere it cannot be told: both names stay.
#[cfg(not(unix))]
fn two_names(_: &Metadata, _: &Metadata) -> bool {
    false
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
        fs::write(at("d"), "four").expect("written");
        assert!(relocate_exactly(&at("d"), &at("new/x.jpg")).is_err() && at("d").exists());
    }

    #[test]
    fn only_a_name_that_nothing_has_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let kind = |found| check_free(found).map_err(|error| error.kind());
        assert_eq!(kind(fs::metadata(folder.path().join("none"))), Ok(()));
        assert_eq!(kind(fs::metadata(folder.path())), Err(io::ErrorKind::AlreadyExists));
        let silent = Err(io::ErrorKind::TimedOut.into());
        assert_eq!(kind(silent), Err(io::ErrorKind::TimedOut));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["a/1.jpg", "new/class/1.jpg", ".ikat/excluded/a/1.jpg"] {
            assert!(inside(folder.path(), Path::new(path)).is_ok(), "{path}");
        }
        for path in [
            "",
            "/etc/x",
            "../x",
            "a/../../x",
            ".ikat/lock",
            ".ikat/excluded/../x",
            "a/.x",
            ".ikat/excluded",
        ] {
            assert!(inside(folder.path(), Path::new(path)).is_err(), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_no_file_out_and_a_moved_link_still_leads_where_it_did() {
        use std::os::unix::fs::symlink;
        let (folder, elsewhere) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("a folder");
        symlink(elsewhere.path(), at("evil")).expect("a link");
        symlink("nowhere", at("dangling")).expect("a link");
        for path in ["evil/1.jpg", "evil/new/1.jpg", "dangling/1.jpg"] {
            assert!(inside(folder.path(), Path::new(path)).is_err(), "{path}");
        }
        fs::write(at("real"), "one").expect("written");
        symlink("../real", at("a/link")).expect("a link");
        relocate_exactly(&at("a/link"), &at("b/deep/link")).expect("moved");
        assert_eq!(fs::read_to_string(at("b/deep/link")).expect("it leads there"), "one");
        assert!(fs::symlink_metadata(at("a/link")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_relative_link_is_the_same_there_and_back() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("a folder");
        fs::write(at("real"), "one").expect("written");
        symlink("../real", at("a/chain")).expect("a link");
        for (target, there) in [
            ("../real", "../../real"),
            ("chain", "../../a/chain"),
            ("../b/x", "../x"),
            ("../gone/../x", "../../gone/../x"),
        ] {
            symlink(target, at("a/link")).expect("a link");
            relocate_exactly(&at("a/link"), &at("b/deep/link")).expect("moved");
            assert_eq!(fs::read_link(at("b/deep/link")).expect("a link"), Path::new(there));
            relocate_exactly(&at("b/deep/link"), &at("a/link")).expect("moved back");
            assert_eq!(fs::read_link(at("a/link")).expect("a link"), Path::new(target));
            fs::remove_file(at("a/link")).expect("removed");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_its_folder_holds_fast_gets_no_second_name() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("a folder");
        fs::write(at("a/1"), "one").expect("written");
        let mode = |mode| fs::set_permissions(at("a"), fs::Permissions::from_mode(mode)).expect("a mode");
        mode(0o555);
        // Nothing holds a file fast against an administrator.
        if fs::write(at("a/2"), "").is_err() {
            assert!(relocate_exactly(&at("a/1"), &at("b/1")).is_err());
            assert!(at("a/1").exists() && !at("b/1").exists());
        }
        mode(0o755);
    }

    #[cfg(unix)]
    #[test]
    fn the_same_content_is_not_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("a folder");
        fs::write(at("a/1"), "one").expect("written");
        fs::write(at("copy"), "one").expect("written");
        assert!(!same_file(&at("a/1"), &at("copy")));
        std::os::unix::fs::symlink("a", at("linked")).expect("a link");
        fs::hard_link(at("a/1"), at("name")).expect("a name");
        assert!(same_file(&at("a/1"), &at("name")));
        assert!(!same_file(&at("a/1"), &at("linked/1")), "it is one name");
    }
}
