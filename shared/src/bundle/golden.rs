//! Golden images: a few pictures with the scores that the trainer saw.

use serde::{Deserialize, Serialize};

use super::BundleError;
use crate::classifier::Prediction;

/// `golden/golden.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Largest difference of a probability that still counts as the same. Processors with other
    /// vector units sum in another order, which shows in the last digits.
    pub tolerance: f32,
    /// The images.
    pub images: Vec<GoldenImage>,
}

/// One golden image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenImage {
    /// File name within the folder of the golden scores.
    pub file: String,
    /// The label that the trainer saw.
    pub label: String,
    /// Probability of each class, in the manifest's order.
    pub scores: Vec<f32>,
}

impl GoldenImage {
    /// Name of the image within a bundle.
    pub fn path(&self) -> String {
        format!("golden/{}", self.file)
    }
}

impl Golden {
    /// The tolerance that the trainer writes.
    pub const TOLERANCE: f32 = 1e-3;
    /// The largest tolerance that still proves something.
    const MAX_TOLERANCE: f32 = 1e-2;

    /// Reads the JSON form and checks that it can prove something of a model with so many `classes`.
    ///
    /// # Errors
    /// [`BundleError::Golden`] or [`BundleError::NoProof`].
    pub(super) fn from_json(json: &[u8], classes: usize) -> Result<Self, BundleError> {
        let golden: Self = serde_json::from_slice(json).map_err(BundleError::Golden)?;
        let no_proof = |reason: String| Err(BundleError::NoProof(reason));
        if golden.images.is_empty() {
            return no_proof("it lists no image".to_owned());
        }
        if !(0.0..=Self::MAX_TOLERANCE).contains(&golden.tolerance) {
            return no_proof(format!(
                "its tolerance is {}, not between 0 and {}",
                golden.tolerance,
                Self::MAX_TOLERANCE
            ));
        }
        if let Some(image) = golden.images.iter().find(|image| image.scores.len() != classes) {
            return no_proof(format!(
                "{} has {} scores for {classes} classes",
                image.file,
                image.scores.len()
            ));
        }
        Ok(golden)
    }

    /// Compares a prediction with what the trainer saw.
    ///
    /// # Errors
    /// [`BundleError::Parity`].
    pub(super) fn compare(
        &self,
        image: &GoldenImage,
        classes: &[String],
        prediction: &Prediction,
    ) -> Result<(), BundleError> {
        for ((class, expected), found) in classes.iter().zip(&image.scores).zip(&prediction.probabilities) {
            let same = (expected - found).abs() <= self.tolerance;
            if !same {
                return Err(BundleError::Parity {
                    name: image.file.clone(),
                    class: class.clone(),
                    expected: *expected,
                    found: *found,
                });
            }
        }
        Ok(())
    }
}
