//! The rewritten graph: a pair of QuantizeLinear and DequantizeLinear at each value that has a grid, and one
//! DequantizeLinear before each constant.
//!
//! ONNX Runtime draws the pairs into the operators between them. For that, a convolution's result goes onto its grid at
//! once: a rectifier in between is left out where the grid itself ends where the rectifier would.

use std::collections::{HashMap, HashSet};

use super::calibrate::{Observed, Statistics};
use super::plan::{Convolution, Plan};
use super::weights::{self, Rounded};
use crate::onnx::proto::{GraphProto, INT8, INT32, ModelProto, NodeProto, UINT8};
use crate::onnx::{Attribute, add_initializer, add_node, add_tensor, prune};

/// The unsigned bytes that stand for a value: `value = scale * (byte - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    scale: f32,
    zero: u8,
}

impl Grid {
    /// From the smallest to the largest value, and zero, which padding needs exactly.
    fn over(seen: &Statistics) -> Self {
        let (low, high) = (seen.low.min(0.0), seen.high.max(0.0));
        let scale = (high - low) / 255.0;
        if !scale.is_normal() {
            return Self { scale: 1.0, zero: 0 };
        }
        let zero = (-low / scale).round() as u8;
        Self { scale, zero }
    }
}

/// `network`, as `plan` was made of it, with all convolutions but those at the positions `left` in integers.
pub(super) fn quantized(network: &ModelProto, plan: &Plan, observed: &Observed, left: &[usize]) -> ModelProto {
    let mut model = network.clone();
    let graph = model.graph.get_or_insert_default();
    let chosen = plan.convolutions.iter().enumerate();
    let chosen = chosen.filter(|(index, _)| !left.contains(index));
    let chosen: HashMap<usize, &Convolution> = chosen.map(|(_, convolution)| (convolution.node, convolution)).collect();
    let mut onto = HashSet::new();
    for convolution in chosen.values() {
        for value in [&convolution.input, &convolution.output] {
            onto.insert(value.as_str());
            onto.insert(plan.root(value));
        }
    }
    // The nodes stay until the end, so that nothing new takes the name of one.
    let nodes = graph.node.clone();
    let mut rewriting = Rewriting {
        plan,
        observed,
        onto,
        graph,
        renamed: HashMap::new(),
    };
    rewriting.put_onto_grid(&plan.image);
    let absorbed = rewriting.absorbed(&nodes, &chosen);
    for (index, node) in nodes.iter().enumerate() {
        if !absorbed.values().any(|rectifier| *rectifier == index) {
            let output = absorbed
                .get(&index)
                .map_or(&node.output, |rectifier| &nodes[*rectifier].output);
            rewriting.add(node, output, chosen.get(&index).copied());
        }
    }
    graph.node.drain(..nodes.len());
    prune(graph);
    model
}

/// A graph as it grows.
struct Rewriting<'a> {
    plan: &'a Plan,
    observed: &'a Observed,
    /// The values that get a grid.
    onto: HashSet<&'a str>,
    graph: &'a mut GraphProto,
    /// What stands for a value after it was on its grid.
    renamed: HashMap<String, String>,
}

impl Rewriting<'_> {
    /// The nodes whose rectifier their grid does the work of: convolutions, and sums of values that have grids.
    fn absorbed(&self, nodes: &[NodeProto], chosen: &HashMap<usize, &Convolution>) -> HashMap<usize, usize> {
        let gridded = |name: &String| self.onto.contains(name.as_str());
        let absorbs = |maker: usize, rectifier: usize| {
            let sum = nodes[maker].op_type == "Add" && nodes[maker].input.iter().all(gridded);
            let ends = nodes[rectifier].output.first().is_some_and(gridded);
            chosen.contains_key(&maker) || sum && ends
        };
        let pairs = self
            .plan
            .rectifiers
            .iter()
            .map(|(maker, rectifier)| (*maker, *rectifier));
        pairs.filter(|(maker, rectifier)| absorbs(*maker, *rectifier)).collect()
    }

    /// Adds a node that makes `output`, and puts that onto its grid.
    fn add(&mut self, node: &NodeProto, output: &[String], convolution: Option<&Convolution>) {
        let mut node = node.clone();
        output.clone_into(&mut node.output);
        for input in &mut node.input {
            if let Some(renamed) = self.renamed.get(input) {
                renamed.clone_into(input);
            }
        }
        if let Some(convolution) = convolution {
            let constants = self.constants(convolution);
            node.input.truncate(1);
            node.input.extend(constants);
        }
        self.graph.node.push(node);
        for value in output {
            self.put_onto_grid(value);
        }
    }

    fn grid(&self, value: &str) -> Option<Grid> {
        self.observed.get(self.plan.root(value)).map(Grid::over)
    }

    fn put_onto_grid(&mut self, value: &str) {
        if !self.onto.contains(value) {
            return;
        }
        let Some(Grid { scale, zero }) = self.grid(value) else {
            return;
        };
        let [step, origin, bytes, back] =
            ["scale", "zero", "quantized", "dequantized"].map(|part| format!("{value}.{part}"));
        let step = add_initializer(self.graph, &step, &[], &[scale]);
        let origin = add_tensor(self.graph, &origin, UINT8, &[], vec![zero]);
        let bytes = add_node(self.graph, &bytes, "QuantizeLinear", &[value, &step, &origin], &[]);
        let back = add_node(self.graph, &back, "DequantizeLinear", &[&bytes, &step, &origin], &[]);
        self.renamed.insert(value.to_owned(), back);
    }

    /// Adds the weights and the bias as integers, and gives the names of what stands for them.
    fn constants(&mut self, convolution: &Convolution) -> Vec<String> {
        let scale = self.grid(&convolution.input).map_or(1.0, |grid| grid.scale);
        let means = self
            .observed
            .get(&convolution.input)
            .map_or(&[][..], |seen| &seen.means);
        let rounded = weights::round(convolution, scale, means);
        let Rounded {
            weights,
            scales,
            bias,
            bias_scales,
        } = rounded;
        let weights = weights.iter().map(|weight| weight.cast_unsigned()).collect();
        let bias = bias.iter().flat_map(|bias| bias.to_le_bytes()).collect();
        let channels = [scales.len()];
        let name = |part: &str| format!("{}.{part}", convolution.output);
        vec![
            self.constant(&name("weight"), (INT8, &convolution.shape, weights), &scales),
            self.constant(&name("bias"), (INT32, &channels, bias), &bias_scales),
        ]
    }

    /// Adds a tensor of integers around zero, with one scale for each index of its first dimension.
    fn constant(&mut self, name: &str, (kind, shape, bytes): (i32, &[usize], Vec<u8>), scales: &[f32]) -> String {
        let [integers, step, origin, back] =
            ["integers", "scale", "zero", "dequantized"].map(|part| format!("{name}.{part}"));
        let width = if kind == INT8 { 1 } else { 4 };
        let integers = add_tensor(self.graph, &integers, kind, shape, bytes);
        let step = add_initializer(self.graph, &step, &[scales.len()], scales);
        let zeros = vec![0; width * scales.len()];
        let origin = add_tensor(self.graph, &origin, kind, &[scales.len()], zeros);
        let inputs = [integers.as_str(), &step, &origin];
        let axis = [("axis", Attribute::Int(0))];
        add_node(self.graph, &back, "DequantizeLinear", &inputs, &axis)
    }
}
