//! The linear classifier: plain numbers, readable by any tool.

use serde::{Deserialize, Serialize};

/// One-vs-rest hyperplanes: class `k` has the margin `weights[k] · x + intercepts[k]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearClassifier {
    /// One row per class, `classes x features`.
    pub weights: Vec<Vec<f32>>,
    /// One per class.
    pub intercepts: Vec<f32>,
    /// The regularization parameter C that it was trained with.
    #[serde(rename = "C")]
    pub c: f64,
    /// The solver that found it, e.g. `dual-coordinate-descent`.
    pub solver: String,
}

/// Why a classifier cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinearClassifierError {
    /// Not the JSON of a classifier.
    #[error("not a linear classifier: {0}")]
    Json(#[from] serde_json::Error),
    /// Lengths disagree, or a number is not finite.
    #[error("not a usable linear classifier: {0}")]
    Invalid(String),
}

impl LinearClassifier {
    /// Reads the JSON form (`svm.json`) and checks that it is complete and finite.
    pub fn from_json(json: &[u8]) -> Result<Self, LinearClassifierError> {
        let classifier: Self = serde_json::from_slice(json)?;
        classifier.check()?;
        Ok(classifier)
    }

    /// The JSON form (`svm.json`).
    ///
    /// # Errors
    /// [`LinearClassifierError::Invalid`] where it could not be read back.
    pub fn to_json(&self) -> Result<Vec<u8>, LinearClassifierError> {
        self.check()?;
        Ok(serde_json::to_vec(self)?)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.weights.len()
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.weights.first().map_or(0, Vec::len)
    }

    /// The margin of each class for one feature vector of length [`Self::features`]. Summed in double
    /// precision, so that the result does not depend on how a compiler vectorizes it.
    pub fn margins(&self, features: &[f32]) -> Vec<f32> {
        debug_assert_eq!(features.len(), self.features());
        self.weights
            .iter()
            .zip(&self.intercepts)
            .map(|(weights, intercept)| {
                let dot: f64 = weights
                    .iter()
                    .zip(features)
                    .map(|(w, x)| f64::from(*w) * f64::from(*x))
                    .sum();
                (dot + f64::from(*intercept)) as f32
            })
            .collect()
    }

    fn check(&self) -> Result<(), LinearClassifierError> {
        let invalid = |reason: &str| Err(LinearClassifierError::Invalid(reason.to_owned()));
        if self.weights.is_empty() || self.features() == 0 {
            return invalid("it has no weights");
        }
        if self.intercepts.len() != self.weights.len() {
            return invalid("the number of intercepts differs from the number of classes");
        }
        if self.weights.iter().any(|row| row.len() != self.features()) {
            return invalid("its rows have different lengths");
        }
        if !self
            .weights
            .iter()
            .flatten()
            .chain(&self.intercepts)
            .all(|value| value.is_finite())
        {
            return invalid("a weight is not finite");
        }
        Ok(())
    }
}
