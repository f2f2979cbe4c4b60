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

/// Fits every class against the rest on `rows` at one C; `on_class` is called with the number of classes
/// just done.
pub(crate) fn fit(
    examples: &Examples,
    rows: &[usize],
    c: f64,
    parameters: &Parameters,
    on_class: impl Fn(usize) + Sync,
) -> Result<Fitted, SvmError> {
    let problems = problems(examples, rows, parameters);
    let mut planes: Vec<Hyperplane> = along_c(&problems, &[c], parameters, on_class)?
        .into_iter()
        .flatten()
        .collect();
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

/// The problems to solve for `examples.classes` classes: with two, the second plane is the first one
/// turned round.
pub(crate) fn problems<'a>(
    examples: &'a Examples<'a>,
    rows: &'a [usize],
    parameters: &Parameters,
) -> Vec<BinaryProblem<'a>> {
    let weights = examples.class_weights(rows, parameters.class_weights);
    (0..problem_count(examples.classes))
        .map(|class| BinaryProblem::new(examples, rows, class, &weights))
        .collect()
}

/// Length of the weights of all problems taken together as one vector.
pub(crate) fn length<'a>(of_problems: impl Iterator<Item = &'a Vec<f32>>) -> f32 {
    let squares: f64 = of_problems.flatten().map(|weight| f64::from(*weight).powi(2)).sum();
    squares.sqrt() as f32
}

/// Number of binary problems that make one classifier.
pub(crate) fn problem_count(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

/// Solves each problem for each of `values`, each solution being the start of the next where the solver
/// allows: `problems x values` planes. `on_solved` is called with the number of planes just found.
pub(crate) fn along_c(
    problems: &[BinaryProblem],
    values: &[f64],
    parameters: &Parameters,
    on_solved: impl Fn(usize) + Sync,
) -> Result<Vec<Vec<Hyperplane>>, SvmError> {
    // As wide as the solver likes, but no thread without a panel.
    let threads = rayon::current_num_threads();
    let panels = threads * problems.len().div_ceil(threads * dual::MOST_PROBLEMS);
    let solved: Vec<Vec<Vec<Hyperplane>>> = problems
        .par_chunks(problems.len().div_ceil(panels.max(1)).max(1))
        .map(|panel| panel_along_c(panel, values, parameters, &on_solved))
        .collect::<Result<_, _>>()?;
    Ok(solved.into_iter().flatten().collect())
}

fn panel_along_c(
    panel: &[BinaryProblem],
    values: &[f64],
    parameters: &Parameters,
    on_solved: impl Fn(usize),
) -> Result<Vec<Vec<Hyperplane>>, SvmError> {
    let settings = Settings {
        tolerance: parameters.tolerance,
        max_passes: parameters.max_passes,
        seed: parameters.seed,
    };
    let mut state: Option<State> = None;
    let mut planes = vec![Vec::with_capacity(values.len()); panel.len()];
    for c in values {
        let at_c: Vec<BinaryProblem> = panel.iter().map(|problem| problem.at(*c)).collect();
        let found = match parameters.solver {
            Solver::DualCoordinateDescent => {
                dual::solve(&at_c, &settings, state.get_or_insert_with(|| State::new(&at_c)))
            }
            Solver::Smo => at_c.iter().map(smo::solve).collect::<Result<_, _>>()?,
        };
        for (planes, plane) in planes.iter_mut().zip(found) {
            planes.push(plane);
        }
        on_solved(panel.len());
    }
    Ok(planes)
}
