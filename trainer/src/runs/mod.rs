//! The history of runs: each a folder that is written once, whole, and never changed.
//!
//! `run.json` says what a folder holds and what it was made from, with the hash of every file. It is written last
//! into a temporary folder that is then renamed, so that a folder with a `run.json` is a finished run, and a killed
//! run leaves none. No index is kept beside the folders: they can be moved, copied and deleted like any other.

mod claim;
mod compare;
mod history;
mod record;
mod trained_on;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shared::bundle::FileEntry;
use shared::files;

pub use claim::Claim;
pub(crate) use compare::flatten;
pub use compare::{Compared, Comparison, Difference, Pair};
pub use history::{Damaged, Entry, History};
pub use record::{ClassCount, DataSummary, Kind, Record, SCHEMA_VERSION};
pub use trained_on::TrainedOn;

/// File that says what the folder of a run holds.
pub const RECORD: &str = "run.json";
/// Folder of the bundle within a run.
pub const BUNDLE: &str = "bundle";
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
/// Folder for the runs that are given no other, within the working folder.
pub const FOLDER: &str = "runs";

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
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
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
    #[error("{name} could be any of {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their identifiers.
        candidates: Vec<String>,
    },
}

/// Writes a run: `files` by their names within the folder, and a `run.json` that lists them. Gives the record with
/// that list.
///
/// # Errors
/// [`RunError::Occupied`] where `folder` holds something, and what the file system says.
pub fn write(folder: &Path, record: Record, files: &BTreeMap<String, Bytes>) -> Result<Record, RunError> {
    check_vacant(folder)?;
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(at(parent))?;
    let partial = tempfile::Builder::new()
        .prefix(".ikat-run-")
        .suffix(".tmp")
        .tempdir_in(parent)
        // The error itself names the temporary folder.
        .map_err(|error| at(parent)(error.kind().into()))?;
    let inside = partial.path();
    for (name, contents) in files {
        let path = inside.join(name);
        files::write_atomically(&path, contents).map_err(at(&path))?;
    }
    let entries = files
        .iter()
        .map(|(name, contents)| (name.clone(), FileEntry::of(contents)));
    let record = Record {
        files: entries.collect(),
        ..record
    };
    let path = inside.join(RECORD);
    files::write_atomically(&path, &json(&record, &path)?).map_err(at(&path))?;
    open_to_others(inside).map_err(at(inside))?;
    std::fs::rename(inside, folder).map_err(at(folder))?;
    // The folder lives on under its final name.
    let _ = partial.keep();
    Ok(record)
}

/// Checks that `folder` does not exist or is empty.
///
/// # Errors
/// [`RunError::Occupied`].
pub fn check_vacant(folder: &Path) -> Result<(), RunError> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(RunError::Occupied(folder.to_path_buf())),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(at(folder)(source)),
    }
}

/// `value` as JSON for people to read, meant for the file `path`.
///
/// # Errors
/// [`RunError::Unreadable`] where it has no JSON form.
pub fn json(value: &impl serde::Serialize, path: &Path) -> Result<Bytes, RunError> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| RunError::Unreadable {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    json.push(b'\n');
    Ok(json.into())
}

/// An error of the file system at `path`.
fn at(path: &Path) -> impl Fn(std::io::Error) -> RunError {
    let path = path.to_path_buf();
    move |source| RunError::File {
        path: path.clone(),
        source,
    }
}

/// Temporary folders are private to their owner; a run is an ordinary folder.
#[cfg(unix)]
fn open_to_others(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
