//! What the constant tensors of a graph hold.

use std::collections::HashMap;

use super::builder::{float_tensor, tensor};
use super::proto::{AttributeProto, FLOAT, GraphProto, INT64, TensorProto, attribute_type};
use crate::float_bytes::from_bytes;

/// What is wrong with a tensor, or with the file that it should be in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TensorError(pub String);

/// The tensors that do not depend on the images.
pub struct Constants<'a> {
    tensors: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> Constants<'a> {
    /// The initializers of `graph`, and what its nodes `Constant` and `Identity` make of constants.
    pub fn of(graph: &'a GraphProto) -> Self {
        let mut tensors: HashMap<&str, &TensorProto> = graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        for node in &graph.node {
            let Some(output) = node.output.first() else { continue };
            let constant = match node.op_type.as_str() {
                "Constant" => node.attribute("value").and_then(|attribute| attribute.t.as_ref()),
                "Identity" => node
                    .input
                    .first()
                    .and_then(|input| tensors.get(input.as_str()).copied()),
                _ => None,
            };
            if let Some(tensor) = constant {
                tensors.insert(output.as_str(), tensor);
            }
        }
        Self { tensors }
    }

    /// The constant that goes by `name`.
    pub fn get(&self, name: &str) -> Option<&'a TensorProto> {
        self.tensors.get(name).copied()
    }

    /// Name of the input of `graph` that images come in by: the first that is no constant.
    pub fn images<'g>(&self, graph: &'g GraphProto) -> Option<&'g str> {
        let mut names = graph.input.iter().map(|input| input.name.as_str());
        names.find(|name| self.get(name).is_none())
    }

    /// The values of the constant `name`, where it is there and holds 32-bit floats.
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.get(name).and_then(|tensor| floats(tensor).ok())
    }
}

/// Gives what the nodes `Constant` hold the form of a tensor, in which [`Constants`] finds it: exporters also write a
/// number or a list of numbers.
pub fn unify_constants(graph: &mut GraphProto) {
    let constants = graph.node.iter_mut().filter(|node| node.op_type == "Constant");
    for attribute in constants.flat_map(|node| &mut node.attribute) {
        let integers = |shape: &[usize], values: &[i64]| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensor("", INT64, shape, bytes)
        };
        let value = match attribute.name.as_str() {
            "value_float" => float_tensor("", &[], &[attribute.f]),
            "value_floats" => float_tensor("", &[attribute.floats.len()], &attribute.floats),
            "value_int" => integers(&[], &[attribute.i]),
            "value_ints" => integers(&[attribute.ints.len()], &attribute.ints),
            _ => continue,
        };
        *attribute = AttributeProto {
            name: "value".to_owned(),
            r#type: attribute_type::TENSOR,
            t: Some(value),
            ..AttributeProto::default()
        };
    }
}

/// Lengths of a tensor's dimensions.
///
/// # Errors
/// [`TensorError`] where one is negative.
pub fn shape(tensor: &TensorProto) -> Result<Vec<usize>, TensorError> {
    tensor
        .dims
        .iter()
        .map(|length| usize::try_from(*length))
        .collect::<Result<_, _>>()
        .map_err(|_| TensorError(format!("{} has a negative length", tensor.name)))
}

/// The values of a tensor of 32-bit floats.
///
/// # Errors
/// [`TensorError`] where it holds something else, or not as much as its shape says.
pub fn floats(tensor: &TensorProto) -> Result<Vec<f32>, TensorError> {
    let unsound = |what: &str| TensorError(format!("the tensor {} {what}", tensor.name));
    if tensor.data_type != FLOAT {
        return Err(unsound(
            "does not hold 32-bit floats; export the network in single precision",
        ));
    }
    if !tensor.external_data.is_empty() {
        return Err(unsound("lies in another file; save the network as one file"));
    }
    let values = if tensor.raw_data.is_empty() {
        tensor.float_data.clone()
    } else {
        from_bytes(&tensor.raw_data)
    };
    let count = shape(tensor)?.into_iter().try_fold(1_usize, usize::checked_mul);
    if count == Some(values.len()) {
        Ok(values)
    } else {
        Err(unsound("does not hold as many values as its shape says"))
    }
}

/// The values of a tensor of 64-bit integers; `None` where it holds something else.
pub fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type != INT64 {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.int64_data.clone());
    }
    let chunks = tensor.raw_data.chunks_exact(8);
    chunks
        .map(|eight| eight.try_into().ok().map(i64::from_le_bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::NodeProto;

    #[test]
    fn numbers_and_lists_are_constants_like_tensors() {
        let constant = |output: &str, attribute: AttributeProto| NodeProto {
            op_type: "Constant".to_owned(),
            output: vec![output.to_owned()],
            attribute: vec![attribute],
            ..NodeProto::default()
        };
        let named = |name: &str| AttributeProto {
            name: name.to_owned(),
            ..AttributeProto::default()
        };
        let (number, list) = (named("value_float"), named("value_ints"));
        let mut graph = GraphProto {
            node: vec![
                constant("most", AttributeProto { f: 6.0, ..number }),
                constant(
                    "axes",
                    AttributeProto {
                        ints: vec![2, 3],
                        ..list
                    },
                ),
            ],
            ..GraphProto::default()
        };
        unify_constants(&mut graph);
        let constants = Constants::of(&graph);
        assert_eq!(constants.floats("most"), Some(vec![6.0]));
        assert_eq!(constants.get("axes").and_then(integers), Some(vec![2, 3]));
        assert_eq!(constants.get("axes").map(|axes| &axes.dims[..]), Some(&[2][..]));
    }
}
