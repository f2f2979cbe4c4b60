//! Reading a graph from an ONNX file, and writing trained values back into it.

use std::collections::{HashMap, HashSet};

use super::operation::{Reader, name, unknown_form};
use super::{Graph, GraphError, Input, Operation, Operator, Pair, Parameter, Role};
use crate::float_bytes::to_bytes;
use crate::onnx::proto::{FLOAT, GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::{Constants, floats, shape};

impl Graph {
    /// The part of `model` that computes the value `output` from the images or, where it is given, from the value
    /// `input` within the network.
    ///
    /// # Errors
    /// [`GraphError`] for an operator that cannot be refined, or a file that is not sound.
    pub fn read(model: &ModelProto, input: Option<&str>, output: &str) -> Result<Self, GraphError> {
        let graph = model.graph()?;
        let constants = Constants::of(graph);
        let input = input
            .or_else(|| constants.images(graph))
            .ok_or_else(|| GraphError::Unsound("it has no input for images".to_owned()))?;
        let (nodes, elsewhere) = needed(graph, input, output)?;
        let mut parsed = Parsed {
            constants,
            elsewhere,
            indices: HashMap::new(),
            graph: Self {
                input: input.to_owned(),
                operators: Vec::new(),
                parameters: Vec::new(),
                output: output.to_owned(),
            },
        };
        for node in nodes {
            parsed.add(node)?;
        }
        Ok(parsed.graph)
    }
}

/// A graph as it grows.
struct Parsed<'a> {
    constants: Constants<'a>,
    /// What the other nodes of the file take: trained, it would change what stays as it is.
    elsewhere: HashSet<&'a str>,
    /// Index of the parameter with a name.
    indices: HashMap<String, usize>,
    graph: Graph,
}

impl<'a> Parsed<'a> {
    fn add(&mut self, node: &'a NodeProto) -> Result<(), GraphError> {
        if self
            .constants
            .get(node.output.first().map_or("", String::as_str))
            .is_some()
        {
            return Ok(());
        }
        let reader = Reader {
            node,
            constants: &self.constants,
        };
        let (operation, count) = reader.operation()?;
        let mut inputs = Vec::with_capacity(count);
        for (position, name) in node.input.iter().take(count).enumerate() {
            if name.is_empty() {
                continue;
            }
            inputs.push(match self.constants.get(name) {
                Some(tensor) => Input::Parameter(self.parameter(tensor, name, role(&operation, position, tensor))?),
                None => Input::Value(name.clone()),
            });
        }
        check_inputs(node, &operation, &inputs)?;
        let output = node.output.first().cloned().unwrap_or_default();
        self.graph.operators.push(Operator {
            name: name(node),
            kind: node.op_type.clone(),
            operation,
            inputs,
            output,
        });
        Ok(())
    }

    fn parameter(&mut self, tensor: &TensorProto, name: &str, role: Role) -> Result<usize, GraphError> {
        if let Some(index) = self.indices.get(name) {
            return Ok(*index);
        }
        let index = self.graph.parameters.len();
        self.graph.parameters.push(Parameter {
            name: name.to_owned(),
            shape: shape(tensor)?,
            values: floats(tensor)?,
            role: if self.elsewhere.contains(name) {
                Role::Constant
            } else {
                role
            },
        });
        self.indices.insert(name.to_owned(), index);
        Ok(index)
    }
}

/// What the input of an operation at a position is for, where it is a constant.
fn role(operation: &Operation, position: usize, tensor: &TensorProto) -> Role {
    match (operation, position) {
        // A single number is no bias, but part of a function, as in hard swish, x min(max(x + 3, 0), 6) / 6.
        (Operation::Pair(Pair::Add), _) if tensor.dims.iter().all(|length| *length == 1) => Role::Constant,
        (Operation::Convolution { .. } | Operation::Linear { .. }, 1) => Role::Weight,
        (Operation::Convolution { .. } | Operation::Linear { .. }, 2)
        | (Operation::BatchNormalization { .. }, 1 | 2)
        | (Operation::Pair(Pair::Add), _) => Role::Offset,
        (Operation::BatchNormalization { .. }, 3 | 4) => Role::Statistic,
        _ => Role::Constant,
    }
}

