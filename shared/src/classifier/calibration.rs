//! Margins to probabilities, and when to answer `unknown`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How margins become probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Calibration {
    /// Softmax of `scale x margin` (temperature scaling: Guo et al., "On Calibration of Modern Neural
    /// Networks", 2017; `scale` is one over the temperature).
    Temperature {
        /// Positive.
        scale: f64,
    },
}

impl Calibration {
    /// Whether a larger margin means a larger probability.
    pub(crate) fn is_usable(&self) -> bool {
        let Self::Temperature { scale } = self;
        scale.is_finite() && *scale > 0.0
    }

    /// Probability of each class, in `[0, 1]`, summing to 1.
    pub fn probabilities(&self, margins: &[f32]) -> Vec<f32> {
        let Self::Temperature { scale } = self;
        let logits: Vec<f64> = margins.iter().map(|margin| scale * f64::from(*margin)).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        exponentials.iter().map(|value| (value / sum) as f32).collect()
    }
}

/// Below which an answer is `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Thresholds {
    /// Least probability of the best class, in `[0, 1]`.
    pub probability: f32,
    /// Least margin of the best class. An image of no known class often has every margin low while
    /// the probabilities, which must sum to 1, still favour one.
    pub margin: f32,
}
