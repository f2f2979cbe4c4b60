//! K binary problems, solved side by side, make one classifier of K classes.

use rayon::prelude::*;
use shared::classifier::LinearClassifier;

use super::dual_coordinate_descent::{self as dual, Settings, State};
use super::problem::{BinaryProblem, Examples, Hyperplane};
use super::{Parameters, Solver, SvmError, smo};

/// A fitted classifier and the classes on which the solver stopped early.
#[derive(Debug)]
pub(crate) struct Fitted {
    pub(crate) classifier: LinearClassifier,
    pub(crate) not_converged: Vec<usize>,
}

/// Fits every class against the rest on `rows` at one C; `on_class` is called as each is done.
pub(crate) fn fit(
    examples: &Examples,
    rows: &[usize],
    c: f64,
    parameters: &Parameters,
    on_class: impl Fn() + Sync,
) -> Result<Fitted, SvmError> {
    let weights = examples.class_weights(rows, parameters.class_weights);
    let mut planes: Vec<Hyperplane> = (0..problems(examples.classes))
        .into_par_iter()
        .map(|class| {
            let mut plane = None;
            along_c(examples, rows, class, &weights, &[c], parameters, 0, |_, found| {
                plane = Some(found);
            })?;
            on_class();
            plane.ok_or_else(|| SvmError::InvalidInput("there is no C".to_owned()))
        })
        .collect::<Result<_, SvmError>>()?;
    if examples.classes == 2 {
        planes.push(planes[0].negated());
    }
    Ok(Fitted {
        not_converged: (0..planes.len()).filter(|class| !planes[*class].converged).collect(),
        classifier: LinearClassifier {
            intercepts: planes.iter().map(|plane| plane.intercept).collect(),
            weights: planes.into_iter().map(|plane| plane.weights).collect(),
            c,
            solver: parameters.solver.name().to_owned(),
        },
    })
}

/// Binary problems to solve for `classes` classes: with two, the second plane is the first one turned
/// round.
pub(crate) fn problems(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

/// Solves one class's problem for each of `values`, each solution being the start of the next where
/// the solver allows, and hands over the index of C and the plane. `fold` tells the folds' random
/// orders apart.
#[expect(clippy::too_many_arguments, reason = "one call names the whole problem")]
pub(crate) fn along_c(
    examples: &Examples,
    rows: &[usize],
    class: usize,
    weights: &[f64],
    values: &[f64],
    parameters: &Parameters,
    fold: usize,
    mut on_plane: impl FnMut(usize, Hyperplane),
) -> Result<(), SvmError> {
    let mut state: Option<State> = None;
    for (index, c) in values.iter().enumerate() {
        let problem = BinaryProblem::new(examples, rows, class, weights, *c);
        let plane = match parameters.solver {
            Solver::DualCoordinateDescent => {
                let settings = Settings {
                    tolerance: parameters.tolerance,
                    max_passes: parameters.max_passes,
                    seed: parameters.seed,
                    stream: ((fold as u64) << 32) | class as u64,
                };
                dual::solve(&problem, &settings, state.get_or_insert_with(|| State::new(&problem)))
            }
            Solver::Smo => smo::solve(&problem)?,
        };
        on_plane(index, plane);
    }
    Ok(())
}
