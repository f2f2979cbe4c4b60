//! The linear support vector machine: chooses C, fits, calibrates.
//!
//! [`train`] takes L2-normalized features of the training images and hands back everything that the
//! bundle's classifier needs. Test images never come here. [`LinearSvm`] is the same solver as a
//! citizen of linfa.

mod calibration;
mod cross_validation;
mod dual_coordinate_descent;
mod estimator;
mod folds;
mod one_vs_rest;
mod parameters;
mod problem;
mod smo;
#[cfg(test)]
mod tests;

use ndarray::ArrayView2;
use shared::classifier::{Calibration, LinearClassifier, Thresholds};

pub use calibration::ACCEPT_ALL;
pub(crate) use calibration::{Calibrated, calibrate, calibrated_log_loss};
pub(crate) use cross_validation::first_best;
pub use cross_validation::{CSweep, SweepEntry};
pub use estimator::{LinearSvm, LinearSvmParams, LinearSvmValidParams};
pub use folds::{Fold, Folds, stratified_grouped};
pub use parameters::{ClassWeights, Parameters, Solver, SvmError};

use crate::counted::counted;
use crate::progress::{Progress, stage};
use problem::{Examples, squared_lengths};

/// What a classifier is trained on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// `n x d`, rows of length 1.
    pub features: ArrayView2<'a, f32>,
    /// The class of each row, below `classes`.
    pub labels: &'a [usize],
    /// The group of each row: rows of one, e.g. near-duplicates, are never on both sides of a fold that is drawn.
    pub groups: &'a [usize],
    /// Number of classes.
    pub classes: usize,
}

/// A trained classifier with all that was learned on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The planes, fitted to all rows at the chosen C.
    pub classifier: LinearClassifier,
    /// How C was chosen.
    pub sweep: CSweep,
    /// Margins to probabilities, fitted out of fold.
    pub calibration: Calibration,
    /// When to answer `unknown`, fitted out of fold.
    pub thresholds: Thresholds,
    /// Classes that count in the choice of C by their training images where others are held out, since all of their
    /// images are in one group.
    pub never_held_out: Vec<usize>,
    /// What the user should know besides, one line each.
    pub notes: Vec<String>,
}

/// Trains on `input`, C being chosen on folds of it. Uses all threads of rayon's current pool; the result does not
/// depend on their number.
///
/// Memory beside the features: `4 x d x classes x folds x values of C` bytes of planes (those of one fold twice),
/// `4 x n x classes` of margins, and a few numbers per row and thread.
pub fn train(input: &Input, parameters: &Parameters, progress: &dyn Progress) -> Result<Trained, SvmError> {
    let Input {
        features,
        labels,
        groups,
        classes,
    } = *input;
    parameters.check()?;
    check_input(&features, labels, classes, parameters)?;
    if groups.len() != labels.len() {
        return Err(SvmError::InvalidInput(format!(
            "{} groups for {} images",
            groups.len(),
            labels.len()
        )));
    }
    let folds = stratified_grouped(labels, groups, classes, parameters.folds, parameters.seed);
    let mut trained = train_on_folds(input, &folds, parameters, progress)?;
    if (1..parameters.folds).contains(&trained.sweep.folds) {
        let note = format!(
            "Cross-validation with {} instead of {}: no class has images in more groups.",
            counted(trained.sweep.folds, "fold", "folds"),
            parameters.folds
        );
        trained.notes.insert(0, note);
    }
    Ok(trained)
}

