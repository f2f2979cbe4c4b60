//! One network in training on one tensor backend.

use std::collections::BTreeMap;
use std::ops::Range;

use burn_tensor::activation::log_softmax;
use burn_tensor::backend::{AutodiffBackend, Backend};
use burn_tensor::{Tensor, TensorData};
use rayon::prelude::*;
use shared::classifier::first_largest;

use super::optimizer::Memory;
use super::{Batch, Engine, EngineError, Inputs, Outcome, Plan, State, Version, said};
use crate::refine::network::{BatchStatistics, Mode, Operation, Role, Statistics, Trainable, Value, forward};
use crate::threads::in_order;

/// Images that one thread of a processor learns from at once. A number of its own and not that of the threads, so that
/// sums do not depend on these.
const IMAGES_A_THREAD: usize = 4;

/// How slowly the moving average comes to its full length: after n steps no more than (1 + n) / (10 + n) of it stays.
const AVERAGE_WARMUP: f32 = 10.0;

/// Numbers that are added up at once. Of four times as many the processor's threads would take parts as it comes, and
/// the sum be another one each time.
const ADDED_UP: usize = 1 << 20;

/// See [`Engine`].
pub(super) struct Session<B: AutodiffBackend> {
    plan: Plan,
    /// The first holds what is trained; with the others it shares each batch.
    devices: Vec<B::Device>,
    steps: u64,
    /// Most images whose gradient is computed at once.
    at_once: usize,
    /// Whether threads share a batch among them.
    threaded: bool,
    parameters: Vec<Tensor<B::InnerBackend, 1>>,
    average: Option<Vec<Tensor<B::InnerBackend, 1>>>,
    memory: Vec<Option<Memory<B::InnerBackend>>>,
}

impl<B: Trainable> Session<B> {
    /// On one device or more, which share each batch; `threaded` where they are a processor, whose threads do.
    pub(super) fn new(plan: Plan, devices: Vec<B::Device>, threaded: bool) -> Result<Self, EngineError> {
        let parameters: Vec<Tensor<B::InnerBackend, 1>> = plan
            .graph
            .parameters
            .iter()
            .map(|parameter| tensor(&parameter.values, &devices[0]))
            .collect();
        let memory = parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| plan.is_trained(index).then(|| plan.optimizer.memory(parameter)))
            .collect();
        let session = Self {
            at_once: plan.images_at_once.unwrap_or(usize::MAX),
            threaded,
            average: plan.average.map(|_| parameters.clone()),
            parameters,
            memory,
            plan,
            devices,
            steps: 0,
        };
        // A device that is not there fails here and not in the middle of the training.
        session.parameters(Version::Current)?;
        for device in &session.devices[1..] {
            numbers(tensor::<B::InnerBackend>(&[0.0], device))?;
        }
        Ok(session)
    }

    fn version(&self, version: Version) -> &[Tensor<B::InnerBackend, 1>] {
        match (version, &self.average) {
            (Version::Averaged, Some(average)) => average,
            _ => &self.parameters,
        }
    }

    /// Running statistics follow the batch's, but for those that what is not trained takes too.
    fn follow(&mut self, statistics: Vec<BatchStatistics<B>>) {
        for seen in statistics {
            let values = [seen.mean.inner(), seen.variance.inner()];
            for (index, value) in seen.parameters.into_iter().zip(values) {
                if self.plan.graph.parameters[index].role != Role::Statistic {
                    continue;
                }
                let old = self.parameters[index].clone().mul_scalar(seen.momentum);
                self.parameters[index] = old + value.mul_scalar(1.0 - seen.momentum);
            }
        }
    }

    /// Moves the average towards the parameters, faster in the beginning.
    fn follow_average(&mut self) {
        let (Some(decay), Some(average)) = (self.plan.average, &mut self.average) else {
            return;
        };
        let steps = self.steps as f32;
        let kept = decay.min((1.0 + steps) / (AVERAGE_WARMUP + steps));
        let plan = &self.plan;
        let means = average.iter_mut().zip(&self.parameters).enumerate().collect();
        side_by_side(self.threaded, means, |(index, (mean, parameter))| {
            if plan.graph.parameters[index].role == Role::Statistic {
                *mean = parameter.clone();
            } else if plan.rate_scales[index] > 0.0 {
                mean.inplace(|mean| mean.mul_scalar(kept) + parameter.clone().mul_scalar(1.0 - kept));
            }
        });
    }
}

