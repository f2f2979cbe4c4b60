//! Refining the network itself: training it further on the images of the data set.
//!
//! The network is cut in two. The lower part stays as it is and runs in ONNX Runtime; the upper part, with a last
//! layer for the classes on top, is trained by an [`engine`]. Afterwards the trained values are written back into
//! the same ONNX file. On a processor only the upper stage is trained, which makes it practical there; on a GPU
//! the cut may lie at the very beginning.

pub mod augment;
mod batches;
mod checkpoint;
pub mod engine;
pub mod head;
mod history;
pub mod network;
mod rate_search;
mod recipe;
mod run;
pub mod tensorboard;
mod trained_part;
mod views;

use std::path::PathBuf;

use shared::network::NetworkError;

#[cfg(test)]
pub(crate) use history::tests::EPOCH;
pub use history::{Epoch, History, Validation};
pub use rate_search::{RateCurve, RatePoint, RateRange, find_rate};
pub use recipe::{HeadStart, Recipe, Schedule, Trained};
pub use run::{Refined, Task, refine};
pub use trained_part::cut_in_two;

use engine::{EngineError, OpenError};
use network::GraphError;

/// The network that is used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Best {
    /// After which epoch, counted from 1; 0 is the network before the first.
    pub epoch: usize,
    /// Logits of the validation images, `images x classes`.
    pub logits: Vec<f32>,
    /// Values of the graph's parameters.
    pub parameters: Vec<Vec<f32>>,
}

/// Why a network could not be refined.
#[derive(Debug, thiserror::Error)]
pub enum RefineError {
    /// A parameter is out of range.
    #[error("{0}")]
    Recipe(String),
    /// The network.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The frozen part of the network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The device.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A step.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An image that could be read before.
    #[error("{path}: {reason}")]
    Image {
        /// Which image.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It would not be done by its deadline.
    #[error("the refinement would not be done within the time limit")]
    OutOfTime,
    /// The loss became infinite or no number.
    #[error(
        "the training diverged in epoch {epoch}: its loss is no longer a finite number at learning rate {rate}; \
         give a smaller --learning-rate, a tenth for example"
    )]
    Diverged {
        /// Counted from 1.
        epoch: usize,
        /// At the step that failed.
        rate: f32,
    },
    /// The exported network does not say what the trained one said.
    #[error(
        "the exported network differs from the trained one by {difference} in a logit: this network cannot be \
         refined faithfully; `--classifier svm` can use it"
    )]
    Parity {
        /// Relative to the logit where it is above 1.
        difference: f32,
    },
    /// The events for TensorBoard cannot be written.
    #[error("the events for TensorBoard in {folder}: {source}")]
    Events {
        /// Which folder.
        folder: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The checkpoint cannot be written.
    #[error("the checkpoint {path}: {reason}")]
    Checkpoint {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Keeps the seeds of dropout apart from all others.
const DROPOUT_STREAM: u64 = 1 << 63;

/// Seed of the dropout of a step.
fn dropout_seed(seed: u64, step: usize) -> u64 {
    seed ^ DROPOUT_STREAM ^ step as u64
}

/// A generator's stream for the item `index` in round `round`.
fn stream(round: usize, index: usize) -> u64 {
    ((round as u64) << 32) | index as u64
}
