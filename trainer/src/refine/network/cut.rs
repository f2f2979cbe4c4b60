//! Where a network can be cut into a lower part that stays as it is and an upper part that is trained.

use std::collections::{HashMap, HashSet};

use super::{Graph, GraphError, Input, Operation};
use crate::onnx::proto::ModelProto;
use crate::onnx::{Form, add_output, prune};

/// A value that everything after it depends on only through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// Name of the value.
    pub value: String,
    /// How many convolutions and linear layers come after it.
    pub layers_above: usize,
    /// Whether the map becomes smaller directly after it: the beginning of a stage.
    pub downsampled_above: bool,
}

/// The boundaries of `graph`, from the input upwards, those with the same number of layers above given once.
pub fn boundaries(graph: &Graph) -> Vec<Boundary> {
    let mut last_use: HashMap<&str, usize> = HashMap::new();
    for (position, operator) in graph.operators.iter().enumerate() {
        for input in &operator.inputs {
            if let Input::Value(name) = input {
                last_use.insert(name, position);
            }
        }
    }
    last_use.insert(&graph.output, graph.operators.len());
    let layers: Vec<bool> = graph
        .operators
        .iter()
        .map(|operator| operator.operation.is_layer())
        .collect();
    let mut found: Vec<Boundary> = Vec::new();
    // The position up to which some value before the current one is still needed.
    let mut needed_until = last_use.get(graph.input.as_str()).copied().unwrap_or(0);
    for (position, operator) in graph.operators.iter().enumerate() {
        let own = last_use.get(operator.output.as_str()).copied().unwrap_or(position);
        if needed_until <= position && own > position && operator.output != graph.output {
            let layers_above = layers[position + 1..].iter().filter(|layer| **layer).count();
            let boundary = Boundary {
                value: operator.output.clone(),
                layers_above,
                downsampled_above: downsampled(graph, position),
            };
            match found.last_mut() {
                Some(last) if last.layers_above == layers_above => *last = boundary,
                _ => found.push(boundary),
            }
        }
        needed_until = needed_until.max(own);
    }
    found
}

impl Graph {
    /// For each parameter, how many convolutions and linear layers come after the first operator that uses it.
    pub fn layers_above(&self) -> Vec<usize> {
        let mut above = vec![0; self.parameters.len()];
        let mut layers = 0;
        for operator in self.operators.iter().rev() {
            for input in &operator.inputs {
                if let Input::Parameter(index) = input {
                    above[*index] = layers;
                }
            }
            layers += usize::from(operator.operation.is_layer());
        }
        above
    }

    /// Whether a value is a row per image and no map.
    pub fn is_row(&self, value: &str) -> bool {
        let mut rows: HashSet<&str> = HashSet::new();
        for operator in &self.operators {
            let is_row = match operator.operation {
                Operation::Flatten | Operation::Linear { .. } => true,
                Operation::GlobalAveragePool { keep } => !keep,
                Operation::Cell => false,
                _ => operator.inputs.iter().any(|input| match input {
                    Input::Value(name) => rows.contains(name.as_str()),
                    Input::Parameter(_) => false,
                }),
            };
            if is_row {
                rows.insert(&operator.output);
            }
        }
        rows.contains(value)
    }
}

/// Whether a layer makes the map smaller before the next boundary of the network could come: the first window
/// above, or a parallel one, or the depthwise window of an inverted bottleneck.
fn downsampled(graph: &Graph, position: usize) -> bool {
    let mut layers = 0;
    for operator in &graph.operators[position + 1..] {
        let stride = match &operator.operation {
            Operation::Convolution { window, .. } => {
                layers += 1;
                window.stride
            }
            Operation::MaxPool(window) | Operation::AveragePool { window, .. } => window.stride,
            _ => continue,
        };
        if stride != [1, 1] {
            return true;
        }
        if layers == 2 {
            break;
        }
    }
    false
}

/// The part of `model` below the value `cut`, with the value itself as outputs: flattened and, where it `is_row` not,
/// as a map.
///
/// # Errors
/// [`GraphError::Unsound`] where the file holds no graph.
pub fn lower_part(model: &ModelProto, cut: &str, is_row: bool) -> Result<ModelProto, GraphError> {
    let mut lower = model.clone();
    let graph = lower.graph_mut()?;
    let keep = graph
        .node
        .iter()
        .position(|node| node.output.iter().any(|name| name == cut))
        .ok_or_else(|| GraphError::Unsound(format!("no node makes {cut}")))?;
    graph.node.truncate(keep + 1);
    graph.output.clear();
    add_output(graph, cut, Form::Rows, "ikat_rows", &[]);
    if !is_row {
        add_output(graph, cut, Form::Same, "ikat_map", &[]);
    }
    prune(graph);
    Ok(lower)
}
