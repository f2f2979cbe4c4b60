//! A network as it is refined: its ONNX graph, read once into typed operators and named parameters.
//!
//! There is one definition of a network, its ONNX file. [`Graph`] reads it, [`forward`] runs it on tensors with
//! automatic differentiation, and [`write_back`] puts trained values into the very same file. So whatever consists
//! of the operators in [`Operation`] can be refined; anything else is an error that names the operator.

mod cut;
mod elementwise;
mod forward;
mod layers;
mod operation;
mod pool;
mod read;
#[cfg(test)]
pub(super) mod tests;

pub use cut::{Boundary, boundaries, lower_part};
pub use elementwise::{Each, Pair};
pub use forward::{BatchStatistics, Mode, Pass, Precision, Statistics, Value, forward};
pub use layers::{ConvolutionOptions, Layers, Normalization, Normalized, Trainable};
pub use operation::{Layout, Operation, Padding, Window};
pub use read::write_back;

use self::operation::OTHERWISE;
use crate::onnx::TensorError;

/// A network that can be differentiated.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Name of the value that comes in.
    pub input: String,
    /// In an order in which each can be computed after those before it.
    pub operators: Vec<Operator>,
    /// Every tensor of floats that an operator uses, in order of first use.
    pub parameters: Vec<Parameter>,
    /// Name of the value that goes out.
    pub output: String,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    /// Name of the node, for messages.
    pub name: String,
    /// Type of the node, for messages: the word that is in its file.
    pub kind: String,
    /// What it computes.
    pub operation: Operation,
    /// Where its inputs come from.
    pub inputs: Vec<Input>,
    /// Name of the value it makes.
    pub output: String,
}

/// Where an operator's input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A value computed from the images.
    Value(String),
    /// Index of a parameter.
    Parameter(usize),
}

/// A named tensor of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name of the initializer.
    pub name: String,
    /// Lengths of its dimensions.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
    /// What it is for.
    pub role: Role,
}

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A kernel or matrix: trained, with weight decay.
    Weight,
    /// A bias, or scale and shift of a normalization: trained, without weight decay.
    Offset,
    /// A running statistic of a batch normalization: follows the batches, has no gradient.
    Statistic,
    /// Anything else: stays as it is.
    Constant,
}

/// Why a network cannot be refined.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum GraphError {
    /// An operator that is not known here.
    #[error("the network uses the operator {operator} (node {node}), which cannot be refined; {OTHERWISE}")]
    Operator {
        /// The operator's type.
        operator: String,
        /// The node's name.
        node: String,
    },
    /// An operator in a form that is not known here.
    #[error("the network's node {node} ({operator}) cannot be refined: {reason}")]
    Form {
        /// The operator's type.
        operator: String,
        /// The node's name.
        node: String,
        /// What is in the way.
        reason: String,
    },
    /// The file is not a sound graph.
    #[error("the network's graph is not sound: {0}")]
    Unsound(String),
}

impl From<TensorError> for GraphError {
    fn from(error: TensorError) -> Self {
        Self::Unsound(error.0)
    }
}
