//! Finding the images of a folder of class folders. Nothing is opened here but folders.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use shared::files::at;
use shared::store::versions::{LIVE, VERSIONS};

use super::{Dataset, DatasetError, Item, Skipped, check_case, list};
use crate::runs::{self, RECORD, Record};

/// How deep folders within a class folder are followed.
const MAX_DEPTH: usize = 32;

impl Dataset {
    /// Finds the images of `root`: every file in its subfolders, and in their subfolders, is taken as an image of
    /// the class that the first subfolder names. Whether it is one shows when it is decoded. Links are followed,
    /// but no folder is entered twice; what is no ordinary file is listed as skipped. Folders of runs and of published
    /// models are passed over: their pictures are no images of a class. Where `root` is a list, or has one and no class
    /// folders (see [`super::list_of`]), the list says what the images are.
    pub fn scan(root: &Path) -> Result<Self, DatasetError> {
        if let Some(list) = list::list_of(root) {
            return list::read(&list);
        }
        if !root.is_dir() {
            return Err(DatasetError::NoFolder(root.to_path_buf()));
        }
        let mut dataset = Self {
            root: root.to_path_buf(),
            classes: Vec::new(),
            items: Vec::new(),
            skipped: Vec::new(),
        };
        let entries = sorted(root).map_err(at(root))?;
        for entry in entries {
            let name = PathBuf::from(entry.file_name().unwrap_or_default());
            if hidden(&name) {
                continue;
            }
            match (entry.is_dir(), name.to_str()) {
                (true, _) if holds_made(&entry) => {}
                (true, Some(class)) => dataset.add_class(class, &entry),
                (true, None) => dataset.skip(name, "the name of a class folder must be Unicode"),
                (false, _) if list::is_list(&name) => {}
                (false, _) => {
                    // A link to a class folder that is not there is no stray file.
                    let lost = fs::metadata(&entry).err().map(|error| error.to_string());
                    dataset.skip(name, lost.as_deref().unwrap_or("not in a class folder"));
                }
            }
        }
        if dataset.classes.is_empty() {
            return Err(DatasetError::NoClasses(root.to_path_buf()));
        }
        dataset.check_case()?;
        Ok(dataset)
    }

    fn add_class(&mut self, class: &str, folder: &Path) {
        let mut walk = Walk {
            dataset: self,
            class: None,
            name: class,
            entered: HashSet::new(),
        };
        walk.folder(folder, Path::new(class), 0);
        let is_empty = walk.class.is_none();
        // Where it could not be entered, it is listed with the reason.
        if is_empty && self.skipped.last().is_none_or(|last| last.path != Path::new(class)) {
            self.skip(class.into(), "an empty class folder");
        }
    }

    fn skip(&mut self, path: PathBuf, reason: &str) {
        self.skipped.push(Skipped {
            path,
            reason: reason.to_owned(),
        });
    }

    pub(crate) fn check_case(&self) -> Result<(), DatasetError> {
        Ok(check_case(self.classes.iter().map(String::as_str))?)
    }
}

/// Going through one class folder.
struct Walk<'a> {
    dataset: &'a mut Dataset,
    /// Set when the first file is found.
    class: Option<usize>,
    name: &'a str,
    /// Folders by their real path, against loops of links.
    entered: HashSet<PathBuf>,
}

impl Walk<'_> {
    /// Takes what is in `folder`, which is at `relative` below the root.
    fn folder(&mut self, folder: &Path, relative: &Path, depth: usize) {
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
        if depth > MAX_DEPTH || !self.entered.insert(real) {
            self.dataset.skip(
                relative.to_path_buf(),
                "a folder that leads back into itself, or too deep",
            );
            return;
        }
        let entries = match sorted(folder) {
            Ok(entries) => entries,
            Err(error) => return self.dataset.skip(relative.to_path_buf(), &error.to_string()),
        };
        if is_made(folder) {
            return;
        }
        if entries.iter().any(|entry| entry.ends_with(RECORD)) {
            let reason = format!("it has a {RECORD} as the folder of a run, and is none that can be read");
            return self.dataset.skip(relative.to_path_buf(), &reason);
        }
        for entry in entries {
            let Some(name) = entry.file_name() else { continue };
            let path = relative.join(name);
            if hidden(Path::new(name)) {
                continue;
            }
            match fs::metadata(&entry) {
                Ok(metadata) if metadata.is_file() => {
                    let class = *self.class.get_or_insert_with(|| {
                        self.dataset.classes.push(self.name.to_owned());
                        self.dataset.classes.len() - 1
                    });
                    self.dataset.items.push(Item { path, class });
                }
                Ok(metadata) if metadata.is_dir() => self.folder(&entry, &path, depth + 1),
                Ok(_) => self.dataset.skip(path, "not an ordinary file"),
                Err(error) => self.dataset.skip(path, &error.to_string()),
            }
        }
    }
}

