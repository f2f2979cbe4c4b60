//! A finished training on disk: it appears whole, and is never overwritten.

use std::path::{Path, PathBuf};

use shared::bundle::Bundle;
use shared::files;

use super::{Parameters, TrainingError};
use crate::dataset::{Skipped, Split};
use crate::evaluation::Metrics;
use crate::refine::Epoch;

/// What a training gives.
#[derive(Debug)]
pub struct Run {
    /// The model.
    pub bundle: Bundle,
    /// How good it is.
    pub metrics: Metrics,
    /// Which images were trained on, and which were kept for the test.
    pub split: Split,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// What the user should know of the cross-validation.
    pub notes: Vec<String>,
    /// Epoch by epoch, where the network was refined.
    pub history: Vec<Epoch>,
    /// As given.
    pub parameters: Parameters,
}

impl Run {
    /// Writes `bundle/`, `metrics.json`, `split.tsv`, `parameters.json`, `epochs.json` and `skipped.json` into a
    /// temporary folder beside `folder` and renames it.
    ///
    /// # Errors
    /// [`TrainingError::Occupied`] where `folder` holds something, and what the file system says.
    pub fn save(&self, folder: &Path) -> Result<(), TrainingError> {
        check_vacant(folder)?;
        let file = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TrainingError::File { path, source }
        };
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(file(parent))?;
        let partial = tempfile::Builder::new()
            .prefix(".ikat-run-")
            .suffix(".tmp")
            .tempdir_in(parent)
            .map_err(file(parent))?;
        let inside = partial.path();
        self.bundle.write(&bundle_folder(inside))?;
        self.metrics.save(&inside.join("metrics.json"))?;
        self.split.save(&inside.join("split.tsv"))?;
        for (name, json) in [
            ("parameters.json", serde_json::to_vec_pretty(&self.parameters)),
            ("epochs.json", serde_json::to_vec_pretty(&self.history)),
            ("skipped.json", serde_json::to_vec_pretty(&self.skipped)),
        ] {
            let path = inside.join(name);
            let json = json.map_err(std::io::Error::from).map_err(file(&path))?;
            files::write_atomically(&path, &json).map_err(file(&path))?;
        }
        open_to_others(inside).map_err(file(inside))?;
        std::fs::rename(inside, folder).map_err(file(folder))?;
        // The folder lives on under its final name.
        let _ = partial.keep();
        Ok(())
    }
}

/// Where a run keeps its bundle.
pub fn bundle_folder(run: &Path) -> PathBuf {
    run.join("bundle")
}

/// Checks that `folder` does not exist or is empty.
///
/// # Errors
/// [`TrainingError::Occupied`].
pub fn check_vacant(folder: &Path) -> Result<(), TrainingError> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(TrainingError::Occupied(folder.to_path_buf())),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(TrainingError::File {
            path: folder.to_path_buf(),
            source,
        }),
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
