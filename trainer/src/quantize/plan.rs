//! What of a network can be computed with integers.

use std::collections::HashMap;

use super::QuantizeError;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};
use crate::onnx::{Constants, shape, uses};

/// The convolutions of a network that can be quantized, and the values around them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Name of the images.
    pub image: String,
    /// In the order of the graph.
    pub convolutions: Vec<Convolution>,
    /// What the convolutions take and make, and the values whose grids these are on, in the order of the convolutions.
    pub values: Vec<Value>,
    /// Rectifiers by the node (convolution or sum) whose result they alone use: where that result goes onto a grid that
    /// begins at zero and ends at the largest value seen, the rectifier has nothing left to do.
    pub rectifiers: HashMap<usize, usize>,
    /// Results of maximum pooling and what they are drawn from: a maximum is on the grid of its values.
    pub pooled: HashMap<String, String>,
}

/// A value beside a convolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// Its name.
    pub name: String,
    /// Length of its second dimension.
    pub channels: usize,
}

/// A two-dimensional convolution with constant weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Convolution {
    /// Index of the node.
    pub node: usize,
    /// The value that it takes.
    pub input: String,
    /// The value that it makes, after the rectifier where there is one.
    pub output: String,
    /// Output channels, input channels per group, height, width.
    pub shape: [usize; 4],
    /// In how many groups the channels are.
    pub groups: usize,
    /// Row-major, in `shape`.
    pub weights: Vec<f32>,
    /// One per output channel.
    pub bias: Vec<f32>,
}

impl Convolution {
    /// Whether each output channel sees one input channel, and no other sees that: what ONNX Runtime computes without a
    /// matrix product.
    pub fn is_depthwise(&self) -> bool {
        self.shape[1] == 1 && self.shape[0] == self.groups
    }
}

impl Plan {
    /// What can be quantized of `model`, in which batch normalization is folded already.
    ///
    /// # Errors
    /// [`QuantizeError::Unsuitable`] where that is nothing.
    pub fn of(model: &ModelProto) -> Result<Self, QuantizeError> {
        let unsuitable = |reason: &str| QuantizeError::Unsuitable(reason.to_owned());
        let graph = model.graph().map_err(|error| unsuitable(&error.0))?;
        if graph.node.iter().any(|node| node.graphs().next().is_some()) {
            return Err(unsuitable("it has graphs within its nodes (branches or loops)"));
        }
        let constants = Constants::of(graph);
        let image = constants.images(graph);
        let image = image
            .ok_or_else(|| unsuitable("it has no input for images"))?
            .to_owned();
        let rectifiers = rectifiers(graph, &constants);
        let convolution = |(index, node)| convolution(graph, index, node, &constants, &rectifiers);
        let convolutions: Vec<_> = graph.node.iter().enumerate().filter_map(convolution).collect();
        if convolutions.is_empty() {
            return Err(unsuitable(
                "it has no two-dimensional convolution with constant weights in 32-bit floats",
            ));
        }
        let maxima = graph
            .node
            .iter()
            .filter(|node| node.op_type == "MaxPool" && node.output.len() == 1);
        let pooled = maxima.filter_map(|node| Some((node.output[0].clone(), node.input.first()?.clone())));
        let mut plan = Self {
            image,
            convolutions,
            values: Vec::new(),
            rectifiers,
            pooled: pooled.collect(),
        };
        plan.values = plan.around();
        Ok(plan)
    }

    /// The value whose grid `value` is on.
    pub fn root<'a>(&'a self, mut value: &'a str) -> &'a str {
        // In a file that is not sound they may go round in a circle.
        for _ in 0..=self.pooled.len() {
            match self.pooled.get(value) {
                Some(before) => value = before,
                None => break,
            }
        }
        value
    }

    fn around(&self) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::new();
        for convolution in &self.convolutions {
            let inside = convolution.shape[1] * convolution.groups;
            for (name, channels) in [
                (&convolution.input, inside),
                (&convolution.output, convolution.shape[0]),
            ] {
                for name in [name, self.root(name)] {
                    if values.iter().all(|value| value.name != name) {
                        let name = name.to_owned();
                        values.push(Value { name, channels });
                    }
                }
            }
        }
        values
    }
}

/// Rectifiers (`max(x, 0)`, perhaps bounded above) that alone use the result of a convolution or sum.
fn rectifiers(graph: &GraphProto, constants: &Constants) -> HashMap<usize, usize> {
    let uses = uses(graph);
    let is_output = |name: &str| graph.output.iter().any(|output| output.name == name);
    let nodes = graph.node.iter().enumerate();
    let makers: HashMap<&str, usize> = nodes
        .clone()
        .filter(|(_, node)| matches!(node.op_type.as_str(), "Conv" | "Add"))
        .filter_map(|(index, node)| Some((node.output.first()?.as_str(), index)))
        .collect();
    nodes
        .filter_map(|(index, node)| {
            let (input, output) = (node.input.first()?, node.output.first()?);
            let maker = *makers.get(input.as_str())?;
            let alone = uses.get(input) == Some(&1) && !is_output(output);
            (alone && rectifies(node, constants)).then_some((maker, index))
        })
        .collect()
}

/// Whether a node cuts off what is below zero, and nothing else but what is above some bound.
fn rectifies(node: &NodeProto, constants: &Constants) -> bool {
    match node.op_type.as_str() {
        "Relu" => true,
        "Clip" => {
            let low = node.input.get(1).and_then(|name| constants.floats(name));
            low.is_some_and(|low| low == [0.0])
        }
        _ => false,
    }
}

/// The node as a convolution to quantize. One whose result is an output stays in floats: there it would cost most and
/// gain nothing.
fn convolution(
    graph: &GraphProto,
    index: usize,
    node: &NodeProto,
    constants: &Constants,
    rectifiers: &HashMap<usize, usize>,
) -> Option<Convolution> {
    (node.op_type == "Conv").then_some(())?;
    let (input, weight) = (node.input.first()?, node.input.get(1)?);
    let own = node.output.first()?;
    let is_output = graph.output.iter().any(|output| output.name == *own);
    (constants.get(input).is_none() && !is_output).then_some(())?;
    let shape: [usize; 4] = shape(constants.get(weight)?).ok()?.try_into().ok()?;
    let weights = constants.floats(weight)?;
    let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => constants.floats(name)?,
        None => vec![0.0; shape[0]],
    };
    let groups = usize::try_from(node.int("group", 1)).ok()?;
    let sound = !weights.is_empty() && bias.len() == shape[0] && groups > 0 && shape[0].is_multiple_of(groups);
    (sound && weights.iter().chain(&bias).all(|value| value.is_finite())).then_some(())?;
    let output = rectifiers
        .get(&index)
        .map_or(own, |rectifier| &graph.node[*rectifier].output[0]);
    Some(Convolution {
        node: index,
        input: input.clone(),
        output: output.clone(),
        shape,
        groups,
        weights,
        bias,
    })
}