/// Which inputs must come from the images, and which must be constants.
fn check_inputs(node: &NodeProto, operation: &Operation, inputs: &[Input]) -> Result<(), GraphError> {
    let value = |position: usize| matches!(inputs.get(position), Some(Input::Value(_)));
    let parameter = |position: usize| matches!(inputs.get(position), Some(Input::Parameter(_)));
    let sound = match operation {
        Operation::Convolution { .. } | Operation::Linear { .. } => {
            value(0) && parameter(1) && (inputs.len() == 2 || inputs.len() == 3 && parameter(2))
        }
        Operation::BatchNormalization { .. } => value(0) && (1..5).all(parameter),
        Operation::Pair(_) => inputs.len() == 2 && (value(0) || value(1)),
        Operation::Concatenate => !inputs.is_empty() && (0..inputs.len()).all(value),
        _ => value(0),
    };
    if sound {
        Ok(())
    } else {
        Err(unknown_form(
            node,
            "its inputs are not the expected values and constants",
        ))
    }
}

/// The nodes between `input` and `output`, in order, and the names of what all others take.
fn needed<'a>(
    graph: &'a GraphProto,
    input: &str,
    output: &str,
) -> Result<(Vec<&'a NodeProto>, HashSet<&'a str>), GraphError> {
    let mut elsewhere = HashSet::new();
    let mut wanted: HashSet<&str> = HashSet::from([output]);
    let mut nodes = Vec::new();
    // Nodes stand in topological order: those of a user's own network are put into one as it is read.
    for node in graph.node.iter().rev() {
        let makes = node.output.iter().any(|name| wanted.contains(name.as_str()));
        if makes && !node.output.iter().any(|name| name == input) {
            wanted.extend(node.input.iter().map(String::as_str));
            nodes.push(node);
        } else {
            elsewhere.extend(node.input.iter().map(String::as_str));
        }
    }
    nodes.reverse();
    if !wanted.contains(input) {
        return Err(GraphError::Unsound(format!("{output} does not depend on {input}")));
    }
    Ok((nodes, elsewhere))
}

/// Puts the values of `parameters` into the tensors of the same names in `model`.
///
/// # Errors
/// [`GraphError::Unsound`] where a tensor is missing or has another size.
pub fn write_back(model: &mut ModelProto, parameters: &[Parameter]) -> Result<(), GraphError> {
    let trained: HashMap<&str, &Parameter> = parameters
        .iter()
        .map(|parameter| (parameter.name.as_str(), parameter))
        .collect();
    let mut written = 0;
    if let Some(graph) = &mut model.graph {
        part(graph, &trained);
        let inner = graph.node.iter_mut().filter_map(|node| {
            let output = node.output.first()?.clone();
            let value = node.attribute.iter_mut().find(|attribute| attribute.name == "value")?;
            Some((output, value.t.as_mut()?))
        });
        let outer = graph.initializer.iter_mut().map(|tensor| (tensor.name.clone(), tensor));
        for (name, tensor) in outer.chain(inner) {
            let Some(parameter) = trained.get(name.as_str()) else {
                continue;
            };
            if shape(tensor)? != parameter.shape {
                return Err(GraphError::Unsound(format!("the tensor {name} has another shape")));
            }
            tensor.float_data.clear();
            tensor.raw_data = to_bytes(&parameter.values);
            written += 1;
        }
    }
    if written < trained.len() {
        return Err(GraphError::Unsound(
            "a trained tensor is not among those of the file; simplify the network first".to_owned(),
        ));
    }
    Ok(())
}

/// Gives a tensor of its own to every trained name that an Identity makes of another tensor: exporters keep one of two
/// that are equal, and once trained they differ.
fn part(graph: &mut GraphProto, trained: &HashMap<&str, &Parameter>) {
    let parameter = |node: &NodeProto| trained.get(node.output.first()?.as_str()).copied();
    let is_second_name = |node: &NodeProto| node.op_type == "Identity" && parameter(node).is_some();
    let nodes = std::mem::take(&mut graph.node);
    let (second_names, nodes): (Vec<_>, Vec<_>) = nodes.into_iter().partition(is_second_name);
    graph.node = nodes;
    for Parameter { name, shape, .. } in second_names.iter().filter_map(parameter) {
        graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: shape.iter().map(|length| *length as i64).collect(),
            data_type: FLOAT,
            ..TensorProto::default()
        });
    }
}
