//! The training itself: epochs, validation, checkpoints, and the network that comes out.

use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use ndarray::ArrayView2;
use prost::Message;
use shared::classifier::first_largest;
use shared::image::Limits;
use shared::network::{Network, NetworkError, Runtime};
use shared::preprocessing::Preprocessing;

use super::batches::{Batches, divided};
use super::checkpoint::{Checkpoint, keep_newest};
use super::engine::{Engine, EngineError, Plan, Version, open};
use super::head::{Classifier, HeadLayer};
use super::network::Graph;
use super::recipe::Recipe;
use super::tensorboard::Follower;
use super::trained_part::{cut_in_two, written_back};
use super::views::{View, Views};
use super::{Best, Epoch, History, RefineError, Validation, dropout_seed};
use crate::device::Device;
use crate::onnx::proto::ModelProto;
use crate::progress::{Progress, stage};
use crate::svm::calibrated_log_loss;

/// Images whose logits are computed at once.
const EVALUATED_AT_ONCE: usize = 16;

/// What is refined, on which images.
pub struct Task<'a> {
    /// The backbone: features, and perhaps the last feature map, are its outputs.
    pub backbone: &'a ModelProto,
    /// How images are prepared for it.
    pub preprocessing: &'a Preprocessing,
    /// What an image may cost.
    pub limits: Limits,
    /// The training images.
    pub paths: Vec<PathBuf>,
    /// Class of each.
    pub labels: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
    /// Which of the images validate instead of being trained on, ascending.
    pub validation: Vec<usize>,
    /// The last layer to begin with.
    pub head: HeadLayer,
    /// How.
    pub recipe: &'a Recipe,
    /// Where.
    pub device: Device,
    /// The loaded runtime library, for the frozen part.
    pub runtime: &'a Runtime,
    /// Where the refinement is kept as far as it has come: a file with a name of this task's own.
    pub checkpoint: PathBuf,
    /// Folder for events that TensorBoard can follow, where one wants them.
    pub events: Option<PathBuf>,
    /// When it must be done; it is given up where it will not be.
    pub deadline: Option<Instant>,
    /// Who is told of the progress.
    pub progress: &'a dyn Progress,
}

impl Task<'_> {
    /// The images that are trained on.
    pub(super) fn trained_rows(&self) -> Vec<usize> {
        (0..self.labels.len())
            .filter(|row| self.validation.binary_search(row).is_err())
            .collect()
    }
}

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Refined {
    /// The refined network with its last layer.
    pub classifier: Classifier,
    /// The refined network alone: features, and perhaps the last feature map.
    pub backbone: ModelProto,
    /// The last layer.
    pub head: HeadLayer,
    /// Epoch by epoch.
    pub history: History,
    /// The network after which epoch was kept, counted from 1; 0 where no epoch did better than the start.
    pub best_epoch: usize,
    /// Images that prove the exported network: those that validate or, where none do, the first of those trained on.
    pub proof: Vec<usize>,
    /// Their logits, `images x classes`.
    pub logits: Vec<f32>,
}

/// Refines a network. Interrupted and called again with the same task, it goes on after the last whole epoch and
/// gives the same result; called again after the last epoch, it gives that result at once.
pub fn refine(task: &Task) -> Result<Refined, RefineError> {
    with_engine(task, |engine, views, graph| {
        let mut training = Loop {
            task,
            views,
            engine,
            batches: Batches::new(task.recipe, &task.labels, task.trained_rows(), task.classes),
            history: History::default(),
            best: None,
            at_once: usize::MAX,
        };
        let mut best = training.run()?;
        keep_newest(&task.checkpoint);
        let mut proof = task.validation.clone();
        if proof.is_empty() {
            // The last epoch is the best, and the network is still as it was after it.
            proof = (0..task.labels.len().min(EVALUATED_AT_ONCE)).collect();
            best.logits = training.logits(&proof)?;
        }
        export(task, graph, best, proof, training.history)
    })
}