/// Gives every file in `root` and the folders below it to `visit`, in the order of their paths; what systems leave in
/// folders is passed over, links are followed, and no folder is entered twice.
///
/// # Errors
/// Those of `visit`, and a folder that cannot be read.
pub(crate) fn walk<E: From<DatasetError>>(
    root: &Path,
    visit: &mut impl FnMut(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let mut entered = HashSet::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        if path.is_file() {
            visit(&path)?;
            continue;
        }
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if !path.is_dir() || !entered.insert(real) {
            continue;
        }
        let entries = sorted(&path).map_err(|error| DatasetError::from(at(&path)(error)))?;
        let named = entries
            .into_iter()
            .filter(|entry| !hidden(Path::new(entry.file_name().unwrap_or_default())));
        waiting.extend(named.rev());
    }
    Ok(())
}

/// Whether this is the folder of a run or of a published model: there are copies of test images in both.
fn is_made(folder: &Path) -> bool {
    let is_run = folder.join(RECORD).is_file() && Record::load(folder).is_ok();
    is_run || (folder.join(LIVE).is_file() && folder.join(VERSIONS).is_dir())
}

/// Whether `folder` is that of a run or a published model, holds such folders and nothing else, at whatever depth, or
/// is kept for runs and empty.
pub(super) fn holds_made(folder: &Path) -> bool {
    holds_made_within(folder, MAX_DEPTH)
}

fn holds_made_within(folder: &Path, depth: usize) -> bool {
    if is_made(folder) {
        return true;
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    // A class folder is left at its first image.
    let shown = entries.flatten().filter(|entry| !hidden(Path::new(&entry.file_name())));
    let mut shown = shown.peekable();
    match shown.peek() {
        Some(_) => depth > 0 && shown.all(|entry| holds_made_within(&entry.path(), depth - 1)),
        None => folder.ends_with(runs::FOLDER),
    }
}

/// The entries of a folder in the order of their bytes, which no file system or language changes.
fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable_by(|left, right| {
        left.as_os_str()
            .as_encoded_bytes()
            .cmp(right.as_os_str().as_encoded_bytes())
    });
    Ok(entries)
}

/// Whether the scanner passes over what is at `path` below a root, because of its name or that of a folder on the way.
pub(crate) fn hidden_below(path: &Path) -> bool {
    let mut names = path.components();
    names.any(|name| matches!(name, Component::Normal(name) if hidden(Path::new(name))))
}

/// What systems leave in folders of images, and nobody means as one.
fn hidden(name: &Path) -> bool {
    let bytes = name.as_os_str().as_encoded_bytes();
    bytes.starts_with(b".")
        || ["thumbs.db", "desktop.ini"]
            .iter()
            .any(|file| name.as_os_str().eq_ignore_ascii_case(OsStr::new(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_that_is_not_there_is_no_stray_file() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("dotted")).expect("a folder");
        for name in ["dotted/1.jpg", "stray.jpg"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        std::os::unix::fs::symlink("nowhere", folder.path().join("striped")).expect("a link");
        let skipped = Dataset::scan(folder.path()).expect("a data set").skipped;
        let [stray, striped] = &skipped[..] else {
            panic!("{skipped:?}")
        };
        assert_eq!(stray.reason, "not in a class folder");
        assert!(
            striped.path == Path::new("striped") && striped.reason.starts_with("No such file or directory"),
            "{striped:?}"
        );
    }

    #[test]
    fn runs_and_models_that_stand_in_a_data_set_are_no_class() {
        let folder = tempfile::tempdir().expect("a folder");
        let record = crate::runs::tests::record("1", "2026-01-01T00:00:00Z");
        let record = serde_json::to_string(&record).expect("JSON");
        let record = record.as_str();
        for (path, text) in [
            ("dotted/1.jpg", ""),
            ("striped/1.jpg", ""),
            ("striped/run/run.json", record),
            ("striped/run/golden/1.png", ""),
            ("runs/one/run.json", record),
            ("runs/one/bundle/golden/1.png", ""),
            ("alone/run.json", record),
            ("store/photos/live.json", "{}"),
            ("store/photos/versions/1/golden/1.png", ""),
            ("stores/team/photos/live.json", "{}"),
            ("stores/team/photos/versions/1/golden/1.png", ""),
            ("striped/photos/live.json", "{}"),
            ("striped/photos/versions/1/golden/1.png", ""),
            ("foreign/run.json", "{}"),
            ("foreign/1.jpg", ""),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("written");
        }
        let scan = || Dataset::scan(folder.path()).expect("a data set");
        let skipped = |dataset: &Dataset| -> Vec<String> {
            let paths = dataset.skipped.iter();
            paths.map(|skipped| skipped.path.display().to_string()).collect()
        };
        let dataset = scan();
        assert_eq!(dataset.classes, ["dotted", "striped"]);
        assert_eq!(dataset.items.len(), 2);
        assert_eq!(skipped(&dataset), ["foreign"], "once: {:?}", dataset.skipped);

        fs::remove_dir_all(folder.path().join("foreign")).expect("removed");
        fs::remove_dir_all(folder.path().join("runs/one")).expect("removed");
        fs::create_dir(folder.path().join("empty")).expect("a folder");
        assert_eq!(skipped(&scan()), ["empty"]);
        // A list is read as before once there are runs beside its images.
        let list = folder.path().join("metadata.csv");
        fs::write(&list, "path,label\ndotted/1.jpg,a\n").expect("written");
        for path in ["empty", "striped"] {
            fs::remove_dir_all(folder.path().join(path)).expect("removed");
        }
        assert_eq!(list::list_of(folder.path()), Some(list));
    }
}
