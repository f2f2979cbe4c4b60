//! Files set aside within the data set's own folder, and put back.
//!
//! A quarantine is a folder with a journal, written and flushed before the first file moves. Whatever happens then,
//! each file named there is either where it was or where the journal says, so that putting back needs no more than
//! the journal, and can itself be interrupted and repeated.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::files::{FileError, at, write_atomically};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::counted::counted;
use crate::dataset::{
    FolderLock, OWN_FOLDER, Skipped, below, escape, inside, named_inside, relocate, same_file, unescape,
};

const FOLDER: &str = "quarantine";
const JOURNAL: &str = "moves.jsonl";
/// The journal of a quarantine that was put back.
const RESTORED: &str = "moves.restored.jsonl";

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Move {
    /// Path below the data folder, escaped as in a split file. In the quarantine it is the same.
    path: String,
}

/// What putting back did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Name of the quarantine.
    pub quarantine: String,
    /// Files that came back, by where they are now. Those that an earlier call put back are not counted again.
    pub files: Vec<PathBuf>,
    /// Files that are back under another name, because theirs is taken.
    pub renamed: Vec<PathBuf>,
    /// Class folders that were not there any more, and are again.
    pub remade: Vec<PathBuf>,
    /// Files that are neither in the quarantine nor where they were.
    pub missing: Vec<PathBuf>,
    /// Files that stay in the quarantine, and why.
    pub left: Vec<Skipped>,
}

