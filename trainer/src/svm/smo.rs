//! `linfa-svm`'s sequential minimal optimization as an alternative solver and an independent check.
//!
//! It minimizes the hinge loss (not squared) with a free intercept, over a dense `n x n` kernel that
//! it builds anew for every class. Of its options `shrinking` panics and the default tolerance does
//! not finish in single precision, so neither is used; its own Platt scaling is fitted on training
//! margins and is not used either.

use std::panic::{AssertUnwindSafe, catch_unwind};

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_svm::Svm;
use ndarray::{Array1, Array2};

use super::SvmError;
use super::problem::{BinaryProblem, Hyperplane};

/// Most rows: the kernel then takes 100 MB per class in work and a class about 20 CPU seconds; both
/// grow at least with the square of the number of rows.
pub(crate) const MAX_ROWS: usize = 5000;

/// Stopping tolerance that single precision can reach.
const TOLERANCE: f32 = 1e-3;

/// Solves `problem`; a panic inside the solver comes back as an error.
pub(crate) fn solve(problem: &BinaryProblem) -> Result<Hyperplane, SvmError> {
    check_size(problem.rows.len())?;
    let targets: Array1<bool> = problem.rows.iter().map(|row| problem.is_positive(*row)).collect();
    let positives = targets.iter().filter(|target| **target).count();
    if positives == 0 || positives == targets.len() {
        // Nothing to separate; the solver would not return.
        return Ok(Hyperplane {
            weights: vec![0.0; problem.features()],
            intercept: if positives == 0 { -1.0 } else { 1.0 },
            converged: true,
        });
    }
    let mut values = Vec::with_capacity(problem.rows.len() * problem.features());
    for row in problem.rows {
        values.extend_from_slice(problem.examples.row(*row));
    }
    let records =
        Array2::from_shape_vec((problem.rows.len(), problem.features()), values).map_err(linfa::Error::from)?;
    let dataset = DatasetBase::new(records, targets);
    let failed = |reason: String| SvmError::Smo {
        class: problem.class,
        reason,
    };
    let model = catch_unwind(AssertUnwindSafe(|| {
        Svm::<f32, bool>::params()
            .linear_kernel()
            .eps(TOLERANCE)
            .shrinking(false)
            .pos_neg_weights(problem.positive_cost as f32, problem.negative_cost as f32)
            .fit(&dataset)
    }))
    .map_err(|_| failed("it panicked".to_owned()))?
    .map_err(|error| failed(error.to_string()))?;

    // The weights are private; asking for the product with each unit vector gives them.
    let mut unit = Array1::<f32>::zeros(problem.features());
    let mut weights = Vec::with_capacity(problem.features());
    for feature in 0..problem.features() {
        unit[feature] = 1.0;
        weights.push(model.weighted_sum(&unit));
        unit[feature] = 0.0;
    }
    let plane = Hyperplane {
        weights,
        intercept: -model.rho,
        converged: true,
    };
    if plane
        .weights
        .iter()
        .chain([&plane.intercept])
        .any(|value| !value.is_finite())
    {
        return Err(failed("its solution is not finite".to_owned()));
    }
    Ok(plane)
}

/// Refuses what would take hours.
pub(crate) fn check_size(rows: usize) -> Result<(), SvmError> {
    if rows > MAX_ROWS {
        return Err(SvmError::TooLargeForSmo { rows, most: MAX_ROWS });
    }
    Ok(())
}
