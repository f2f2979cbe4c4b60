//! Whether two classifiers differ, told from the images that only one of them got right.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::{Predicted, Predictions};

/// McNemar's test in its exact form: McNemar 1947; Dietterich, "Approximate Statistical Tests for Comparing Supervised
/// Classification Learning Algorithms", 1998.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedTest {
    /// Test images that both were asked for, with the same truth.
    pub images: usize,
    /// How many of them only the first got right.
    pub only_first: usize,
    /// How many of them only the second got right.
    pub only_second: usize,
    /// Chance of a difference at least as large between classifiers that are equally good.
    pub p_value: f64,
}

/// A difference below this corrected p value is taken to mean something.
pub const SIGNIFICANCE: f64 = 0.05;

/// Whether each test image, by its path and true class, was answered rightly: built once for each classifier, however
/// many others it is compared with.
#[derive(Debug)]
pub struct Answers<'a>(HashMap<(&'a Path, &'a str), bool>);

impl<'a> Answers<'a> {
    /// Those in `predictions`.
    pub fn of(predictions: &'a Predictions) -> Self {
        let answer = |row: &'a Predicted| {
            let truth = predictions.classes[row.truth].as_str();
            ((row.path.as_path(), truth), row.is_right())
        };
        Self(predictions.rows.iter().map(answer).collect())
    }
}

impl PairedTest {
    /// Compares the answers for the images that both have, by path and true class. Absent where there is none.
    pub fn new(first: &Answers, second: &Answers) -> Option<Self> {
        let (mut images, mut only_first, mut only_second) = (0, 0, 0);
        for (image, first_is_right) in &first.0 {
            if let Some(second_is_right) = second.0.get(image) {
                images += 1;
                only_first += usize::from(*first_is_right && !second_is_right);
                only_second += usize::from(!first_is_right && *second_is_right);
            }
        }
        (images > 0).then(|| Self {
            images,
            only_first,
            only_second,
            p_value: two_sided_sign_test(only_first, only_second),
        })
    }
}

/// The p values of several tests, corrected so that the chance of taking any difference that is none for one stays what
/// it is for a single test: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut corrected = vec![1.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        let times = (p_values.len() - rank) as f64;
        largest = largest.max(times * p_values[index]).min(1.0);
        corrected[index] = largest;
    }
    corrected
}

/// A p value as people read it, e.g. `0.031` or `6.2e-11`.
pub fn p_text(p_value: f64) -> String {
    if p_value < f64::MIN_POSITIVE {
        "below 1e-307".to_owned()
    } else if p_value < 1e-3 {
        format!("{p_value:.1e}")
    } else {
        format!("{p_value:.3}")
    }
}

/// Chance that `a + b` tosses of a fair coin fall at least as unevenly as `a` to `b`.
fn two_sided_sign_test(a: usize, b: usize) -> f64 {
    let (fewer, tosses) = (a.min(b), a + b);
    // In logarithms: 2^-n leaves the range of floating point beyond a thousand tosses.
    let mut logarithm = -(tosses as f64) * std::f64::consts::LN_2;
    let mut tail = logarithm.exp();
    for heads in 1..=fewer {
        logarithm += ((tosses - heads + 1) as f64 / heads as f64).ln();
        tail += logarithm.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(answers: &[(&str, usize, usize)]) -> Predictions {
        let row = |(path, truth, best): &(&str, usize, usize)| Predicted {
            path: path.into(),
            truth: *truth,
            best: *best,
            probabilities: vec![0.5, 0.5],
            decision: None,
        };
        Predictions {
            classes: vec!["a".to_owned(), "b".to_owned()],
            rows: answers.iter().map(row).collect(),
        }
    }

    #[test]
    fn only_images_of_both_with_one_truth_count() {
        let first = predictions(&[("1", 0, 0), ("2", 0, 1), ("3", 1, 1), ("4", 1, 1), ("5", 0, 0)]);
        let second = predictions(&[("4", 1, 0), ("1", 0, 0), ("2", 0, 0), ("3", 0, 0), ("6", 0, 0)]);
        let test = PairedTest::new(&Answers::of(&first), &Answers::of(&second)).expect("common images");
        assert_eq!((test.images, test.only_first, test.only_second), (3, 1, 1));
        let other = predictions(&[("9", 0, 0)]);
        assert_eq!(PairedTest::new(&Answers::of(&first), &Answers::of(&other)), None);
    }

    /// Against `statsmodels.stats.multitest.multipletests(p, method="holm")`.
    #[test]
    fn corrected_p_values_are_holm_s() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{corrected:?}");
        }
        assert!(holm(&[]).is_empty());
        assert!(holm(&[0.6, 0.9]).iter().all(|p| (p - 1.0).abs() < 1e-12));
    }

    #[test]
    fn small_p_values_keep_their_size() {
        let texts = [0.5, 0.001, 0.000_62, 6.2e-11, 0.0].map(p_text);
        assert_eq!(texts, ["0.500", "0.001", "6.2e-4", "6.2e-11", "below 1e-307"]);
    }

    /// Against `scipy.stats.binomtest(k, n).pvalue`.
    #[test]
    fn p_values_are_those_of_the_exact_binomial_test() {
        for (a, b, expected) in [
            (0, 0, 1.0),
            (5, 5, 1.0),
            (0, 5, 0.0625),
            (1, 9, 0.021_484_375),
            (9, 1, 0.021_484_375),
            (3, 12, 0.035_156_25),
            (40, 60, 0.056_887_933_640_980_8),
            (900, 1100, 8.457_089_535_503_81e-6),
        ] {
            let found = two_sided_sign_test(a, b);
            assert!(
                (found - expected).abs() <= 1e-9 * expected.max(1e-3),
                "{a} {b}: {found}"
            );
        }
    }
}
