//! Building a graph node by node.

use super::proto::{
    AttributeProto, Dimension, DimensionValue, FLOAT, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
    attribute_type,
};
use crate::float_bytes::to_bytes;

/// Read by every ONNX Runtime since 1.7.
const IR_VERSION: i64 = 7;
/// The operator set that the nodes here are written in.
const OPERATOR_SET: i64 = 13;

/// A graph under construction. Values are named by the node that makes them.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: GraphProto,
}

/// A constant that parametrizes a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A float.
    Float(f32),
    /// An integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A text.
    Text(&'static str),
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self {
            graph: GraphProto {
                name: name.to_owned(),
                ..GraphProto::default()
            },
        }
    }

    /// Adds a constant tensor of 32-bit floats and gives its name.
    pub fn initializer(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.graph.initializer.push(float_tensor(name, shape, values));
        name.to_owned()
    }

    /// Adds a node with one output, named as the node, and gives that name.
    pub fn node(&mut self, name: &str, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.graph.node.push(node(name, operator, inputs, attributes));
        name.to_owned()
    }

    /// The finished file: `input` is a batch of images `[N, 3, H, W]`, `outputs` have the given dimensions,
    /// each a number or a name for what varies.
    pub fn finish(
        mut self,
        input: &str,
        outputs: &[(&str, &[DimensionValue])],
        metadata: &[(&str, String)],
    ) -> ModelProto {
        let named = DimensionValue::named;
        let image = [named("N"), DimensionValue::Fixed(3), named("H"), named("W")];
        self.graph.input.push(float_value(input, &image));
        self.graph
            .output
            .extend(outputs.iter().map(|(name, dimensions)| float_value(name, dimensions)));
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPERATOR_SET,
            }],
            producer_name: "ikat".to_owned(),
            graph: Some(self.graph),
            metadata_props: metadata
                .iter()
                .map(|(key, value)| StringStringEntryProto {
                    key: (*key).to_owned(),
                    value: value.clone(),
                })
                .collect(),
            ..ModelProto::default()
        }
    }
}

/// The description of a value that holds 32-bit floats.
pub(crate) fn float_value(name: &str, dimensions: &[DimensionValue]) -> ValueInfoProto {
    let dim = dimensions
        .iter()
        .map(|value| Dimension {
            value: Some(value.clone()),
            ..Dimension::default()
        })
        .collect();
    let tensor = TensorType {
        elem_type: FLOAT,
        shape: Some(TensorShapeProto { dim }),
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

/// A constant tensor of 32-bit floats.
pub(super) fn float_tensor(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    tensor(name, FLOAT, shape, to_bytes(values))
}

/// A constant tensor of elements of `data_type`, little-endian.
pub(super) fn tensor(name: &str, data_type: i32, shape: &[usize], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type,
        dims: shape.iter().map(|length| *length as i64).collect(),
        raw_data: bytes,
        ..TensorProto::default()
    }
}

/// A node with one output, named as the node.
pub(super) fn node(name: &str, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> NodeProto {
    NodeProto {
        name: name.to_owned(),
        op_type: operator.to_owned(),
        input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        output: vec![name.to_owned()],
        attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        ..NodeProto::default()
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let plain = AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    };
    match value {
        Attribute::Float(value) => AttributeProto {
            r#type: attribute_type::FLOAT,
            f: *value,
            ..plain
        },
        Attribute::Int(value) => AttributeProto {
            r#type: attribute_type::INT,
            i: *value,
            ..plain
        },
        Attribute::Ints(values) => AttributeProto {
            r#type: attribute_type::INTS,
            ints: values.clone(),
            ..plain
        },
        Attribute::Text(text) => AttributeProto {
            r#type: attribute_type::STRING,
            s: text.as_bytes().to_vec(),
            ..plain
        },
    }
}
