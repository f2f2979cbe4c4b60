//! Changing what a finished graph gives.

use std::collections::{HashMap, HashSet};

use super::builder::node;
use super::proto::{DimensionValue, FLOAT, GraphProto, NodeProto, TensorShapeProto, TensorType, TypeProto, TypeValue};
use super::proto::{TensorProto, ValueInfoProto};
use super::{Attribute, float_value};

/// In which form a value becomes an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Same,
    /// One row per image.
    Rows,
}

/// Makes `value` an output called `name`, of the given dimensions or, where there are none, of any.
pub fn add_output(graph: &mut GraphProto, value: &str, form: Form, name: &str, dimensions: &[DimensionValue]) {
    let (operator, attributes): (_, &[(&str, Attribute)]) = match form {
        Form::Same => ("Identity", &[]),
        Form::Rows => ("Flatten", &[("axis", Attribute::Int(1))]),
    };
    graph.node.push(node(name, operator, &[value], attributes));
    graph.output.push(if dimensions.is_empty() {
        unshaped(name)
    } else {
        float_value(name, dimensions)
    });
}

/// Adds a node with one output, named as the node.
pub fn add_node(graph: &mut GraphProto, name: &str, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) {
    graph.node.push(node(name, operator, inputs, attributes));
}

/// Adds a constant tensor of 32-bit floats.
pub fn add_initializer(graph: &mut GraphProto, name: &str, shape: &[usize], values: &[f32]) {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    add_tensor(graph, name, FLOAT, shape, bytes);
}

/// Adds a constant tensor of elements of `data_type`, little-endian.
pub fn add_tensor(graph: &mut GraphProto, name: &str, data_type: i32, shape: &[usize], bytes: Vec<u8>) {
    graph.initializer.push(TensorProto {
        name: name.to_owned(),
        data_type,
        dims: shape.iter().map(|length| *length as i64).collect(),
        raw_data: bytes,
        ..TensorProto::default()
    });
}

/// The description of a value that holds 32-bit floats in a shape that only the runtime knows.
fn unshaped(name: &str) -> ValueInfoProto {
    let tensor = TensorType {
        elem_type: FLOAT,
        shape: None::<TensorShapeProto>,
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// How often each value is used, by nodes, graphs within nodes, and as an output.
pub fn uses(graph: &GraphProto) -> HashMap<String, usize> {
    let mut uses = HashMap::new();
    let mut count = |name: &String| *uses.entry(name.clone()).or_insert(0) += 1;
    graph.output.iter().for_each(|output| count(&output.name));
    for node in &graph.node {
        node.input.iter().for_each(&mut count);
        let inner = node.attribute.iter();
        let inner = inner.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        for (name, times) in inner.flat_map(self::uses) {
            (0..times).for_each(|_| count(&name));
        }
    }
    uses
}

/// Drops every node and constant that no output needs.
pub fn prune(graph: &mut GraphProto) {
    let mut needed: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut kept: Vec<NodeProto> = Vec::with_capacity(graph.node.len());
    // Nodes stand in topological order.
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| needed.contains(output)) {
            needed.extend(node.input.iter().cloned());
            // A subgraph may use any value from outside.
            let inner = node
                .attribute
                .iter()
                .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
            needed.extend(
                inner
                    .flat_map(|graph| &graph.node)
                    .flat_map(|node| node.input.iter().cloned()),
            );
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    graph.initializer.retain(|tensor| needed.contains(&tensor.name));
    graph.value_info.retain(|value| needed.contains(&value.name));
}
