//! Which learning rate: a short training whose rate grows with every step. Smith 2017,
//! <https://arxiv.org/abs/1506.01186>.

use serde::Serialize;

use super::batches::{Batches, divided};
use super::engine::{Engine, EngineError};
use super::run::{Task, with_engine};
use super::views::{View, Views};
use super::{RefineError, dropout_seed};

/// Share of the past in the smoothed loss.
const SMOOTHING: f64 = 0.9;
/// The search ends where the smoothed loss is so many times its least.
const DIVERGED: f64 = 4.0;

/// Which rates are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateRange {
    /// The first.
    pub least: f32,
    /// The last.
    pub most: f32,
    /// Number of steps, each with a rate of its own.
    pub steps: usize,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RatePoint {
    /// Learning rate.
    pub rate: f32,
    /// Loss of the minibatch before the step, in nats.
    pub loss: f32,
    /// Exponential moving average of it.
    pub smoothed: f32,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateCurve {
    /// Step by step, to where the loss grew out of bounds.
    pub points: Vec<RatePoint>,
    /// A tenth of the rate with the least smoothed loss: still steep, and safely below where it turns.
    pub suggestion: f32,
}

impl RateRange {
    /// # Errors
    /// What is out of range.
    fn check(self) -> Result<(), RefineError> {
        let sound = self.least > 0.0 && self.most > self.least && self.most.is_finite();
        if sound && (10..=10_000).contains(&self.steps) {
            return Ok(());
        }
        Err(RefineError::Recipe(
            "rates to search must be above 0 and ascending, in 10 to 10000 steps".to_owned(),
        ))
    }

    fn rate(self, step: usize) -> f32 {
        let share = step as f64 / (self.steps - 1).max(1) as f64;
        (f64::from(self.least) * (f64::from(self.most) / f64::from(self.least)).powf(share)) as f32
    }
}

/// Trains `task`'s network for a few steps over the rates of `range`. The network is thrown away.
///
/// # Errors
/// See [`RefineError`].
pub fn find_rate(task: &Task, range: RateRange) -> Result<RateCurve, RefineError> {
    range.check()?;
    with_engine(task, |engine, views, _| {
        task.progress.begin("Trying learning rates", range.steps as u64);
        let curve = search(task, engine, views, range);
        task.progress.end();
        curve
    })
}

fn search(task: &Task, engine: &mut dyn Engine, views: &Views, range: RateRange) -> Result<RateCurve, RefineError> {
    let recipe = task.recipe;
    let batches = Batches::new(recipe, &task.labels, task.trained_rows(), task.classes);
    let mut curve = Curve::default();
    let mut epoch = 0;
    while curve.points.len() < range.steps {
        let order = batches.order(epoch);
        for rows in divided(&order, recipe.minibatch) {
            let step = curve.points.len();
            if step == range.steps {
                break;
            }
            let rate = range.rate(step);
            let view = View::Varied(epoch % recipe.views);
            let wanted: Vec<(usize, View)> = rows.iter().map(|row| (*row, view)).collect();
            let batch = batches.batch(rows, views.inputs(&wanted)?, step);
            match engine.step(&batch, rate, dropout_seed(recipe.seed, step)) {
                Ok(outcome) if curve.add(rate, outcome.loss) => task.progress.advance(1),
                Ok(_) | Err(EngineError::NotFinite) => return curve.finished(),
                Err(error) => return Err(error.into()),
            }
        }
        if order.is_empty() {
            break;
        }
        epoch += 1;
    }
    curve.finished()
}

/// The curve as it grows.
#[derive(Default)]
struct Curve {
    points: Vec<RatePoint>,
    average: f64,
    least: Option<f64>,
}

impl Curve {
    /// Whether the search goes on.
    fn add(&mut self, rate: f32, loss: f32) -> bool {
        self.average = SMOOTHING * self.average + (1.0 - SMOOTHING) * f64::from(loss);
        let steps = self.points.len() as i32 + 1;
        let smoothed = self.average / (1.0 - SMOOTHING.powi(steps));
        self.points.push(RatePoint {
            rate,
            loss,
            smoothed: smoothed as f32,
        });
        let least = self.least.map_or(smoothed, |least| least.min(smoothed));
        self.least = Some(least);
        smoothed <= DIVERGED * least
    }

    fn finished(self) -> Result<RateCurve, RefineError> {
        let least = self.points.iter().min_by(|a, b| a.smoothed.total_cmp(&b.smoothed));
        let Some(least) = least else {
            return Err(RefineError::Recipe(
                "the loss is not finite at the smallest rate already; give a smaller --from-rate".to_owned(),
            ));
        };
        Ok(RateCurve {
            suggestion: least.rate / 10.0,
            points: self.points,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_lies_a_tenth_below_the_turn() {
        let range = RateRange {
            least: 1e-5,
            most: 1.0,
            steps: 101,
        };
        let mut curve = Curve::default();
        for step in 0..range.steps {
            let rate = range.rate(step);
            // Falls to a turn at 0.01, then grows.
            let distance = (rate.log10() + 2.0).abs();
            let loss = if rate < 0.01 {
                0.5 + 0.2 * distance
            } else {
                0.5 + 10.0 * distance.powi(2)
            };
            if !curve.add(rate, loss) {
                break;
            }
        }
        let curve = curve.finished().expect("a curve");
        assert!(curve.points.len() < 101, "{}", curve.points.len());
        assert!((5e-4..2.5e-3).contains(&curve.suggestion), "{}", curve.suggestion);
    }

    #[test]
    fn nothing_but_divergence_is_an_error() {
        assert!(Curve::default().finished().is_err());
        let range = RateRange {
            least: 1.0,
            most: 0.1,
            steps: 50,
        };
        assert!(range.check().is_err());
    }
}
