//! Where a network is trained: steps of an optimizer on some device, behind one object-safe trait.
//!
//! Everything that depends on the device's tensor type is in here; the loop around it deals in plain numbers, so
//! that it is compiled once and a checkpoint made on one device can be taken up on another.

mod device;
mod optimizer;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::network::{Graph, GraphError, Precision, Statistics};

pub use device::{OpenError, open};
pub use optimizer::Optimizer;

/// Inputs of some images: what the network's trained part takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// `[channels, height, width]` of a map, or `[length]` of a row.
    pub shape: Vec<usize>,
    /// One input after another.
    pub values: Vec<f32>,
}

impl Inputs {
    /// How many images they are of.
    pub fn count(&self) -> usize {
        self.values.len() / self.length()
    }

    /// Those of some of the images.
    pub(super) fn part(&self, images: std::ops::Range<usize>) -> Self {
        Self {
            shape: self.shape.clone(),
            values: self.values[images.start * self.length()..images.end * self.length()].to_vec(),
        }
    }

    /// Values of one input.
    fn length(&self) -> usize {
        self.shape.iter().product::<usize>().max(1)
    }
}

/// What one step learns from.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The images.
    pub inputs: Inputs,
    /// Wanted probabilities, `images x classes`.
    pub targets: Vec<f32>,
    /// How much each image counts.
    pub weights: Vec<f32>,
}

/// What is trained, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The network, its output being class logits.
    pub graph: Graph,
    /// Number of classes.
    pub classes: usize,
    /// Factor of the learning rate for each parameter of the graph; 0 leaves it as it is.
    pub rate_scales: Vec<f32>,
    /// How a step follows from gradients.
    pub optimizer: Optimizer,
    /// What batch normalization uses.
    pub statistics: Statistics,
    /// What products are computed in; logits for inference always in 32 bits.
    pub precision: Precision,
    /// Share of the old value kept in the moving average of the parameters; `None` for no average.
    pub average: Option<f32>,
    /// Largest Euclidean length of the whole gradient; it is scaled down to it.
    pub clip_norm: Option<f32>,
    /// Most images whose gradient is computed at once; a larger batch is summed up from parts. `None` for all: it then
    /// is halved where the device has not enough memory.
    pub images_at_once: Option<usize>,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Weighted mean cross-entropy before the step, in nats.
    pub loss: f32,
    /// Images whose largest logit was that of their largest target.
    pub correct: usize,
    /// Images whose gradient was computed at once: less than the batch where the device has not the memory for it.
    pub images_at_once: usize,
}

/// Everything that a step changes, by name: what a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Steps taken.
    pub steps: u64,
    /// Flat tensors: `parameter/NAME`, `average/NAME`, and the optimizer's.
    pub tensors: BTreeMap<String, Vec<f32>>,
}

/// Which values of the parameters are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Those of the last step.
    Current,
    /// Their moving average, where one is kept; else those of the last step.
    Averaged,
}

/// A network being trained on some device.
pub trait Engine {
    /// Takes one step at learning rate `rate`; `seed` draws what dropout drops.
    ///
    /// # Errors
    /// See [`EngineError`]; the network then is as it was before.
    fn step(&mut self, batch: &Batch, rate: f32, seed: u64) -> Result<Outcome, EngineError>;

    /// Class logits, `images x classes`, for inference.
    fn logits(&mut self, inputs: &Inputs, version: Version) -> Result<Vec<f32>, EngineError>;

    /// The values of the graph's parameters.
    fn parameters(&self, version: Version) -> Result<Vec<Vec<f32>>, EngineError>;

    /// For a checkpoint.
    fn state(&self) -> Result<State, EngineError>;

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// [`EngineError::State`] where it is one of another network; this one then is as it was before.
    fn restore(&mut self, state: &State) -> Result<(), EngineError>;
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The network.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device.
    #[error("the device failed: {0}; a smaller --minibatch needs less memory, --device cpu needs no GPU")]
    Device(String),
    /// Not even one image fits, or the batch cannot be divided.
    #[error(
        "the device has not enough memory: give a smaller --minibatch or --resolution, fewer --trained layers, or \
         --device cpu"
    )]
    OutOfMemory,
    /// The step was not taken.
    #[error("the loss or its gradient is no longer a finite number; a smaller --learning-rate helps")]
    NotFinite,
    /// A checkpoint of something else.
    #[error("the checkpoint belongs to another network or another optimizer")]
    State,
}

/// What a driver said as it panicked.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("its driver gave up")
}
