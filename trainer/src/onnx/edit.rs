//! Changing what a finished graph gives.

use std::collections::{HashMap, HashSet};

use super::builder::{float_tensor, node, tensor};
use super::proto::{
    DimensionValue, FLOAT, GraphProto, NodeProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
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

/// Drops every node and constant that no output needs, and puts the nodes into topological order. The specification asks
/// for one, but ONNX Runtime does not, and converters to 16 bits put what they add at the end.
pub fn prune(graph: &mut GraphProto) {
    let mut values: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for index in topological(graph).into_iter().rev() {
        let node = &mut graph.node[index];
        if node.output.iter().any(|name| values.contains(name)) {
            values.extend(taken(node));
            nodes.push(std::mem::take(node));
        }
    }
    nodes.reverse();
    graph.node = nodes;
    graph.initializer.retain(|tensor| values.contains(&tensor.name));
    graph.value_info.retain(|value| values.contains(&value.name));
}

/// The positions of the nodes, each after those of the nodes that it takes something of. An order that is such a one
/// stays.
fn topological(graph: &GraphProto) -> Vec<usize> {
    let nodes = graph.node.iter().enumerate();
    let producers: HashMap<&str, usize> = nodes
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let mut order = Vec::with_capacity(graph.node.len());
    let mut entered = vec![false; graph.node.len()];
    let mut waiting: Vec<(usize, bool)> = (0..graph.node.len()).rev().map(|index| (index, false)).collect();
    while let Some((index, is_ready)) = waiting.pop() {
        if is_ready {
            order.push(index);
        } else if !std::mem::replace(&mut entered[index], true) {
            waiting.push((index, true));
            let makers = taken(&graph.node[index]).filter_map(|name| producers.get(name.as_str()).copied());
            waiting.extend(makers.map(|maker| (maker, false)));
        }
    }
    order
}

/// What a node takes; a graph within it may use any value from outside. An input that is left out has an empty name.
fn taken(node: &NodeProto) -> impl Iterator<Item = String> {
    let within = node.graphs().flat_map(uses).map(|(name, _)| name);
    node.input.iter().cloned().chain(within).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::GraphBuilder;
    use crate::onnx::proto::AttributeProto;

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
    fn what_is_needed_is_kept_and_put_in_order() {
        let mut builder = GraphBuilder::new("unordered");
        builder.initializer("weight", &[1], &[1.0]);
        builder.node("sum", "Add", &["cast", "weight"], &[]);
        builder.node("unused", "Neg", &["sum"], &[]);
        builder.node("second", "Exp", &["first"], &[]);
        builder.node("first", "Abs", &["image"], &[]);
        builder.node("cast", "Clip", &["second", "", "first"], &[]);
        builder.node("split", "Split", &["cast"], &[]);
        let outputs: [(&str, &[DimensionValue]); 2] = [("sum", &[]), ("split", &[])];
        let mut graph = builder.finish("image", &outputs, &[]).graph.expect("a graph");
        // Neither is an output that is left out what an input takes that is left out.
        graph.node[5].output.push(String::new());
        prune(&mut graph);
        let names: Vec<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["first", "second", "cast", "sum", "split"]);
        assert_eq!(graph.initializer.len(), 1);
        let ordered = graph.clone();
        prune(&mut graph);
        assert_eq!(graph, ordered);
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
