//! Running a graph on tensors, for inference or, on a backend with automatic differentiation, for training.

use std::collections::HashMap;

use burn_tensor::backend::Backend;
use burn_tensor::ops::PadMode;
use burn_tensor::{FloatDType, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::elementwise::joined;
use super::layers::{ConvolutionOptions, Layers, Normalization, by_channel};
use super::operation::OTHERWISE;
use super::{Each, Graph, GraphError, Input, Layout, Operation, Operator, Pair, Window, pool};

/// What flows between operators.
#[derive(Debug, Clone)]
pub enum Value<B: Backend> {
    /// Images or feature maps, `[images, channels, height, width]`.
    Map(Tensor<B, 4>),
    /// One row per image, `[images, length]`.
    Rows(Tensor<B, 2>),
}

/// What the network is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To be used: no dropout, running statistics.
    Inference,
    /// To be trained.
    Training {
        /// Which statistics batch normalization uses.
        statistics: Statistics,
        /// What products are computed in.
        precision: Precision,
        /// Seed of this step's dropout.
        seed: u64,
        /// Number of the step's images before these, so that a part of them drops what all together would.
        first_image: usize,
    },
}

/// Which mean and variance batch normalization uses while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistics {
    /// The running ones, which stay as they are: right for small batches.
    Frozen,
    /// Those of the batch, which the running ones follow.
    Batch,
}

/// The numbers that convolutions and linear layers multiply while training. All else, and what they add up to, stays in
/// 32 bits: Micikevicius et al. 2018, <https://arxiv.org/abs/1710.03740>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Of 32 bits.
    #[serde(rename = "f32")]
    Single,
    /// Of 16 bits, with the range of those of 32: what the matrix units of GPUs are fast with. Kalamkar et al. 2019,
    /// <https://arxiv.org/abs/1905.12322>.
    #[serde(rename = "bf16")]
    Brain,
}

impl Precision {
    fn lower<B: Backend, const D: usize>(self, values: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Single => values,
            Self::Brain => values.cast(FloatDType::BF16),
        }
    }

    fn raise<B: Backend, const D: usize>(self, values: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Single => values,
            Self::Brain => values.cast(FloatDType::F32),
        }
    }
}

/// Mean and variance that one batch normalization saw.
#[derive(Debug, Clone)]
pub struct BatchStatistics<B: Backend> {
    /// Index of the running mean's parameter, and of the running variance's.
    pub parameters: [usize; 2],
    /// Mean of each channel.
    pub mean: Tensor<B, 1>,
    /// Unbiased variance of each channel.
    pub variance: Tensor<B, 1>,
    /// Share of the old running statistic that is kept.
    pub momentum: f32,
}

/// What a run gives.
#[derive(Debug, Clone)]
pub struct Pass<B: Backend> {
    /// The graph's output.
    pub output: Value<B>,
    /// What the batch normalizations saw, where they used the batch's statistics.
    pub statistics: Vec<BatchStatistics<B>>,
}

/// Runs `graph` with `parameters`, each flat and in the order of [`Graph::parameters`], on `input`.
///
/// # Errors
/// [`GraphError::Form`] where a value has not the form that its operator expects.
pub fn forward<B: Layers>(
    graph: &Graph,
    parameters: &[Tensor<B, 1>],
    input: Value<B>,
    mode: Mode,
) -> Result<Pass<B>, GraphError> {
    let mut remaining: HashMap<&str, usize> = HashMap::from([(graph.output.as_str(), 1)]);
    for operator in &graph.operators {
        for input in &operator.inputs {
            if let Input::Value(name) = input {
                *remaining.entry(name).or_default() += 1;
            }
        }
    }
    let mut run = Run {
        graph,
        parameters,
        mode,
        values: HashMap::from([(graph.input.as_str(), input)]),
        remaining,
        statistics: Vec::new(),
    };
    for (position, operator) in graph.operators.iter().enumerate() {
        let value = run.compute(operator, position)?;
        run.values.insert(&operator.output, value);
    }
    Ok(Pass {
        output: run.take(&graph.output)?,
        statistics: run.statistics,
    })
}

struct Run<'a, B: Backend> {
    graph: &'a Graph,
    parameters: &'a [Tensor<B, 1>],
    mode: Mode,
    values: HashMap<&'a str, Value<B>>,
    /// How often each value is still needed, so that it is dropped after its last use.
    remaining: HashMap<&'a str, usize>,
    statistics: Vec<BatchStatistics<B>>,
}

