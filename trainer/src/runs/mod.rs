//! The history of runs: each a folder that is written once, whole, and never changed.
//!
//! `run.json` says what a folder holds and what it was made from, with the hash of every file. It is written last
//! into a temporary folder that is then renamed, so that a folder with a `run.json` is a finished run, and a killed
//! run leaves none. An empty folder that was there before is filled instead, `run.json` last. No index is kept beside
//! the folders: they can be moved, copied and deleted like any other.

mod claim;
mod compare;
mod history;
mod record;
mod trained_on;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shared::bundle::FileEntry;
use shared::files::{self, FileError, at};

use crate::counted::listed;

pub use claim::Claim;
pub use compare::{Compared, Comparison, Difference, Pair};
pub(crate) use compare::{flatten, shortest};
pub use history::{Damaged, Entry, History};
pub use record::{ClassCount, DataSummary, Kind, Record, SCHEMA_VERSION};
pub use shared::bundle::FOLDER as BUNDLE;
pub use trained_on::TrainedOn;

/// File that says what the folder of a run holds.
pub const RECORD: &str = "run.json";
/// File of the metrics.
pub const METRICS: &str = "metrics.json";
/// File of the answers for the test images.
pub const PREDICTIONS: &str = "predictions.csv";
/// File of the parameters.
pub const PARAMETERS: &str = "parameters.json";
/// File of the division into training and test.
pub const SPLIT: &str = "split.tsv";
/// File of the contents that were trained on.
pub const TRAINED_ON: &str = "trained_on.txt";
/// File of what was left out.
pub const SKIPPED: &str = "skipped.json";
/// File of the epochs, where a network was refined.
pub const EPOCHS: &str = "epochs.json";
/// Folder for the runs that are given no other, within the working folder.
pub const FOLDER: &str = "runs";
/// Most runs of one name that an error lists.
const CANDIDATES: usize = 10;
/// How the name of a folder begins in which a run is made that will fill the folder around it.
const FILLING: &str = ".ikat-filling-";

/// Why a run cannot be written, found or read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder for the run holds something already.
    #[error("{0} is not empty; a finished run is never overwritten")]
    Occupied(PathBuf),
    /// Another program is writing it.
    #[error("another trainer is writing {0}: wait until it has ended, or choose another folder")]
    Busy(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the run is not what it should be.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A value has no JSON form.
    #[error("a parameter has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
    /// No run has this name.
    #[error("there is no run {name} in {folder}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Several runs have this name.
    #[error("{name} could be any of {}", listed(.candidates, CANDIDATES))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their identifiers.
        candidates: Vec<String>,
    },
}

/// Writes a run: `files` by their names within the folder, and a `run.json` that lists them. Gives the record with
/// that list. One program at a time may write to `folder` ([`Claim`]).
///
/// # Errors
/// [`RunError::Occupied`] where `folder` holds something, and what the file system says.
pub fn write(folder: &Path, record: Record, files: &BTreeMap<String, Bytes>) -> Result<Record, RunError> {
    check_vacant(folder)?;
    // What is there may be a link, the working folder, or a disk of its own, and keeps its permissions: it is not
    // replaced.
    let is_there = folder.is_dir();
    let place = match folder.parent() {
        _ if is_there => folder,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(place).map_err(at(place))?;
    if is_there {
        clear_leftovers(folder);
    }
    let partial = tempfile::Builder::new()
        .prefix(if is_there { FILLING } else { ".ikat-run-" })
        .suffix(files::TEMPORARY)
        .tempdir_in(place)
        // The error itself names the temporary folder.
        .map_err(|error| at(place)(error.kind().into()))?;
    let inside = partial.path();
    for (name, contents) in files {
        files::write_atomically(&inside.join(name), contents).map_err(at(&folder.join(name)))?;
    }
    let entries = files
        .iter()
        .map(|(name, contents)| (name.clone(), FileEntry::of(contents)));
    let record = Record {
        files: entries.collect(),
        ..record
    };
    let path = folder.join(RECORD);
    let (name, contents) = json(&record, folder, RECORD)?;
    files::write_atomically(&inside.join(name), &contents).map_err(at(&path))?;
    if is_there {
        fill(folder, inside)?;
    } else {
        std::fs::rename(inside, folder).map_err(at(folder))?;
        // The folder lives on under its final name.
        let _ = partial.keep();
    }
    Ok(record)
}

/// Moves what lies `inside` a temporary folder of `folder` up into it, the record last: only then it is a run.
fn fill(folder: &Path, inside: &Path) -> Result<(), RunError> {
    // Nothing that came meanwhile is written over.
    check_vacant(folder)?;
    let entries = std::fs::read_dir(inside).map_err(at(folder))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(at(folder))?;
    names.sort_by_key(|name| name == RECORD);
    for name in names {
        let path = folder.join(&name);
        std::fs::rename(inside.join(&name), &path).map_err(at(&path))?;
    }
    Ok(())
}

/// Removes what programs that were killed left in a folder that holds nothing else.
fn clear_leftovers(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_leftover(&entry.file_name()) {
            // Where it cannot be removed, it is in nobody's way.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn is_leftover(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(FILLING.as_bytes())
}

/// Checks that `folder` does not exist or is empty, but for what programs left that were killed while they filled it.
///
/// # Errors
/// [`RunError::Occupied`], and [`RunError::File`] where it cannot be looked into.
pub fn check_vacant(folder: &Path) -> Result<(), RunError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.all(|entry| entry.is_ok_and(|entry| is_leftover(&entry.file_name()))) {
                Ok(())
            } else {
                Err(RunError::Occupied(folder.to_path_buf()))
            }
        }
        // A name that is there is that of a link to nowhere, which no folder can take.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && std::fs::symlink_metadata(folder).is_err() => {
            Ok(())
        }
        Err(error) => Err(at(folder)(error).into()),
    }
}

/// The file `name` of the run in `folder`: `value` as JSON for people to read.
///
/// # Errors
/// [`RunError::Unreadable`] where it has no JSON form.
pub fn json(value: &impl serde::Serialize, folder: &Path, name: &str) -> Result<(String, Bytes), RunError> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| unreadable(&folder.join(name), &error))?;
    json.push(b'\n');
    Ok((name.to_owned(), json.into()))
}

/// The file `path` is not what it should be.
fn unreadable(path: &Path, reason: &impl Display) -> RunError {
    RunError::Unreadable {
        path: path.to_path_buf(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
