//! `metrics.json`: an evaluation with what is worth knowing of the run it belongs to.

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

impl Metrics {
    /// The main figures, by their names in `metrics.json`. Times are none: they differ from run to run, and the version
    /// of a bundle that holds these must not.
    pub fn figures(&self) -> [(&'static str, Option<f64>); 8] {
        let evaluation = &self.evaluation;
        [
            ("accuracy", evaluation.accuracy),
            ("class_averaged_accuracy", evaluation.class_averaged_accuracy),
            ("auc_macro", evaluation.auc_macro),
            ("auc_micro", evaluation.auc_micro),
            ("ece", evaluation.calibration.ece),
            ("chosen_c", self.chosen_c),
            ("train_count", self.train_count.map(|count| count as f64)),
            ("test_count", Some(evaluation.test_count as f64)),
        ]
    }
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