impl<'a, B: Layers> Run<'a, B> {
    fn take(&mut self, name: &'a str) -> Result<Value<B>, GraphError> {
        let uses = self.remaining.entry(name).or_default();
        *uses = uses.saturating_sub(1);
        let value = if *uses == 0 {
            self.values.remove(name)
        } else {
            self.values.get(name).cloned()
        };
        value.ok_or_else(|| GraphError::Unsound(format!("the value {name} is used before it is made")))
    }

    fn input(&mut self, operator: &'a Operator, position: usize) -> Result<Value<B>, GraphError> {
        match operator.inputs.get(position) {
            Some(Input::Value(name)) => self.take(name),
            _ => Err(form(operator, "an input is missing")),
        }
    }

    fn map(&mut self, operator: &'a Operator) -> Result<Tensor<B, 4>, GraphError> {
        match self.input(operator, 0)? {
            Value::Map(map) => Ok(map),
            Value::Rows(_) => Err(form(operator, "a feature map is expected, not a row per image")),
        }
    }

    fn rows(&mut self, operator: &'a Operator) -> Result<Tensor<B, 2>, GraphError> {
        match self.input(operator, 0)? {
            Value::Rows(rows) => Ok(rows),
            Value::Map(_) => Err(form(operator, "a row per image is expected, not a feature map")),
        }
    }

    fn flat(&mut self, operator: &'a Operator) -> Result<Tensor<B, 2>, GraphError> {
        Ok(match self.input(operator, 0)? {
            Value::Map(map) => map.flatten(1, 3),
            Value::Rows(rows) => rows,
        })
    }

    fn parameter<const D: usize>(&self, operator: &Operator, position: usize) -> Result<Tensor<B, D>, GraphError> {
        let Some(Input::Parameter(index)) = operator.inputs.get(position) else {
            return Err(form(operator, "a constant is missing"));
        };
        let shape: [usize; D] = self.graph.parameters[*index]
            .shape
            .clone()
            .try_into()
            .map_err(|shape| form(operator, &format!("a constant of shape {shape:?}")))?;
        Ok(self.parameters[*index].clone().reshape(shape))
    }

    fn precision(&self) -> Precision {
        match self.mode {
            Mode::Inference => Precision::Single,
            Mode::Training { precision, .. } => precision,
        }
    }

    fn compute(&mut self, operator: &'a Operator, position: usize) -> Result<Value<B>, GraphError> {
        Ok(match &operator.operation {
            Operation::Convolution { window, groups } => {
                let map = self.map(operator)?;
                let kernel = self.parameter(operator, 1)?;
                let bias = match operator.inputs.get(2) {
                    Some(_) => Some(self.parameter(operator, 2)?),
                    None => None,
                };
                layout(operator, window, &map)?;
                let ([_, channels, _, _], [outputs, depth, _, _]) = (map.dims(), kernel.dims());
                if channels != depth * groups || outputs % groups != 0 {
                    let reason = format!("its kernel is for {depth} x {groups} channels, the map has {channels}");
                    return Err(form(operator, &reason));
                }
                let precision = self.precision();
                let (map, kernel) = (precision.lower(map), precision.lower(kernel));
                let bias = bias.map(|bias| precision.lower(bias));
                Value::Map(precision.raise(convolve(map, kernel, bias, window, *groups)))
            }
            Operation::BatchNormalization { epsilon, momentum } => {
                Value::Map(self.normalize(operator, *epsilon, *momentum)?)
            }
            Operation::MaxPool(window) => {
                let map = self.map(operator)?;
                let layout = layout(operator, window, &map)?;
                Value::Map(pool::largest(map, window, layout))
            }
            Operation::AveragePool {
                window,
                include_padding,
            } => {
                let map = self.map(operator)?;
                let layout = layout(operator, window, &map)?;
                Value::Map(pool::mean(map, window, layout, *include_padding))
            }
            Operation::GlobalAveragePool { keep } => {
                let map = self.map(operator)?;
                let [images, channels, ..] = map.dims();
                let means = B::average(map);
                if *keep {
                    Value::Map(means.reshape([images, channels, 1, 1]))
                } else {
                    Value::Rows(means)
                }
            }
            Operation::Pad([top, left, bottom, right], value) => {
                let map = self.map(operator)?;
                Value::Map(map.pad((*left, *right, *top, *bottom), PadMode::Constant(*value)))
            }
            Operation::Flatten => Value::Rows(self.flat(operator)?),
            Operation::Cell => {
                let rows = self.flat(operator)?;
                let [images, channels] = rows.dims();
                Value::Map(rows.reshape([images, channels, 1, 1]))
            }
            Operation::Linear {
                transposed,
                scale,
                bias_scale,
            } => {
                let rows = self.rows(operator)?;
                let matrix = self.parameter::<2>(operator, 1)?;
                let matrix = if *transposed { matrix.transpose() } else { matrix };
                let precision = self.precision();
                let ([_, length], [taken, _]) = (rows.dims(), matrix.dims());
                if length != taken {
                    let reason = format!("its matrix is for rows of {taken}, and one has {length}");
                    return Err(form(operator, &reason));
                }
                let product = precision.raise(precision.lower(rows).matmul(precision.lower(matrix)));
                let product = product.mul_scalar(*scale);
                Value::Rows(match operator.inputs.get(2) {
                    Some(_) => {
                        let bias = self.parameter::<1>(operator, 2)?.unsqueeze::<2>();
                        product + bias.mul_scalar(*bias_scale)
                    }
                    None => product,
                })
            }
            Operation::L2Normalization => {
                let rows = self.rows(operator)?;
                // Kept from zero before the root, whose slope is infinite there: it would make every gradient no
                // number.
                let squares = rows.clone().powi_scalar(2).sum_dim(1).clamp_min(1e-24);
                Value::Rows(rows / squares.sqrt())
            }
            Operation::Concatenate => self.concatenate(operator)?,
            Operation::Dropout(ratio) => self.dropout(operator, *ratio, position)?,
            Operation::Identity => self.input(operator, 0)?,
            Operation::Each(function) => self.each(operator, *function)?,
            Operation::Pair(function) => self.pairwise(operator, *function)?,
        })
    }

