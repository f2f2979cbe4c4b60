//! Finding runs on disk.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shared::files::at;

use super::{METRICS, PARAMETERS, PREDICTIONS, RECORD, Record, RunError, unreadable};
use crate::evaluation::{Metrics, Predictions};

/// How far below the folder that is searched a run may be.
const DEPTH: usize = 2;

/// The runs below a folder.
#[derive(Debug)]
pub struct History {
    /// The folder that was searched.
    pub folder: PathBuf,
    /// Finished runs, the oldest first.
    pub entries: Vec<Entry>,
    /// Folders that should be runs and cannot be read.
    pub damaged: Vec<Damaged>,
}

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where it is.
    pub folder: PathBuf,
    /// What it is.
    pub record: Record,
    /// How good it is.
    pub metrics: Metrics,
}

/// A folder that should be a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Where it is.
    pub folder: PathBuf,
    /// Why it cannot be read.
    pub reason: String,
}

impl History {
    /// Looks for runs in `folder` and up to two folders deep. Hidden folders and symbolic links are passed over.
    ///
    /// # Errors
    /// [`RunError::File`] where `folder` itself cannot be listed.
    pub fn scan(folder: &Path) -> Result<Self, RunError> {
        std::fs::read_dir(folder).map_err(at(folder))?;
        let mut history = Self {
            folder: folder.to_path_buf(),
            entries: Vec::new(),
            damaged: Vec::new(),
        };
        history.visit(folder, DEPTH);
        history
            .entries
            .sort_by(|a, b| (&a.record.created, &a.record.id).cmp(&(&b.record.created, &b.record.id)));
        Ok(history)
    }

    fn visit(&mut self, folder: &Path, depth: usize) {
        if folder.join(RECORD).is_file() {
            match Entry::load(folder) {
                Ok(entry) => self.entries.push(entry),
                Err(error) => self.damaged.push(Damaged {
                    folder: folder.to_path_buf(),
                    reason: error.to_string(),
                }),
            }
            return;
        }
        // What cannot be listed holds no run of this user.
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut folders: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .map(|entry| entry.path())
            .collect();
        folders.sort();
        if depth > 0 {
            for inside in folders {
                self.visit(&inside, depth - 1);
            }
        }
    }

    /// The run that `name` means: its identifier or an unmistakable beginning of it, the name of its folder, or the
    /// path of its folder wherever that is.
    ///
    /// # Errors
    /// [`RunError::Unknown`] and [`RunError::Ambiguous`].
    pub fn find(&self, name: &str) -> Result<Entry, RunError> {
        let path = Path::new(name);
        if path.join(RECORD).is_file() {
            return Entry::load(path);
        }
        let by = |test: &dyn Fn(&Entry) -> bool| -> Vec<&Entry> {
            self.entries.iter().filter(|entry| test(entry)).collect()
        };
        let rules: [&dyn Fn(&Entry) -> bool; 3] = [
            &|entry| entry.record.id == name,
            &|entry| entry.folder.file_name().is_some_and(|folder| folder == name),
            &|entry| entry.record.id.starts_with(name),
        ];
        for rule in rules {
            match by(rule)[..] {
                [] => {}
                [entry] => return Ok(entry.clone()),
                ref several => {
                    // By their folders: a copy has the identifier of its original.
                    let folder = |entry: &&Entry| entry.folder.display().to_string();
                    return Err(RunError::Ambiguous {
                        name: name.to_owned(),
                        candidates: several.iter().map(folder).collect(),
                    });
                }
            }
        }
        Err(RunError::Unknown {
            name: name.to_owned(),
            folder: self.folder.clone(),
        })
    }
}

impl Entry {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// [`RunError::File`] and [`RunError::Unreadable`].
    pub fn load(folder: &Path) -> Result<Self, RunError> {
        let record = Record::load(folder)?;
        let path = folder.join(METRICS);
        let json = std::fs::read(&path).map_err(at(&path))?;
        let metrics = serde_json::from_slice(&json).map_err(|error| not_the("metrics", &path, &error))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            record,
            metrics,
        })
    }

    /// Reads the parameters that it was made with.
    ///
    /// # Errors
    /// [`RunError::File`] and [`RunError::Unreadable`].
    pub fn parameters(&self) -> Result<Value, RunError> {
        let path = self.folder.join(PARAMETERS);
        let json = std::fs::read(&path).map_err(at(&path))?;
        serde_json::from_slice(&json).map_err(|error| unreadable(&path, &error))
    }

    /// Reads what was answered for each test image.
    ///
    /// # Errors
    /// [`RunError::File`] and [`RunError::Unreadable`].
    pub fn predictions(&self) -> Result<Predictions, RunError> {
        let path = self.folder.join(PREDICTIONS);
        let table = std::fs::read(&path).map_err(at(&path))?;
        Predictions::from_csv(&table).map_err(|reason| not_the("predictions", &path, &reason))
    }

    /// Deletes the files that the run consists of, and its folder unless something else is in it; gives what is left.
    /// From the first moment on it is no run any more.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn delete(&self) -> Result<Vec<PathBuf>, RunError> {
        let own = self.record.files.keys().map(String::as_str);
        let mut folders = std::collections::BTreeSet::from([self.folder.clone()]);
        for name in std::iter::once(RECORD).chain(own) {
            let path = self.folder.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&path)(error).into()),
                _ => {}
            }
            let within = path.ancestors().skip(1).take_while(|folder| *folder != self.folder);
            folders.extend(within.map(Path::to_path_buf));
        }
        // The deepest first; a folder with something else in it stays.
        for folder in folders.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
        let left = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        Ok(left.map(|entry| entry.path()).collect())
    }
}

/// The file `path` does not hold `what` of a run, which an evaluation gives.
fn not_the(what: &str, path: &Path, reason: &impl Display) -> RunError {
    unreadable(
        path,
        &format!("not the {what} of a run: {reason}; evaluate again to write it anew"),
    )
}