/// What a batch has to teach.
struct Learned<B: AutodiffBackend> {
    loss: f32,
    /// Of all gradients together, as one vector.
    length: f64,
    /// `images x classes`.
    logits: Vec<f32>,
    /// By parameter.
    gradients: BTreeMap<usize, Tensor<B::InnerBackend, 1>>,
    statistics: Vec<BatchStatistics<B>>,
}

impl<B: AutodiffBackend> Default for Learned<B> {
    fn default() -> Self {
        Self {
            loss: 0.0,
            length: 0.0,
            logits: Vec::new(),
            gradients: BTreeMap::new(),
            statistics: Vec::new(),
        }
    }
}

impl<B: AutodiffBackend> Learned<B> {
    /// What the next images of the batch have to teach.
    fn add(&mut self, part: Self, threaded: bool) {
        self.loss += part.loss;
        self.logits.extend(part.logits);
        self.statistics.extend(part.statistics);
        let gradients = part.gradients.into_iter();
        let pairs = gradients.map(|(index, gradient)| (index, self.gradients.remove(&index), gradient));
        let sums = side_by_side(threaded, pairs.collect(), |(index, sum, gradient)| match sum {
            Some(sum) => (index, sum + gradient),
            None => (index, gradient),
        });
        self.gradients.extend(sums);
    }
}

impl<B: Trainable> Session<B> {
    /// The gradient of a batch, summed up from parts that the device has the memory for.
    fn learn(&self, batch: &Batch, seed: u64) -> Result<Learned<B>, EngineError> {
        let total: f32 = batch.weights.iter().sum();
        let total = total.max(f32::MIN_POSITIVE);
        let mut learned = Learned::default();
        for images in pieces(0..batch.inputs.count(), self.at_once) {
            let (length, workers) = if self.threaded {
                (IMAGES_A_THREAD, rayon::current_num_threads())
            } else {
                (images.len().div_ceil(self.devices.len()), self.devices.len())
            };
            let parts = if self.can_be_divided() {
                pieces(images, length)
            } else {
                vec![images]
            };
            let devices = self.devices.iter().cycle();
            let parts: Vec<_> = parts.into_iter().zip(devices).collect();
            // Not by threads of rayon's pool: one that waits for a product takes up other work, and would then wait for
            // ever for a lock of automatic differentiation that it holds itself.
            let parts = in_order(&parts, workers, |(images, device)| {
                guarded(|| self.learn_part(batch, images.clone(), device, total, seed))
            });
            for part in parts {
                let part = part?;
                guarded(|| {
                    learned.add(part, self.threaded);
                    Ok(())
                })?;
            }
        }
        learned.length = guarded(|| euclidean_length(learned.gradients.values(), self.threaded))?;
        if learned.loss.is_finite() && learned.length.is_finite() {
            Ok(learned)
        } else {
            Err(EngineError::NotFinite)
        }
    }

    /// What some of the batch's images, which weigh `total` together, have to teach.
    fn learn_part(
        &self,
        batch: &Batch,
        images: Range<usize>,
        device: &B::Device,
        total: f32,
        seed: u64,
    ) -> Result<Learned<B>, EngineError> {
        let parameters: Vec<Tensor<B, 1>> = self
            .parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| {
                let parameter = Tensor::from_inner(parameter.clone().to_device(device));
                if self.plan.is_trained(index) {
                    parameter.require_grad()
                } else {
                    parameter
                }
            })
            .collect();
        let mode = Mode::Training {
            statistics: self.plan.statistics,
            precision: self.plan.precision,
            seed,
            first_image: images.start,
        };
        let (classes, count) = (self.plan.classes, images.len());
        let input = value::<B>(&batch.inputs.part(images.clone()), device);
        let pass = forward(&self.plan.graph, &parameters, input, mode)?;
        let logits = rows(pass.output)?;
        let targets = batch.targets[images.start * classes..images.end * classes].to_vec();
        let targets = Tensor::<B, 2>::from_data(TensorData::new(targets, [count, classes]), device);
        let weights: Vec<f32> = batch.weights[images].iter().map(|weight| weight / total).collect();
        let weights = Tensor::<B, 2>::from_data(TensorData::new(weights, [count, 1]), device);
        let loss = (log_softmax(logits.clone(), 1) * targets * weights).sum().neg();

        let mut gradients = loss.backward();
        let gradients = parameters.iter().enumerate().filter_map(|(index, parameter)| {
            let gradient = parameter.grad_remove(&mut gradients)?;
            Some((index, gradient.to_device(&self.devices[0])))
        });
        Ok(Learned {
            gradients: gradients.collect(),
            loss: numbers(loss.inner())?.first().copied().unwrap_or(f32::NAN),
            logits: numbers(logits.inner())?,
            statistics: pass.statistics,
            length: 0.0,
        })
    }

    /// Whether a batch may be computed in parts: statistics of the batch need all of it.
    fn can_be_divided(&self) -> bool {
        let mut operators = self.plan.graph.operators.iter();
        self.plan.statistics == Statistics::Frozen
            || !operators.any(|operator| matches!(operator.operation, Operation::BatchNormalization { .. }))
    }
}

