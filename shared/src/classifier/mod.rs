//! From a feature vector to margins, probabilities and a decision.

mod calibration;
mod head;
mod linear;

pub use calibration::{Calibration, Thresholds};
pub use head::{Decision, Head, Prediction, first_largest};
pub use linear::{LinearClassifier, LinearClassifierError};

/// The Euclidean length of `vector`.
pub(crate) fn l2_norm(vector: &[f32]) -> f64 {
    vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

/// Scales `vector` to Euclidean length 1; a zero vector stays zero.
pub fn l2_normalize(vector: &mut [f32]) {
    let length = l2_norm(vector);
    if length > 0.0 {
        for value in vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}