/// Cuts the network, puts its upper part onto the device, and hands it to `work`.
pub(super) fn with_engine<T>(
    task: &Task,
    work: impl FnOnce(&mut dyn Engine, &Views, Graph) -> Result<T, RefineError>,
) -> Result<T, RefineError> {
    task.recipe.check().map_err(RefineError::Recipe)?;
    let classifier = task.head.on(task.backbone, Some(task.recipe.dropout))?;
    let (lower, graph) = cut_in_two(task.backbone, &classifier, task.recipe.trained)?;
    let lower = lower.map(|lower| lower.encode_to_vec());
    let make = || -> Result<Box<dyn Network>, NetworkError> {
        let model = lower.as_deref().unwrap_or_default();
        Ok(Box::new(task.runtime.network(model, 1)?))
    };
    let views = Views::new(task, lower.is_some().then_some(&make));
    let decayed = |layers: usize| task.recipe.layer_decay.powf(layers as f32);
    let plan = Plan {
        rate_scales: graph.layers_above().into_iter().map(decayed).collect(),
        classes: task.classes,
        optimizer: task.recipe.optimizer,
        statistics: task.recipe.statistics,
        precision: task.recipe.precision,
        average: task.recipe.average,
        clip_norm: task.recipe.clip_norm,
        images_at_once: None,
        graph: graph.clone(),
    };
    let mut engine = open(&task.device, plan)?;
    work(engine.as_mut(), &views, graph)
}

/// The trained values in the files that they came from.
fn export(
    task: &Task,
    graph: Graph,
    best: Best,
    proof: Vec<usize>,
    mut history: History,
) -> Result<Refined, RefineError> {
    let mut parameters = graph.parameters;
    for (parameter, values) in parameters.iter_mut().zip(best.parameters) {
        parameter.values = values;
    }
    let kept = best.epoch.checked_sub(1);
    if let Some(epoch) = kept.and_then(|epoch| history.epochs.get_mut(epoch)) {
        epoch.kept = true;
    }
    let (classifier, backbone, head) = written_back(&task.head, task.backbone, parameters)?;
    Ok(Refined {
        classifier,
        backbone,
        head,
        history,
        best_epoch: best.epoch,
        proof,
        logits: best.logits,
    })
}

/// A refinement under way.
struct Loop<'a> {
    task: &'a Task<'a>,
    views: &'a Views<'a>,
    engine: &'a mut dyn Engine,
    batches: Batches<'a>,
    /// The epochs that are done.
    history: History,
    /// The network to keep, were it over now.
    best: Option<Best>,
    /// Images that the device has the memory for, as far as is known.
    at_once: usize,
}

