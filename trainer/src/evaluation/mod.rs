//! How good a classifier is on images that it has not seen, in numbers that other tools agree with.
//!
//! Every number equals scikit-learn's on the same predictions; a number that is not defined (the
//! recall of a class without test images, an AUC without negatives) is absent, `null` in JSON.

mod advice;
pub mod confidence;
mod curve;
mod metrics;
mod paired;
mod predictions;
mod spread;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::classifier::{Calibration, Decision};

pub use advice::Basis;
pub use curve::{RocCurve, RocCurves};
pub use metrics::{Metrics, Seconds};
pub use paired::{Answers, PairedTest, SIGNIFICANCE, holm, p_text};
pub use predictions::{Predicted, Predictions};
pub use spread::Spread;
use table::shown;
pub use table::{aligned, padded, table};

use crate::counted::listed;
use confidence::expected_calibration_error;
use curve::{all_pairs, area_under_curve, one_against_rest};

/// The 97.5 % point of the normal distribution, for an interval of 95 %.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// Up to so many classes, people are shown the confusion matrix; beyond, the most frequent mistakes.
pub(crate) const MATRIX: usize = 40;

/// What the predictions alone tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of test images classified rightly; absent without test images.
    pub accuracy: Option<f64>,
    /// Mean recall over the classes that have test images (scikit-learn's balanced accuracy).
    pub class_averaged_accuracy: Option<f64>,
    /// Wilson's 95 % interval of the accuracy, `[low, high]`.
    pub accuracy_interval: Option<[f64; 2]>,
    /// 95 % interval of the class-averaged accuracy, `[low, high]`, by the normal approximation; each recall's variance
    /// is that of a share moved towards one half after Agresti and Coull 1998, so that 0 or 1 from few images is not
    /// taken for certain.
    pub class_averaged_accuracy_interval: Option<[f64; 2]>,
    /// By class name.
    pub per_class: BTreeMap<String, ClassEvaluation>,
    /// Mean of the classes' AUC, over those where it is defined.
    pub auc_macro: Option<f64>,
    /// AUC of all (image, class) pairs together.
    pub auc_micro: Option<f64>,
    /// Counts; rows are true classes and columns predicted ones, in the order of `classes`.
    pub confusion: Vec<Vec<usize>>,
    /// Class names.
    pub classes: Vec<String>,
    /// Whether the probabilities can be believed.
    pub calibration: CalibrationQuality,
    /// Number of test images.
    pub test_count: usize,
    /// Answers that are held back; absent where only the classes are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
}

/// Test images that are answered with `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unknown {
    /// How many.
    pub count: usize,
    /// Those of them whose most probable class is the right one.
    pub right: usize,
}

impl Unknown {
    fn of(predictions: &Predictions) -> Option<Self> {
        let mut unknown = Self::default();
        for row in &predictions.rows {
            if row.decision? == Decision::Unknown {
                unknown.count += 1;
                unknown.right += usize::from(row.is_right());
            }
        }
        Some(unknown)
    }
}

/// One class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassEvaluation {
    /// Share of this class's images classified rightly, which is its recall: what the original calls a
    /// class's accuracy. (The share of rightly answered "is it this class?" would be near 1 for every
    /// rare class.)
    pub accuracy: Option<f64>,
    /// Share of the images given this class that are of it. 0 where none of the class's images, nor
    /// any other, was given it; absent where it has no test images either.
    pub precision: Option<f64>,
    /// Share of this class's images that were found; absent without test images.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall; absent where the class has no images and no predictions.
    pub f1: Option<f64>,
    /// Chance that an image of the class has a higher probability of it than an image of another. By
    /// probability rather than margin since that is what users see and what `unknown` is decided by, and
    /// because `auc_micro` compares across classes.
    pub auc: Option<f64>,
    /// Number of its test images.
    pub support: usize,
}

/// How far confidence and accuracy are apart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CalibrationQuality {
    /// How margins became probabilities, e.g. `temperature`.
    pub method: Option<String>,
    /// Expected calibration error: the gap between top probability and accuracy, averaged over the
    /// images in 15 bins of equal width (Guo et al. 2017).
    pub ece: Option<f64>,
}

