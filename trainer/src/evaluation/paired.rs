//! Whether two classifiers differ, told from the images that only one of them got right.

use std::collections::HashMap;

use serde::Serialize;

use super::Predictions;

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

/// A difference below this p value is taken to mean something.
pub const SIGNIFICANCE: f64 = 0.05;

impl PairedTest {
    /// Compares the answers for the images that both have, by path and true class. Absent where there is none.
    pub fn new(first: &Predictions, second: &Predictions) -> Option<Self> {
        let answers: HashMap<_, _> = first
            .rows
            .iter()
            .map(|row| ((&row.path, &first.classes[row.truth]), row.is_right()))
            .collect();
        let (mut images, mut only_first, mut only_second) = (0, 0, 0);
        for row in &second.rows {
            if let Some(right) = answers.get(&(&row.path, &second.classes[row.truth])) {
                images += 1;
                only_first += usize::from(*right && !row.is_right());
                only_second += usize::from(!right && row.is_right());
            }
        }
        (images > 0).then(|| Self {
            images,
            only_first,
            only_second,
            p_value: two_sided_sign_test(only_first, only_second),
        })
    }

    /// Whether the difference is more than chance.
    pub fn is_significant(&self) -> bool {
        self.p_value < SIGNIFICANCE
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
    use crate::evaluation::Predicted;

    fn predictions(answers: &[(&str, usize, usize)]) -> Predictions {
        let row = |(path, truth, best): &(&str, usize, usize)| Predicted {
            path: path.into(),
            truth: *truth,
            best: *best,
            probabilities: vec![0.5, 0.5],
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
        let test = PairedTest::new(&first, &second).expect("common images");
        assert_eq!((test.images, test.only_first, test.only_second), (3, 1, 1));
        assert_eq!(PairedTest::new(&first, &predictions(&[("9", 0, 0)])), None);
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
