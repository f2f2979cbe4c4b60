//! The search for the features of an own network, from its outputs back.

use std::collections::HashMap;

use super::shape;
use crate::onnx::proto::{FLOAT, GraphProto, NodeProto, ValueInfoProto};
use crate::onnx::{Constants, integers};

/// What may come after the last layer of a classifier: the order of the classes stays.
const AFTER_LAST_LAYER: [&str; 12] = [
    "Softmax",
    "LogSoftmax",
    "Sigmoid",
    "Identity",
    "Dropout",
    "Cast",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Transpose",
    "QuantizeLinear",
    "DequantizeLinear",
];

/// How many classes networks are usually trained on: ImageNet's, with and without one for the background.
const IMAGENET_CLASSES: [usize; 4] = [1000, 1001, 21_841, 21_843];

/// Far more features than any network has: a file of a few bytes can tell of so many that no memory holds them.
const MOST_FEATURES: usize = 1 << 20;

/// Where the features are by the first output that leaves no doubt, or else by the first that leads to any.
pub(super) fn find(graph: &GraphProto) -> Result<Found, String> {
    let trace = Trace::new(graph);
    let tried: Vec<_> = graph.output.iter().map(|output| trace.features(output)).collect();
    let leaves_no_doubt = |tried: &Result<Found, String>| tried.as_ref().is_ok_and(|found| found.note.is_none());
    let chosen = tried.iter().position(leaves_no_doubt);
    let chosen = chosen.or_else(|| tried.iter().position(Result::is_ok)).unwrap_or(0);
    let mut found = tried.into_iter().nth(chosen).ok_or("it has no output")??;
    if chosen > 0 {
        let note = format!(
            "of its {} outputs {} is used, not the first one, {}",
            graph.output.len(),
            graph.output[chosen].name,
            graph.output[0].name
        );
        found.note = Some(match found.note {
            Some(doubt) => format!("{note}; {doubt}"),
            None => note,
        });
    }
    Ok(found)
}

/// Where the features of a network are.
pub(super) struct Found {
    pub value: String,
    /// The last feature map, where they are the means of its cells.
    pub map: Option<String>,
    /// Whether the channels of that map come last.
    pub channels_last: bool,
    pub size: usize,
    /// Whether they are 32-bit floats.
    pub single: bool,
    /// What the user should know of them.
    pub note: Option<String>,
}

/// The last layer of a classifier.
struct LastLayer<'a> {
    input: &'a str,
    /// Length of its input.
    size: usize,
    /// Whether it computes with 32-bit floats.
    single: bool,
}

/// Following values back to where they come from.
struct Trace<'a> {
    graph: &'a GraphProto,
    constants: Constants<'a>,
    producers: HashMap<&'a str, &'a NodeProto>,
}

