//! The choice of C by stratified, grouped cross-validation, never on test images.

use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::folds::{Fold, Folds};
use super::one_vs_rest::{along_c, problems};
use super::problem::Examples;
use super::{Parameters, SvmError};

/// How well one C did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SweepEntry {
    /// The regularization parameter.
    pub c: f64,
    /// Share of held-out images classified rightly.
    pub cv_accuracy: f64,
    /// Share of training images classified rightly, over all folds.
    pub train_accuracy: f64,
}

/// The outcome of the cross-validation.
#[derive(Debug, Clone, PartialEq)]
pub struct CSweep {
    /// One per C, ascending; empty where there was nothing to hold out.
    pub entries: Vec<SweepEntry>,
    /// The C with the best held-out accuracy.
    pub chosen_c: f64,
    /// Rows of the training features that were held out once, ascending.
    pub out_of_fold_rows: Vec<usize>,
    /// Margins of these rows at the chosen C by the classifier that did not see them,
    /// `out_of_fold_rows x classes`.
    pub out_of_fold_margins: Array2<f32>,
}

/// What one fold found.
struct FoldResult {
    /// Rightly classified training rows, per C.
    train_correct: Vec<usize>,
    /// Rightly classified held-out rows, per C.
    held_out_correct: Vec<usize>,
    /// Margins of the held-out rows, per C, `held_out x classes`.
    margins: Vec<Array2<f32>>,
}

/// Tries every C of the grid on every fold; `on_problem` is called as each class of each fold is done.
/// `folds` must not be empty.
pub(crate) fn sweep(
    examples: &Examples,
    folds: &Folds,
    parameters: &Parameters,
    on_problem: impl Fn() + Sync,
) -> Result<CSweep, SvmError> {
    let mut grid = parameters.c_grid.clone();
    grid.sort_by(f64::total_cmp);
    grid.dedup();
    let results: Vec<FoldResult> = folds
        .folds
        .par_iter()
        .enumerate()
        .map(|(index, fold)| validate(examples, fold, index, &grid, parameters, &on_problem))
        .collect::<Result<_, _>>()?;

    let trained: usize = folds.folds.iter().map(|fold| fold.train.len()).sum();
    let held_out: usize = folds.folds.iter().map(|fold| fold.held_out.len()).sum();
    let total = |correct: fn(&FoldResult) -> &Vec<usize>, index: usize| -> usize {
        results.iter().map(|result| correct(result)[index]).sum()
    };
    let entries: Vec<SweepEntry> = grid
        .iter()
        .enumerate()
        .map(|(index, c)| SweepEntry {
            c: *c,
            cv_accuracy: total(|result| &result.held_out_correct, index) as f64 / held_out as f64,
            train_accuracy: total(|result| &result.train_correct, index) as f64 / trained as f64,
        })
        .collect();
    let best = first_best(&entries);

    let mut rows: Vec<(usize, usize, usize)> = Vec::with_capacity(held_out);
    for (fold_index, fold) in folds.folds.iter().enumerate() {
        rows.extend(
            fold.held_out
                .iter()
                .enumerate()
                .map(|(position, row)| (*row, fold_index, position)),
        );
    }
    rows.sort_unstable();
    let mut margins = Array2::zeros((rows.len(), examples.classes));
    for (target, (_, fold, position)) in rows.iter().enumerate() {
        margins
            .row_mut(target)
            .assign(&results[*fold].margins[best].row(*position));
    }
    Ok(CSweep {
        chosen_c: grid[best],
        entries,
        out_of_fold_rows: rows.into_iter().map(|(row, _, _)| row).collect(),
        out_of_fold_margins: margins,
    })
}

/// Index of the best held-out accuracy; on a tie the smallest C, as good on the evidence and with the
/// wider margin. The one-standard-error rule would go further down and give accuracy away: with 300
/// held-out images the standard error is one to two percent, more than the steps around the best C.
fn first_best(entries: &[SweepEntry]) -> usize {
    let mut best = 0;
    for (index, entry) in entries.iter().enumerate() {
        if entry.cv_accuracy > entries[best].cv_accuracy {
            best = index;
        }
    }
    best
}

/// Trains along the grid without the fold's held-out rows and classifies all rows.
fn validate(
    examples: &Examples,
    fold: &Fold,
    index: usize,
    grid: &[f64],
    parameters: &Parameters,
    on_problem: &(impl Fn() + Sync),
) -> Result<FoldResult, SvmError> {
    let weights = examples.class_weights(&fold.train, parameters.class_weights);
    // Per class, per C, margins of the training rows and then of the held-out rows.
    let margins: Vec<Vec<Vec<f32>>> = (0..problems(examples.classes))
        .into_par_iter()
        .map(|class| {
            let mut of_class = Vec::with_capacity(grid.len());
            along_c(
                examples,
                &fold.train,
                class,
                &weights,
                grid,
                parameters,
                index + 1,
                |_, plane| {
                    let rows = fold.train.iter().chain(&fold.held_out);
                    of_class.push(rows.map(|row| plane.margin(examples.row(*row))).collect());
                },
            )?;
            on_problem();
            Ok(of_class)
        })
        .collect::<Result<_, SvmError>>()?;
    let margin = |class: usize, c: usize, position: usize| match margins.get(class) {
        Some(of_class) => of_class[c][position],
        None => -margins[0][c][position],
    };
    let predicted = |c: usize, position: usize| {
        (1..examples.classes).fold(0, |best, class| {
            if margin(class, c, position) > margin(best, c, position) {
                class
            } else {
                best
            }
        })
    };
    let correct = |c: usize, rows: &[usize], first: usize| {
        rows.iter()
            .enumerate()
            .filter(|(position, row)| predicted(c, first + position) == examples.labels[**row])
            .count()
    };
    let trained = fold.train.len();
    Ok(FoldResult {
        train_correct: (0..grid.len()).map(|c| correct(c, &fold.train, 0)).collect(),
        held_out_correct: (0..grid.len()).map(|c| correct(c, &fold.held_out, trained)).collect(),
        margins: (0..grid.len())
            .map(|c| {
                Array2::from_shape_fn((fold.held_out.len(), examples.classes), |(position, class)| {
                    margin(class, c, trained + position)
                })
            })
            .collect(),
    })
}
