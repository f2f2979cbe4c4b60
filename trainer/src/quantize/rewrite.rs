//! The rewritten graph: operators on integers between values that have grids, and a QuantizeLinear or DequantizeLinear
//! where floats begin or end.
//!
//! Convolutions become ONNX's QLinearConv, sums ONNX Runtime's own QLinearAdd, and a maximum is one of bytes. ONNX
//! Runtime would make the same of floats with a QuantizeLinear and a DequantizeLinear around each (QDQ), but at every
//! start of a function, which takes half as long as all else about loading the network. A convolution's result goes
//! onto its grid at once: a rectifier in between is left out where the grid itself ends where the rectifier would.

use std::collections::{HashMap, HashSet};

use super::calibrate::{Observed, Statistics};
use super::plan::{Convolution, Plan};
use super::weights::{self, Rounded};
use crate::onnx::proto::{GraphProto, INT8, INT32, ModelProto, NodeProto, OperatorSetIdProto, UINT8};
use crate::onnx::{add_initializer, add_node, add_tensor, fresh_name, prune};

/// Where ONNX Runtime has operators of its own.
const RUNTIME_DOMAIN: &str = "com.microsoft";

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
        bytes: HashMap::new(),
        floats: HashMap::new(),
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
    let has_own = graph.node.iter().any(|node| node.domain == RUNTIME_DOMAIN);
    let mut known = model.opset_import.iter();
    if has_own && !known.any(|set| set.domain == RUNTIME_DOMAIN) {
        model.opset_import.push(OperatorSetIdProto {
            domain: RUNTIME_DOMAIN.to_owned(),
            version: 1,
        });
    }
    model
}

/// A value on its grid: the names of its bytes, of the grid's step and of its zero, as quantized operators take them.
type OnGrid = [String; 3];

/// A graph as it grows.
struct Rewriting<'a> {
    plan: &'a Plan,
    observed: &'a Observed,
    /// The values that get a grid.
    onto: HashSet<&'a str>,
    graph: &'a mut GraphProto,
    /// The values that are on their grids.
    bytes: HashMap<String, OnGrid>,
    /// What stands for such a value where floats are taken.
    floats: HashMap<String, String>,
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

    /// Adds a node that makes `output`: on integers where it can be, else on floats, and then puts what has a grid onto
    /// it.
    fn add(&mut self, node: &NodeProto, output: &[String], convolution: Option<&Convolution>) {
        if self.add_on_integers(node, output, convolution).is_some() {
            return;
        }
        let mut node = node.clone();
        output.clone_into(&mut node.output);
        for input in &mut node.input {
            if let Some(floats) = self.floats.get(input) {
                floats.clone_into(input);
            }
        }
        self.graph.node.push(node);
        for value in output {
            self.put_onto_grid(value);
        }
    }

    /// `None` where the node has to compute with floats, and nothing was added.
    fn add_on_integers(
        &mut self,
        node: &NodeProto,
        output: &[String],
        convolution: Option<&Convolution>,
    ) -> Option<()> {
        let [value] = output else { return None };
        // An output of the whole is read as it is, in floats.
        let is_output = self.graph.output.iter().any(|output| output.name == *value);
        let grid = self.grid(value).filter(|_| !is_output)?;
        let bytes_of = |input: &String| self.bytes.get(input).cloned();
        let first = bytes_of(node.input.first()?)?;
        let (operator, domain, inputs, on_grid) = match (convolution, node.op_type.as_str()) {
            (Some(convolution), _) => {
                let (weight, bias) = self.constants(convolution);
                let on_grid = self.describe(value, grid);
                let [_, step, zero] = on_grid.clone();
                let inputs = first.into_iter().chain(weight).chain([step, zero, bias]);
                ("QLinearConv", "", inputs.collect(), on_grid)
            }
            (None, "Add") => {
                let second = bytes_of(node.input.get(1)?)?;
                let on_grid = self.describe(value, grid);
                let [_, step, zero] = on_grid.clone();
                let inputs = first.into_iter().chain(second).chain([step, zero]);
                ("QLinearAdd", RUNTIME_DOMAIN, inputs.collect(), on_grid)
            }
            (None, "MaxPool") => {
                let [bytes, step, zero] = first;
                let on_grid = [self.name(value, "quantized"), step, zero];
                ("MaxPool", "", vec![bytes], on_grid)
            }
            _ => return None,
        };
        let [bytes, ..] = &on_grid;
        self.graph.node.push(NodeProto {
            name: bytes.clone(),
            op_type: operator.to_owned(),
            domain: domain.to_owned(),
            input: inputs,
            output: vec![bytes.clone()],
            ..node.clone()
        });
        self.add_floats_of(value, on_grid);
        Some(())
    }

    /// The grid of `value`, if it gets one.
    fn grid(&self, value: &str) -> Option<Grid> {
        let seen = self.observed.get(self.plan.root(value));
        seen.filter(|_| self.onto.contains(value)).map(Grid::over)
    }

    /// Puts `value`, which is there in floats, onto its grid.
    fn put_onto_grid(&mut self, value: &str) {
        let Some(grid) = self.grid(value) else {
            return;
        };
        let on_grid = self.describe(value, grid);
        let [bytes, step, zero] = &on_grid;
        add_node(self.graph, bytes, "QuantizeLinear", &[value, step, zero], &[]);
        self.add_floats_of(value, on_grid);
    }

    /// Remembers that `value` is on its grid, and adds it in floats again, for whatever takes it so.
    fn add_floats_of(&mut self, value: &str, on_grid: OnGrid) {
        let wish = format!("{value}.dequantized");
        let inputs = on_grid.each_ref().map(String::as_str);
        let floats = add_node(self.graph, &wish, "DequantizeLinear", &inputs, &[]);
        self.floats.insert(value.to_owned(), floats);
        self.bytes.insert(value.to_owned(), on_grid);
    }

    /// Adds the step and the zero of a grid, and chooses a name for the bytes on it.
    fn describe(&mut self, value: &str, grid: Grid) -> OnGrid {
        let step = add_initializer(self.graph, &format!("{value}.scale"), &[], &[grid.scale]);
        let zero = add_tensor(self.graph, &format!("{value}.zero"), UINT8, &[], vec![grid.zero]);
        [self.name(value, "quantized"), step, zero]
    }

    fn name(&self, value: &str, part: &str) -> String {
        fresh_name(self.graph, &format!("{value}.{part}"))
    }

    /// Adds the weights and the bias as integers. Gives the names of the weights, of their steps and of their zeros,
    /// one for each output channel, and that of the bias.
    fn constants(&mut self, convolution: &Convolution) -> (OnGrid, String) {
        let scale = self.grid(&convolution.input).map_or(1.0, |grid| grid.scale);
        let means = self
            .observed
            .get(&convolution.input)
            .map_or(&[][..], |seen| &seen.means);
        let Rounded { weights, scales, bias } = weights::round(convolution, scale, means);
        let weights = weights.iter().map(|weight| weight.cast_unsigned()).collect();
        let bias = bias.iter().flat_map(|bias| bias.to_le_bytes()).collect();
        let channels = [scales.len()];
        let name = |part: &str| format!("{}.{part}", convolution.output);
        let weights = [
            add_tensor(self.graph, &name("weight.integers"), INT8, &convolution.shape, weights),
            add_initializer(self.graph, &name("weight.scale"), &channels, &scales),
            add_tensor(self.graph, &name("weight.zero"), INT8, &channels, vec![0; scales.len()]),
        ];
        (
            weights,
            add_tensor(self.graph, &name("bias.integers"), INT32, &channels, bias),
        )
    }
}
