//! From gradients to steps.

use burn_tensor::Tensor;
use burn_tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::EngineError;

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

/// What an optimizer remembers of one parameter.
#[derive(Debug, Clone)]
pub(super) struct Memory<B: Backend> {
    /// Names of the tensors, for checkpoints.
    pub names: &'static [&'static str],
    /// As many as names.
    pub tensors: Vec<Tensor<B, 1>>,
}

impl Optimizer {
    /// Memory that remembers nothing yet.
    pub(super) fn memory<B: Backend>(self, parameter: &Tensor<B, 1>) -> Memory<B> {
        let names: &[&str] = match self {
            Self::Sgd { .. } => &["momentum"],
            Self::AdamW { .. } => &["mean", "square"],
        };
        Memory {
            names,
            tensors: names.iter().map(|_| parameter.zeros_like()).collect(),
        }
    }

    /// Takes step number `step` (from 1) at learning rate `rate`; `decayed` tells whether weight decay applies. Tensors
    /// that nobody else holds are changed where they are.
    pub(super) fn update<B: Backend>(
        self,
        parameter: &mut Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        memory: &mut Memory<B>,
        rate: f32,
        decayed: bool,
        step: u64,
    ) -> Result<(), EngineError> {
        match (self, &mut memory.tensors[..]) {
            (Self::Sgd { momentum, weight_decay }, [velocity]) => {
                let gradient = if decayed && weight_decay > 0.0 {
                    gradient + parameter.clone().mul_scalar(weight_decay)
                } else {
                    gradient
                };
                velocity.inplace(|velocity| velocity.mul_scalar(momentum) + gradient);
                parameter.inplace(|parameter| parameter - velocity.clone().mul_scalar(rate));
            }
            (Self::AdamW { weight_decay }, [mean, square]) => {
                mean.inplace(|mean| mean.mul_scalar(BETA.0) + gradient.clone().mul_scalar(1.0 - BETA.0));
                square.inplace(|square| square.mul_scalar(BETA.1) + gradient.powi_scalar(2).mul_scalar(1.0 - BETA.1));
                let correction = |beta: f32| (1.0 - f64::from(beta).powf(step as f64)) as f32;
                let direction = mean.clone().div_scalar(correction(BETA.0))
                    / square.clone().div_scalar(correction(BETA.1)).sqrt().add_scalar(EPSILON);
                let kept = if decayed { 1.0 - rate * weight_decay } else { 1.0 };
                parameter.inplace(|parameter| parameter.mul_scalar(kept) - direction.mul_scalar(rate));
            }
            _ => return Err(EngineError::State),
        }
        Ok(())
    }
}
