//! From gradients to steps.

use burn_tensor::Tensor;
use burn_tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// How a step follows from gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum (Polyak 1964) and L2 regularization in the gradient.
    Sgd {
        /// Share of the last step that is kept.
        momentum: f32,
        /// Factor of the weights in the gradient.
        weight_decay: f32,
    },
    /// Adam with decoupled weight decay: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>; decay
    /// rates 0.9 and 0.999.
    AdamW {
        /// Share of the weights lost per step, times the learning rate.
        weight_decay: f32,
    },
}

const BETA: (f32, f32) = (0.9, 0.999);
const EPSILON: f32 = 1e-8;

/// What an optimizer remembers of one parameter, with the optimizer's own numbers.
#[derive(Debug, Clone)]
pub(super) enum Memory<B: Backend> {
    Sgd {
        momentum: f32,
        weight_decay: f32,
        velocity: Tensor<B, 1>,
    },
    AdamW {
        weight_decay: f32,
        mean: Tensor<B, 1>,
        square: Tensor<B, 1>,
    },
}

impl Optimizer {
    /// Memory that remembers nothing yet.
    pub(super) fn memory<B: Backend>(self, parameter: &Tensor<B, 1>) -> Memory<B> {
        match self {
            Self::Sgd { momentum, weight_decay } => Memory::Sgd {
                momentum,
                weight_decay,
                velocity: parameter.zeros_like(),
            },
            Self::AdamW { weight_decay } => Memory::AdamW {
                weight_decay,
                mean: parameter.zeros_like(),
                square: parameter.zeros_like(),
            },
        }
    }
}

impl<B: Backend> Memory<B> {
    /// What is remembered, by its name in checkpoints.
    pub(super) fn tensors(&self) -> Vec<(&'static str, &Tensor<B, 1>)> {
        match self {
            Self::Sgd { velocity, .. } => vec![("momentum", velocity)],
            Self::AdamW { mean, square, .. } => vec![("mean", mean), ("square", square)],
        }
    }

    /// The same, to change it.
    pub(super) fn tensors_mut(&mut self) -> Vec<(&'static str, &mut Tensor<B, 1>)> {
        match self {
            Self::Sgd { velocity, .. } => vec![("momentum", velocity)],
            Self::AdamW { mean, square, .. } => vec![("mean", mean), ("square", square)],
        }
    }

    /// Takes step number `step` (from 1) at learning rate `rate`; `decayed` tells whether weight decay applies. Tensors
    /// that nobody else holds are changed where they are.
    pub(super) fn update(
        &mut self,
        parameter: &mut Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        rate: f32,
        decayed: bool,
        step: u64,
    ) {
        match self {
            Self::Sgd {
                momentum,
                weight_decay,
                velocity,
            } => {
                let gradient = if decayed && *weight_decay > 0.0 {
                    gradient + parameter.clone().mul_scalar(*weight_decay)
                } else {
                    gradient
                };
                velocity.inplace(|velocity| velocity.mul_scalar(*momentum) + gradient);
                parameter.inplace(|parameter| parameter - velocity.clone().mul_scalar(rate));
            }
            Self::AdamW {
                weight_decay,
                mean,
                square,
            } => {
                mean.inplace(|mean| mean.mul_scalar(BETA.0) + gradient.clone().mul_scalar(1.0 - BETA.0));
                square.inplace(|square| square.mul_scalar(BETA.1) + gradient.powi_scalar(2).mul_scalar(1.0 - BETA.1));
                let correction = |beta: f32| (1.0 - f64::from(beta).powf(step as f64)) as f32;
                let direction = mean.clone().div_scalar(correction(BETA.0))
                    / square.clone().div_scalar(correction(BETA.1)).sqrt().add_scalar(EPSILON);
                let kept = if decayed { 1.0 - rate * *weight_decay } else { 1.0 };
                parameter.inplace(|parameter| parameter.mul_scalar(kept) - direction.mul_scalar(rate));
            }
        }
    }
}
