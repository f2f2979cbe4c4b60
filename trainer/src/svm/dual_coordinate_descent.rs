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
//! and every fold share. Bringing a row from memory takes longer than working on it, so several
//! problems (a *panel*) are solved side by side: all of them use a row while it is at hand. Each runs
//! as it would alone, so the solutions do not depend on how problems are put into panels.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` is compiled for wide vectors"
)]

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::problem::{BinaryProblem, Hyperplane};

/// Most problems solved side by side: their weights must stay in a core's own cache beside the row.
pub(crate) const MOST_PROBLEMS: usize = Mask::BITS as usize;

/// A projected gradient below this is a coordinate at its optimum.
const NEGLIGIBLE_GRADIENT: f64 = 1e-12;

/// A set of a panel's problems, one bit each.
type Mask = u8;

/// The problems of `mask`, ascending.
fn each(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (first < Mask::BITS).then_some(first as usize)
    })
}

/// When to stop, and the order of the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Largest spread of the projected gradient at the solution, in units of the margin.
    pub(crate) tolerance: f64,
    /// Most passes over the rows.
    pub(crate) max_passes: usize,
    /// Seed of the order in which rows are visited.
    pub(crate) seed: u64,
}

/// The dual variables of a panel and the weights that follow from them; what a warm start continues
/// from.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Which problems each row takes part in.
    members: Vec<Mask>,
    /// `rows x problems`, at least 0.
    alpha: Vec<f64>,
    /// `Σ αᵢ yᵢ xᵢ`, `problems x features`.
    weights: Vec<f64>,
    /// `Σ αᵢ yᵢ` of each problem.
    bias: Vec<f64>,
}

impl State {
    /// Where a cold start begins: all zero. The problems share their examples and are at most
    /// [`MOST_PROBLEMS`].
    pub(crate) fn new(problems: &[BinaryProblem]) -> Self {
        let rows = problems.first().map_or(0, |problem| problem.examples.labels.len());
        let features = problems.first().map_or(0, BinaryProblem::features);
        let mut members = vec![0; rows];
        for (index, problem) in problems.iter().enumerate() {
            for row in problem.rows {
                members[*row] |= 1 << index;
            }
        }
        Self {
            members,
            alpha: vec![0.0; rows * problems.len()],
            weights: vec![0.0; features * problems.len()],
            bias: vec![0.0; problems.len()],
        }
    }

    /// Moves problem `index` to the best point on the ray through its present dual variables. The dual
    /// objective `½‖Σ αᵢyᵢxᵢ‖² + ¼ Σ αᵢ²/cᵢ - Σ αᵢ` is a parabola along it. After C has grown this is
    /// what makes the previous solution a good start: at small C the dual variables grow in proportion
    /// to C, at large C hardly at all.
    fn rescale(&mut self, index: usize, problem: &BinaryProblem) {
        let count = self.bias.len();
        let features = problem.features();
        let weights = &mut self.weights[index * features..(index + 1) * features];
        let mut linear = 0.0;
        let mut quadratic = self.bias[index].powi(2) + weights.iter().map(|w| w * w).sum::<f64>();
        for row in problem.rows {
            let alpha = self.alpha[row * count + index];
            linear += alpha;
            quadratic += alpha * alpha * problem.diagonal(*row);
        }
        if linear > 0.0 && quadratic > 0.0 {
            let factor = linear / quadratic;
            self.bias[index] *= factor;
            for weight in weights {
                *weight *= factor;
            }
            for row in problem.rows {
                self.alpha[row * count + index] *= factor;
            }
        }
    }
}

/// Solves the panel `problems` from `state`, which then holds the solutions. Uses the widest vector
/// instructions of the processor; the sums are the same on every one.
pub(crate) fn solve(problems: &[BinaryProblem], settings: &Settings, state: &mut State) -> Vec<Hyperplane> {
    pulp::Arch::new().dispatch(Descent {
        problems,
        settings,
        state,
    })
}

/// The work of [`solve`], compiled once for each width of vectors.
struct Descent<'a> {
    problems: &'a [BinaryProblem<'a>],
    settings: &'a Settings,
    state: &'a mut State,
}

/// How far one problem of the panel is.
#[derive(Clone, Copy)]
struct Pass {
    /// Largest and smallest projected gradient of this pass.
    largest: f64,
    smallest: f64,
    /// Bound of the last pass beyond which a variable at zero is set aside.
    shrink_above: f64,
    /// Rows set aside.
    set_aside: usize,
}

