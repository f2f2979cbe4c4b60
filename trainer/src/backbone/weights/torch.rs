//! PyTorch checkpoints and safetensors.

use std::collections::HashMap;
use std::path::Path;

use pytorch_reader::{DType, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use shared::files::at;

use super::{Tensor, WeightsError};
use crate::float_bytes::from_bytes;

/// Keys under which training scripts nest the weights.
const NESTED: [&str; 2] = ["state_dict", "model"];

pub(super) fn read_checkpoint(path: &Path) -> Result<HashMap<String, Tensor>, WeightsError> {
    let format = |reason: String| WeightsError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let opened = PytorchReader::new(path).or_else(|first| {
        NESTED
            .iter()
            .find_map(|key| PytorchReader::with_top_level_key(path, key).ok())
            .ok_or(first)
    });
    let reader = opened.map_err(|error| format(error.to_string()))?;
    let mut tensors = HashMap::new();
    for (name, tensor) in reader.tensors() {
        // Counters and the like are no weights.
        if tensor.dtype() != DType::F32 {
            continue;
        }
        let bytes = tensor
            .read()
            .map_err(|error| format(format!("tensor {name}: {error}")))?;
        tensors.insert(
            plain(name),
            Tensor {
                shape: tensor.shape().to_vec(),
                values: from_bytes(&bytes),
            },
        );
    }
    Ok(tensors)
}

pub(super) fn read_safetensors(path: &Path) -> Result<HashMap<String, Tensor>, WeightsError> {
    let bytes = std::fs::read(path).map_err(at(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| WeightsError::Format {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    Ok(file
        .iter()
        .filter(|(_, view)| view.dtype() == Dtype::F32)
        .map(|(name, view)| {
            (
                plain(name),
                Tensor {
                    shape: view.shape().to_vec(),
                    values: from_bytes(view.data()),
                },
            )
        })
        .collect())
}

/// A name without the prefix that data-parallel training adds.
fn plain(name: &str) -> String {
    name.strip_prefix("module.").unwrap_or(name).to_owned()
}
