//! Which learning rate: a short training whose rate grows with every step. Smith 2017,
//! <https://arxiv.org/abs/1506.01186>.

use serde::Serialize;

use super::batches::{Batches, divided};
use super::engine::{Engine, EngineError};
use super::run::{Task, with_engine};
use super::views::{View, Views};
use super::{RefineError, dropout_seed};
use crate::progress::stage;

/// Share of the past in the moving average of the loss that ends the search.
const SMOOTHING: f64 = 0.9;
/// The search ends where that average is so many times its least.
const DIVERGED: f64 = 4.0;
/// The loss is smoothed over so many points on both sides: at least, and as a share of all.
const LEAST_REACH: usize = 2;
const REACH: f64 = 0.05;
/// The loss falls where it falls by so many standard errors.
const SIGNIFICANT: f64 = 3.0;

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
    /// Mean of it and of its neighbours.
    pub smoothed: f32,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateCurve {
    /// Step by step, to where the loss grew out of bounds.
    pub points: Vec<RatePoint>,
    /// Where the smoothed loss falls fastest on its way to its least; `None` where it falls by no more than chance.
    pub suggestion: Option<f32>,
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
pub fn find_rate(task: &Task, range: RateRange) -> Result<RateCurve, RefineError> {
    range.check()?;
    with_engine(task, |engine, views, _| {
        let _stage = stage(task.progress, "Trying learning rates", Some(range.steps as u64));
        search(task, engine, views, range)
    })
}

fn search(task: &Task, engine: &mut dyn Engine, views: &Views, range: RateRange) -> Result<RateCurve, RefineError> {
    let recipe = task.recipe;
    let batches = Batches::new(recipe, &task.labels, task.trained_rows(), task.classes);
    let mut curve = Curve::default();
    let mut epoch = 0;
    while curve.losses.len() < range.steps {
        let order = batches.order(epoch);
        for rows in divided(&order, recipe.minibatch) {
            let step = curve.losses.len();
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
    rates: Vec<f32>,
    losses: Vec<f32>,
    average: f64,
    least: Option<f64>,
}

impl Curve {
    /// Whether the search goes on.
    fn add(&mut self, rate: f32, loss: f32) -> bool {
        self.rates.push(rate);
        self.losses.push(loss);
        self.average = SMOOTHING * self.average + (1.0 - SMOOTHING) * f64::from(loss);
        let average = self.average / (1.0 - SMOOTHING.powi(self.losses.len() as i32));
        let least = self.least.map_or(average, |least| least.min(average));
        self.least = Some(least);
        average <= DIVERGED * least
    }

    fn finished(self) -> Result<RateCurve, RefineError> {
        if self.losses.is_empty() {
            return Err(RefineError::Recipe(
                "the loss is not finite at the smallest rate already; give a smaller --from-rate".to_owned(),
            ));
        }
        let reach = LEAST_REACH.max((REACH * self.losses.len() as f64) as usize);
        let smoothed = smoothed(&self.losses, reach);
        let suggestion = steepest(&self.losses, &smoothed, reach).map(|step| self.rates[step]);
        let points = self.rates.iter().zip(&self.losses).zip(&smoothed);
        Ok(RateCurve {
            points: points
                .map(|((rate, loss), smoothed)| RatePoint {
                    rate: *rate,
                    loss: *loss,
                    smoothed: *smoothed as f32,
                })
                .collect(),
            suggestion,
        })
    }
}

/// The mean of each loss and those at most `reach` steps from it.
fn smoothed(losses: &[f32], reach: usize) -> Vec<f64> {
    let mean = |step: usize| {
        let near = &losses[step.saturating_sub(reach)..(step + reach + 1).min(losses.len())];
        near.iter().copied().map(f64::from).sum::<f64>() / near.len() as f64
    };
    (0..losses.len()).map(mean).collect()
}

/// The step at which the smoothed loss falls fastest on its way from the first rates to its least. Where the last layer
/// begins as an SVM, hardly anything is left to fall, and nothing but chance says where it is least.
fn steepest(losses: &[f32], smoothed: &[f64], reach: usize) -> Option<usize> {
    // Only means of as many losses are compared: of fewer, one of the first losses would say more than any other.
    let last = smoothed.len().checked_sub(reach + 1)?;
    let least = (reach..=last).min_by(|a, b| smoothed[*a].total_cmp(&smoothed[*b]))?;
    // What one loss differs from the next by is chance, up to where it is least.
    let seen = &losses[..=least + reach];
    let squares = seen.windows(2).map(|pair| f64::from(pair[1] - pair[0]).powi(2));
    let variance = squares.sum::<f64>() / (2 * (seen.len() - 1)) as f64;
    let standard_error = (2.0 * variance / (2 * reach + 1) as f64).sqrt();
    if smoothed[reach] - smoothed[least] <= SIGNIFICANT * standard_error {
        return None;
    }
    let fall = |step: &usize| smoothed[(step - reach).max(reach)] - smoothed[(step + reach).min(last)];
    (reach..=least).max_by(|a, b| fall(a).total_cmp(&fall(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RateRange = RateRange {
        least: 1e-5,
        most: 1.0,
        steps: 101,
    };

    /// The curve of a training whose loss at each step and rate is as given.
    fn curve(loss: impl Fn(usize, f32) -> f32) -> RateCurve {
        let mut curve = Curve::default();
        for step in 0..RANGE.steps {
            let rate = RANGE.rate(step);
            if !curve.add(rate, loss(step, rate)) {
                break;
            }
        }
        curve.finished().expect("a curve")
    }

    /// Falls about 0.001, turns at 0.1, then grows.
    fn falling(rate: f32) -> f32 {
        0.5 + 0.5 / (1.0 + rate / 1e-3) + 30.0 * (rate.log10() + 1.0).max(0.0)
    }

    #[test]
    fn the_suggestion_is_where_the_loss_falls_fastest() {
        let curve = curve(|_, rate| falling(rate));
        assert!(curve.points.len() < 101, "{}", curve.points.len());
        let suggestion = curve.suggestion.expect("a suggestion");
        assert!((5e-4..2e-3).contains(&suggestion), "{suggestion}");
    }

    #[test]
    fn a_first_loss_that_is_large_by_chance_suggests_nothing_itself() {
        let curve = curve(|step, rate| falling(rate) + if step == 0 { 0.8 } else { 0.0 });
        let suggestion = curve.suggestion.expect("a suggestion");
        assert!((5e-4..2e-3).contains(&suggestion), "{suggestion}");
    }

    #[test]
    fn a_loss_that_hardly_falls_suggests_nothing() {
        let noise = |step: usize| -> f32 { [0.03, -0.02, 0.0, -0.04, 0.02, 0.04, -0.03][step % 7] };
        let flat = curve(|step, rate| 0.5 + noise(step) + 30.0 * (rate.log10() + 1.0).max(0.0));
        assert_eq!(flat.suggestion, None);
        let rising = curve(|step, rate| 0.5 + noise(step) + rate);
        assert_eq!(rising.suggestion, None);
        // Too few for a mean.
        let mut short = Curve::default();
        assert!(short.add(1e-5, 0.5) && short.add(1e-4, 0.4));
        assert_eq!(short.finished().expect("a curve").suggestion, None);
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
