//! Why a training did not succeed.

use std::path::PathBuf;

use shared::bundle::BundleError;
use shared::classifier::LinearClassifierError;
use shared::files::FileError;
use shared::image::ImageError;
use shared::pipeline::PipelineError;

use crate::counted::{listed, listed_with};
use crate::dataset::{Dataset, DatasetError, escape};
use crate::features::FeatureError;
use crate::quantize::QuantizeError;
use crate::refine::RefineError;
use crate::report::ReportError;
use crate::runs::RunError;
use crate::svm::SvmError;

/// Most images that an error names.
const NAMED: usize = 10;

/// Why a training did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The data set or its split.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The features.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The network cannot be refined.
    #[error(transparent)]
    Refine(#[from] RefineError),
    /// The network cannot be quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The classifier.
    #[error(transparent)]
    Svm(#[from] SvmError),
    /// `linfa-svm` failed on a class.
    #[error("the smo solver failed on the class {class}: {reason}; use the solver dual-coordinate-descent")]
    Smo {
        /// Its name.
        class: String,
        /// What it said.
        reason: String,
    },
    /// The classifier came out unusable.
    #[error(transparent)]
    Classifier(#[from] LinearClassifierError),
    /// The bundle cannot be made or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A golden image cannot be scored.
    #[error("scoring {path} for the bundle: {source}")]
    Golden {
        /// Which image.
        path: PathBuf,
        /// Why.
        source: PipelineError,
    },
    /// A golden image cannot be drawn smaller.
    #[error("making {path} smaller for the bundle: {source}")]
    GoldenImage {
        /// Which image.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// An image that the bundle is to carry can no longer be read.
    #[error("{path}: {reason}")]
    Gone {
        /// Which image.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Images that were read when the training began can no longer be read.
    #[error(
        "images of {root} that the training began with can no longer be read: {}; train again, with them or without",
        listed(.named, NAMED)
    )]
    Vanished {
        /// The data set.
        root: PathBuf,
        /// The images, for people to read.
        named: Vec<String>,
    },
    /// Images somewhere else cannot be asked for.
    #[error(transparent)]
    Connections(std::io::Error),
    /// A refinement needs the images themselves.
    #[error("a network is refined on the images themselves, and rows of features are not: name the images with --data")]
    NoImages,
    /// A quantization needs the images themselves.
    #[error(
        "a network is quantized by the images themselves, and rows of features are not: name the images with --data"
    )]
    NoImagesToQuantizeBy,
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The run cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The report cannot be drawn.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The data set has a class that the bundle does not know.
    #[error("the bundle does not know the class {class}; it knows {known}")]
    ForeignClass {
        /// The class folder.
        class: String,
        /// The bundle's classes.
        known: String,
    },
    /// There are not two classes to tell apart.
    #[error(
        "{root} has images of {found} alone, and a classifier needs two classes: add another class folder with \
         images{left_out}"
    )]
    TooFewClasses {
        /// The data set.
        root: PathBuf,
        /// The class that it has.
        found: String,
        /// What was left out and why, for people to read; empty where nothing was.
        left_out: String,
    },
    /// The split leaves a class without an image to train on.
    #[error("the split leaves no image of the class {0} to train on: add images, or put fewer into the test part")]
    NothingToTrainOn(String),
}

impl TrainingError {
    pub(super) fn too_few_classes(dataset: &Dataset) -> Self {
        let skipped = dataset.skipped.iter();
        let skipped: Vec<String> = skipped
            .map(|skipped| format!("{} ({})", escape(&skipped.path), skipped.reason))
            .collect();
        let left_out = if skipped.is_empty() {
            String::new()
        } else {
            format!(". Left out: {}", listed_with("; ", &skipped, NAMED))
        };
        Self::TooFewClasses {
            root: dataset.root.clone(),
            found: dataset
                .classes
                .first()
                .map_or_else(|| "no class".to_owned(), |class| format!("the class {class}")),
            left_out,
        }
    }
}
