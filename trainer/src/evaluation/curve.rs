//! The receiver operating characteristic and the area under it.

use super::Predictions;

/// How often a class is recognized against how often it is seen where it is not, over all thresholds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RocCurve {
    /// `[false positive rate, true positive rate]`, both from 0 to 1 and never falling; only the corners.
    pub points: Vec<[f64; 2]>,
}

/// The curves of an evaluation. A curve that is not defined (no image of the class, or no other) is absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RocCurves {
    /// In the order of the classes.
    pub per_class: Vec<Option<RocCurve>>,
    /// Mean of the classes' curves, point by point.
    pub macro_average: Option<RocCurve>,
    /// Of all (image, class) pairs together.
    pub micro_average: Option<RocCurve>,
}

impl RocCurves {
    /// The curves by the classes' probabilities.
    pub fn new(predictions: &Predictions) -> Self {
        let per_class: Vec<_> = (0..predictions.classes.len())
            .map(|class| RocCurve::new(one_against_rest(predictions, class).collect()))
            .collect();
        Self {
            macro_average: RocCurve::mean(per_class.iter().flatten()),
            micro_average: RocCurve::new(all_pairs(predictions).collect()),
            per_class,
        }
    }
}

/// The probability of `class` for each image, and whether the image is of it.
pub(super) fn one_against_rest(predictions: &Predictions, class: usize) -> impl Iterator<Item = (f32, bool)> {
    let rows = predictions.rows.iter();
    rows.map(move |row| (row.probabilities[class], row.truth == class))
}

/// The probability of each class for each image, and whether the image is of it.
pub(super) fn all_pairs(predictions: &Predictions) -> impl Iterator<Item = (f32, bool)> {
    predictions.rows.iter().flat_map(|row| {
        let probabilities = row.probabilities.iter().enumerate();
        probabilities.map(move |(class, probability)| (*probability, class == row.truth))
    })
}

impl RocCurve {
    /// The curve of `(score, is positive)` pairs, as scikit-learn's `roc_curve` without the points on straight
    /// lines. Absent without a positive or without a negative.
    pub fn new(mut scored: Vec<(f32, bool)>) -> Option<Self> {
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let total = scored.iter().filter(|(_, positive)| *positive).count();
        let others = scored.len() - total;
        if total == 0 || others == 0 {
            return None;
        }
        let mut counts = vec![[0, 0]];
        let (mut false_positives, mut true_positives) = (0, 0);
        #[expect(clippy::float_cmp, reason = "a tie is an equal score")]
        for tied in scored.chunk_by(|a, b| a.0 == b.0) {
            let own = tied.iter().filter(|(_, positive)| *positive).count();
            true_positives += own;
            false_positives += tied.len() - own;
            while let [.., [x0, y0], [x1, y1]] = counts[..] {
                let straight = (x1 - x0) * (true_positives - y1) == (false_positives - x1) * (y1 - y0);
                if !straight {
                    break;
                }
                counts.pop();
            }
            counts.push([false_positives, true_positives]);
        }
        let rate = |[x, y]: [usize; 2]| [x as f64 / others as f64, y as f64 / total as f64];
        Some(Self {
            points: counts.into_iter().map(rate).collect(),
        })
    }

    /// The curve whose true positive rate is the mean of the others' at each false positive rate.
    fn mean<'a>(curves: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let curves: Vec<_> = curves.collect();
        let mut rates: Vec<f64> = curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(|point| point[0]))
            .collect();
        rates.sort_unstable_by(f64::total_cmp);
        rates.dedup();
        let count = curves.len() as f64;
        let mut points = Vec::new();
        for rate in rates {
            // A vertical piece has a lower and an upper end.
            for end in [Self::lower, Self::upper] {
                let sum: f64 = curves.iter().map(|curve| end(curve, rate)).sum();
                points.push([rate, sum / count]);
            }
        }
        points.dedup();
        (!curves.is_empty()).then_some(Self { points })
    }

    /// The least true positive rate at a false positive rate.
    fn lower(&self, rate: f64) -> f64 {
        let after = self.points.partition_point(|point| point[0] < rate);
        self.between(after, rate)
    }

    /// The largest true positive rate at a false positive rate.
    fn upper(&self, rate: f64) -> f64 {
        let after = self.points.partition_point(|point| point[0] <= rate);
        match self.points.get(after.wrapping_sub(1)) {
            #[expect(clippy::float_cmp, reason = "a corner at this very rate")]
            Some(point) if point[0] == rate => point[1],
            _ => self.between(after, rate),
        }
    }

    /// On the line to the point with this index from the one before it.
    fn between(&self, after: usize, rate: f64) -> f64 {
        match (self.points.get(after.wrapping_sub(1)), self.points.get(after)) {
            (Some([x0, y0]), Some([x1, y1])) => y0 + (y1 - y0) * (rate - x0) / (x1 - x0),
            (None, Some(point)) | (Some(point), None) => point[1],
            (None, None) => 0.0,
        }
    }
}