/// As [`train`], with folds that are given, however many.
pub fn train_on_folds(
    input: &Input,
    folds: &Folds,
    parameters: &Parameters,
    progress: &dyn Progress,
) -> Result<Trained, SvmError> {
    let Input {
        features,
        labels,
        classes,
        ..
    } = *input;
    parameters.check()?;
    check_input(&features, labels, classes, parameters)?;
    let standard = features.as_standard_layout();
    let view = standard.view();
    let lengths = squared_lengths(&view);
    let examples = Examples::new(&view, labels, classes, &lengths)?;

    let mut notes = Vec::new();
    let mut sweep = if folds.folds.is_empty() {
        let c = nearest_to_1(&parameters.c_grid);
        notes.push(format!(
            "Nothing could be held out, so C is {c} and the probabilities are not calibrated."
        ));
        CSweep {
            folds: 0,
            entries: Vec::new(),
            chosen_c: c,
            out_of_fold_rows: Vec::new(),
            out_of_fold_margins: ndarray::Array2::zeros((0, classes)),
            out_of_fold_lengths: Vec::new(),
        }
    } else {
        let problems = folds.folds.len() * one_vs_rest::problem_count(classes) * parameters.c_grid.len();
        let _stage = stage(progress, "Choosing C", Some(problems as u64));
        cross_validation::sweep(&examples, folds, parameters, |solved| progress.advance(solved as u64))?
    };

    let rows: Vec<usize> = (0..labels.len()).collect();
    let problems = one_vs_rest::problem_count(classes);
    let _stage = stage(progress, "Training the SVM", Some(problems as u64));
    let fitted = one_vs_rest::fit(&examples, &rows, sweep.chosen_c, parameters, |solved| {
        progress.advance(solved as u64);
    })?;
    if !fitted.not_converged.is_empty() {
        notes.push(format!(
            "The solver stopped after {} before it reached its tolerance on {} of {classes} classes; raise --max-passes, or \
             --tolerance.",
            counted(parameters.max_passes, "pass", "passes"),
            fitted.not_converged.len()
        ));
    }

    let planes = fitted
        .classifier
        .weights
        .iter()
        .take(one_vs_rest::problem_count(classes));
    sweep.scale_to(one_vs_rest::length(planes));
    let truths: Vec<usize> = sweep.out_of_fold_rows.iter().map(|row| labels[*row]).collect();
    let Calibrated {
        calibration,
        thresholds,
        note,
    } = calibrate(sweep.out_of_fold_margins.view(), &truths, parameters.accept_quantile);
    notes.extend(note);
    Ok(Trained {
        classifier: fitted.classifier,
        sweep,
        calibration,
        thresholds,
        never_held_out: if folds.folds.is_empty() {
            Vec::new()
        } else {
            folds.never_held_out.clone()
        },
        notes,
    })
}

/// The value of C where there is nothing to choose it by.
fn nearest_to_1(grid: &[f64]) -> f64 {
    let distance = |c: &f64| c.ln().abs();
    let nearest = |a: &f64, b: &f64| distance(a).total_cmp(&distance(b)).then(a.total_cmp(b));
    grid.iter().copied().min_by(nearest).unwrap_or(1.0)
}

/// Checks what a solver relies on.
fn check_input(
    features: &ArrayView2<f32>,
    labels: &[usize],
    classes: usize,
    parameters: &Parameters,
) -> Result<(), SvmError> {
    if features.nrows() != labels.len() {
        return Err(SvmError::InvalidInput(format!(
            "{} rows of features for {} labels",
            features.nrows(),
            labels.len()
        )));
    }
    if classes < 2 {
        return Err(SvmError::TooFewClasses(classes));
    }
    if features.ncols() == 0 {
        return Err(SvmError::InvalidInput("the images have no features".to_owned()));
    }
    if classes > labels.len().max(2) {
        return Err(SvmError::InvalidInput(format!(
            "{classes} classes for {} images",
            labels.len()
        )));
    }
    let mut present = vec![false; classes];
    for label in labels {
        let Some(seen) = present.get_mut(*label) else {
            return Err(SvmError::InvalidInput(format!(
                "the label {label} is not below {classes}"
            )));
        };
        *seen = true;
    }
    if let Some(class) = present.iter().position(|seen| !seen) {
        return Err(SvmError::EmptyClass(class));
    }
    for (row, values) in features.rows().into_iter().enumerate() {
        if !values.iter().all(|value| value.is_finite()) {
            return Err(SvmError::InvalidInput(format!(
                "a feature of row {row} is not a finite number; clear the feature cache and run again"
            )));
        }
    }
    if parameters.solver == Solver::Smo {
        smo::check_size(labels.len())?;
    }
    Ok(())
}