impl Loop<'_> {
    fn run(&mut self) -> Result<Best, RefineError> {
        let task = self.task;
        let (recipe, progress) = (task.recipe, task.progress);
        if let Some(checkpoint) = Checkpoint::load(&task.checkpoint)
            && self.engine.restore(&checkpoint.state).is_ok()
        {
            (self.history, self.best) = (checkpoint.history, checkpoint.best);
            let done = self.history.epochs.len();
            progress.note(&format!("Going on after epoch {done} of {}", recipe.epochs));
        } else if !task.validation.is_empty() {
            self.history.before = self.validate(0, 0.0)?;
            progress.note(&self.history.told(recipe.epochs));
        }
        let failed = |source| RefineError::Events {
            folder: task.events.clone().unwrap_or_default(),
            source,
        };
        let events = task.events.as_deref();
        let events = events
            .map(|folder| Follower::begin(folder, &self.history))
            .transpose()
            .map_err(failed)?;
        let steps = self.batches.steps();
        let _stage = stage(progress, "Refining the network", Some((steps * recipe.epochs) as u64));
        progress.advance((steps * self.history.epochs.len()) as u64);
        while self.history.epochs.len() < recipe.epochs
            && !is_over(recipe.patience, self.history.epochs.len(), self.best.as_ref())
        {
            let begin = Instant::now();
            let epoch = self.epoch()?;
            self.history.epochs.push(epoch);
            progress.note(&self.history.told(recipe.epochs));
            if let Some(events) = &events {
                events.add(&self.history).map_err(failed)?;
            }
            Checkpoint {
                state: self.engine.state()?,
                history: self.history.clone(),
                best: self.best.clone(),
            }
            .save(&task.checkpoint)?;
            let remaining = (recipe.epochs - self.history.epochs.len()) as u32;
            if remaining > 0 && !is_in_time(task.deadline, begin.elapsed() * remaining) {
                return Err(RefineError::OutOfTime);
            }
        }
        let best = self.best.take();
        best.ok_or_else(|| RefineError::Recipe("there is no image to train on".to_owned()))
    }

    /// The epoch after those that are done.
    fn epoch(&mut self) -> Result<Epoch, RefineError> {
        let (task, views) = (self.task, self.views);
        let (recipe, epoch) = (task.recipe, self.history.epochs.len());
        let order = self.batches.order(epoch);
        let batches = divided(&order, recipe.minibatch);
        let steps = batches.len() * recipe.epochs;
        let (mut loss, mut weight, mut correct, mut rate) = (0.0_f64, 0.0_f64, 0, 0.0);
        std::thread::scope(|scope| {
            // One batch is prepared while another is learned from.
            let (sender, receiver) = sync_channel(1);
            let batches = &batches;
            scope.spawn(move || {
                for batch in batches {
                    let view = View::Varied(epoch % recipe.views);
                    let wanted: Vec<(usize, View)> = batch.iter().map(|row| (*row, view)).collect();
                    if sender.send(views.inputs(&wanted)).is_err() {
                        break;
                    }
                }
            });
            for (number, (batch, inputs)) in batches.iter().zip(receiver).enumerate() {
                // The first epoch, which computes all inputs, can alone take longer than all may.
                if !is_in_time(task.deadline, Duration::ZERO) {
                    return Err(RefineError::OutOfTime);
                }
                let step = epoch * batches.len() + number;
                rate = recipe.schedule.rate(step, steps, epoch);
                let batch = self.batches.batch(batch, inputs?, step);
                let outcome = self.engine.step(&batch, rate, dropout_seed(recipe.seed, step));
                let outcome = outcome.map_err(|error| match error {
                    EngineError::NotFinite => RefineError::Diverged { epoch: epoch + 1, rate },
                    other => other.into(),
                })?;
                if outcome.images_at_once < self.at_once.min(batch.inputs.count()) {
                    self.at_once = outcome.images_at_once;
                    task.progress.note(&format!(
                        "The device has not the memory for a whole minibatch: gradients are summed up from {} \
                         images at once, which changes nothing else",
                        outcome.images_at_once
                    ));
                }
                let share: f64 = batch.weights.iter().copied().map(f64::from).sum();
                loss += share * f64::from(outcome.loss);
                weight += share;
                correct += outcome.correct;
                task.progress.advance(1);
            }
            Ok::<_, RefineError>(())
        })?;
        let validation = self.validate(epoch + 1, rate)?;
        Ok(Epoch {
            rate,
            train_loss: (loss / weight.max(f64::MIN_POSITIVE)) as f32,
            train_error: 1.0 - correct as f32 / order.len().max(1) as f32,
            validation_loss: validation.map(|validation| validation.loss),
            calibrated_validation_loss: validation.map(|validation| validation.calibrated),
            validation_error: validation.map(|validation| validation.error),
            kept: false,
        })
    }

    /// How the validation images go after `epoch` epochs, where there are any; the network is kept where none before
    /// told the classes apart better. Losses are compared after calibration: what is made of the network is calibrated
    /// too, and a recipe that smooths labels or begins with an SVM has no say in the scale of its logits.
    fn validate(&mut self, epoch: usize, rate: f32) -> Result<Option<Validation>, RefineError> {
        let task = self.task;
        let (rows, classes) = (&task.validation, task.classes);
        if rows.is_empty() {
            // The last epoch is as good as any.
            self.keep(epoch, Vec::new())?;
            return Ok(None);
        }
        let logits = self.logits(rows)?;
        let truths: Vec<usize> = rows.iter().map(|row| task.labels[*row]).collect();
        let loss = mean_cross_entropy(&logits, &truths, classes);
        if !loss.is_finite() {
            return Err(RefineError::Diverged { epoch, rate });
        }
        let calibrated = |logits: &[f32]| {
            let logits = ArrayView2::from_shape((truths.len(), classes), logits);
            logits.map_or(f64::INFINITY, |logits| calibrated_log_loss(logits, &truths))
        };
        let own = calibrated(&logits);
        let error = share_wrong(&logits, &truths, classes);
        if self.best.as_ref().is_none_or(|best| own < calibrated(&best.logits)) {
            self.keep(epoch, logits)?;
        }
        Ok(Some(Validation {
            loss,
            calibrated: own as f32,
            error,
        }))
    }

    /// Keeps the network as it is after `epoch` epochs.
    fn keep(&mut self, epoch: usize, logits: Vec<f32>) -> Result<(), RefineError> {
        self.best = Some(Best {
            epoch,
            logits,
            parameters: self.engine.parameters(Version::Averaged)?,
        });
        Ok(())
    }

    /// Logits of images as the scoring function sees them.
    fn logits(&mut self, rows: &[usize]) -> Result<Vec<f32>, RefineError> {
        let mut logits = Vec::with_capacity(rows.len() * self.task.classes);
        for rows in rows.chunks(EVALUATED_AT_ONCE) {
            let wanted: Vec<(usize, View)> = rows.iter().map(|row| (*row, View::Plain)).collect();
            logits.extend(self.engine.logits(&self.views.inputs(&wanted)?, Version::Averaged)?);
        }
        Ok(logits)
    }
}

