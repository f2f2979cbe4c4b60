//! What an own network takes: one batch of RGB images, made one with the channels first and of any number of images.

use std::collections::HashSet;

use super::shape;
use crate::onnx::proto::{DimensionValue, GraphProto, TensorProto};
use crate::onnx::{Attribute, Constants, add_node, fresh_name, integers, uses};

/// What scales or shifts each channel by itself, with a constant.
const PER_CHANNEL: [&str; 4] = ["Add", "Sub", "Mul", "Div"];

/// What the user should know of a network that begins with scaling or shifting its input.
pub(super) fn scaling(graph: &GraphProto) -> Option<String> {
    let constants = Constants::of(graph);
    let mut value = &graph.input.first()?.name;
    for _ in &graph.node {
        let node = graph.node.iter().find(|node| node.input.contains(value))?;
        let operator = node.op_type.as_str();
        if PER_CHANNEL.contains(&operator) {
            let is_by_constant = node.input.iter().any(|input| constants.get(input).is_some());
            return is_by_constant.then(|| {
                format!(
                    "it scales its input itself, as its first operator is {operator}: give --mean 0,0,0 with --std 1,1,1 where \
                     it takes pixels from 0 to 255, or with --std 255,255,255 where it takes them from 0 to 1"
                )
            });
        }
        if !["Transpose", "Identity", "Cast"].contains(&operator) {
            return None;
        }
        value = node.output.first()?;
    }
    None
}

/// Checks that the one input is a batch of RGB images, puts its channels first, and gives the side of the square if it
/// is fixed.
pub(super) fn image_input(graph: &mut GraphProto) -> Result<Option<u32>, String> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let uses = uses(graph);
    // Some exporters leave inputs that nothing takes.
    graph
        .input
        .retain(|input| uses.contains_key(&input.name) && !constants.contains(input.name.as_str()));
    let [input] = graph.input.as_slice() else {
        return Err(format!(
            "it has {} inputs; one batch of images is expected",
            graph.input.len()
        ));
    };
    let mut shape = shape(input).ok_or(
        "its input is no tensor of 32-bit floats with a known shape; where a converter to 16 bits wrote it, let that keep \
         the types of inputs and outputs",
    )?;
    if matches!(shape[..], [_, second, _, Some(3)] if second != Some(3)) {
        shape[1..].rotate_right(1);
        put_channels_first(graph);
    }
    match shape[..] {
        [Some(batch), Some(3), _, _] if batch > 1 => Err(format!(
            "its input is a batch of exactly {batch} images; export it for any number of images, or for one"
        )),
        [_, Some(3), None, None] => Ok(None),
        [_, Some(3), Some(height), Some(width)] if height == width => Ok(u32::try_from(height).ok()),
        [_, Some(3), height, width] => Err(format!(
            "its input is {} x {}; a square is expected",
            length(height),
            length(width)
        )),
        _ => {
            let lengths: Vec<String> = shape.iter().copied().map(length).collect();
            Err(format!(
                "its input has the shape [{}]; [N, 3, H, W] or [N, H, W, 3] is expected",
                lengths.join(", ")
            ))
        }
    }
}

/// Makes the input `[N, H, W, 3]` one of `[N, 3, H, W]`. A network that turns its input so does it no longer; before
/// any other it is turned back.
fn put_channels_first(graph: &mut GraphProto) {
    if let Some(turn) = Turn::find(graph) {
        for (node, position, constant) in turn.constants {
            let name = fresh_name(graph, "ikat_per_channel");
            graph.node[node].input[position].clone_from(&name);
            graph.initializer.push(TensorProto { name, ..constant });
        }
        match turn.last {
            Some(last) => graph.node[last].output[0] = turn.output,
            None => graph.input[0].name = turn.output,
        }
        graph.node.remove(turn.node);
        // What stands there of values before the turn holds no longer, and is only for readers.
        graph.value_info.clear();
    } else {
        let images = fresh_name(graph, "ikat_images");
        let turned_back = [("perm", Attribute::Ints(vec![0, 2, 3, 1]))];
        add_node(graph, "ikat_channels_last", "Transpose", &[&images], &turned_back);
        let before = std::mem::replace(&mut graph.input[0].name, images);
        if let Some(node) = graph.node.last_mut() {
            node.output = vec![before];
        }
        graph.node.rotate_right(1);
    }
    if let Some(dimensions) = graph.input[0].dimensions_mut() {
        dimensions[1..].rotate_right(1);
    }
}

/// Where a network puts the channels of its input first: at once, or after it scaled and shifted each of them.
struct Turn {
    /// Index of the node that does.
    node: usize,
    /// What it makes.
    output: String,
    /// Index of the last node before it.
    last: Option<usize>,
    /// Constants of the nodes before it that differ from channel to channel: node, position among its inputs, and the
    /// constant for channels that come first.
    constants: Vec<(usize, usize, TensorProto)>,
}

