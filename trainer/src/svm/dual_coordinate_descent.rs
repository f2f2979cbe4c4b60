//! Our linear SVM solver: dual coordinate descent for the L2-regularized, L2-loss (squared hinge)
//! support vector classifier.
//!
//! Hsieh, Chang, Lin, Keerthi, Sundararajan: "A Dual Coordinate Descent Method for Large-scale Linear
//! SVM", ICML 2008; the same problem as LIBLINEAR's solver type 1 and scikit-learn's
//! `LinearSVC(dual=True)`, so the solutions can be compared number by number. In the primal it is
//! `min ½‖(w, b)‖² + Σ cᵢ max(0, 1 - yᵢ(w·xᵢ + b))²`, the intercept being the weight of a constant
//! feature 1.
//!
//! One pass costs one dot product and at most one addition per row, rows of no interest are set aside
//! ("shrinking"), and nothing but a few numbers per row is kept beside the features, which every class
//! and every fold share.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::problem::{BinaryProblem, Hyperplane};

/// A projected gradient below this is a coordinate at its optimum.
const NEGLIGIBLE_GRADIENT: f64 = 1e-12;

/// When to stop, and the order of the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Largest spread of the projected gradient at the solution, in units of the margin.
    pub(crate) tolerance: f64,
    /// Most passes over the rows.
    pub(crate) max_passes: usize,
    /// Seed of the order in which rows are visited.
    pub(crate) seed: u64,
    /// Tells problems solved with one seed apart, so that each has its own order whatever thread
    /// solves it.
    pub(crate) stream: u64,
}

/// The dual variables and the weights that follow from them; what a warm start continues from.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// One per row of the problem, at least 0.
    alpha: Vec<f64>,
    /// `Σ αᵢ yᵢ xᵢ`.
    weights: Vec<f64>,
    /// `Σ αᵢ yᵢ`.
    bias: f64,
}

impl State {
    /// Where a cold start begins: all zero.
    pub(crate) fn new(problem: &BinaryProblem) -> Self {
        Self {
            alpha: vec![0.0; problem.len()],
            weights: vec![0.0; problem.features()],
            bias: 0.0,
        }
    }

    /// Moves to the best point on the ray through the present dual variables. The dual objective
    /// `½‖Σ αᵢyᵢxᵢ‖² + ¼ Σ αᵢ²/cᵢ - Σ αᵢ` is a parabola along it. After C has grown this is what makes
    /// the previous solution a good start: at small C the dual variables grow in proportion to C, at
    /// large C hardly at all.
    fn rescale(&mut self, problem: &BinaryProblem) {
        let linear: f64 = self.alpha.iter().sum();
        let mut quadratic = self.bias.powi(2) + self.weights.iter().map(|w| w * w).sum::<f64>();
        for (position, alpha) in self.alpha.iter().enumerate() {
            quadratic += alpha * alpha * problem.diagonal(position);
        }
        if linear > 0.0 && quadratic > 0.0 {
            let factor = linear / quadratic;
            self.bias *= factor;
            for value in self.weights.iter_mut().chain(&mut self.alpha) {
                *value *= factor;
            }
        }
    }
}

/// Solves `problem` from `state`, which then holds the solution.
pub(crate) fn solve(problem: &BinaryProblem, settings: &Settings, state: &mut State) -> Hyperplane {
    state.rescale(problem);
    let mut generator = ChaCha8Rng::seed_from_u64(settings.seed);
    generator.set_stream(settings.stream);

    let mut order: Vec<usize> = (0..problem.len()).collect();
    let mut active = order.len();
    // Bounds of the last pass beyond which a variable at zero is set aside.
    let mut shrink_above = f64::INFINITY;
    let mut converged = false;
    let mut passes = 0;
    while passes < settings.max_passes {
        passes += 1;
        order[..active].shuffle(&mut generator);
        let mut largest = f64::NEG_INFINITY;
        let mut smallest = f64::INFINITY;
        let mut place = 0;
        while place < active {
            let position = order[place];
            let row = problem.row(position);
            let sign = problem.sign(position);
            let alpha = state.alpha[position];
            let diagonal = problem.diagonal(position);
            let gradient = sign * (dot(&state.weights, row) + state.bias) - 1.0 + alpha * diagonal;
            let projected = if alpha > 0.0 {
                gradient
            } else if gradient > shrink_above {
                active -= 1;
                order.swap(place, active);
                continue;
            } else {
                gradient.min(0.0)
            };
            largest = largest.max(projected);
            smallest = smallest.min(projected);
            if projected.abs() > NEGLIGIBLE_GRADIENT {
                let curvature = problem.squared_length(position) + diagonal;
                let moved = (alpha - gradient / curvature).max(0.0);
                state.alpha[position] = moved;
                let step = (moved - alpha) * sign;
                add_scaled(&mut state.weights, step, row);
                state.bias += step;
            }
            place += 1;
        }
        if largest - smallest <= settings.tolerance {
            if active == order.len() {
                converged = true;
                break;
            }
            // The rows set aside must agree before the solution counts.
            active = order.len();
            shrink_above = f64::INFINITY;
        } else {
            shrink_above = if largest > 0.0 { largest } else { f64::INFINITY };
        }
    }
    Hyperplane {
        weights: state.weights.iter().map(|weight| *weight as f32).collect(),
        intercept: state.bias as f32,
        converged,
    }
}

/// Numbers handled side by side: two or more vector registers of every common processor.
const LANES: usize = 16;