/// Whether the network to keep has been the same for as long as the recipe waits.
fn is_over(patience: Option<usize>, epochs: usize, best: Option<&Best>) -> bool {
    let waited = best.map_or(0, |best| epochs.saturating_sub(best.epoch));
    patience.is_some_and(|patience| waited >= patience)
}

/// Whether work that takes `needed` will be done by the deadline.
fn is_in_time(deadline: Option<Instant>, needed: Duration) -> bool {
    deadline.is_none_or(|deadline| Instant::now() + needed <= deadline)
}

/// Share of the images that are answered wrongly.
fn share_wrong(logits: &[f32], truths: &[usize], classes: usize) -> f32 {
    let answers = logits.chunks(classes).map(first_largest);
    let wrong = answers.zip(truths).filter(|(answer, truth)| answer != *truth);
    wrong.count() as f32 / truths.len().max(1) as f32
}

/// In nats.
fn mean_cross_entropy(logits: &[f32], truths: &[usize], classes: usize) -> f32 {
    let mut sum = 0.0_f64;
    for (logits, truth) in logits.chunks(classes).zip(truths) {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
        sum += total.ln() - f64::from(logits[*truth] - most);
    }
    (sum / truths.len().max(1) as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_first_is_the_answer() {
        assert!((share_wrong(&[0.5, 0.5, 0.5, 0.5, 0.1, 0.2], &[0, 1, 1], 2) - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn patience_counts_from_the_network_that_is_kept() {
        let best = |epoch| Best {
            epoch,
            logits: Vec::new(),
            parameters: Vec::new(),
        };
        // The start counts as an epoch that may be the best.
        assert!(is_over(Some(2), 2, Some(&best(0))));
        assert!(!is_over(Some(2), 2, Some(&best(1))));
        assert!(is_over(Some(2), 3, Some(&best(1))));
        assert!(!is_over(Some(1), 5, Some(&best(5))));
        assert!(!is_over(None, 5, Some(&best(0))));
        assert!(!is_over(Some(1), 0, None));
    }
}
