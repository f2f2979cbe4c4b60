//! PyTorch checkpoints and safetensors.

use std::collections::HashMap;
use std::path::Path;

use pytorch_reader::{DType, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use shared::files::at;

use super::{Tensor, WeightsError};
use crate::float_bytes::from_bytes;

/// What names begin with where training scripts keep the weights under a key, beside the state of the optimizer.
const NESTED: [&str; 3] = ["state_dict.", "model_state_dict.", "model."];

pub(super) fn read_checkpoint(path: &Path) -> Result<HashMap<String, Tensor>, WeightsError> {
    let format = |reason: String| WeightsError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let reader = PytorchReader::new(path).map_err(|error| format(error.to_string()))?;
    let is_there = |key: &&str| reader.tensors().keys().any(|name| name.starts_with(*key));
    let key = NESTED.into_iter().find(is_there).unwrap_or_default();
    let mut tensors = HashMap::new();
    for (name, tensor) in reader.tensors() {
        // Counters and the like are no weights.
        let Some(name) = name.strip_prefix(key).filter(|_| tensor.dtype() == DType::F32) else {
            continue;
        };
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

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::CompressionMethod;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::float_bytes::to_bytes;

    const VALUES: [f32; 2] = [1.5, -2.0];
    /// A call that makes a tensor of two floats, as PyTorch pickles it.
    const TENSOR: &[u8] =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000\
        X\x03\0\0\0cpuK\x02tQK\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR";

    /// A checkpoint with one tensor, which lies under `keys`, one within the other and each beside a number.
    fn checkpoint(keys: &[&str]) -> Vec<u8> {
        let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let pickled = keys.iter().rev().fold(TENSOR.to_vec(), |value, key| {
            [&b"}"[..], &text("epoch"), b"K\x05s", &text(key), &value, b"s"].concat()
        });
        let pickled = [&b"\x80\x02"[..], &pickled, b"."].concat();
        let values = to_bytes(&VALUES);
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in [("weights/data.pkl", pickled), ("weights/data/0", values)] {
            archive.start_file(name, stored).expect("a member");
            archive.write_all(&bytes).expect("written");
        }
        archive.finish().expect("an archive").into_inner()
    }

    #[test]
    fn weights_are_found_where_training_scripts_keep_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pth");
        for keys in [
            &["conv1.weight"][..],
            &["module.conv1.weight"],
            &["state_dict", "module.conv1.weight"],
            &["model_state_dict", "conv1.weight"],
            &["model", "conv1.weight"],
        ] {
            std::fs::write(&path, checkpoint(keys)).expect("written");
            let tensors = read_checkpoint(&path).expect("a checkpoint");
            let tensor = tensors.get("conv1.weight");
            let tensor = tensor.unwrap_or_else(|| panic!("{keys:?}: {tensors:?}"));
            assert_eq!((&tensor.shape[..], &tensor.values[..]), (&[2][..], &VALUES[..]));
        }
    }
}