/// The range in pieces of `length`, the last as long as is left.
fn pieces(range: Range<usize>, length: usize) -> Vec<Range<usize>> {
    let firsts = range.clone().step_by(length);
    firsts
        .map(|first| first..first.saturating_add(length).min(range.end))
        .collect()
}

/// Some backends panic where they have no memory left.
fn guarded<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let reason = match outcome {
        Ok(Err(EngineError::Device(reason))) => reason,
        Ok(result) => return result,
        Err(panic) => said(panic.as_ref()).to_owned(),
    };
    Err(if is_out_of_memory(&reason) {
        EngineError::OutOfMemory
    } else {
        EngineError::Device(reason)
    })
}

/// Whether a driver's words mean that its memory is used up.
fn is_out_of_memory(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    [
        "out of memory",
        "out_of_memory",
        "outofmemory",
        "buffer too big",
        "buffertoobig",
        "memory allocation",
    ]
    .iter()
    .any(|words| reason.contains(words))
}

impl Plan {
    fn is_trained(&self, index: usize) -> bool {
        let role = self.graph.parameters[index].role;
        self.rate_scales[index] > 0.0 && matches!(role, Role::Weight | Role::Offset)
    }
}

impl<B: Trainable> Engine for Session<B> {
    fn step(&mut self, batch: &Batch, rate: f32, seed: u64) -> Result<Outcome, EngineError> {
        let learned = loop {
            match self.learn(batch, seed) {
                // Nothing has changed yet, and a sum of gradients does not depend on its parts.
                Err(EngineError::OutOfMemory)
                    if self.can_be_divided() && batch.inputs.count() > 1 && self.at_once > 1 =>
                {
                    self.at_once = self.at_once.min(batch.inputs.count()).div_ceil(2);
                }
                learned => break learned?,
            }
        };
        let Learned {
            loss,
            length,
            logits,
            mut gradients,
            statistics,
        } = learned;
        let factor = match self.plan.clip_norm {
            Some(most) if length > f64::from(most) => (f64::from(most) / length) as f32,
            _ => 1.0,
        };
        self.steps += 1;
        let (plan, steps) = (&self.plan, self.steps);
        let trained = self.parameters.iter_mut().zip(&mut self.memory).enumerate();
        let trained = trained.filter_map(|(index, (parameter, memory))| {
            Some((index, parameter, memory.as_mut()?, gradients.remove(&index)?))
        });
        side_by_side(
            self.threaded,
            trained.collect(),
            |(index, parameter, memory, gradient)| {
                let gradient = if factor < 1.0 {
                    gradient.mul_scalar(factor)
                } else {
                    gradient
                };
                let decayed = plan.graph.parameters[index].role == Role::Weight;
                let rate = rate * plan.rate_scales[index];
                memory.update(parameter, gradient, rate, decayed, steps);
            },
        );
        self.follow(statistics);
        self.follow_average();

        let classes = self.plan.classes;
        let correct = logits
            .chunks(classes)
            .zip(batch.targets.chunks(classes))
            .filter(|(logits, targets)| first_largest(*logits) == first_largest(*targets))
            .count();
        let images_at_once = self.at_once.min(batch.inputs.count());
        Ok(Outcome {
            loss,
            correct,
            images_at_once,
        })
    }

    fn logits(&mut self, inputs: &Inputs, version: Version) -> Result<Vec<f32>, EngineError> {
        guarded(|| {
            let input = value::<B::InnerBackend>(inputs, &self.devices[0]);
            let pass = forward(&self.plan.graph, self.version(version), input, Mode::Inference)?;
            numbers(rows(pass.output)?)
        })
    }

    fn parameters(&self, version: Version) -> Result<Vec<Vec<f32>>, EngineError> {
        self.version(version).iter().cloned().map(numbers).collect()
    }

    fn state(&self) -> Result<State, EngineError> {
        let mut state = State {
            steps: self.steps,
            ..State::default()
        };
        for (index, parameter) in self.plan.graph.parameters.iter().enumerate() {
            let mut put = |kind: &str, tensor: &Tensor<B::InnerBackend, 1>| {
                let name = format!("{kind}/{}", parameter.name);
                numbers(tensor.clone()).map(|values| state.tensors.insert(name, values))
            };
            put("parameter", &self.parameters[index])?;
            if let Some(average) = &self.average {
                put("average", &average[index])?;
            }
            if let Some(memory) = &self.memory[index] {
                for (name, tensor) in memory.tensors() {
                    put(name, tensor)?;
                }
            }
        }
        Ok(state)
    }