/// Why files could not be set aside or put back.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A file or folder cannot be moved, read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such quarantine.
    #[error("{root} has no quarantine {name}; there is {known}")]
    Unknown {
        /// The data folder.
        root: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is, for people to read.
        known: String,
    },
    /// A file cannot be set aside, and those before it are.
    #[error("{path}: {source}; {moved} set aside before, and --restore {name} puts them back")]
    Partly {
        /// Which one.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
        /// How many were, for people to read.
        moved: String,
        /// The quarantine they are in.
        name: String,
    },
    /// A journal does not say what a journal says.
    #[error(
        "{path}, line {line}, is not a line of a quarantine's journal, or leads out of the data set; move the files back by hand"
    )]
    Journal {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// Moves the files at `paths` (below `root`) into a new quarantine and gives its name.
///
/// # Errors
/// [`QuarantineError::File`], or [`QuarantineError::Partly`] once files were moved, which can be put back.
pub fn set_aside(root: &Path, paths: &[PathBuf], _lock: &FolderLock) -> Result<String, QuarantineError> {
    for path in paths {
        inside(root, path).map_err(at(path))?;
    }
    let (name, folder) = new_folder(root)?;
    let mut journal = Vec::new();
    for path in paths {
        let line = Move { path: escape(path) };
        serde_json::to_writer(&mut journal, &line).map_err(|error| at(&folder)(error.into()))?;
        journal.push(b'\n');
    }
    let path = folder.join(JOURNAL);
    write_atomically(&path, &journal).map_err(at(&path))?;
    for (moved, path) in paths.iter().enumerate() {
        match relocate(&root.join(path), &folder.join(path)) {
            Ok(_) => {}
            Err(source) if moved == 0 => return Err(at(path)(source).into()),
            Err(source) => {
                return Err(QuarantineError::Partly {
                    path: path.clone(),
                    source,
                    moved: counted(moved, "file was", "files were"),
                    name,
                });
            }
        }
    }
    Ok(name)
}

/// The names of the quarantines that hold files, the oldest first.
///
/// # Errors
/// [`QuarantineError::File`].
pub fn names(root: &Path) -> Result<Vec<String>, QuarantineError> {
    let folder = root.join(OWN_FOLDER).join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(&folder))?,
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().join(JOURNAL).is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Moves the files of a quarantine back to where they were: of the one called `name`, or else of the latest that still
/// holds a file. A file whose name is taken meanwhile gets a number; one behind a link to another place stays.
///
/// # Errors
/// See [`QuarantineError`]. What is back until then stays back; the call can be repeated.
pub fn restore(root: &Path, name: Option<&str>, _lock: &FolderLock) -> Result<Restored, QuarantineError> {
    let quarantine = Quarantine::find(root, name)?;
    let mut restored = Restored::default();
    for path in &quarantine.paths {
        quarantine.put_back(root, path, &mut restored)?;
    }
    // Whoever finds what is missing can put it back yet.
    if restored.missing.is_empty() && restored.left.is_empty() {
        let journal = quarantine.folder.join(JOURNAL);
        fs::rename(&journal, quarantine.folder.join(RESTORED)).map_err(at(&journal))?;
    }
    restored.quarantine = quarantine.name;
    Ok(restored)
}

/// A quarantine that was not put back as a whole.
struct Quarantine {
    name: String,
    folder: PathBuf,
    /// What its journal names.
    paths: Vec<PathBuf>,
}

impl Quarantine {
    /// That of this name, or else the latest that still holds a file; where none does, the latest of all.
    fn find(root: &Path, name: Option<&str>) -> Result<Self, QuarantineError> {
        let names = names(root)?;
        let mut latest = None;
        for known in names
            .iter()
            .rev()
            .filter(|known| name.is_none_or(|name| *known == name))
        {
            let found = Self::open(root, known)?;
            if found.paths.iter().any(|path| found.holds(path).unwrap_or(true)) {
                return Ok(found);
            }
            latest.get_or_insert(found);
        }
        latest.ok_or_else(|| QuarantineError::Unknown {
            root: root.to_path_buf(),
            name: name.unwrap_or("to put back").to_owned(),
            known: if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            },
        })
    }

    fn open(root: &Path, name: &str) -> Result<Self, QuarantineError> {
        let folder = root.join(place(name));
        Ok(Self {
            name: name.to_owned(),
            paths: read_journal(&folder)?,
            folder,
        })
    }

    /// Whether a file is there; what cannot be looked for is not gone.
    fn holds(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(self.folder.join(path)) {
            Ok(found) => Ok(!found.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves one file back and says in `restored` what became of it.
    fn put_back(&self, root: &Path, path: &Path, restored: &mut Restored) -> Result<(), QuarantineError> {
        let kept = self.folder.join(path);
        let original = self.holds(path).and_then(|is_held| {
            if !is_held {
                return Ok(None);
            }
            below(root, &kept)?;
            inside(root, path).map(Some)
        });
        let original = match original {
            Ok(Some(original)) => original,
            Ok(None) => {
                // Where it is back, an earlier call has counted it, or it was never moved.
                if fs::symlink_metadata(root.join(path)).is_err() {
                    restored.missing.push(path.to_path_buf());
                }
                return Ok(());
            }
            Err(error) => {
                restored.left.push(Skipped {
                    path: path.to_path_buf(),
                    reason: error.to_string(),
                });
                return Ok(());
            }
        };
        if same_file(&kept, &original) {
            fs::remove_file(&kept).map_err(at(&kept))?;
            restored.files.push(path.to_path_buf());
            return Ok(());
        }
        let class = path.iter().next().map(PathBuf::from);
        let remade = class.filter(|class| !root.join(class).exists());
        let now = relocate(&kept, &original).map_err(at(&original))?;
        restored.remade.extend(remade);
        let list = if now == original {
            &mut restored.files
        } else {
            &mut restored.renamed
        };
        list.push(now.strip_prefix(root).unwrap_or(&now).to_path_buf());
        Ok(())
    }
}

/// The folder of the quarantine of this name, below the data folder.
pub fn place(name: &str) -> PathBuf {
    Path::new(OWN_FOLDER).join(FOLDER).join(name)
}

fn new_folder(root: &Path) -> Result<(String, PathBuf), QuarantineError> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = OffsetDateTime::now_utc().format(format).unwrap_or_default();
    let parent = root.join(OWN_FOLDER).join(FOLDER);
    // What a link leads out of the data set would not be put back.
    below(root, &parent.join(&time))
        .and_then(|()| fs::create_dir_all(&parent))
        .map_err(at(&parent))?;
    for number in 1_u32.. {
        let name = if number == 1 {
            time.clone()
        } else {
            format!("{time}-{number}")
        };
        let folder = parent.join(&name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                result.map_err(at(&folder))?;
                return Ok((name, folder));
            }
        }
    }
    Err(at(&parent)(io::ErrorKind::AlreadyExists.into()).into())
}

/// The paths in the journal of the quarantine in `folder`. Whoever shares a data set may have written it, so each must
/// name a place in the data set. The links on the way are looked at when a file is moved.
fn read_journal(folder: &Path) -> Result<Vec<PathBuf>, QuarantineError> {
    let journal = folder.join(JOURNAL);
    let text = fs::read_to_string(&journal).map_err(at(&journal))?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str::<Move>(line)
            .ok()
            .and_then(|line| unescape(&line.path))
            .filter(|path| named_inside(path))
            .ok_or_else(|| QuarantineError::Journal {
                path: journal.clone(),
                line: number + 1,
            })
    };
    text.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = ["a/1.jpg", "a/deep/2.jpg", "b/1.jpg"].map(PathBuf::from).to_vec();
        for path in &paths {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(&path, path.to_string_lossy().as_bytes()).expect("written");
        }
        (folder, paths)
    }

    #[test]
    fn what_was_set_aside_comes_back() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let name = set_aside(folder.path(), &paths[..2], &lock).expect("moved");
        assert!(!folder.path().join("a/1.jpg").exists() && folder.path().join("b/1.jpg").exists());
        assert_eq!(names(folder.path()).expect("listed"), [name]);
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!(restored.files, paths[..2]);
        for path in &paths {
            let path = folder.path().join(path);
            assert_eq!(fs::read(&path).expect("there"), path.to_string_lossy().as_bytes());
        }
        assert!(matches!(
            restore(folder.path(), None, &lock),
            Err(QuarantineError::Unknown { .. })
        ));
    }

    #[test]
    fn a_move_cut_off_at_any_file_can_be_put_back() {
        for moved in 0..=3 {
            let (folder, paths) = data();
            let lock = FolderLock::acquire(folder.path()).expect("free");
            let name = set_aside(folder.path(), &paths, &lock).expect("moved");
            let quarantine = folder.path().join(OWN_FOLDER).join(FOLDER).join(name);
            // As if it had been killed after so many files: the rest is where it was, one of them under both names.
            for path in &paths[moved..] {
                fs::rename(quarantine.join(path), folder.path().join(path)).expect("undone");
            }
            if let Some(path) = paths.get(moved) {
                fs::hard_link(folder.path().join(path), quarantine.join(path)).expect("both");
            }
            let restored = restore(folder.path(), None, &lock).expect("back");
            assert_eq!(restored.files, paths[..paths.len().min(moved + 1)]);
            assert_eq!((restored.renamed.len(), restored.missing.len()), (0, 0));
            assert!(paths.iter().all(|path| folder.path().join(path).is_file()));
        }
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_is_not_written_over() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        set_aside(folder.path(), &paths[..1], &lock).expect("moved");
        fs::write(folder.path().join("a/1.jpg"), b"new").expect("written");
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!(restored.renamed, [PathBuf::from("a/1-2.jpg")]);
        assert_eq!(fs::read(folder.path().join("a/1.jpg")).expect("there"), b"new");
    }

    #[test]
    fn what_is_missing_can_be_put_back_later() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let name = set_aside(folder.path(), &paths, &lock).expect("moved");
        let kept = folder.path().join(OWN_FOLDER).join(FOLDER).join(&name).join("a/1.jpg");
        fs::rename(&kept, folder.path().join("away")).expect("moved");
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!((&restored.missing[..], &restored.files[..]), (&paths[..1], &paths[1..]));
        fs::rename(folder.path().join("away"), &kept).expect("moved back");
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!(restored.files, paths[..1], "the others are back already");
        assert_eq!(names(folder.path()).expect("listed"), Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_where_it_did_aside_and_back() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let link = PathBuf::from("b/link.jpg");
        std::os::unix::fs::symlink("../a/1.jpg", folder.path().join(&link)).expect("a link");
        let name = set_aside(folder.path(), std::slice::from_ref(&link), &lock).expect("moved");
        let kept = folder.path().join(OWN_FOLDER).join(FOLDER).join(name).join(&link);
        assert!(kept.is_file());
        // Also where it leads nowhere any more, it is no missing file.
        fs::remove_file(folder.path().join(&paths[0])).expect("deleted");
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!(restored.files, std::slice::from_ref(&link));
        assert!(fs::symlink_metadata(folder.path().join(link)).is_ok_and(|found| found.is_symlink()));
    }

    #[cfg(unix)]
    #[test]
    fn a_journal_that_leads_out_of_the_folder_is_refused() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let name = set_aside(folder.path(), &paths[..1], &lock).expect("moved");
        let journal = folder.path().join(OWN_FOLDER).join(FOLDER).join(name).join(JOURNAL);
        let lead = ["../x.jpg", "/etc/x.jpg", "a/.x.jpg", ".ikat/lock"];
        let lead = lead.map(|path| format!("{{\"path\":\"{path}\"}}"));
        for line in lead.iter().map(String::as_str).chain(["nonsense"]) {
            fs::write(&journal, line).expect("written");
            let error = restore(folder.path(), None, &lock).expect_err("refused");
            assert!(matches!(error, QuarantineError::Journal { line: 1, .. }), "{error}");
        }
    }

    #[test]
    fn what_was_moved_before_a_failure_is_told_and_comes_back() {
        let (folder, mut paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        paths.insert(2, "a/gone.jpg".into());
        let error = set_aside(folder.path(), &paths, &lock).expect_err("a file is missing");
        let name = names(folder.path()).expect("listed").remove(0);
        let text = error.to_string();
        assert!(text.starts_with("a/gone.jpg: "), "{text}");
        let way_back = format!("2 files were set aside before, and --restore {name} puts them back");
        assert!(text.contains(&way_back), "{text}");
        assert_eq!(restore(folder.path(), None, &lock).expect("back").files, paths[..2]);
    }

    #[test]
    fn a_class_folder_that_has_another_name_by_now_is_told_of() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        set_aside(folder.path(), &paths, &lock).expect("moved");
        fs::rename(folder.path().join("a"), folder.path().join("c")).expect("renamed");
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!((&restored.files, restored.remade), (&paths, vec![PathBuf::from("a")]));
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_set_aside_behind_a_link() {
        let (folder, paths) = data();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let parent = folder.path().join(OWN_FOLDER).join(FOLDER);
        std::os::unix::fs::symlink(elsewhere.path(), parent).expect("a link");
        let refused = set_aside(folder.path(), &paths, &lock);
        assert!(matches!(refused, Err(QuarantineError::File(_))), "{refused:?}");
        assert!(paths.iter().all(|path| folder.path().join(path).is_file()));
        assert_eq!(fs::read_dir(elsewhere.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_quarantine_with_nothing_left_in_it_hides_no_older_one() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let older = set_aside(folder.path(), &paths[..1], &lock).expect("moved");
        let newer = set_aside(folder.path(), &paths[1..2], &lock).expect("moved");
        fs::remove_file(folder.path().join(place(&newer)).join(&paths[1])).expect("lost");
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!((&restored.quarantine, &restored.files[..]), (&older, &paths[..1]));
        let restored = restore(folder.path(), None, &lock).expect("told");
        assert_eq!((&restored.quarantine, &restored.missing[..]), (&newer, &paths[1..2]));
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_looked_for_is_not_said_to_be_missing() {
        let (folder, paths) = data();
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let name = set_aside(folder.path(), &paths, &lock).expect("moved");
        let quarantine = folder.path().join(place(&name));
        // A link that leads back to itself, in place of a disk that does not answer.
        let away = quarantine.join("away");
        fs::rename(quarantine.join("a"), &away).expect("moved");
        std::os::unix::fs::symlink("a", quarantine.join("a")).expect("a link");
        let restored = restore(folder.path(), None, &lock).expect("told");
        assert_eq!((&restored.files[..], restored.missing), (&paths[2..], Vec::new()));
        let left: Vec<&PathBuf> = restored.left.iter().map(|left| &left.path).collect();
        assert_eq!(left, [&paths[0], &paths[1]]);
        fs::remove_file(quarantine.join("a")).expect("unlinked");
        fs::rename(&away, quarantine.join("a")).expect("moved back");
        assert_eq!(restore(folder.path(), None, &lock).expect("back").files, paths[..2]);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_behind_a_link_stays_and_the_others_come_back() {
        use std::os::unix::fs::symlink;
        let (folder, paths) = data();
        let disk = tempfile::tempdir().expect("a folder");
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let name = set_aside(folder.path(), &paths, &lock).expect("moved");
        let quarantine = folder.path().join(place(&name));
        // The place of one file is behind a link, and so is what another one is moved from.
        fs::remove_dir(folder.path().join("b")).expect("empty");
        symlink(disk.path(), folder.path().join("b")).expect("a link");
        fs::rename(quarantine.join("a/deep"), disk.path().join("deep")).expect("moved");
        symlink(disk.path().join("deep"), quarantine.join("a/deep")).expect("a link");
        let restored = restore(folder.path(), None, &lock).expect("back");
        assert_eq!(restored.files, paths[..1]);
        let left: Vec<&PathBuf> = restored.left.iter().map(|left| &left.path).collect();
        assert_eq!(left, [&paths[1], &paths[2]]);
        assert!(disk.path().join("deep/2.jpg").exists() && !disk.path().join("1.jpg").exists());
        // The journal stays for when the links are gone.
        fs::remove_file(folder.path().join("b")).expect("unlinked");
        fs::remove_file(quarantine.join("a/deep")).expect("unlinked");
        fs::rename(disk.path().join("deep"), quarantine.join("a/deep")).expect("moved back");
        assert_eq!(
            restore(folder.path(), Some(&name), &lock).expect("back").files,
            paths[1..]
        );
    }
}
