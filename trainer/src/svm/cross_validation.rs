//! The choice of C by stratified, grouped cross-validation, never on test images.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use shared::classifier::first_largest;

use super::folds::{Fold, Folds};
use super::one_vs_rest::{self, problem_count};
use super::problem::{BinaryProblem, Examples, Hyperplane};
use super::{ClassWeights, Parameters, SvmError};

/// How well one C did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SweepEntry {
    /// The regularization parameter.
    pub c: f64,
    /// Share of held-out images classified rightly.
    pub cv_accuracy: f64,
    /// Share of training images classified rightly, over all folds.
    pub train_accuracy: f64,
    /// Share of held-out images classified rightly, each class counting the same; given where C is chosen by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cv_class_averaged_accuracy: Option<f64>,
}

impl SweepEntry {
    /// The share of held-out images that C is chosen by.
    pub fn score(&self) -> f64 {
        self.cv_class_averaged_accuracy.unwrap_or(self.cv_accuracy)
    }
}

/// The outcome of the cross-validation.
#[derive(Debug, Clone, PartialEq)]
pub struct CSweep {
    /// Number of folds; 0 where there was nothing to hold out.
    pub folds: usize,
    /// One per C, ascending; empty where there was nothing to hold out.
    pub entries: Vec<SweepEntry>,
    /// The C with the best held-out accuracy; where class weights are balanced, each class counts the same in it.
    /// Classes that are never held out count in the choice by their training images.
    pub chosen_c: f64,
    /// Rows of the training features that were held out once, ascending.
    pub out_of_fold_rows: Vec<usize>,
    /// Margins of these rows at the chosen C by the classifier that did not see them, brought to the length of the
    /// final classifier's weights, `out_of_fold_rows x classes`.
    pub out_of_fold_margins: Array2<f32>,
    /// Length of the weights, over all classes, that gave each row of margins.
    pub(super) out_of_fold_lengths: Vec<f32>,
}

impl CSweep {
    /// Brings the margins to those of a classifier whose weights have this length, so that one at the same distance
    /// from its planes has the same margin.
    pub(super) fn scale_to(&mut self, length: f32) {
        for (mut margins, own) in self
            .out_of_fold_margins
            .rows_mut()
            .into_iter()
            .zip(&self.out_of_fold_lengths)
        {
            if *own > 0.0 && length > 0.0 {
                margins *= length / own;
            }
        }
    }
}

/// Rightly classified rows at one C.
#[derive(Debug, Clone)]
struct Correct {
    /// Over all folds, of the rows that trained, by class.
    train: Vec<usize>,
    /// Of the rows that were held out, by class.
    held_out: Vec<usize>,
}

impl Correct {
    fn none(classes: usize) -> Self {
        Self {
            train: vec![0; classes],
            held_out: vec![0; classes],
        }
    }

    fn add(&mut self, more: &Self) {
        for (sums, more) in [(&mut self.train, &more.train), (&mut self.held_out, &more.held_out)] {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += more;
            }
        }
    }
}

/// Rows classified at once: enough for a matrix product to run at full speed, few enough to stay in a
/// core's cache.
const BLOCK: usize = 256;

/// Factor on the tolerance while C is chosen: the order of the values of C, and the margins that
/// probabilities are fitted to, need fewer digits than the classifier that is kept, and the last digits
/// are half of the time.
const LOOSER: f64 = 10.0;

/// Tries every C of the grid on every fold; `on_solved` is called with the number of problems just
/// solved, [`problem_count`] for each fold and C in all. `folds` must not be empty.
pub(crate) fn sweep(
    examples: &Examples,
    folds: &Folds,
    parameters: &Parameters,
    on_solved: impl Fn(usize) + Sync,
) -> Result<CSweep, SvmError> {
    let mut grid = parameters.c_grid.clone();
    grid.sort_by(f64::total_cmp);
    grid.dedup();
    let problems: Vec<BinaryProblem> = folds
        .folds
        .iter()
        .flat_map(|fold| one_vs_rest::problems(examples, &fold.train, parameters))
        .collect();
    let looser = Parameters {
        tolerance: parameters.tolerance * LOOSER,
        ..parameters.clone()
    };
    let planes = one_vs_rest::along_c(&problems, &grid, &looser, on_solved)?;
    let of_fold: Vec<&[Vec<Hyperplane>]> = planes.chunks(problem_count(examples.classes)).collect();

    let correct = count_correct(examples, folds, &of_fold, grid.len());
    let trained: usize = folds.folds.iter().map(|fold| fold.train.len()).sum();
    let mut held_out = vec![0; examples.classes];
    for row in folds.folds.iter().flat_map(|fold| &fold.held_out) {
        held_out[examples.labels[*row]] += 1;
    }
    let balanced = parameters.class_weights == ClassWeights::Balanced;
    let entries: Vec<SweepEntry> = grid
        .iter()
        .zip(&correct)
        .map(|(c, correct)| SweepEntry {
            c: *c,
            cv_accuracy: ClassWeights::None.accuracy(&correct.held_out, &held_out),
            train_accuracy: correct.train.iter().sum::<usize>() as f64 / trained as f64,
            cv_class_averaged_accuracy: balanced.then(|| ClassWeights::Balanced.accuracy(&correct.held_out, &held_out)),
        })
        .collect();
    // The images of a class that is never held out train in every fold. At a C at which not even these are recognized
    // the class would never be answered, whatever is measured of the others.
    let images: Vec<usize> = (0..examples.classes)
        .map(|class| match held_out[class] {
            0 => examples.labels.iter().filter(|label| **label == class).count(),
            images => images,
        })
        .collect();
    let score = |correct: &Correct| {
        let right: Vec<usize> = (0..examples.classes)
            .map(|class| match held_out[class] {
                0 => correct.train[class] / folds.folds.len(),
                _ => correct.held_out[class],
            })
            .collect();
        parameters.class_weights.accuracy(&right, &images)
    };
    // On a tie the smallest C, as good on the evidence and with the wider margin. The one-standard-error rule would go
    // further down and give accuracy away: with 300 held-out images the standard error is one to two percent, more than
    // the steps around the best C.
    let best = first_best(correct.iter().map(score));

    let mut rows: Vec<(usize, usize)> = Vec::new();
    for (index, fold) in folds.folds.iter().enumerate() {
        rows.extend(fold.held_out.iter().map(|row| (*row, index)));
    }
    rows.sort_unstable();
    let mut margins = Array2::<f32>::zeros((rows.len(), examples.classes));
    for ((row, fold), mut target) in rows.iter().zip(margins.rows_mut()) {
        let features = examples.row(*row);
        for class in 0..examples.classes {
            target[class] = match of_fold[*fold].get(class) {
                Some(planes) => planes[best].margin(features),
                None => -target[0],
            };
        }
    }
    let lengths: Vec<f32> = of_fold
        .iter()
        .map(|planes| one_vs_rest::length(planes.iter().map(|of_problem| &of_problem[best].weights)))
        .collect();
    Ok(CSweep {
        folds: folds.folds.len(),
        chosen_c: grid[best],
        entries,
        out_of_fold_lengths: rows.iter().map(|(_, fold)| lengths[*fold]).collect(),
        out_of_fold_rows: rows.into_iter().map(|(row, _)| row).collect(),
        out_of_fold_margins: margins,
    })
}