impl Turn {
    fn find(graph: &GraphProto) -> Option<Self> {
        let tensors = Constants::of(graph);
        let uses = uses(graph);
        let mut value = &graph.input.first()?.name;
        let mut last = None;
        let mut constants = Vec::new();
        for _ in &graph.node {
            (uses.get(value) == Some(&1)).then_some(())?;
            let mut nodes = graph.node.iter().enumerate();
            let (index, node) = nodes.find(|(_, node)| node.input.contains(value))?;
            let output = node.output.first()?;
            if node.op_type == "Transpose" {
                let puts_first = node.attribute("perm").is_some_and(|order| order.ints == [0, 3, 1, 2]);
                return puts_first.then(|| Self {
                    node: index,
                    output: output.clone(),
                    last,
                    constants,
                });
            }
            PER_CHANNEL.contains(&node.op_type.as_str()).then_some(())?;
            let position = node.input.iter().position(|input| tensors.get(input).is_some())?;
            let tensor = tensors.get(&node.input[position])?;
            let dims = tensor.dims.as_slice();
            let others = dims.split_last().map_or(dims, |(_, others)| others);
            (dims.len() <= 4 && others.iter().all(|length| *length == 1)).then_some(())?;
            match dims.last() {
                None | Some(1) => {}
                Some(3) => {
                    let dims = vec![3, 1, 1];
                    constants.push((index, position, TensorProto { dims, ..tensor.clone() }));
                }
                _ => return None,
            }
            last = Some(index);
            value = output;
        }
        None
    }
}

/// A length as people read it.
fn length(length: Option<i64>) -> String {
    length.map_or_else(|| "any".to_owned(), |length| length.to_string())
}

/// Whether something within a network tells how many images there are: a Reshape, or a constant that is joined to their
/// values, as the class token of a transformer is.
fn tells_batch(graph: &GraphProto) -> bool {
    let constants = Constants::of(graph);
    graph.node.iter().any(|node| {
        if node.op_type == "Concat" {
            let tensors = node.input.iter().map(|input| constants.get(input));
            let (fixed, varying): (Vec<_>, Vec<_>) = tensors.partition(Option::is_some);
            // Those of one dimension make up a shape.
            return !varying.is_empty() && fixed.into_iter().flatten().any(|tensor| tensor.dims.len() > 1);
        }
        let [value, wanted, ..] = node.input.as_slice() else {
            return false;
        };
        let wanted = constants.get(wanted).and_then(integers);
        let number = wanted.and_then(|wanted| wanted.first().copied());
        node.op_type == "Reshape" && constants.get(value).is_none() && number.is_some_and(|number| number > 0)
    })
}