impl Pass {
    /// The next pass, after the bounds of the last one.
    fn next(shrink_above: f64, set_aside: usize) -> Self {
        Self {
            largest: f64::NEG_INFINITY,
            smallest: f64::INFINITY,
            shrink_above,
            set_aside,
        }
    }
}

impl pulp::WithSimd for Descent<'_> {
    type Output = Vec<Hyperplane>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Vec<Hyperplane> {
        let Self {
            problems,
            settings,
            state,
        } = self;
        let count = problems.len();
        let mut generator = ChaCha8Rng::seed_from_u64(settings.seed);
        let mut order: Vec<usize> = (0..state.members.len()).collect();
        let mut active = state.members.clone();
        let mut unsolved: Mask = 0;
        for (index, problem) in problems.iter().enumerate() {
            state.rescale(index, problem);
            unsolved |= 1 << index;
        }
        let mut passes = vec![Pass::next(f64::INFINITY, 0); count];
        for _ in 0..settings.max_passes {
            order.shuffle(&mut generator);
            for row in &order {
                let at_work = active[*row] & unsolved;
                if at_work != 0 {
                    let alpha = &mut state.alpha[row * count..(row + 1) * count];
                    for index in each(at_work) {
                        let problem = &problems[index];
                        let features = problem.features();
                        let weights = &mut state.weights[index * features..(index + 1) * features];
                        let (alpha, bias, pass) = (&mut alpha[index], &mut state.bias[index], &mut passes[index]);
                        if !visit(problem, *row, weights, alpha, bias, pass) {
                            active[*row] &= !(1 << index);
                        }
                    }
                }
            }
            for index in each(unsolved) {
                let pass = &mut passes[index];
                if pass.largest - pass.smallest > settings.tolerance {
                    let bound = if pass.largest > 0.0 {
                        pass.largest
                    } else {
                        f64::INFINITY
                    };
                    *pass = Pass::next(bound, pass.set_aside);
                } else if pass.set_aside == 0 {
                    unsolved &= !(1 << index);
                } else {
                    // The rows set aside must agree before the solution counts.
                    *pass = Pass::next(f64::INFINITY, 0);
                    for (active, member) in active.iter_mut().zip(&state.members) {
                        *active |= member & (1 << index);
                    }
                }
            }
            if unsolved == 0 {
                break;
            }
        }
        state
            .weights
            .chunks_exact(state.weights.len() / count.max(1))
            .zip(&state.bias)
            .enumerate()
            .map(|(index, (weights, bias))| Hyperplane {
                weights: weights.iter().map(|weight| *weight as f32).collect(),
                intercept: *bias as f32,
                converged: unsolved & (1 << index) == 0,
            })
            .collect()
    }
}

/// Improves the dual variable of one row; false where the row is to be set aside.
#[inline(always)]
fn visit(
    problem: &BinaryProblem,
    row: usize,
    weights: &mut [f64],
    alpha: &mut f64,
    bias: &mut f64,
    pass: &mut Pass,
) -> bool {
    let features = problem.examples.row(row);
    let sign = problem.sign(row);
    let diagonal = problem.diagonal(row);
    let gradient = sign * (dot(weights, features) + *bias) - 1.0 + *alpha * diagonal;
    let projected = if *alpha > 0.0 {
        gradient
    } else if gradient > pass.shrink_above {
        pass.set_aside += 1;
        return false;
    } else {
        gradient.min(0.0)
    };
    pass.largest = pass.largest.max(projected);
    pass.smallest = pass.smallest.min(projected);
    if projected.abs() > NEGLIGIBLE_GRADIENT {
        let curvature = problem.examples.squared_length(row) + diagonal;
        let moved = (*alpha - gradient / curvature).max(0.0);
        let step = (moved - *alpha) * sign;
        *alpha = moved;
        *bias += step;
        add_scaled(weights, step, features);
    }
    true
}

/// Numbers handled side by side: two or more vector registers of every common processor.
const LANES: usize = 32;