/// Area under the curve of `(score, is positive)` pairs: the share of (positive, negative) pairs in
/// which the positive has the higher score, an equal score counting half. That is the trapezoidal area
/// (Hanley and `McNeil` 1982), counted in whole numbers. Absent without a positive or without a negative.
pub(super) fn area_under_curve(mut scored: Vec<(f32, bool)>) -> Option<f64> {
    scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut negatives_below, mut positives, mut doubled) = (0_u128, 0_u128, 0_u128);
    #[expect(clippy::float_cmp, reason = "a tie is an equal score")]
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let own = tied.iter().filter(|(_, positive)| *positive).count() as u128;
        let others = tied.len() as u128 - own;
        doubled += own * (2 * negatives_below + others);
        positives += own;
        negatives_below += others;
    }
    let pairs = positives * negatives_below;
    (pairs > 0).then(|| doubled as f64 / (2 * pairs) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Predicted;

    fn area(curve: &RocCurve) -> f64 {
        let pieces = curve.points.windows(2);
        pieces
            .map(|pair| (pair[1][0] - pair[0][0]) * f64::midpoint(pair[0][1], pair[1][1]))
            .sum()
    }

    /// Scores in steps of a tenth, so that ties abound.
    fn predictions(images: usize, classes: usize) -> Predictions {
        let rows = (0..images).map(|image| {
            let score = |class: usize| ((image * 7 + class * 5 + image * image * class) % 11) as f32 / 10.0;
            Predicted {
                path: image.to_string().into(),
                truth: (image * 3 + image / 4) % classes,
                best: 0,
                probabilities: (0..classes).map(score).collect(),
                decision: None,
            }
        });
        Predictions {
            classes: (0..classes).map(|class| class.to_string()).collect(),
            rows: rows.collect(),
        }
    }

    #[test]
    fn the_areas_are_those_of_the_evaluation() {
        for (images, classes) in [(5, 2), (40, 3), (97, 6), (200, 4)] {
            let predictions = predictions(images, classes);
            let curves = RocCurves::new(&predictions);
            let areas: Vec<f64> = (0..classes)
                .filter_map(|class| area_under_curve(one_against_rest(&predictions, class).collect()))
                .collect();
            let drawn: Vec<f64> = curves.per_class.iter().flatten().map(area).collect();
            assert_eq!(areas.len(), drawn.len());
            for (a, b) in areas.iter().zip(&drawn) {
                assert!((a - b).abs() < 1e-12);
            }
            let mean = areas.iter().sum::<f64>() / areas.len() as f64;
            assert!((area(&curves.macro_average.expect("defined")) - mean).abs() < 1e-12);
            let micro = area_under_curve(all_pairs(&predictions).collect()).expect("defined");
            assert!((area(&curves.micro_average.expect("defined")) - micro).abs() < 1e-12);
        }
    }

    #[test]
    fn a_perfect_curve_has_three_corners_and_an_undefined_one_none() {
        let scored = vec![(0.9, true), (0.8, true), (0.3, false), (0.2, false), (0.1, false)];
        let curve = RocCurve::new(scored).expect("defined");
        assert_eq!(curve.points, [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
        assert_eq!(RocCurve::new(vec![(0.5, true)]), None);
        assert_eq!(RocCurve::new(Vec::new()), None);
    }
}
