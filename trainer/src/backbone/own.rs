//! A user's own ONNX network, cut where its features are.
//!
//! A classifier ends in a linear layer over pooled features; a featurizer ends in the features themselves. Both
//! get the outputs `features` and, where a pooling over the last feature map is found, `feature_map`; whatever
//! does not lead to them is dropped.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;
use shared::files::sha256_hex;
use shared::preprocessing::{ChannelOrder, Preprocessing};

use super::{Backbone, BackboneError, Forms, PREPROCESSING_KEY, PreprocessingOverride, catalogue};
use crate::onnx::proto::{DimensionValue, FLOAT, GraphProto, ModelProto, NodeProto, TypeValue, ValueInfoProto};
use crate::onnx::{Form, add_output, prune};
use crate::setup::Cache;

/// The largest network that is read, in bytes: what one protobuf message can hold.
const MAX_BYTES: u64 = 2 << 30;
/// Side of the input of a network that takes any.
const DEFAULT_RESOLUTION: u32 = 224;

/// Reads a user's network and writes the featurizer in it to the cache.
pub(super) fn read(
    path: &Path,
    normalization: Option<PreprocessingOverride>,
    cache: &Cache,
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

    let resolution = image_input(graph).map_err(own)?.unwrap_or(DEFAULT_RESOLUTION);
    let feature_size = cut(graph).map_err(own)?;
    let stored = model.metadata_props.iter().find(|entry| entry.key == PREPROCESSING_KEY);
    let preprocessing = match (normalization, stored) {
        (Some(PreprocessingOverride { mean, std }), _) => {
            catalogue::preprocessing(resolution, ChannelOrder::Rgb, mean, std)
        }
        (None, Some(entry)) => serde_json::from_str::<Preprocessing>(&entry.value)
            .map_err(|error| own(format!("its metadata {PREPROCESSING_KEY} is not readable ({error})")))?,
        (None, None) => {
            return Err(own(
                "it does not tell how its input is normalized: give --mean and --std in 8-bit units, for \
                 example --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 for most networks trained on ImageNet"
                    .to_owned(),
            ));
        }
    };

    let forms = Forms::in_cache(cache, &format!("own-{}", &sha256_hex(&bytes)[..16]));
    let sha256 = sha256_hex(&forms.write(model)?);
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
        preprocessing,
    })
}

/// Checks that the one input is a batch of RGB images, and gives the side of the square if it is fixed.
fn image_input(graph: &mut GraphProto) -> Result<Option<u32>, String> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    graph.input.retain(|input| !constants.contains(input.name.as_str()));
    let [input] = graph.input.as_slice() else {
        return Err(format!(
            "it has {} inputs; one batch of images is expected",
            graph.input.len()
        ));
    };
    let shape = shape(input).ok_or("its input is no tensor of 32-bit floats with a known shape")?;
    match shape[..] {
        [_, Some(3), None, None] => Ok(None),
        [_, Some(3), Some(height), Some(width)] if height == width => Ok(u32::try_from(height).ok()),
        [_, Some(3), height, width] => Err(format!("its input is {height:?} x {width:?}; a square is expected")),
        [_, _, _, Some(3)] => Err("its input has the channels last (NHWC); export it with channels first".to_owned()),
        _ => Err(format!("its input has the shape {shape:?}; [N, 3, H, W] is expected")),
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

/// Makes the features (and the last feature map) the outputs; gives the number of features.
fn cut(graph: &mut GraphProto) -> Result<usize, String> {
    let output = graph.output.first().ok_or("it has no output")?.clone();
    let found = Trace::new(graph).features(&output)?;
    graph.output.clear();
    let dimensions = [
        DimensionValue::Named("N".to_owned()),
        DimensionValue::Fixed(found.size as i64),
        DimensionValue::Named("h".to_owned()),
        DimensionValue::Named("w".to_owned()),
    ];
    add_output(graph, &found.value, Form::Rows, "ikat_features", &dimensions[..2]);
    if let Some(map) = &found.map {
        add_output(graph, map, Form::Same, "ikat_feature_map", &dimensions);
    }
    prune(graph);
    Ok(found.size)
}

/// Where the features of a network are.
struct Found {
    value: String,
    map: Option<String>,
    size: usize,
}

/// Following values back to where they come from.
struct Trace<'a> {
    graph: &'a GraphProto,
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
            producers: outputs.collect(),
        }
    }

    fn features(&self, output: &'a ValueInfoProto) -> Result<Found, String> {
        let end = self.skip(&output.name, &["Softmax", "LogSoftmax", "Identity", "Sigmoid"]);
        let (value, size) = match self.linear(end) {
            Some((input, size)) => (input, Some(size)),
            None => (
                end,
                shape(output).and_then(|shape| usize::try_from(shape.get(1).copied().flatten()?).ok()),
            ),
        };
        let reshaping = ["Flatten", "Reshape", "Squeeze", "Identity", "Dropout"];
        let pool = self.producers.get(self.skip(value, &reshaping));
        let map = pool.and_then(|node| match node.op_type.as_str() {
            "GlobalAveragePool" | "ReduceMean" => node.input.first().cloned(),
            _ => None,
        });
        let size = size.ok_or_else(|| {
            let last = self.producers.get(end).map_or("nothing", |node| node.op_type.as_str());
            format!(
                "it ends in {last}; a linear layer (Gemm or MatMul) over pooled features is expected, or an output \
                 [N, D] that holds the features"
            )
        })?;
        if size == 0 {
            return Err("its last layer takes no features at all".to_owned());
        }
        Ok(Found {
            value: value.to_owned(),
            map,
            size,
        })
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

    /// Input and its length of the linear layer that makes `value`.
    fn linear(&self, value: &'a str) -> Option<(&'a str, usize)> {
        let mut node = *self.producers.get(value)?;
        if node.op_type == "Add" {
            node = node
                .input
                .iter()
                .find_map(|input| self.producers.get(input.as_str()))
                .copied()?;
        }
        let weight = self
            .graph
            .initializer
            .iter()
            .find(|tensor| Some(&tensor.name) == node.input.get(1))?;
        let transposed = node
            .attribute
            .iter()
            .any(|attribute| attribute.name == "transB" && attribute.i != 0);
        let length = match (node.op_type.as_str(), transposed) {
            ("Gemm", true) => weight.dims.get(1),
            ("Gemm", false) | ("MatMul", _) => weight.dims.first(),
            _ => None,
        };
        Some((node.input.first()?, usize::try_from(*length?).ok()?))
    }
}
