//! Functions of each value by itself, and of values side by side. Backends panic at shapes that do not go together;
//! here these are errors.

use burn_tensor::Tensor;
use burn_tensor::activation::{hard_sigmoid, leaky_relu, sigmoid};
use burn_tensor::backend::Backend;

use super::forward::form;
use super::layers::Layers;
use super::{GraphError, Operator};

/// A function of each value by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Each {
    /// `max(x, 0)`.
    Relu,
    /// `max(x, slope x)`.
    LeakyRelu(f32),
    /// Limits from below and above.
    Clip(f32, f32),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `max(0, min(1, alpha x + beta))`.
    HardSigmoid(f32, f32),
    /// `x max(0, min(1, x / 6 + 0.5))`.
    HardSwish,
}

impl Each {
    pub(super) fn apply<B: Layers, const D: usize>(self, values: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Relu => B::clip(values, 0.0, f32::INFINITY),
            Self::LeakyRelu(slope) => leaky_relu(values, f64::from(slope)),
            Self::Clip(low, high) => B::clip(values, low, high),
            Self::Sigmoid => sigmoid(values),
            Self::HardSigmoid(alpha, beta) => hard_sigmoid(values, f64::from(alpha), f64::from(beta)),
            Self::HardSwish => values.clone() * hard_sigmoid(values, 1.0 / 6.0, 0.5),
        }
    }
}

/// A function of two values at the same place, with broadcasting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// Sum.
    Add,
    /// Difference.
    Subtract,
    /// Product.
    Multiply,
    /// Quotient.
    Divide,
}

impl Pair {
    pub(super) fn apply<B: Backend, const D: usize>(
        self,
        operator: &Operator,
        left: Tensor<B, D>,
        right: Tensor<B, D>,
    ) -> Result<Tensor<B, D>, GraphError> {
        let shapes = (left.dims(), right.dims());
        let mut lengths = shapes.0.iter().zip(&shapes.1);
        if !lengths.all(|(left, right)| left == right || *left == 1 || *right == 1) {
            return Err(apart(operator, shapes));
        }
        Ok(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
        })
    }
}

/// Values side by side along the channels, in which alone they may differ.
pub(super) fn joined<B: Backend, const D: usize>(
    operator: &Operator,
    values: Vec<Tensor<B, D>>,
) -> Result<Tensor<B, D>, GraphError> {
    for pair in values.windows(2) {
        let shapes = (pair[0].dims(), pair[1].dims());
        let mut lengths = shapes.0.iter().zip(&shapes.1).enumerate();
        if !lengths.all(|(axis, (left, right))| axis == 1 || left == right) {
            return Err(apart(operator, shapes));
        }
    }
    Ok(Tensor::cat(values, 1))
}

/// The error for two values whose shapes are none that the operator can take together.
fn apart<const D: usize>(operator: &Operator, (left, right): ([usize; D], [usize; D])) -> GraphError {
    form(
        operator,
        &format!("values of the shapes {left:?} and {right:?} do not go together"),
    )
}