impl Evaluation {
    /// Compares what was answered with the truth.
    pub fn new(predictions: &Predictions) -> Self {
        let (classes, count) = (&predictions.classes, predictions.classes.len());
        let mut confusion = vec![vec![0_usize; count]; count];
        for row in &predictions.rows {
            confusion[row.truth][row.best] += 1;
        }
        let of_classes: Vec<ClassEvaluation> = (0..count)
            .map(|class| {
                let area = area_under_curve(one_against_rest(predictions, class).collect());
                class_evaluation(&confusion, class, area)
            })
            .collect();
        let auc_micro = area_under_curve(all_pairs(predictions).collect());
        let images = predictions.rows.len();
        let right: usize = (0..count).map(|class| confusion[class][class]).sum();
        Self {
            accuracy: ratio(right, images),
            class_averaged_accuracy: mean(of_classes.iter().filter_map(|class| class.recall)),
            accuracy_interval: wilson_interval(right, images),
            class_averaged_accuracy_interval: class_averaged_interval(&of_classes),
            auc_macro: mean(of_classes.iter().filter_map(|class| class.auc)),
            auc_micro,
            per_class: classes.iter().cloned().zip(of_classes).collect(),
            confusion,
            classes: classes.clone(),
            calibration: CalibrationQuality {
                method: None,
                ece: expected_calibration_error(predictions),
            },
            test_count: images,
            unknown: Unknown::of(predictions),
        }
    }

    /// What no test image tells, for people to read; absent where every class has one.
    pub fn untested(&self) -> Option<String> {
        const SHOWN: usize = 10;
        let has_none = |class: &&String| self.per_class.get(*class).is_none_or(|of_class| of_class.support == 0);
        let without = self.classes.iter().filter(has_none);
        let classes: Vec<String> = without.map(|class| shown(class)).collect();
        if self.test_count == 0 {
            Some("There are no test images, so that nothing is measured.".to_owned())
        } else if classes.is_empty() {
            None
        } else {
            Some(format!("No test image is of {}.", listed(&classes, SHOWN)))
        }
    }

    /// Indices of a class and of another one that its images were taken for, and how many: the most frequent first.
    pub fn mistakes(&self) -> Vec<(usize, usize, usize)> {
        let mut mistakes = Vec::new();
        for (truth, counts) in self.confusion.iter().enumerate() {
            let cells = counts.iter().enumerate();
            let wrong = cells.filter(|(answer, count)| *answer != truth && **count > 0);
            mistakes.extend(wrong.map(|(answer, count)| (truth, answer, *count)));
        }
        mistakes.sort_by_key(|(truth, answer, count)| (std::cmp::Reverse(*count), *truth, *answer));
        mistakes
    }

    /// How many answers are held back, for people to read; absent where none is.
    pub fn held_back(&self) -> Option<String> {
        let Unknown { count, right } = self.unknown.filter(|unknown| unknown.count > 0)?;
        Some(format!(
            "Answered with `unknown`: {count} of {} test images; the most probable class is the right one for {right} of them.",
            self.test_count
        ))
    }

    /// The same of probabilities that `calibration` made, called as in a bundle's manifest.
    #[must_use]
    pub fn calibrated_by(mut self, calibration: &Calibration) -> Self {
        let json = serde_json::to_value(calibration).unwrap_or_default();
        self.calibration.method = json["method"].as_str().map(str::to_owned);
        self
    }
}

fn class_evaluation(confusion: &[Vec<usize>], class: usize, auc: Option<f64>) -> ClassEvaluation {
    let hits = confusion[class][class];
    let support: usize = confusion[class].iter().sum();
    let predicted: usize = confusion.iter().map(|row| row[class]).sum();
    let recall = ratio(hits, support);
    ClassEvaluation {
        accuracy: recall,
        precision: ratio(hits, predicted).or((support > 0).then_some(0.0)),
        recall,
        f1: ratio(2 * hits, support + predicted),
        auc,
        support,
    }
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Wilson's score interval (1927): within `[0, 1]` and sensible for few images and for accuracies of 0
/// and 1, where the textbook interval has no width.
fn wilson_interval(right: usize, count: usize) -> Option<[f64; 2]> {
    let share = ratio(right, count)?;
    let n = count as f64;
    let squared = NORMAL_QUANTILE * NORMAL_QUANTILE;
    let scale = 1.0 + squared / n;
    let centre = (share + squared / (2.0 * n)) / scale;
    let half = NORMAL_QUANTILE * (share * (1.0 - share) / n + squared / (4.0 * n * n)).sqrt() / scale;
    // At 0 and at 1 the bound is exact; rounding must not move it.
    let low = if right == 0 { 0.0 } else { centre - half };
    let high = if right == count { 1.0 } else { centre + half };
    Some([low, high])
}

fn class_averaged_interval(classes: &[ClassEvaluation]) -> Option<[f64; 2]> {
    let centre = mean(classes.iter().filter_map(|class| class.recall))?;
    let squared = NORMAL_QUANTILE * NORMAL_QUANTILE;
    let variances: Vec<f64> = classes
        .iter()
        .filter_map(|class| {
            let n = class.support as f64;
            let share = (class.recall? * n + squared / 2.0) / (n + squared);
            Some(share * (1.0 - share) / n)
        })
        .collect();
    let count = variances.len() as f64;
    let half = NORMAL_QUANTILE * (variances.iter().sum::<f64>() / (count * count)).sqrt();
    Some([(centre - half).max(0.0), (centre + half).min(1.0)])
}

#[cfg(test)]
mod tests;