/// Classifies every row with every fold's planes and counts per C. `planes` are `folds x problems x
/// values of C`.
fn count_correct(examples: &Examples, folds: &Folds, planes: &[&[Vec<Hyperplane>]], values: usize) -> Vec<Correct> {
    let mut sums = vec![Correct::none(examples.classes); values];
    for (fold, planes) in folds.folds.iter().zip(planes) {
        for (sum, more) in sums.iter_mut().zip(count_in_fold(examples, fold, planes, values)) {
            sum.add(&more);
        }
    }
    sums
}

/// The same for one fold, so that only its planes are in memory twice.
fn count_in_fold(examples: &Examples, fold: &Fold, planes: &[Vec<Hyperplane>], values: usize) -> Vec<Correct> {
    // One column per C and problem, so that one matrix product scores a block of rows.
    let columns: Vec<&Hyperplane> = (0..values)
        .flat_map(|c| planes.iter().map(move |of_problem| &of_problem[c]))
        .collect();
    let weights = Array2::from_shape_fn((columns[0].weights.len(), columns.len()), |(feature, column)| {
        columns[column].weights[feature]
    });
    let intercepts: Array1<f32> = columns.iter().map(|plane| plane.intercept).collect();
    let problems = planes.len();
    let mut held_out = vec![false; examples.labels.len()];
    for row in &fold.held_out {
        held_out[*row] = true;
    }
    let blocks: Vec<usize> = (0..examples.labels.len()).step_by(BLOCK).collect();
    blocks
        .into_par_iter()
        .map(|first| {
            let end = (first + BLOCK).min(examples.labels.len());
            let margins = examples.block(first..end).dot(&weights) + &intercepts;
            let mut correct = vec![Correct::none(examples.classes); values];
            for (row, margins) in (first..end).zip(margins.rows()) {
                let class = examples.labels[row];
                for (c, correct) in correct.iter_mut().enumerate() {
                    let of_c = margins.slice_axis(Axis(0), (c * problems..(c + 1) * problems).into());
                    let right = usize::from(predicted(of_c) == class);
                    if held_out[row] {
                        correct.held_out[class] += right;
                    } else {
                        correct.train[class] += right;
                    }
                }
            }
            correct
        })
        .reduce(
            || vec![Correct::none(examples.classes); values],
            |mut sums, more| {
                for (sum, more) in sums.iter_mut().zip(&more) {
                    sum.add(more);
                }
                sums
            },
        )
}

/// The class of the largest margin, the first on a tie; one margin stands for two classes.
fn predicted(margins: ArrayView1<f32>) -> usize {
    if margins.len() == 1 {
        return usize::from(margins[0] < 0.0);
    }
    first_largest(margins)
}

/// Index of the best share, on a tie the first.
pub(crate) fn first_best(scores: impl Iterator<Item = f64>) -> usize {
    // Shares that differ in their rounding alone are a tie.
    const ROUNDING: f64 = 1e-12;
    let mut best = (0, f64::NEG_INFINITY);
    for (index, score) in scores.enumerate() {
        if score > best.1 + ROUNDING {
            best = (index, score);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_keep_rare_classes_in_the_choice_of_c() {
        // Eighty images of one class and ten of another, by C.
        let right: [[usize; 2]; 5] = [[80, 0], [72, 7], [70, 9], [71, 9], [71, 9]];
        let best = |weights: ClassWeights| first_best(right.iter().map(|right| weights.accuracy(right, &[80, 10])));
        assert_eq!(best(ClassWeights::Balanced), 3);
        assert_eq!(best(ClassWeights::None), 0);
    }
}
