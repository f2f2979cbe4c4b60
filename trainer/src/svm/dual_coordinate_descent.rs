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