/// `weights · row` in double precision. Independent sums let the compiler use vector instructions.
fn dot(weights: &[f64], row: &[f32]) -> f64 {
    let mut sums = [0.0_f64; LANES];
    let (weight_chunks, row_chunks) = (weights.chunks_exact(LANES), row.chunks_exact(LANES));
    let rest: f64 = weight_chunks
        .remainder()
        .iter()
        .zip(row_chunks.remainder())
        .map(|(w, x)| w * f64::from(*x))
        .sum();
    for (w, x) in weight_chunks.zip(row_chunks) {
        for lane in 0..LANES {
            sums[lane] += w[lane] * f64::from(x[lane]);
        }
    }
    rest + sums.iter().sum::<f64>()
}

/// `weights += step * row`.
fn add_scaled(weights: &mut [f64], step: f64, row: &[f32]) {
    for (weight, x) in weights.iter_mut().zip(row) {
        *weight += step * f64::from(*x);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClassWeights;
    use super::super::problem::{Examples, squared_lengths};
    use super::super::tests::{Sample, sample};
    use super::*;

    const STRICT: Settings = Settings {
        tolerance: 1e-9,
        max_passes: 100_000,
        seed: 3,
        stream: 0,
    };

    /// Hands each one-vs-rest problem of `data` to `check`.
    fn each_problem(data: &Sample, classes: usize, c: f64, check: impl Fn(&BinaryProblem)) {
        let view = data.features.view();
        let lengths = squared_lengths(&view);
        let examples = Examples::new(&view, &data.labels, classes, &lengths).expect("standard layout");
        let rows: Vec<usize> = (0..data.labels.len()).collect();
        let weights = examples.class_weights(&rows, ClassWeights::Balanced);
        for class in 0..classes {
            check(&BinaryProblem::new(&examples, &rows, class, &weights, c));
        }
    }

    fn slack(problem: &BinaryProblem, state: &State, position: usize) -> f64 {
        1.0 - problem.sign(position) * (dot(&state.weights, problem.row(position)) + state.bias)
    }

    /// Primal objective less dual objective, relative to the primal.
    fn relative_gap(problem: &BinaryProblem, state: &State) -> f64 {
        let half_square = 0.5 * (state.bias.powi(2) + state.weights.iter().map(|w| w * w).sum::<f64>());
        let (mut loss, mut dual) = (0.0, -half_square);
        for position in 0..problem.len() {
            let diagonal = problem.diagonal(position);
            loss += 0.5 / diagonal * slack(problem, state, position).max(0.0).powi(2);
            let alpha = state.alpha[position];
            dual += alpha - 0.5 * diagonal * alpha * alpha;
        }
        let primal = half_square + loss;
        (primal - dual) / primal
    }

    #[test]
    fn the_solution_is_the_optimum() {
        for (seed, c) in [(1, 1e-3), (2, 0.1), (3, 1.0), (4, 100.0)] {
            each_problem(&sample(120, 19, 4, seed), 4, c, |problem| {
                let mut state = State::new(problem);
                let plane = solve(problem, &STRICT, &mut state);
                assert!(plane.converged);
                assert!(
                    relative_gap(problem, &state).abs() < 1e-9,
                    "gap {}",
                    relative_gap(problem, &state)
                );
                for position in 0..problem.len() {
                    // Stationarity: the dual variable is twice cost times slack, or zero.
                    let wanted = slack(problem, &state, position).max(0.0) / problem.diagonal(position);
                    assert!((state.alpha[position] - wanted).abs() < 1e-6 * (1.0 + wanted));
                }
            });
        }
    }

    #[test]
    fn the_default_tolerance_is_close_to_the_optimum() {
        each_problem(&sample(200, 40, 3, 9), 3, 1.0, |problem| {
            let mut state = State::new(problem);
            let settings = Settings {
                tolerance: 1e-3,
                ..STRICT
            };
            assert!(solve(problem, &settings, &mut state).converged);
            assert!(relative_gap(problem, &state) < 1e-4);
        });
    }

    #[test]
    fn a_warm_start_ends_at_the_solution_of_a_cold_one() {
        each_problem(&sample(90, 10, 2, 5), 2, 0.01, |first| {
            let mut warm = State::new(first);
            solve(first, &STRICT, &mut warm);
            let second = BinaryProblem {
                positive_cost: first.positive_cost * 1000.0,
                negative_cost: first.negative_cost * 1000.0,
                ..*first
            };
            let from_warm = solve(&second, &STRICT, &mut warm);
            let from_cold = solve(&second, &STRICT, &mut State::new(&second));
            for (a, b) in from_warm.weights.iter().zip(&from_cold.weights) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        });
    }

    #[test]
    fn two_points_are_solved_as_by_hand() {
        // x = ±1 with labels ±1: by symmetry b = 0 and w minimizes w²/2 + 2C(1 - w)², so w = 4C/(1 + 4C).
        let data = Sample {
            features: ndarray::array![[1.0], [-1.0]],
            labels: vec![0, 1],
        };
        each_problem(&data, 2, 0.5, |problem| {
            let plane = solve(problem, &STRICT, &mut State::new(problem));
            let expected = if problem.class == 0 { 2.0 / 3.0 } else { -2.0 / 3.0 };
            assert!((plane.weights[0] - expected).abs() < 1e-6, "{plane:?}");
            assert!(plane.intercept.abs() < 1e-6);
        });
    }

    #[test]
    fn too_few_passes_are_told() {
        each_problem(&sample(120, 19, 2, 1), 2, 100.0, |problem| {
            let settings = Settings {
                max_passes: 1,
                ..STRICT
            };
            assert!(!solve(problem, &settings, &mut State::new(problem)).converged);
        });
    }
}