/// Lets a network that was written for one image at a time take any number of them, where nothing within tells the
/// number.
pub(super) fn take_any_batch(graph: &mut GraphProto) {
    if tells_batch(graph) {
        return;
    }
    let mut freed = false;
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(batch) = value.dimensions_mut().and_then(|dimensions| dimensions.first_mut())
            && batch.value == Some(DimensionValue::Fixed(1))
        {
            batch.value = Some(DimensionValue::named("N"));
            freed = true;
        }
    }
    if freed {
        // What stands there of values within the network is only for readers, and holds for one image.
        graph.value_info.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{classifier, end_in};
    use super::*;
    use crate::onnx::proto::INT64;
    use crate::onnx::{GraphBuilder, add_initializer, add_tensor, float_value};

    /// Reads a network as it was written, with a batch of one and `shape` in a Reshape before its last layer.
    fn batch_of(shape: [i64; 2]) -> Option<i64> {
        let mut model = classifier();
        let graph = model.graph.as_mut().expect("a graph");
        let bytes = shape.iter().flat_map(|length| length.to_le_bytes()).collect();
        let shape = add_tensor(graph, "shape", INT64, &[2], bytes);
        graph.node[2].op_type = "Reshape".to_owned();
        graph.node[2].input.push(shape);
        for value in [&mut graph.input[0], &mut graph.output[0]] {
            let lengths = self::shape(value).expect("a shape");
            let fixed = |length: Option<i64>| DimensionValue::Fixed(length.unwrap_or(1));
            let fixed: Vec<DimensionValue> = lengths.into_iter().map(fixed).collect();
            *value = float_value(&value.name, &fixed);
        }
        take_any_batch(graph);
        let batches = [&graph.input[0], &graph.output[0]].map(|value| self::shape(value).expect("a shape")[0]);
        assert_eq!(batches[0], batches[1]);
        batches[0]
    }

    #[test]
    fn one_image_at_a_time_becomes_any_number_where_nothing_within_tells_it() {
        assert_eq!(batch_of([0, -1]), None);
        assert_eq!(batch_of([-1, 2]), None);
        assert_eq!(batch_of([1, -1]), Some(1));
    }

    #[test]
    fn a_network_with_a_class_token_of_one_image_takes_one() {
        let batch_after = |rank: usize| {
            let mut model = classifier();
            let graph = model.graph.as_mut().expect("a graph");
            graph.input[0] = float_value("image", &[1, 3, 64, 64].map(DimensionValue::Fixed));
            let token = add_initializer(graph, "token", &vec![1; rank], &[0.5]);
            end_in(graph, "Concat", &[&token]);
            take_any_batch(graph);
            shape(&graph.input[0]).expect("a shape")[0]
        };
        assert_eq!(batch_after(3), Some(1));
        assert_eq!(batch_after(1), None);
    }

    #[test]
    fn an_input_that_is_no_square_is_told_in_numbers() {
        let reason = |lengths: &[i64]| {
            let mut model = classifier();
            let graph = model.graph.as_mut().expect("a graph");
            let fixed: Vec<DimensionValue> = lengths.iter().copied().map(DimensionValue::Fixed).collect();
            graph.input[0] = float_value("image", &fixed);
            image_input(graph)
        };
        assert_eq!(reason(&[1, 3, 64, 64]), Ok(Some(64)));
        let expected = "its input is 64 x 48; a square is expected";
        assert_eq!(reason(&[1, 3, 64, 48]), Err(expected.to_owned()));
        let expected = "its input is a batch of exactly 8 images; export it for any number of images, or for one";
        assert_eq!(reason(&[8, 3, 64, 64]), Err(expected.to_owned()));
        let expected = "its input has the shape [any, 4, 64, 64]; [N, 3, H, W] or [N, H, W, 3] is expected";
        assert_eq!(reason(&[0, 4, 64, 64]), Err(expected.to_owned()));
    }

    /// The classifier as a converter writes it that has the channels last, with `first` between its input and what
    /// turns it.
    fn channels_last(first: &dyn Fn(&mut GraphBuilder) -> String) -> GraphProto {
        let mut graph = GraphBuilder::new("channels last");
        let value = first(&mut graph);
        let turn = [("perm", Attribute::Ints(vec![0, 3, 1, 2]))];
        let turned = graph.node("turned", "Transpose", &[&value], &turn);
        let kernel = graph.initializer("kernel", &[2, 3, 1, 1], &[0.5; 6]);
        let map = graph.node("map", "Conv", &[&turned, &kernel], &[]);
        let mut graph = graph.finish("image", &[(&map, &[])], &[]).graph.expect("a graph");
        graph.input.push(float_value("unused", &[]));
        graph.input[0] = float_value("image", &[0, 64, 64, 3].map(DimensionValue::Fixed));
        assert_eq!(image_input(&mut graph), Ok(Some(64)));
        assert_eq!(shape(&graph.input[0]), Some(vec![None, Some(3), Some(64), Some(64)]));
        graph
    }

    fn operators(graph: &GraphProto) -> Vec<&str> {
        graph.node.iter().map(|node| node.op_type.as_str()).collect()
    }

    #[test]
    fn a_network_that_puts_the_channels_first_itself_takes_them_first() {
        let at_once = channels_last(&|_: &mut GraphBuilder| "image".to_owned());
        assert_eq!(operators(&at_once), ["Conv"]);
        assert_eq!(at_once.input[0].name, at_once.node[0].input[0]);
        assert_eq!(scaling(&at_once), None);

        let scaled = channels_last(&|graph: &mut GraphBuilder| {
            let factor = graph.initializer("factor", &[], &[2.0]);
            let scaled = graph.node("scaled", "Mul", &["image", &factor], &[]);
            let mean = graph.initializer("mean", &[1, 1, 1, 3], &[1.0, 2.0, 3.0]);
            graph.node("shifted", "Sub", &[&scaled, &mean], &[])
        });
        assert_eq!(operators(&scaled), ["Mul", "Sub", "Conv"]);
        assert_eq!(scaled.node[1].output[0], scaled.node[2].input[0]);
        let constants = Constants::of(&scaled);
        let mean = constants.get(&scaled.node[1].input[1]).expect("the mean");
        assert_eq!(mean.dims, [3, 1, 1]);
        assert_eq!(constants.floats(&mean.name), Some(vec![1.0, 2.0, 3.0]));
        let note = scaling(&scaled).expect("a note");
        assert!(note.contains("first operator is Mul"), "{note}");
    }

    #[test]
    fn before_any_other_network_the_channels_are_put_last_again() {
        let other = channels_last(&|graph: &mut GraphBuilder| graph.node("other", "Relu", &["image"], &[]));
        assert_eq!(operators(&other), ["Transpose", "Relu", "Transpose", "Conv"]);
        assert_eq!(other.node[0].input, [other.input[0].name.clone()]);
        assert_eq!(other.node[0].output, ["image"]);
        assert_eq!(other.node[0].attribute[0].ints, [0, 2, 3, 1]);
        let of_two_uses = channels_last(&|graph: &mut GraphBuilder| graph.node("sum", "Add", &["image", "image"], &[]));
        assert_eq!(operators(&of_two_uses), ["Transpose", "Add", "Transpose", "Conv"]);
        let by_rows = channels_last(&|graph: &mut GraphBuilder| {
            let weights = graph.initializer("weights", &[64, 1, 1], &[1.0; 64]);
            graph.node("weighted", "Mul", &["image", &weights], &[])
        });
        assert_eq!(operators(&by_rows), ["Transpose", "Mul", "Transpose", "Conv"]);
    }
}
