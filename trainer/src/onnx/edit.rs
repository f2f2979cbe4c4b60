//! Changing what a finished graph gives.

use std::collections::{HashMap, HashSet};

use super::builder::{float_tensor, node, tensor};
use super::proto::{
    DimensionValue, FLOAT, GraphProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use super::{Attribute, float_value};

/// In which form a value becomes an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Same,
    /// One row per image.
    Rows,
}

/// `wish`, or where something in `graph` goes by that name already, `wish` with the first free number after it.
pub fn fresh_name(graph: &GraphProto, wish: &str) -> String {
    let mut name = wish.to_owned();
    let mut number = 1;
    while is_taken(graph, &name) {
        number += 1;
        name = format!("{wish}_{number}");
    }
    name
}

fn is_taken(graph: &GraphProto, name: &str) -> bool {
    let mut described = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    graph.initializer.iter().any(|tensor| tensor.name == name)
        || described.any(|value| value.name == name)
        || graph.node.iter().any(|node| {
            node.name == name
                || node.output.iter().any(|output| output == name)
                || node.graphs().any(|graph| is_taken(graph, name))
        })
}

/// Makes `value` an output of the given dimensions or, where there are none, of any. Gives its name: `wish`, or a
/// [`fresh_name`] after it.
pub fn add_output(
    graph: &mut GraphProto,
    value: &str,
    form: Form,
    wish: &str,
    dimensions: &[DimensionValue],
) -> String {
    let (operator, attributes): (_, &[(&str, Attribute)]) = match form {
        Form::Same => ("Identity", &[]),
        Form::Rows => ("Flatten", &[("axis", Attribute::Int(1))]),
    };
    let name = add_node(graph, wish, operator, &[value], attributes);
    graph.output.push(if dimensions.is_empty() {
        unshaped(&name)
    } else {
        float_value(&name, dimensions)
    });
    name
}

/// Adds a node with one output, and gives the name of both: `wish`, or a [`fresh_name`] after it.
pub fn add_node(
    graph: &mut GraphProto,
    wish: &str,
    operator: &str,
    inputs: &[&str],
    attributes: &[(&str, Attribute)],
) -> String {
    let name = fresh_name(graph, wish);
    graph.node.push(node(&name, operator, inputs, attributes));
    name
}

/// Adds a constant tensor of 32-bit floats, and gives its name: `wish`, or a [`fresh_name`] after it.
pub fn add_initializer(graph: &mut GraphProto, wish: &str, shape: &[usize], values: &[f32]) -> String {
    let name = fresh_name(graph, wish);
    graph.initializer.push(float_tensor(&name, shape, values));
    name
}

/// Adds a constant tensor of elements of `data_type`, little-endian, and gives its name: `wish`, or a [`fresh_name`]
/// after it.
pub fn add_tensor(graph: &mut GraphProto, wish: &str, data_type: i32, shape: &[usize], bytes: Vec<u8>) -> String {
    let name = fresh_name(graph, wish);
    graph.initializer.push(tensor(&name, data_type, shape, bytes));
    name
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
        for (name, times) in node.graphs().flat_map(self::uses) {
            (0..times).for_each(|_| count(&name));
        }
    }
    uses
}

/// Drops every node and constant that no output needs.
pub fn prune(graph: &mut GraphProto) {
    let (nodes, values) = needed(graph);
    let mut nodes = nodes.into_iter();
    graph.node.retain(|_| nodes.next() == Some(true));
    graph.initializer.retain(|tensor| values.contains(&tensor.name));
    graph.value_info.retain(|value| values.contains(&value.name));
}

/// Which nodes of a graph its outputs need, and which values. The nodes may stand in any order: the specification asks
/// for a topological one, but ONNX Runtime does not, and converters to 16 bits put what they add at the end.
fn needed(graph: &GraphProto) -> (Vec<bool>, HashSet<String>) {
    let nodes = graph.node.iter().enumerate();
    let producers: HashMap<&str, usize> = nodes
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let mut nodes = vec![false; graph.node.len()];
    let mut values = HashSet::new();
    let mut waiting: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    while let Some(value) = waiting.pop() {
        if let Some(&index) = producers.get(value.as_str())
            && !std::mem::replace(&mut nodes[index], true)
        {
            let node = &graph.node[index];
            waiting.extend(node.input.iter().cloned());
            // A subgraph may use any value from outside.
            waiting.extend(node.graphs().flat_map(uses).map(|(name, _)| name));
        }
        values.insert(value);
    }
    (nodes, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::GraphBuilder;
    use crate::onnx::proto::{AttributeProto, NodeProto};

    #[test]
    fn what_is_added_takes_no_name_that_is_there() {
        let mut builder = GraphBuilder::new("names");
        builder.initializer("weight", &[1], &[1.0]);
        let value = builder.node("sum", "Add", &["image", "weight"], &[]);
        let mut graph = builder.finish("image", &[(&value, &[])], &[]).graph.expect("a graph");
        assert_eq!(fresh_name(&graph, "free"), "free");
        assert_eq!(fresh_name(&graph, "image"), "image_2");
        assert_eq!(add_initializer(&mut graph, "weight", &[1], &[2.0]), "weight_2");
        assert_eq!(add_node(&mut graph, "weight", "Neg", &["sum"], &[]), "weight_3");
        assert_eq!(add_output(&mut graph, "weight_3", Form::Same, "sum", &[]), "sum_2");
        // Names within a graph in a node are names of the whole.
        let inner = AttributeProto {
            g: Some(GraphProto {
                node: vec![node("branch", "Neg", &["sum"], &[])],
                ..GraphProto::default()
            }),
            ..AttributeProto::default()
        };
        graph.node[0].attribute.push(inner);
        assert_eq!(fresh_name(&graph, "branch"), "branch_2");
    }

    #[test]
    fn what_is_needed_is_kept_in_whatever_order_it_stands() {
        let mut builder = GraphBuilder::new("unordered");
        builder.initializer("weight", &[1], &[1.0]);
        builder.node("sum", "Add", &["cast", "weight"], &[]);
        builder.node("unused", "Neg", &["sum"], &[]);
        builder.node("cast", "Cast", &["image"], &[]);
        let mut graph = builder.finish("image", &[("sum", &[])], &[]).graph.expect("a graph");
        prune(&mut graph);
        let names: Vec<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["sum", "cast"]);
        assert_eq!(graph.initializer.len(), 1);
    }

    #[test]
    fn what_a_graph_deep_within_a_node_uses_is_kept() {
        let mut builder = GraphBuilder::new("nested");
        builder.initializer("weight", &[1], &[1.0]);
        builder.initializer("unused", &[1], &[1.0]);
        builder.node("used", "Neg", &["weight"], &[]);
        builder.node("branches", "If", &["image"], &[]);
        let mut graph = builder
            .finish("image", &[("branches", &[])], &[])
            .graph
            .expect("a graph");
        let within = |name: &str, input: &str, inner: Option<GraphProto>| GraphProto {
            node: vec![NodeProto {
                attribute: vec![AttributeProto {
                    g: inner,
                    ..AttributeProto::default()
                }],
                ..node(name, "If", &[input], &[])
            }],
            ..GraphProto::default()
        };
        let deepest = within("deepest", "used", None);
        graph.node[1].attribute = vec![AttributeProto {
            g: Some(within("deep", "image", Some(deepest))),
            ..AttributeProto::default()
        }];
        prune(&mut graph);
        let names: Vec<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["used", "branches"]);
        let constants: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(constants, ["weight"]);
    }
}
