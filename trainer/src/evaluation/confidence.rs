//! What confidence is worth: is it the accuracy, and what is gained by answering only above a threshold?

use super::Predictions;

/// Bins of the expected calibration error.
pub const BINS: usize = 15;

/// Test images whose confidence falls into one of the bins of equal width.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Number of images.
    pub images: usize,
    /// Sum of their confidences.
    pub confidence: f64,
    /// How many were classified rightly.
    pub right: usize,
}

/// What follows from answering only where the confidence reaches a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rejection {
    /// Least confidence that is answered.
    pub threshold: f64,
    /// Share of the images that are answered.
    pub answered: f64,
    /// Share of the answers that are right.
    pub accuracy: f64,
}

/// The images by confidence. Bins are closed on the right, as in Guo et al. 2017
/// (<https://arxiv.org/abs/1706.04599>); a confidence of 0 falls into the first.
pub fn bins(predictions: &Predictions) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for row in &predictions.rows {
        let confidence = f64::from(row.confidence());
        let index = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let bin = &mut bins[index];
        bin.images += 1;
        bin.confidence += confidence;
        bin.right += usize::from(row.is_right());
    }
    bins
}

/// The gap between confidence and accuracy, averaged over the images in bins; absent without images.
pub(super) fn expected_calibration_error(predictions: &Predictions) -> Option<f64> {
    let gap: f64 = bins(predictions)
        .iter()
        .map(|bin| (bin.confidence - bin.right as f64).abs())
        .sum();
    let count = predictions.rows.len();
    (count > 0).then(|| gap / count as f64)
}

/// For each confidence that occurs, ascending, what follows from it as the threshold.
pub fn rejections(predictions: &Predictions) -> Vec<Rejection> {
    let mut rows: Vec<(f32, bool)> = predictions
        .rows
        .iter()
        .map(|row| (row.confidence(), row.is_right()))
        .collect();
    rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut answered, mut right) = (0, 0);
    let mut found = Vec::new();
    #[expect(clippy::float_cmp, reason = "a tie is an equal confidence")]
    for tied in rows.chunk_by(|a, b| a.0 == b.0) {
        answered += tied.len();
        right += tied.iter().filter(|(_, right)| *right).count();
        found.push(Rejection {
            threshold: f64::from(tied[0].0),
            answered: answered as f64 / rows.len() as f64,
            accuracy: f64::from(right as u32) / answered as f64,
        });
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Predicted;

    fn predictions(rows: &[(f32, bool)]) -> Predictions {
        let row = |(confidence, right): &(f32, bool)| Predicted {
            path: "x".into(),
            truth: usize::from(!right),
            best: 0,
            probabilities: vec![*confidence, 1.0 - confidence],
            decision: None,
        };
        Predictions {
            classes: vec!["a".to_owned(), "b".to_owned()],
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn a_higher_threshold_answers_less() {
        let rejections = rejections(&predictions(&[(0.6, false), (0.9, true), (0.9, true), (0.75, false)]));
        let found: Vec<_> = rejections
            .iter()
            .map(|point| (point.answered, point.accuracy))
            .collect();
        assert_eq!(found, [(1.0, 0.5), (0.75, 2.0 / 3.0), (0.5, 1.0)]);
        assert!(super::rejections(&predictions(&[])).is_empty());
    }

    #[test]
    fn each_image_is_in_one_bin() {
        let bins = bins(&predictions(&[(0.0, true), (1.0, true), (0.066, false), (0.07, true)]));
        assert_eq!(bins.iter().map(|bin| bin.images).sum::<usize>(), 4);
        assert_eq!((bins[0].images, bins[1].images, bins[14].images), (2, 1, 1));
    }
}
