//! A user's own ONNX network, cut where its features are.
//!
//! A classifier ends in a linear layer (or a 1 x 1 convolution) over pooled features; a featurizer ends in the features
//! themselves. Both get the outputs `ikat_features` and, where a pooling over the last feature map is found, `ikat_feature_map`, or a fresh name
//! after these where they are taken. A value that is an output of this form already keeps its own name. Whatever does not
//! lead to them is dropped. An input with the channels last becomes one with the channels first.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;
use shared::files::sha256_hex;
use shared::preprocessing::{ChannelOrder, Preprocessing};

use super::{Backbone, BackboneError, Forms, PREPROCESSING_KEY, PreprocessingOverride};
use crate::onnx::proto::{
    DimensionValue, FLOAT, GraphProto, ModelProto, NodeProto, TensorProto, TypeValue, ValueInfoProto,
};
use crate::onnx::{
    Attribute, Constants, Form, add_node, add_output, fresh_name, integers, prune, unify_constants, uses,
};
use crate::progress::Progress;
use crate::setup::{Cache, KEPT, keep_latest};

/// The largest network that is read, in bytes: what one protobuf message can hold.
const MAX_BYTES: u64 = 2 << 30;
/// Side of the input of a network that takes any.
const DEFAULT_RESOLUTION: u32 = 224;
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

/// What scales or shifts each channel by itself, with a constant.
const PER_CHANNEL: [&str; 4] = ["Add", "Sub", "Mul", "Div"];

/// How the names of copies in the cache begin.
const COPY: &str = "own-";

/// Reads a user's network and writes the featurizer in it to the cache.
pub(super) fn read(
    path: &Path,
    normalization: Option<PreprocessingOverride>,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Backbone, BackboneError> {
    let own = |reason: String| BackboneError::Own {
        path: path.to_path_buf(),
        reason,
    };
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| BackboneError::File { path, source }
    };
    if std::fs::metadata(path).map_err(file(path))?.len() > MAX_BYTES {
        return Err(own("it has more than 2 GiB".to_owned()));
    }
    let bytes = std::fs::read(path).map_err(file(path))?;
    let mut model =
        ModelProto::decode(bytes.as_slice()).map_err(|error| own(format!("it is no ONNX file ({error})")))?;
    let graph = model
        .graph
        .as_mut()
        .ok_or_else(|| own("it holds no graph".to_owned()))?;

    check_whole(graph).map_err(own)?;
    unify_constants(graph);
    let fixed_resolution = image_input(graph).map_err(own)?;
    take_any_batch(graph);
    let scaling = scaling(graph);
    let Found {
        size: feature_size,
        note,
        ..
    } = cut(graph).map_err(own)?;
    let stored = model.metadata_props.iter().find(|entry| entry.key == PREPROCESSING_KEY);
    // What Ikat wrote tells where its features are.
    if let (Some(note), None) = (note, stored) {
        progress.note(&format!("{}: {note}", path.display()));
    }
    if let Some(note) = normalization.as_ref().and_then(small_scale) {
        progress.note(&note);
    }
    if let (Some(scaling), Some(given), None) = (&scaling, &normalization, stored)
        && given.mean.iter().any(|mean| *mean != 0.0)
    {
        progress.note(&format!("{}: {scaling}", path.display()));
    }
    let stored = stored.map(|entry| serde_json::from_str::<Preprocessing>(&entry.value));
    let mut preprocessing = match (normalization, stored) {
        (Some(given), Some(Ok(stored))) => given.preprocessing(stored.resolution, stored.channels),
        (Some(given), _) => given.preprocessing(DEFAULT_RESOLUTION, ChannelOrder::Rgb),
        (None, Some(stored)) => {
            stored.map_err(|error| own(format!("its metadata {PREPROCESSING_KEY} is not readable ({error})")))?
        }
        (None, None) => {
            return Err(own(scaling.unwrap_or_else(|| {
                "it does not tell how its input is normalized: give --mean and --std in 8-bit units, for example \
                 --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 for most networks trained on ImageNet, or \
                 127.5,127.5,127.5 for both where it takes values from -1 to 1, as many of Keras do"
                    .to_owned()
            })));
        }
    };

    if let Some(fixed) = fixed_resolution {
        preprocessing.resolution = fixed;
    }
    // A bundle would be refused for it only when it is loaded.
    let checked = preprocessing.check();
    checked.map_err(|reason| own(format!("its preprocessing has {reason}")))?;

    let forms = Forms::in_cache(cache, &format!("{COPY}{}", &sha256_hex(&bytes)[..16]));
    let sha256 = sha256_hex(&forms.write(model)?);
    // Being read is being written, so that the time of a copy says when it was used last.
    let is_copy = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(COPY))
    };
    keep_latest(forms.served.parent().unwrap_or(cache.root()), KEPT, &is_copy);
    let name = path
        .file_stem()
        .map_or_else(|| "own".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Backbone {
        name,
        onnx: forms.served,
        sha256,
        trainable: forms.trainable,
        licence: None,
        feature_size,
        fixed_resolution,
        preprocessing,
    })
}