    fn restore(&mut self, state: &State) -> Result<(), EngineError> {
        let mut parameters = self.parameters.clone();
        let (mut average, mut memory) = (self.average.clone(), self.memory.clone());
        for (index, parameter) in self.plan.graph.parameters.iter().enumerate() {
            let get = |kind: &str| {
                let values = state.tensors.get(&format!("{kind}/{}", parameter.name));
                values
                    .filter(|values| values.len() == parameter.values.len())
                    .map(|values| tensor(values, &self.devices[0]))
                    .ok_or(EngineError::State)
            };
            parameters[index] = get("parameter")?;
            if let Some(average) = &mut average {
                average[index] = get("average")?;
            }
            if let Some(memory) = &mut memory[index] {
                for (name, tensor) in memory.tensors_mut() {
                    *tensor = get(name)?;
                }
            }
        }
        (self.parameters, self.average, self.memory) = (parameters, average, memory);
        self.steps = state.steps;
        Ok(())
    }
}

fn tensor<B: Backend>(values: &[f32], device: &B::Device) -> Tensor<B, 1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn value<B: Backend>(inputs: &Inputs, device: &B::Device) -> Value<B> {
    let count = inputs.count();
    let values = inputs.values.clone();
    if let [channels, height, width] = inputs.shape[..] {
        let data = TensorData::new(values, [count, channels, height, width]);
        Value::Map(Tensor::from_data(data, device))
    } else {
        let length = inputs.shape.iter().product();
        Value::Rows(Tensor::from_data(TensorData::new(values, [count, length]), device))
    }
}

fn rows<B: Backend>(value: Value<B>) -> Result<Tensor<B, 2>, EngineError> {
    match value {
        Value::Rows(rows) => Ok(rows),
        Value::Map(_) => Err(crate::refine::network::GraphError::Unsound(
            "the network ends in a feature map instead of one row per image".to_owned(),
        )
        .into()),
    }
}

fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, EngineError> {
    let data = tensor
        .try_into_data()
        .map_err(|error| EngineError::Device(error.to_string()))?;
    data.convert::<f32>()
        .into_vec()
        .map_err(|error| EngineError::Device(format!("{error:?}")))
}

/// Of the gradients taken together as one vector.
fn euclidean_length<'a, B: Backend>(
    gradients: impl Iterator<Item = &'a Tensor<B, 1>>,
    threaded: bool,
) -> Result<f64, EngineError> {
    let parts = gradients.flat_map(|gradient| gradient.clone().split(ADDED_UP, 0));
    let squares = side_by_side(threaded, parts.collect(), |part| numbers(part.powi_scalar(2).sum()));
    let mut sum = 0.0_f64;
    for square in squares {
        sum += square?.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(sum.sqrt())
}

/// `work` on each item, on a processor by many threads, each item by one. No work that differentiates: threads of
/// rayon's pool must not wait for its locks.
fn side_by_side<T: Send, R: Send>(threaded: bool, items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if threaded {
        items.into_par_iter().map(work).collect()
    } else {
        items.into_iter().map(work).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::{Flex, FlexDevice};

    use super::*;

    #[test]
    fn the_length_of_a_gradient_does_not_depend_on_the_number_of_threads() {
        let values: Vec<f32> = (0..5_000_000).map(|index| (index as f32 * 0.37).sin()).collect();
        let gradient = tensor::<Flex>(&values, &FlexDevice);
        let length = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let length = || euclidean_length([&gradient].into_iter(), true).expect("a length");
            pool.expect("threads").install(length).to_bits()
        };
        let alone = length(1);
        assert!((2..8).all(|threads| length(threads) == alone));
    }

    #[test]
    fn used_up_memory_is_told_from_other_failures() {
        let failing = |text: &'static str| guarded::<()>(|| Err(EngineError::Device(text.to_owned())));
        for text in [
            "CUDA_ERROR_OUT_OF_MEMORY",
            "DriverError: out of memory",
            "OutOfMemory { size: 7 }",
        ] {
            assert!(matches!(failing(text), Err(EngineError::OutOfMemory)), "{text}");
        }
        assert!(matches!(failing("no such kernel"), Err(EngineError::Device(_))));
        assert!(matches!(guarded(|| Ok(7)), Ok(7)));
    }
}
