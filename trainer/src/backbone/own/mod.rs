//! A user's own ONNX network, cut where its features are.
//!
//! A classifier ends in a linear layer (or a 1 x 1 convolution) over pooled features; a featurizer ends in the features
//! themselves. Both get the outputs `ikat_features` and, where a pooling over the last feature map is found,
//! `ikat_feature_map`, or a fresh name after these where they are taken. A value that is an output of this form already
//! keeps its own name. Whatever does not lead to them is dropped. [`input`] makes the channels of the images come
//! first, and [`trace`] finds where the features are.

mod input;
mod trace;

use std::path::Path;

use prost::Message;
use shared::files::{at, sha256_hex};
use shared::preprocessing::{ChannelOrder, Preprocessing};

use input::{image_input, scaling, take_any_batch};
use trace::{Found, find};

use super::{Backbone, BackboneError, Forms, PREPROCESSING_KEY, PreprocessingOverride};
use crate::onnx::proto::{DimensionValue, FLOAT, GraphProto, ModelProto, TypeValue, ValueInfoProto};
use crate::onnx::{Attribute, Form, add_node, add_output, prune, unify_constants};
use crate::setup::Cache;

/// The largest network that is read, in bytes: what one protobuf message can hold.
const MAX_BYTES: u64 = 2 << 30;
/// The newest version of ONNX's format that ONNX Runtime 1.20 takes.
const NEWEST_FORMAT: i64 = 10;
/// The newest version of ONNX's operators that it takes.
const NEWEST_OPERATORS: i64 = 21;
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
    if std::fs::metadata(path).map_err(at(path))?.len() > MAX_BYTES {
        return Err(own("it has more than 2 GiB".to_owned()));
    }
    let bytes = std::fs::read(path).map_err(at(path))?;
    let mut model =
        ModelProto::decode(bytes.as_slice()).map_err(|error| own(format!("it is no ONNX file ({error})")))?;
    let version = model.operators();
    if version > NEWEST_OPERATORS {
        return Err(own(format!(
            "it is written in version {version} of ONNX's operators; export it in version {NEWEST_OPERATORS} or earlier"
        )));
    }
    // Newer formats only add types of numbers and a distribution over devices, which no network needs that is run here.
    model.ir_version = model.ir_version.min(NEWEST_FORMAT);
    let graph = model
        .graph
        .as_mut()
        .ok_or_else(|| own("it holds no graph".to_owned()))?;

    check_whole(graph).map_err(own)?;
    unify_constants(graph);
    let fixed_resolution = image_input(graph).map_err(own)?;
    take_any_batch(graph);
    let scaling = scaling(graph);
    let found = cut(graph).map_err(own)?;
    let stored = model.metadata_props.iter().find(|entry| entry.key == PREPROCESSING_KEY);
    let mut notes = Vec::new();
    // What Ikat wrote tells where its features are.
    if let (Some(note), None) = (found.note, stored) {
        notes.push(format!("{}: {note}", path.display()));
    }
    notes.extend(normalization.as_ref().and_then(small_scale));
    if let (Some(scaling), Some(given), None) = (&scaling, &normalization, stored)
        && given.mean.iter().any(|mean| *mean != 0.0)
    {
        notes.push(format!("{}: {scaling}", path.display()));
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

    let forms = Forms::in_cache(cache, &format!("own-{}", &sha256_hex(&bytes)[..16]));
    let sha256 = sha256_hex(&forms.write(model)?);
    let name = path
        .file_stem()
        .map_or_else(|| "own".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Backbone {
        name,
        own: Some(path.to_path_buf()),
        onnx: forms.served,
        sha256,
        trainable: forms.trainable,
        licence: None,
        feature_size: found.size,
        fixed_resolution,
        preprocessing,
        notes,
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

/// Makes the features (and the last feature map) the outputs; gives what was found.
fn cut(graph: &mut GraphProto) -> Result<Found, String> {
    let found = find(graph)?;
    let before = std::mem::take(&mut graph.output);
    let map = found.map.clone().map(|map| {
        if found.channels_last {
            let channels_first = [("perm", Attribute::Ints(vec![0, 3, 1, 2]))];
            add_node(graph, "ikat_channels_first", "Transpose", &[&map], &channels_first)
        } else {
            map
        }
    });
    // What is an output of this form already, as in a network that was refined here, stays as it is.
    let kept = |value: &str, rank: usize| {
        let is_of_rank = |output: &ValueInfoProto| shape(output).is_some_and(|shape| shape.len() == rank);
        let mut outputs = before.iter();
        outputs
            .find(|output| output.name == value && is_of_rank(output))
            .cloned()
    };
    let dimensions = [
        DimensionValue::named("N"),
        DimensionValue::Fixed(found.size as i64),
        DimensionValue::named("h"),
        DimensionValue::named("w"),
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
    if let Some(map) = &map {
        offer(map, Form::Same, "ikat_feature_map", &dimensions);
    }
    prune(graph);
    Ok(found)
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

#[cfg(test)]
mod tests;