/// `weights · row` in double precision. Independent sums let the compiler use vector instructions.
#[inline(always)]
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
#[inline(always)]
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
    };

    /// Hands each one-vs-rest problem of `data` to `check`.
    fn each_problem(data: &Sample, classes: usize, c: f64, check: impl Fn(&BinaryProblem)) {
        let view = data.features.view();
        let lengths = squared_lengths(&view);
        let examples = Examples::new(&view, &data.labels, classes, &lengths).expect("standard layout");
        let rows: Vec<usize> = (0..data.labels.len()).collect();
        let weights = examples.class_weights(&rows, ClassWeights::Balanced);
        for class in 0..classes {
            check(&BinaryProblem::new(&examples, &rows, class, &weights).at(c));
        }
    }

    /// Solves a panel of one.
    fn solve_one(problem: &BinaryProblem, settings: &Settings, state: &mut State) -> Hyperplane {
        solve(std::slice::from_ref(problem), settings, state).remove(0)
    }

    fn cold(problem: &BinaryProblem) -> State {
        State::new(std::slice::from_ref(problem))
    }

    fn slack(problem: &BinaryProblem, state: &State, row: usize) -> f64 {
        1.0 - problem.sign(row) * (dot(&state.weights, problem.examples.row(row)) + state.bias[0])
    }

    /// Primal objective less dual objective, relative to the primal.
    fn relative_gap(problem: &BinaryProblem, state: &State) -> f64 {
        let half_square = 0.5 * (state.bias[0].powi(2) + state.weights.iter().map(|w| w * w).sum::<f64>());
        let (mut loss, mut dual) = (0.0, -half_square);
        for row in problem.rows {
            let diagonal = problem.diagonal(*row);
            loss += 0.5 / diagonal * slack(problem, state, *row).max(0.0).powi(2);
            let alpha = state.alpha[*row];
            dual += alpha - 0.5 * diagonal * alpha * alpha;
        }
        let primal = half_square + loss;
        (primal - dual) / primal
    }

    #[test]
    fn the_solution_is_the_optimum() {
        for (seed, c) in [(1, 1e-3), (2, 0.1), (3, 1.0), (4, 100.0)] {
            each_problem(&sample(120, 19, 4, seed), 4, c, |problem| {
                let mut state = cold(problem);
                let plane = solve_one(problem, &STRICT, &mut state);
                assert!(plane.converged);
                assert!(
                    relative_gap(problem, &state).abs() < 1e-9,
                    "gap {}",
                    relative_gap(problem, &state)
                );
                for row in problem.rows {
                    // Stationarity: the dual variable is twice cost times slack, or zero.
                    let wanted = slack(problem, &state, *row).max(0.0) / problem.diagonal(*row);
                    assert!((state.alpha[*row] - wanted).abs() < 1e-6 * (1.0 + wanted));
                }
            });
        }
    }

    #[test]
    fn the_default_tolerance_is_close_to_the_optimum() {
        each_problem(&sample(200, 40, 3, 9), 3, 1.0, |problem| {
            let mut state = cold(problem);
            let settings = Settings {
                tolerance: 1e-3,
                ..STRICT
            };
            assert!(solve_one(problem, &settings, &mut state).converged);
            assert!(relative_gap(problem, &state) < 1e-4);
        });
    }

    #[test]
    fn a_warm_start_ends_at_the_solution_of_a_cold_one() {
        each_problem(&sample(90, 10, 2, 5), 2, 0.01, |first| {
            let mut warm = cold(first);
            solve_one(first, &STRICT, &mut warm);
            let second = first.at(1000.0);
            let from_warm = solve_one(&second, &STRICT, &mut warm);
            let from_cold = solve_one(&second, &STRICT, &mut cold(&second));
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
            let plane = solve_one(problem, &STRICT, &mut cold(problem));
            let expected = if problem.class == 0 { 2.0 / 3.0 } else { -2.0 / 3.0 };
            assert!((plane.weights[0] - expected).abs() < 1e-6, "{plane:?}");
            assert!(plane.intercept.abs() < 1e-6);
        });
    }

    #[test]
    fn a_panel_finds_what_each_problem_finds_alone() {
        let data = sample(150, 37, 6, 8);
        let view = data.features.view();
        let lengths = squared_lengths(&view);
        let examples = Examples::new(&view, &data.labels, 6, &lengths).expect("standard layout");
        let rows: [Vec<usize>; 2] = [(0..120).collect(), (30..150).collect()];
        let problems: Vec<BinaryProblem> = (0..6)
            .map(|class| BinaryProblem::new(&examples, &rows[class % 2], class, &[1.0, 2.0, 3.0, 1.0, 0.5, 1.0]))
            .collect();
        let settings = Settings {
            tolerance: 1e-3,
            ..STRICT
        };
        let together = solve(&problems, &settings, &mut State::new(&problems));
        for (problem, plane) in problems.iter().zip(together) {
            assert!(plane.converged);
            assert_eq!(plane, solve_one(problem, &settings, &mut cold(problem)));
        }
    }

    #[test]
    fn too_few_passes_are_told() {
        each_problem(&sample(120, 19, 2, 1), 2, 100.0, |problem| {
            let settings = Settings {
                max_passes: 1,
                ..STRICT
            };
            assert!(!solve_one(problem, &settings, &mut cold(problem)).converged);
        });
    }
}
