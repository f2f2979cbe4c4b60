//! One network in training on one tensor backend.

use burn_tensor::activation::log_softmax;
use burn_tensor::backend::{AutodiffBackend, Backend};
use burn_tensor::{Tensor, TensorData};

use super::optimizer::Memory;
use super::{Batch, Engine, EngineError, Inputs, Outcome, Plan, State, Version};
use crate::refine::network::{BatchStatistics, Mode, Role, Value, forward};

/// Steps after which the moving average has its full length.
const AVERAGE_WARMUP: f32 = 10.0;

/// See [`Engine`].
pub(super) struct Session<B: AutodiffBackend> {
    plan: Plan,
    device: B::Device,
    steps: u64,
    parameters: Vec<Tensor<B::InnerBackend, 1>>,
    average: Option<Vec<Tensor<B::InnerBackend, 1>>>,
    memory: Vec<Option<Memory<B::InnerBackend>>>,
}

impl<B: AutodiffBackend> Session<B> {
    pub(super) fn new(plan: Plan, device: B::Device) -> Result<Self, EngineError> {
        let parameters: Vec<Tensor<B::InnerBackend, 1>> = plan
            .graph
            .parameters
            .iter()
            .map(|parameter| tensor(&parameter.values, &device))
            .collect();
        let memory = parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| plan.is_trained(index).then(|| plan.optimizer.memory(parameter)))
            .collect();
        let session = Self {
            average: plan.average.map(|_| parameters.clone()),
            parameters,
            memory,
            plan,
            device,
            steps: 0,
        };
        // A device that is not there fails here and not in the middle of the training.
        session.parameters(Version::Current)?;
        Ok(session)
    }

    fn version(&self, version: Version) -> &[Tensor<B::InnerBackend, 1>] {
        match (version, &self.average) {
            (Version::Averaged, Some(average)) => average,
            _ => &self.parameters,
        }
    }

    /// Running statistics follow the batch's.
    fn follow(&mut self, statistics: Vec<BatchStatistics<B>>) {
        for seen in statistics {
            let values = [seen.mean.inner(), seen.variance.inner()];
            for (index, value) in seen.parameters.into_iter().zip(values) {
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
        for (index, (mean, parameter)) in average.iter_mut().zip(&self.parameters).enumerate() {
            let role = self.plan.graph.parameters[index].role;
            if role == Role::Statistic {
                *mean = parameter.clone();
            } else if self.plan.rate_scales[index] > 0.0 {
                *mean = mean.clone().mul_scalar(kept) + parameter.clone().mul_scalar(1.0 - kept);
            }
        }
    }
}

impl Plan {
    fn is_trained(&self, index: usize) -> bool {
        let role = self.graph.parameters[index].role;
        self.rate_scales[index] > 0.0 && matches!(role, Role::Weight | Role::Offset)
    }
}

impl<B: AutodiffBackend> Engine for Session<B> {
    fn step(&mut self, batch: &Batch, rate: f32, seed: u64) -> Result<Outcome, EngineError> {
        let count = batch.inputs.count();
        let parameters: Vec<Tensor<B, 1>> = self
            .parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| {
                let parameter = Tensor::from_inner(parameter.clone());
                if self.plan.is_trained(index) {
                    parameter.require_grad()
                } else {
                    parameter
                }
            })
            .collect();
        let mode = Mode::Training {
            statistics: self.plan.statistics,
            seed,
        };
        let input = value::<B>(&batch.inputs, &self.device);
        let pass = forward(&self.plan.graph, &parameters, input, mode)?;
        let logits = rows(pass.output)?;
        let classes = self.plan.classes;
        let targets = Tensor::<B, 2>::from_data(TensorData::new(batch.targets.clone(), [count, classes]), &self.device);
        let total: f32 = batch.weights.iter().sum();
        let weights: Vec<f32> = batch
            .weights
            .iter()
            .map(|weight| weight / total.max(f32::MIN_POSITIVE))
            .collect();
        let weights = Tensor::<B, 2>::from_data(TensorData::new(weights, [count, 1]), &self.device);
        let loss = (log_softmax(logits.clone(), 1) * targets * weights).sum().neg();

        let mut gradients = loss.backward();
        let mut updates = Vec::new();
        for (index, parameter) in parameters.iter().enumerate() {
            if let Some(gradient) = parameter.grad_remove(&mut gradients) {
                updates.push((index, gradient));
            }
        }
        let factor = match self.plan.clip_norm {
            Some(most) => {
                let mut squares = 0.0_f64;
                for (_, gradient) in &updates {
                    let square = numbers(gradient.clone().powi_scalar(2).sum())?;
                    squares += square.iter().map(|value| f64::from(*value)).sum::<f64>();
                }
                (f64::from(most) / squares.sqrt().max(f64::MIN_POSITIVE)).min(1.0) as f32
            }
            None => 1.0,
        };
        self.steps += 1;
        for (index, gradient) in updates {
            let gradient = if factor < 1.0 {
                gradient.mul_scalar(factor)
            } else {
                gradient
            };
            let decayed = self.plan.graph.parameters[index].role == Role::Weight;
            let rate = rate * self.plan.rate_scales[index];
            let Some(memory) = &mut self.memory[index] else {
                continue;
            };
            let parameter = self.parameters[index].clone();
            self.parameters[index] =
                self.plan
                    .optimizer
                    .update(parameter, gradient, memory, (rate, decayed, self.steps))?;
        }
        self.follow(pass.statistics);
        self.follow_average();

        let logits = numbers(logits.inner())?;
        let correct = logits
            .chunks(classes)
            .zip(batch.targets.chunks(classes))
            .filter(|(logits, targets)| largest(logits) == largest(targets))
            .count();
        let loss = numbers(loss.inner())?.first().copied().unwrap_or(f32::NAN);
        Ok(Outcome { loss, correct })
    }

    fn logits(&mut self, inputs: &Inputs, version: Version) -> Result<Vec<f32>, EngineError> {
        let input = value::<B::InnerBackend>(inputs, &self.device);
        let pass = forward(&self.plan.graph, self.version(version), input, Mode::Inference)?;
        numbers(rows(pass.output)?)
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
                for (name, tensor) in memory.names.iter().zip(&memory.tensors) {
                    put(name, tensor)?;
                }
            }
        }
        Ok(state)
    }

    fn restore(&mut self, state: &State) -> Result<(), EngineError> {
        for (index, parameter) in self.plan.graph.parameters.iter().enumerate() {
            let get = |kind: &str| {
                let values = state.tensors.get(&format!("{kind}/{}", parameter.name));
                values
                    .filter(|values| values.len() == parameter.values.len())
                    .map(|values| tensor(values, &self.device))
                    .ok_or(EngineError::State)
            };
            self.parameters[index] = get("parameter")?;
            if let Some(average) = &mut self.average {
                average[index] = get("average")?;
            }
            if let Some(memory) = &mut self.memory[index] {
                for (name, tensor) in memory.names.iter().zip(&mut memory.tensors) {
                    *tensor = get(name)?;
                }
            }
        }
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

fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
