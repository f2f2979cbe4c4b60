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
    /// File name within `golden/`.
    pub file: String,
    /// The label that the trainer saw.
    pub label: String,
    /// Probability of each class, in the manifest's order.
    pub scores: Vec<f32>,
}

impl Golden {
    /// The tolerance that the trainer writes.
    pub const TOLERANCE: f32 = 1e-3;

    /// Compares a prediction with what the trainer saw.
    ///
    /// # Errors
    /// [`BundleError::Parity`].
    pub fn compare(&self, image: &GoldenImage, classes: &[String], prediction: &Prediction) -> Result<(), BundleError> {
        if image.scores.len() != prediction.probabilities.len() {
            return Err(BundleError::Manifest(format!(
                "golden image {} has {} scores for {} classes",
                image.file,
                image.scores.len(),
                prediction.probabilities.len()
            )));
        }
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
