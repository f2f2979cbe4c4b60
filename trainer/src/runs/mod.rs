//! The history of runs: each a folder that is written once, whole, and never changed.
//!
//! `run.json` says what a folder holds and what it was made from, with the hash of every file. The folder appears
//! whole, and where an empty one is filled, `run.json` comes last, so that a folder with a `run.json` is a finished
//! run. No index is kept beside the folders: they can be moved, copied and deleted like any other.

mod compare;
mod history;
mod record;
mod trained_on;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shared::bundle::FileEntry;
use shared::files::FileError;

use crate::counted::listed;
use crate::destination::{DestinationError, NewFolder};

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

/// Why a run cannot be written, found or read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder for the run is none that it can be written to.
    #[error(transparent)]
    Destination(#[from] DestinationError),
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
        /// Their folders.
        candidates: Vec<String>,
    },
}

/// Writes a run: `files` by their names within the folder, and a `run.json` that lists them. Gives the record with
/// that list. One program at a time may write to `folder` ([`crate::destination::Claim`]).
///
/// # Errors
/// [`DestinationError::Occupied`] where `folder` holds something, and what the file system says.
pub fn write(folder: &Path, record: Record, files: &BTreeMap<String, Bytes>) -> Result<Record, RunError> {
    let new = NewFolder::begin(folder)?;
    for (name, contents) in files {
        new.write(Path::new(name), contents)?;
    }
    let entries = files
        .iter()
        .map(|(name, contents)| (name.clone(), FileEntry::of(contents)));
    let record = Record {
        files: entries.collect(),
        ..record
    };
    let (name, contents) = json(&record, folder, RECORD)?;
    new.write(Path::new(&name), &contents)?;
    new.finish(Some(RECORD))?;
    Ok(record)
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
