//! What a training works on, and what it comes to, whichever classifier is trained.

use std::time::Instant;

use bytes::Bytes;
use shared::classifier::{Calibration, Head};

use super::{Parameters, TrainingError, Workplace};
use crate::backbone::Backbone;
use crate::dataset::Dataset;
use crate::features::Features;
use crate::refine::Epoch;
use crate::svm;

/// A data set with features, divided, ready for a classifier.
pub(super) struct Prepared<'a> {
    pub dataset: &'a Dataset,
    pub features: &'a Features,
    /// Rows of the training part.
    pub train: Vec<usize>,
    pub backbone: &'a Backbone,
    pub model: &'a Bytes,
    pub parameters: &'a Parameters,
    pub workplace: &'a Workplace<'a>,
}

/// A network and a classifier on it, with what was learned on the way.
pub(super) struct Fitted {
    pub head: Head,
    pub model: Bytes,
    pub feature_size: usize,
    /// What the network gives for every image of the data set.
    pub features: Features,
    pub chosen_c: Option<f64>,
    pub c_sweep: Vec<svm::SweepEntry>,
    pub notes: Vec<String>,
    pub history: Vec<Epoch>,
    pub svm_seconds: Option<f64>,
    pub refine_seconds: Option<f64>,
}

impl Fitted {
    pub fn empty() -> Self {
        Self {
            head: Head {
                classes: Vec::new(),
                classifier: None,
                calibration: Calibration::Temperature { scale: 1.0 },
                thresholds: svm::ACCEPT_ALL,
            },
            model: Bytes::new(),
            feature_size: 0,
            features: Features::default(),
            chosen_c: None,
            c_sweep: Vec::new(),
            notes: Vec::new(),
            history: Vec::new(),
            svm_seconds: None,
            refine_seconds: None,
        }
    }

    /// The SVM, still without its network and features.
    pub fn of_svm(job: &Prepared, trained: svm::Trained) -> Self {
        Self {
            head: Head {
                classes: job.dataset.classes.clone(),
                classifier: Some(trained.classifier),
                calibration: trained.calibration,
                thresholds: trained.thresholds,
            },
            chosen_c: Some(trained.sweep.chosen_c),
            c_sweep: trained.sweep.entries,
            notes: trained.notes,
            ..Self::empty()
        }
    }
}

impl Prepared<'_> {
    /// A linear SVM on the features of the network as it came.
    pub fn svm(&self) -> Result<Fitted, TrainingError> {
        self.svm_on(self.model.clone(), self.features.clone())
    }

    /// A linear SVM on `features`, which `model` gave for all images.
    pub fn svm_on(&self, model: Bytes, features: Features) -> Result<Fitted, TrainingError> {
        let start = Instant::now();
        let training = features.normalized_rows(&self.train);
        let trained = svm::train(
            training.matrix.view(),
            &training.labels,
            &training.groups,
            self.dataset.classes.len(),
            &self.parameters.svm,
            self.workplace.progress,
        )?;
        Ok(Fitted {
            model,
            feature_size: self.backbone.feature_size,
            features,
            svm_seconds: Some(start.elapsed().as_secs_f64()),
            ..Fitted::of_svm(self, trained)
        })
    }
}