    fn each(&mut self, operator: &'a Operator, function: Each) -> Result<Value<B>, GraphError> {
        Ok(match self.input(operator, 0)? {
            Value::Map(map) => Value::Map(function.apply(map)),
            Value::Rows(rows) => Value::Rows(function.apply(rows)),
        })
    }

    fn pairwise(&mut self, operator: &'a Operator, function: Pair) -> Result<Value<B>, GraphError> {
        Ok(match &operator.inputs[..] {
            [Input::Value(left), Input::Value(right)] => match (self.take(left)?, self.take(right)?) {
                (Value::Map(left), Value::Map(right)) => Value::Map(function.apply(operator, left, right)?),
                (Value::Rows(left), Value::Rows(right)) => Value::Rows(function.apply(operator, left, right)?),
                _ => return Err(form(operator, "a feature map and a row per image do not go together")),
            },
            [Input::Value(value), Input::Parameter(index)] => match self.take(value)? {
                Value::Map(map) => Value::Map(function.apply(operator, map, self.widened(operator, *index)?)?),
                Value::Rows(rows) => Value::Rows(function.apply(operator, rows, self.widened(operator, *index)?)?),
            },
            [Input::Parameter(index), Input::Value(value)] => match self.take(value)? {
                Value::Map(map) => Value::Map(function.apply(operator, self.widened(operator, *index)?, map)?),
                Value::Rows(rows) => Value::Rows(function.apply(operator, self.widened(operator, *index)?, rows)?),
            },
            _ => return Err(form(operator, "two inputs are expected")),
        })
    }

    /// A constant with dimensions of length 1 before its own, for broadcasting.
    fn widened<const D: usize>(&self, operator: &Operator, index: usize) -> Result<Tensor<B, D>, GraphError> {
        let shape = &self.graph.parameters[index].shape[..];
        let ones = D
            .checked_sub(shape.len())
            .ok_or_else(|| form(operator, &format!("a constant of shape {shape:?}")))?;
        let mut wide = [1; D];
        wide[ones..].copy_from_slice(shape);
        Ok(self.parameters[index].clone().reshape(wide))
    }

    fn concatenate(&mut self, operator: &'a Operator) -> Result<Value<B>, GraphError> {
        let mut maps = Vec::new();
        let mut rows = Vec::new();
        for input in &operator.inputs {
            if let Input::Value(name) = input {
                match self.take(name)? {
                    Value::Map(map) => maps.push(map),
                    Value::Rows(values) => rows.push(values),
                }
            }
        }
        match (maps.is_empty(), rows.is_empty()) {
            (false, true) => Ok(Value::Map(joined(operator, maps)?)),
            (true, false) => Ok(Value::Rows(joined(operator, rows)?)),
            _ => Err(form(operator, "a feature map and a row per image do not go together")),
        }
    }

