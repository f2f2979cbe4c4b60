//! One figure over the repeats of a training.

use serde::Serialize;

/// Mean and spread of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Its mean.
    pub mean: f64,
    /// Its sample standard deviation; absent for a single value.
    pub standard_deviation: Option<f64>,
    /// The least value.
    pub least: f64,
    /// The largest value.
    pub most: f64,
}

impl Spread {
    /// Of these values; absent where there is none.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self {
            mean,
            standard_deviation: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_sample_standard_deviation() {
        let spread = Spread::of(&[0.8, 1.0, 0.9]).expect("values");
        assert!((spread.mean - 0.9).abs() < 1e-12);
        assert!(
            spread
                .standard_deviation
                .is_some_and(|deviation| (deviation - 0.1).abs() < 1e-12)
        );
        assert!((spread.least - 0.8).abs() < 1e-12 && (spread.most - 1.0).abs() < 1e-12);
        assert_eq!(Spread::of(&[0.5]).expect("a value").standard_deviation, None);
        assert_eq!(Spread::of(&[]), None);
    }
}