impl<'a> Trace<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let outputs = graph
            .node
            .iter()
            .flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node)));
        Self {
            graph,
            constants: Constants::of(graph),
            producers: outputs.collect(),
        }
    }

    fn features(&self, output: &'a ValueInfoProto) -> Result<Found, String> {
        let shape = shape(output);
        let last = self.skip(&output.name, &["Identity"]);
        let mut end = self.skip(last, &["Softmax", "LogSoftmax", "Identity", "Sigmoid"]);
        let are_scores = end != last;
        let mut single = true;
        let mut note = None;
        let size = if let Some(layer) = self.last_layer(&output.name, shape.as_deref()) {
            end = layer.input;
            single = layer.single;
            layer.size
        } else {
            let last = self.producers.get(end).map_or("nothing", |node| node.op_type.as_str());
            let size = match shape.as_deref() {
                Some([_, Some(size), rest @ ..])
                    if rest.iter().all(|length| length.is_none_or(|length| length == 1)) =>
                {
                    usize::try_from(*size).ok()
                }
                _ => None,
            };
            let size = size.ok_or_else(|| {
                format!(
                    "it ends in {last}; a linear layer (Gemm or MatMul) over pooled features is expected, or an output \
                     [N, D] that holds the features"
                )
            })?;
            note = Some(format!(
                "no linear layer is found at its end ({last}), so that the {size} numbers of its output {} are taken for \
                 the features; if they are scores of classes, export the network without its last layer",
                output.name
            ));
            size
        };
        if !(1..=MOST_FEATURES).contains(&size) {
            return Err(format!(
                "it has {size} features of an image; 1 to {MOST_FEATURES} are expected"
            ));
        }
        let same_but_for_form_and_scale = [
            "Flatten",
            "Reshape",
            "Squeeze",
            "Identity",
            "Cast",
            "Dropout",
            "LpNormalization",
        ];
        let pool = self
            .producers
            .get(self.skip(end, &same_but_for_form_and_scale))
            .copied();
        let pooled = pool.and_then(|node| self.pooled(node));
        let (map, channels_last) = pooled.unzip();
        let may_be_scores = are_scores || map.is_none_or(|map| self.may_be_of_classes(map, size));
        // An output may be the map under another name.
        let map = map.map(|map| {
            let mut outputs = self.graph.output.iter().map(|output| &output.name);
            let same = outputs
                .find(|output| self.skip(output, &["Identity", "Cast"]) == self.skip(map, &["Identity", "Cast"]));
            same.unwrap_or(map).clone()
        });
        Ok(Found {
            value: end.to_owned(),
            // Pooled features are what is expected of a featurizer.
            note: note.filter(|_| may_be_scores),
            map,
            channels_last: channels_last.unwrap_or_default(),
            size,
            single,
        })
    }

    /// Whether a map that is pooled may be one of classes, as in networks of the form of SqueezeNet: a last convolution
    /// of one cell that gives less than it takes, or as many channels as a set of images from ImageNet has classes.
    fn may_be_of_classes(&self, map: &'a str, size: usize) -> bool {
        let value = self.skip(map, &["Relu", "Identity", "Cast", "Dropout", "Transpose"]);
        let kernel = self.producers.get(value).filter(|node| node.op_type == "Conv");
        let kernel = kernel.and_then(|node| self.constant(node.input.get(1)?));
        let narrows = kernel.is_some_and(|(lengths, _)| matches!(lengths[..], [given, taken, 1, 1] if given < taken));
        narrows || IMAGENET_CLASSES.contains(&size)
    }

    /// The value before any of the given operators. In a file that is not sound they may go round in a circle.
    fn skip(&self, mut value: &'a str, operators: &[&str]) -> &'a str {
        for _ in &self.graph.node {
            let Some(node) = self.producers.get(value) else { break };
            match node.input.first() {
                Some(input) if operators.contains(&node.op_type.as_str()) => value = input,
                _ => break,
            }
        }
        value
    }

    /// The layer whose logits become `output`, which has this shape.
    fn last_layer(&self, output: &'a str, shape: Option<&[Option<i64>]>) -> Option<LastLayer<'a>> {
        let mut value = self.skip(output, &AFTER_LAST_LAYER);
        let node = *self.producers.get(value)?;
        if ["Mul", "Div"].contains(&node.op_type.as_str())
            && let Some(scaled) = self.beside_constant(node)
        {
            value = self.skip(scaled, &AFTER_LAST_LAYER);
        }
        let mut node = *self.producers.get(value)?;
        if node.op_type == "Add" {
            // One of the two is the bias: what adds up values of the images is no linear layer.
            node = *self.producers.get(self.beside_constant(node)?)?;
        }
        let (lengths, data_type) = self.constant(node.input.get(1)?)?;
        let number = |name: &str| node.attribute(name).map(|attribute| attribute.i);
        let told = shape.filter(|lengths| lengths.len() > 1).and_then(|lengths| {
            lengths
                .iter()
                .skip(1)
                .try_fold(1_i64, |product, length| product.checked_mul((*length)?))
        });
        let (size, classes) = match (node.op_type.as_str(), lengths.as_slice()) {
            ("Gemm", [classes, size]) if number("transB").is_some_and(|flag| flag != 0) => (size, classes),
            ("Gemm" | "MatMul", [size, classes]) => (size, classes),
            // Only where the output tells so is its map a single cell.
            ("Conv", [classes, size, 1, 1]) if number("group").is_none_or(|count| count == 1) && told.is_some() => {
                (size, classes)
            }
            _ => return None,
        };
        // What gives more is a layer over the parts of an image.
        if told.is_some_and(|told| told != *classes) {
            return None;
        }
        Some(LastLayer {
            input: node.input.first()?,
            size: usize::try_from(*size).ok()?,
            single: data_type == FLOAT,
        })
    }

    /// The input of a node that is no constant, where the other one is.
    fn beside_constant(&self, node: &'a NodeProto) -> Option<&'a str> {
        let [left, right] = node.input.as_slice() else {
            return None;
        };
        match (self.constant(left), self.constant(right)) {
            (None, Some(_)) => Some(left.as_str()),
            (Some(_), None) => Some(right.as_str()),
            _ => None,
        }
    }

    /// Lengths and element type of a constant, also where it is stored in another form than it is used in.
    fn constant(&self, name: &str) -> Option<(Vec<i64>, i32)> {
        if let Some(tensor) = self.constants.get(name) {
            return Some((tensor.dims.clone(), tensor.data_type));
        }
        let node = *self.producers.get(name)?;
        let stored = self.constants.get(node.input.first()?)?;
        let mut lengths = stored.dims.clone();
        match node.op_type.as_str() {
            "DequantizeLinear" => Some((lengths, FLOAT)),
            "Cast" => {
                let to = node.attribute("to")?;
                Some((lengths, i32::try_from(to.i).ok()?))
            }
            "Transpose" if lengths.len() == 2 => {
                lengths.reverse();
                Some((lengths, stored.data_type))
            }
            _ => None,
        }
    }

    /// The map whose cells a node averages, `[N, C, h, w]` or `[N, h, w, C]` and not the tokens of a transformer, and
    /// whether its channels come last.
    fn pooled(&self, node: &'a NodeProto) -> Option<(&'a String, bool)> {
        let map = node.input.first()?;
        match node.op_type.as_str() {
            "GlobalAveragePool" => Some((map, false)),
            "ReduceMean" => {
                let axes = match node.attribute("axes") {
                    Some(attribute) => attribute.ints.clone(),
                    None => integers(self.constants.get(node.input.get(1)?)?)?,
                };
                let mut axes: Vec<i64> = axes.iter().map(|axis| axis.rem_euclid(4)).collect();
                axes.sort_unstable();
                match axes[..] {
                    [2, 3] => Some((map, false)),
                    [1, 2] => Some(self.channels_first(map).map_or((map, true), |same| (same, false))),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// A map whose channels come last with its channels first, where the network has it so.
    fn channels_first(&self, map: &str) -> Option<&'a String> {
        let turns = |node: &NodeProto, order: [i64; 4]| {
            node.op_type == "Transpose" && node.attribute("perm").is_some_and(|perm| perm.ints == order)
        };
        if let Some(node) = self.producers.get(map).filter(|node| turns(node, [0, 2, 3, 1])) {
            return node.input.first();
        }
        let mut nodes = self.graph.node.iter();
        let after = nodes.find(|node| turns(node, [0, 3, 1, 2]) && node.input.first().is_some_and(|of| of == map))?;
        after.output.first()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{classifier, end_in};
    use super::*;
    use crate::onnx::proto::{DimensionValue, INT64};
    use crate::onnx::{add_initializer, add_node, add_tensor, float_value};

    #[test]
    fn the_last_layer_is_the_one_with_constants_whichever_node_makes_them() {
        let features = |change: &dyn Fn(&mut GraphProto)| {
            let mut model = classifier();
            let graph = model.graph.as_mut().expect("a graph");
            change(graph);
            let found = Trace::new(graph).features(&graph.output[0]).expect("features");
            found.value
        };
        // Shared weights, as exporters write them.
        let by_identity = features(&|graph: &mut GraphProto| {
            graph.node[3].input[1] = "same".to_owned();
            let same = add_node(graph, "same", "Identity", &["weight"], &[]);
            assert_eq!(same, "same");
            let last = graph.node.len() - 1;
            graph.node.swap(3, last);
        });
        assert_eq!(by_identity, "flat");
        // A sum of two values of an image is the features themselves, not a bias.
        let residual = features(&|graph: &mut GraphProto| {
            graph.node[3].output[0] = "product".to_owned();
            let sum = add_node(graph, "sum", "Add", &["product", "flat"], &[]);
            graph.output[0].name = sum;
        });
        assert_eq!(residual, "sum");
    }

    /// What is found in the classifier after `change`.
    fn found_after(change: &dyn Fn(&mut GraphProto)) -> Result<Found, String> {
        let mut model = classifier();
        let graph = model.graph.as_mut().expect("a graph");
        change(graph);
        Trace::new(graph).features(&graph.output[0])
    }

    #[test]
    fn the_last_layer_is_found_behind_what_leaves_its_classes_as_they_are() {
        let convolution = |graph: &mut GraphProto| {
            graph.initializer[1].dims = vec![2, 2, 1, 1];
            graph.node[3].op_type = "Conv".to_owned();
            graph.node[3].input[0] = "pooled".to_owned();
            end_in(graph, "Flatten", &[]);
        };
        let found = found_after(&convolution).expect("features");
        assert_eq!((found.value.as_str(), found.size, found.note), ("pooled", 2, None));
        assert_eq!(found.map.as_deref(), Some("head"));
        let found = found_after(&|graph: &mut GraphProto| {
            convolution(graph);
            let shape = [2, 2, 7, 7].map(DimensionValue::Fixed);
            graph.output[0] = float_value("logits", &shape);
        });
        assert!(found.is_err(), "a map of classes is no vector");

        let scaled = |graph: &mut GraphProto| {
            let temperature = add_initializer(graph, "temperature", &[], &[2.0]);
            end_in(graph, "Div", &[&temperature]);
            end_in(graph, "Softmax", &[]);
        };
        let transposed = |graph: &mut GraphProto| {
            graph.node[3].input[1] = add_node(graph, "transposed", "Transpose", &["weight"], &[]);
        };
        for change in [&scaled as &dyn Fn(&mut GraphProto), &transposed] {
            let found = found_after(change).expect("features");
            assert_eq!((found.value.as_str(), found.size, found.note), ("flat", 2, None));
        }
    }

    #[test]
    fn an_output_that_no_linear_layer_makes_is_told_of() {
        let found = found_after(&|graph: &mut GraphProto| end_in(graph, "Relu", &[])).expect("features");
        assert_eq!((found.value.as_str(), found.size), ("end", 2));
        let pooled = |graph: &mut GraphProto| {
            graph.initializer[0].dims = vec![2, 1, 1, 1];
            graph.output[0].name = "flat".to_owned();
        };
        assert_eq!(found_after(&pooled).expect("features").note, None);
        let scores = found_after(&|graph: &mut GraphProto| {
            pooled(graph);
            end_in(graph, "Softmax", &[]);
        });
        assert!(scores.expect("features").note.is_some());
        let note = found.note.expect("a note");
        assert!(
            note.contains("(Relu)") && note.contains("2 numbers of its output end"),
            "{note}"
        );
    }

    #[test]
    fn pooled_channels_that_may_be_scores_of_classes_are_told_of() {
        let note_of = |given: i64, taken: i64, side: i64| {
            let found = found_after(&|graph: &mut GraphProto| {
                graph.initializer[0].dims = vec![given, taken, side, side];
                let shape = [DimensionValue::named("N"), DimensionValue::Fixed(given)];
                graph.output[0] = float_value("flat", &shape);
            });
            found.expect("features").note
        };
        let note = note_of(10, 512, 1).expect("a note");
        assert!(note.contains("10 numbers of its output flat"), "{note}");
        assert!(note_of(1000, 512, 1).is_some());
        assert_eq!(note_of(1280, 320, 1), None);
        assert_eq!(note_of(256, 512, 3), None);
    }

    #[test]
    fn no_more_features_are_believed_than_memory_holds() {
        for size in [0, 1 << 40] {
            let found = found_after(&|graph: &mut GraphProto| graph.initializer[1].dims = vec![size, 2]);
            let expected = format!("it has {size} features of an image; 1 to 1048576 are expected");
            assert_eq!(found.err().as_deref(), Some(expected.as_str()));
        }
    }

    #[test]
    fn the_first_output_that_leads_to_features_is_followed() {
        let found = |outputs: &[ValueInfoProto]| {
            let mut model = classifier();
            let graph = model.graph.as_mut().expect("a graph");
            let logits = graph.output[0].clone();
            graph.output = outputs.iter().cloned().chain([logits]).collect();
            find(graph).expect("features")
        };
        let of = |name: &str, lengths: &[i64]| {
            let lengths: Vec<DimensionValue> = lengths.iter().copied().map(DimensionValue::Fixed).collect();
            float_value(name, &lengths)
        };
        let alone = found(&[]);
        assert_eq!((alone.value.as_str(), alone.note), ("flat", None));
        // A map of known and of any size: one leads nowhere, the other to features that may be none.
        for sides in [[7, 7], [0, 0]] {
            let beside = found(&[of("head", &[0, 2, sides[0], sides[1]])]);
            assert_eq!((beside.value.as_str(), beside.map.as_deref()), ("flat", Some("head")));
            let note = beside.note.expect("a note");
            assert_eq!(note, "of its 2 outputs logits is used, not the first one, head");
        }
        let mut model = classifier();
        let graph = model.graph.as_mut().expect("a graph");
        graph.output = vec![of("head", &[0, 2, 7, 7])];
        assert!(find(graph).is_err());
        graph.output.clear();
        assert_eq!(find(graph).err().as_deref(), Some("it has no output"));
    }

    #[test]
    fn a_mean_over_anything_but_height_and_width_has_no_feature_map() {
        let found = |axes: &[i64]| {
            let change = |graph: &mut GraphProto| {
                let bytes = axes.iter().flat_map(|axis| axis.to_le_bytes()).collect();
                let axes = add_tensor(graph, "axes", INT64, &[axes.len()], bytes);
                graph.node[1].op_type = "ReduceMean".to_owned();
                graph.node[1].input.push(axes);
                graph.initializer[0].dims = vec![2, 1, 1, 1];
                graph.output[0].name = "flat".to_owned();
            };
            let found = found_after(&change).expect("features");
            (found.map, found.channels_last, found.note.is_some())
        };
        let head = || Some("head".to_owned());
        assert_eq!(found(&[-1, 2]), (head(), false, false));
        assert_eq!(found(&[1, -2]), (head(), true, false), "channels last");
        assert_eq!(found(&[1]), (None, false, true), "tokens");
    }
}