    fn normalize(&mut self, operator: &'a Operator, epsilon: f32, momentum: f32) -> Result<Tensor<B, 4>, GraphError> {
        let map = self.map(operator)?;
        let [images, _, height, width] = map.dims();
        let count = images * height * width;
        let of_batch = matches!(
            self.mode,
            Mode::Training {
                statistics: Statistics::Batch,
                ..
            }
        );
        if of_batch && count < 2 {
            return Err(advised(
                operator,
                "a batch of one image with one value per channel has no variance; give a larger --minibatch, or \
                 --batch-norm frozen",
            ));
        }
        let running = [self.parameter(operator, 3)?, self.parameter(operator, 4)?];
        let normalization = Normalization {
            scale: self.parameter(operator, 1)?,
            shift: self.parameter(operator, 2)?,
            running: (!of_batch).then_some(running),
            epsilon,
        };
        let normalized = B::normalize(map, normalization);
        if of_batch && let [Input::Parameter(mean_index), Input::Parameter(variance_index)] = operator.inputs[3..5] {
            let [mean, variance] = normalized.statistics;
            let unbiased = count as f32 / (count as f32 - 1.0);
            self.statistics.push(BatchStatistics {
                parameters: [mean_index, variance_index],
                mean,
                variance: variance.mul_scalar(unbiased),
                momentum,
            });
        }
        Ok(normalized.map)
    }

    /// Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>. What is dropped is drawn here
    /// and not on the device, so that every device drops the same.
    fn dropout(&mut self, operator: &'a Operator, ratio: f32, position: usize) -> Result<Value<B>, GraphError> {
        let value = self.input(operator, 0)?;
        let Mode::Training { seed, first_image, .. } = self.mode else {
            return Ok(value);
        };
        if ratio <= 0.0 {
            return Ok(value);
        }
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(position as u64);
        let kept = 1.0 / (1.0 - ratio.min(0.99));
        let mut mask = |shape: &[usize]| -> Vec<f32> {
            let count: usize = shape.iter().product();
            // One word of the generator for each value.
            generator.set_word_pos((first_image * count / shape[0].max(1)) as u128);
            let draw = |_| if generator.random::<f32>() < ratio { 0.0 } else { kept };
            (0..count).map(draw).collect()
        };
        Ok(match value {
            Value::Map(map) => {
                let shape = map.dims();
                let mask = TensorData::new(mask(&shape), shape);
                let mask = Tensor::from_data(mask, &map.device());
                Value::Map(map * mask)
            }
            Value::Rows(rows) => {
                let shape = rows.dims();
                let mask = TensorData::new(mask(&shape), shape);
                let mask = Tensor::from_data(mask, &rows.device());
                Value::Rows(rows * mask)
            }
        })
    }
}

/// The error for an operator whose values have not the form that it expects.
pub(super) fn form(operator: &Operator, reason: &str) -> GraphError {
    advised(operator, &format!("{reason}; {OTHERWISE}"))
}

/// The same, with what to do about it in the reason.
fn advised(operator: &Operator, reason: &str) -> GraphError {
    GraphError::Form {
        operator: operator.kind.clone(),
        node: operator.name.clone(),
        reason: reason.to_owned(),
    }
}

fn size<B: Backend>(map: &Tensor<B, 4>) -> [usize; 2] {
    let [_, _, height, width] = map.dims();
    [height, width]
}

/// Where `window` stands over `map`; images can be too small for a network.
fn layout<B: Backend>(operator: &Operator, window: &Window, map: &Tensor<B, 4>) -> Result<Layout, GraphError> {
    let [height, width] = size(map);
    window.layout([height, width]).ok_or_else(|| {
        let [rows, columns] = window.kernel;
        advised(
            operator,
            &format!(
                "its {rows} x {columns} window does not fit into the map of {height} x {width}; give a larger --resolution"
            ),
        )
    })
}

fn convolve<B: Layers>(
    map: Tensor<B, 4>,
    kernel: Tensor<B, 4>,
    bias: Option<Tensor<B, 1>>,
    window: &Window,
    groups: usize,
) -> Tensor<B, 4> {
    let options = ConvolutionOptions {
        stride: window.stride,
        padding: window.padding.around(size(&map), window),
        dilation: window.dilation,
        groups,
    };
    let product = B::convolve(map, kernel, options);
    match bias {
        Some(bias) => by_channel(product, bias, |map, bias| map + bias),
        None => product,
    }
}
