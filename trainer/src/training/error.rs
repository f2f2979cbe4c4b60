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

/// Most images, or classes, that an error names.
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
    /// The data set has classes that the bundle does not know.
    #[error(
        "the bundle does not know {} of {root}; it knows {}: give these images labels that it knows, or leave them out",
        named_classes(.foreign),
        listed(.known, NAMED)
    )]
    ForeignClasses {
        /// The data set.
        root: PathBuf,
        /// Its classes that the bundle does not know.
        foreign: Vec<String>,
        /// The bundle's classes.
        known: Vec<String>,
    },
    /// There are not two classes to tell apart.
    #[error(
        "{root} has {found}, and a classifier needs two classes: add classes, as folders with images or as lines of a \
         list{left_out}"
    )]
    TooFewClasses {
        /// The data set.
        root: PathBuf,
        /// What images it has, in words.
        found: String,
        /// What was left out and why, for people to read; empty where nothing was.
        left_out: String,
    },
    /// The split leaves a class without an image to train on.
    #[error("the split leaves no image of the class {0} to train on: add images, or put fewer into the test part")]
    NothingToTrainOn(String),
}

fn named_classes(classes: &[String]) -> String {
    let word = if classes.len() == 1 { "class" } else { "classes" };
    format!("the {word} {}", listed(classes, NAMED))
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
            found: match dataset.classes.first() {
                Some(class) => format!("images of the class {class} alone"),
                None => "no image that can be read".to_owned(),
            },
            left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Skipped;

    #[test]
    fn who_has_no_image_at_all_is_not_told_of_one_class() {
        let dataset = Dataset {
            root: "photos".into(),
            classes: Vec::new(),
            items: Vec::new(),
            skipped: vec![Skipped {
                path: "dotted/1.jpg".into(),
                reason: "there is no such file".to_owned(),
            }],
        };
        let said = TrainingError::too_few_classes(&dataset).to_string();
        assert!(said.starts_with("photos has no image that can be read, "), "{said}");
        assert!(
            said.ends_with(". Left out: dotted/1.jpg (there is no such file)"),
            "{said}"
        );
    }
}
