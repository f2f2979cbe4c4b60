//! `metrics.json`: an evaluation with what is worth knowing of the run it belongs to.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Evaluation;
use crate::svm::SweepEntry;

/// The contents of `metrics.json`; its keys are stable. What a run did not do is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// On the test images.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// The C that cross-validation chose.
    pub chosen_c: Option<f64>,
    /// Every C tried.
    pub c_sweep: Vec<SweepEntry>,
    /// Number of training images.
    pub train_count: Option<usize>,
    /// Where the time went.
    pub seconds: Seconds,
}

/// Wall-clock seconds of a run's stages.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Seconds {
    /// Images to features.
    pub featurize: Option<f64>,
    /// Choice of C, fit and calibration.
    pub svm: Option<f64>,
    /// Test images to numbers.
    pub evaluate: Option<f64>,
    /// Refinement of the network.
    pub refine: Option<f64>,
}

/// Why `metrics.json` could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file system said no.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not the JSON of metrics.
    #[error("{path} does not hold the metrics of a run: {source}; evaluate again to write it anew")]
    Json {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl From<Evaluation> for Metrics {
    /// Metrics of an evaluation alone; set what else is known.
    fn from(evaluation: Evaluation) -> Self {
        Self {
            evaluation,
            chosen_c: None,
            c_sweep: Vec::new(),
            train_count: None,
            seconds: Seconds::default(),
        }
    }
}

impl Metrics {
    /// Reads `metrics.json`.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn load(path: &Path) -> Result<Self, MetricsError> {
        let json = std::fs::read(path).map_err(|source| MetricsError::File {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&json).map_err(|source| MetricsError::Json {
            path: path.to_owned(),
            source,
        })
    }
}