/// What the user should know of a normalization that is likely to be meant for values from 0 to 1.
fn small_scale(given: &PreprocessingOverride) -> Option<String> {
    given.std.iter().all(|std| *std < 1.0).then(|| {
        let [red, green, blue] = given.std;
        format!(
            "--std {red},{green},{blue} is below 1, which takes pixels from 0 to 255 far beyond what networks are trained on: \
             give --mean and --std in 8-bit units, 255 times those of pixels from 0 to 1"
        )
    })
}

/// What the user should know of a network that begins with scaling or shifting its input.
fn scaling(graph: &GraphProto) -> Option<String> {
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

/// Checks that no weights lie in a file beside it: only the network itself is read, kept and served.
fn check_whole(graph: &GraphProto) -> Result<(), String> {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let within_nodes = attributes.filter_map(|attribute| attribute.t.as_ref());
    let outside = graph.initializer.iter().chain(within_nodes).find_map(|tensor| {
        let mut described = tensor.external_data.iter();
        described.find(|entry| entry.key == "location")
    });
    match outside {
        Some(location) => Err(format!(
            "it has its weights in another file ({}): save both as one, as `onnx.save(onnx.load(FILE), NEW)` does",
            location.value
        )),
        None => Ok(()),
    }
}

/// Checks that the one input is a batch of RGB images, puts its channels first, and gives the side of the square if it is fixed.
fn image_input(graph: &mut GraphProto) -> Result<Option<u32>, String> {
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

/// Makes the input `[N, H, W, 3]` one of `[N, 3, H, W]`. A network that turns its input so does it no longer; before any other
/// it is turned back.
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
    if let Some(TypeValue::Tensor(tensor)) = graph.input[0].r#type.as_mut().and_then(|kind| kind.value.as_mut())
        && let Some(shape) = &mut tensor.shape
    {
        shape.dim[1..].rotate_right(1);
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
    /// Constants of the nodes before it that differ from channel to channel: node, position among its inputs, and the constant
    /// for channels that come first.
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
                let mut attributes = node.attribute.iter();
                let puts_first = attributes.any(|order| order.name == "perm" && order.ints == [0, 3, 1, 2]);
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

/// Lets a network that was written for one image at a time take any number of them, where nothing within tells the number.
fn take_any_batch(graph: &mut GraphProto) {
    if tells_batch(graph) {
        return;
    }
    let mut freed = false;
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(TypeValue::Tensor(tensor)) = value.r#type.as_mut().and_then(|kind| kind.value.as_mut())
            && let Some(batch) = tensor.shape.as_mut().and_then(|shape| shape.dim.first_mut())
            && batch.value == Some(DimensionValue::Fixed(1))
        {
            batch.value = Some(DimensionValue::Named("N".to_owned()));
            freed = true;
        }
    }
    if freed {
        // What stands there of values within the network is only for readers, and holds for one image.
        graph.value_info.clear();
    }
}

/// Lengths of a float tensor's dimensions, `None` for one that varies.
fn shape(value: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    let TypeValue::Tensor(tensor) = value.r#type.as_ref()?.value.as_ref()? else {
        return None;
    };
    if tensor.elem_type != FLOAT {
        return None;
    }
    let lengths = tensor
        .shape
        .as_ref()?
        .dim
        .iter()
        .map(|dimension| match dimension.value {
            Some(DimensionValue::Fixed(length)) if length > 0 => Some(length),
            _ => None,
        });
    Some(lengths.collect())
}

/// Makes the features (and the last feature map) the outputs; gives what was found.
fn cut(graph: &mut GraphProto) -> Result<Found, String> {
    let found = find(graph)?;
    let before = std::mem::take(&mut graph.output);
    // What is an output of this form already, as in a network that was refined here, stays as it is.
    let kept = |value: &str, rank: usize| {
        let is_of_rank = |output: &ValueInfoProto| shape(output).is_some_and(|shape| shape.len() == rank);
        let mut outputs = before.iter();
        outputs
            .find(|output| output.name == value && is_of_rank(output))
            .cloned()
    };
    let dimensions = [
        DimensionValue::Named("N".to_owned()),
        DimensionValue::Fixed(found.size as i64),
        DimensionValue::Named("h".to_owned()),
        DimensionValue::Named("w".to_owned()),
    ];
    let mut offer = |value: &str, form: Form, wish: &str, dimensions: &[DimensionValue]| {
        if let Some(output) = kept(value, dimensions.len()) {
            graph.output.push(output);
        } else if found.single {
            add_output(graph, value, form, wish, dimensions);
        } else {
            let to_single = [("to", Attribute::Int(i64::from(FLOAT)))];
            let value = add_node(graph, "ikat_cast", "Cast", &[value], &to_single);
            add_output(graph, &value, form, wish, dimensions);
        }
    };
    offer(&found.value, Form::Rows, "ikat_features", &dimensions[..2]);
    if let Some(map) = &found.map {
        offer(map, Form::Same, "ikat_feature_map", &dimensions);
    }
    prune(graph);
    Ok(found)
}

/// Where the features are by the first output that leaves no doubt, or else by the first that leads to any.
fn find(graph: &GraphProto) -> Result<Found, String> {
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
struct Found {
    value: String,
    map: Option<String>,
    size: usize,
    /// Whether they are 32-bit floats.
    single: bool,
    /// What the user should know of them.
    note: Option<String>,
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
        if size == 0 {
            return Err("its last layer takes no features at all".to_owned());
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
        let map = pool.and_then(|node| self.pooled(node));
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
            size,
            single,
        })
    }

    /// Whether a map that is pooled may be one of classes, as in networks of the form of SqueezeNet: a last convolution of one cell
    /// that gives less than it takes, or as many channels as a set of images from ImageNet has classes.
    fn may_be_of_classes(&self, map: &'a str, size: usize) -> bool {
        let value = self.skip(map, &["Relu", "Identity", "Cast", "Dropout"]);
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
        let number = |name: &str| {
            let mut attributes = node.attribute.iter();
            attributes
                .find(|attribute| attribute.name == name)
                .map(|attribute| attribute.i)
        };
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
                let to = node.attribute.iter().find(|attribute| attribute.name == "to")?;
                Some((lengths, i32::try_from(to.i).ok()?))
            }
            "Transpose" if lengths.len() == 2 => {
                lengths.reverse();
                Some((lengths, stored.data_type))
            }
            _ => None,
        }
    }

    /// The map whose cells a node averages: `[N, C, h, w]`, not the tokens of a transformer or a map with channels last.
    fn pooled(&self, node: &'a NodeProto) -> Option<&'a String> {
        let is_over_cells = match node.op_type.as_str() {
            "GlobalAveragePool" => true,
            "ReduceMean" => {
                let attribute = node.attribute.iter().find(|attribute| attribute.name == "axes");
                let axes = match attribute {
                    Some(attribute) => attribute.ints.clone(),
                    None => integers(self.constants.get(node.input.get(1)?)?)?,
                };
                let mut axes: Vec<i64> = axes.iter().map(|axis| axis.rem_euclid(4)).collect();
                axes.sort_unstable();
                axes == [2, 3]
            }
            _ => false,
        };
        node.input.first().filter(|_| is_over_cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{INT64, StringStringEntryProto};
    use crate::onnx::{GraphBuilder, add_initializer, add_tensor, float_value};
    use crate::progress::Silent;
    use crate::refine::head::HeadLayer;

    /// A classifier whose convolution and output have the names that a refinement gives its last layer.
    fn classifier() -> ModelProto {
        let mut graph = GraphBuilder::new("own");
        let kernel = graph.initializer("head.weight", &[2, 3, 1, 1], &[0.5; 6]);
        let map = graph.node("head", "Conv", &["image", &kernel], &[]);
        let pooled = graph.node("pooled", "GlobalAveragePool", &[&map], &[]);
        let flat = graph.node("flat", "Flatten", &[&pooled], &[]);
        let weight = graph.initializer("weight", &[2, 2], &[1.0, 0.0, 0.0, 1.0]);
        let logits = graph.node("logits", "MatMul", &[&flat, &weight], &[]);
        let shape = [DimensionValue::Named("N".to_owned()), DimensionValue::Fixed(2)];
        graph.finish("image", &[(&logits, &shape)], &[])
    }

    fn cut_of(mut model: ModelProto) -> ModelProto {
        let found = cut(model.graph.as_mut().expect("a graph")).expect("features");
        assert_eq!(found.size, 2);
        model
    }

    fn outputs(model: &ModelProto) -> Vec<&str> {
        let graph = model.graph.as_ref().expect("a graph");
        graph.output.iter().map(|output| output.name.as_str()).collect()
    }

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

    /// The classifier as a converter writes it that has the channels last, with `first` between its input and what turns it.
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

    /// Puts a node with one output over the one that is there.
    fn end_in(graph: &mut GraphProto, operator: &str, others: &[&str]) {
        let before = graph.output[0].name.clone();
        let inputs: Vec<&str> = std::iter::once(before.as_str()).chain(others.iter().copied()).collect();
        graph.output[0].name = add_node(graph, "end", operator, &inputs, &[]);
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
    fn features_of_half_precision_become_32_bit_floats() {
        let mut model = classifier();
        let graph = model.graph.as_mut().expect("a graph");
        graph.initializer[1].data_type = 10;
        end_in(graph, "Cast", &[]);
        let half = cut_of(model);
        assert_eq!(outputs(&half), ["ikat_features", "ikat_feature_map"]);
        let nodes = &half.graph.as_ref().expect("a graph").node;
        assert_eq!(nodes.iter().filter(|node| node.op_type == "Cast").count(), 2);
        assert_eq!(cut_of(half.clone()), half);
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
                let shape = [DimensionValue::Named("N".to_owned()), DimensionValue::Fixed(given)];
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
        let map_of = |axes: &[i64]| {
            let change = |graph: &mut GraphProto| {
                let bytes = axes.iter().flat_map(|axis| axis.to_le_bytes()).collect();
                let axes = add_tensor(graph, "axes", INT64, &[axes.len()], bytes);
                graph.node[1].op_type = "ReduceMean".to_owned();
                graph.node[1].input.push(axes);
            };
            found_after(&change).expect("features").map
        };
        assert_eq!(map_of(&[-1, 2]).as_deref(), Some("head"));
        assert_eq!(map_of(&[1, 2]), None, "channels last");
        assert_eq!(map_of(&[1]), None, "tokens");
    }

    #[test]
    fn a_network_keeps_the_resolution_that_it_tells_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("own.onnx");
        let read = |stored: &Preprocessing, fixed: Option<i64>, given: Option<PreprocessingOverride>| {
            let mut model = classifier();
            model.metadata_props.push(StringStringEntryProto {
                key: PREPROCESSING_KEY.to_owned(),
                value: serde_json::to_string(stored).expect("JSON"),
            });
            if let Some(side) = fixed {
                let shape = [1, 3, side, side].map(DimensionValue::Fixed);
                model.graph.as_mut().expect("a graph").input[0] = float_value("image", &shape);
            }
            std::fs::write(&path, model.encode_to_vec()).expect("written");
            let network = read(&path, given, &Cache::at(folder.path()), &Silent);
            network
                .map(|network| network.preprocessing)
                .map_err(|error| error.to_string())
        };
        let given = PreprocessingOverride {
            mean: [1.0; 3],
            std: [2.0; 3],
        };
        let of_side = |side| given.preprocessing(side, ChannelOrder::Bgr);
        assert_eq!(read(&of_side(448), None, Some(given)), Ok(of_side(448)));
        assert_eq!(read(&of_side(448), Some(64), None), Ok(of_side(64)));
        let reason = read(&of_side(5000), None, None).expect_err("too large");
        assert!(reason.contains("5000 x 5000 pixels; 1 to 4096"), "{reason}");
        let turned = Preprocessing {
            std: [1.0, -1.0, 1.0],
            ..of_side(64)
        };
        let reason = read(&turned, None, None).expect_err("a negative deviation");
        assert!(reason.contains("[1.0, -1.0, 1.0]; numbers above 0"), "{reason}");
    }

    #[test]
    fn copies_that_were_not_used_for_long_give_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("own.onnx");
        std::fs::write(&path, classifier().encode_to_vec()).expect("written");
        let before = ["own-before.onnx", "resnet18-before.onnx"].map(|name| folder.path().join("backbones").join(name));
        std::fs::create_dir(folder.path().join("backbones")).expect("a folder");
        for before in &before {
            let file = std::fs::File::create(before).expect("a file");
            // A file of one hole takes no room.
            file.set_len(KEPT).expect("its length");
            let age = std::time::Duration::from_hours(48);
            file.set_modified(std::time::SystemTime::now() - age).expect("its time");
        }
        let given = PreprocessingOverride {
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        let network = read(&path, Some(given), &Cache::at(folder.path()), &Silent).expect("a network");
        let there = [&before[0], &before[1], &network.onnx, &network.trainable].map(|path| path.exists());
        assert_eq!(there, [false, true, true, true]);
    }

    #[test]
    fn a_normalization_of_values_up_to_one_is_told_of() {
        let of = |std: [f32; 3]| small_scale(&PreprocessingOverride { mean: [0.5; 3], std });
        let note = of([0.229, 0.224, 0.225]).expect("a note");
        assert!(
            note.contains("--std 0.229,0.224,0.225") && note.contains("255 times"),
            "{note}"
        );
        assert_eq!(of([1.0; 3]), None);
        assert_eq!(of([58.395, 57.12, 57.375]), None);
    }

    #[test]
    fn weights_in_another_file_are_asked_for_as_one() {
        let mut model = classifier();
        let graph = model.graph.as_mut().expect("a graph");
        assert_eq!(check_whole(graph), Ok(()));
        graph.initializer[1].external_data = vec![StringStringEntryProto {
            key: "location".to_owned(),
            value: "own.onnx.data".to_owned(),
        }];
        let reason = check_whole(graph).expect_err("in two files");
        assert!(reason.contains("(own.onnx.data)"), "{reason}");
    }

    #[test]
    fn features_that_are_outputs_stay_as_they_are() {
        let once = cut_of(classifier());
        assert_eq!(outputs(&once), ["ikat_features", "ikat_feature_map"]);
        assert_eq!(cut_of(once.clone()), once);
    }

    #[test]
    fn a_refined_network_can_be_refined_again() {
        let layer = HeadLayer {
            weights: vec![0.5; 4],
            biases: vec![0.0; 2],
            normalized: true,
        };
        let mut backbone = cut_of(classifier());
        for _ in 0..3 {
            let refined = layer.on(&backbone, Some(0.5)).expect("a network");
            let graph = refined.model.graph.as_ref().expect("a graph");
            let values = graph.node.iter().map(|node| &node.output[0]);
            let names: Vec<&String> = values
                .chain(graph.initializer.iter().map(|tensor| &tensor.name))
                .collect();
            let distinct: HashSet<&String> = names.iter().copied().collect();
            assert_eq!(distinct.len(), names.len(), "{names:?}");
            assert_ne!(refined.weight, "head.weight");
            assert_eq!(outputs(&refined.model), [refined.logits.as_str(), "ikat_feature_map"]);
            backbone = cut_of(refined.model);
            assert_eq!(outputs(&backbone).len(), 2);
        }
    }
}
