//! Pre-trained networks as featurizers.
//!
//! Whatever a network comes from (weights of a known architecture, or a user's own ONNX file), it becomes an ONNX file
//! with the outputs `features` and `feature_map`, in two [`forms`]; from there on only ONNX is known.

mod architecture;
mod catalogue;
mod forms;
mod own;
mod weights;

use std::path::{Path, PathBuf};

use shared::files::sha256_hex;
use shared::preprocessing::{ChannelOrder, Preprocessing};

pub use architecture::Architecture;
pub use catalogue::{CatalogueEntry, DEFAULT, catalogue, find};
use forms::Forms;
pub use weights::{Weights, WeightsError};

use crate::progress::Progress;
use crate::setup::{self, Cache, SetupError};

/// Key of the ONNX metadata that holds [`Preprocessing`] as JSON.
pub const PREPROCESSING_KEY: &str = "ikat.preprocessing";

/// Changes whenever the graphs that are built from the same weights change.
const BUILD: u32 = 2;

/// A network that turns images into features.
#[derive(Debug, Clone, PartialEq)]
pub struct Backbone {
    /// Name in the catalogue, or the file name of the user's own network.
    pub name: String,
    /// The ONNX file that gives the features and is served: batch normalization is part of the convolutions.
    pub onnx: PathBuf,
    /// SHA-256 of that file.
    pub sha256: String,
    /// The ONNX file that is refined: the same network with its batch normalizations.
    pub trainable: PathBuf,
    /// Licence of the weights, where it is known.
    pub licence: Option<String>,
    /// Length of the feature vector.
    pub feature_size: usize,
    /// How images are prepared.
    pub preprocessing: Preprocessing,
}

/// Normalization for a network that does not tell its own: per channel red, green, blue, in 8-bit units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreprocessingOverride {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

/// Why a network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// The catalogue has no such name.
    #[error("there is no network {name:?}: give one of {known}, or the path of an .onnx file")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// It could not be obtained.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The user's network is not one that gives features.
    #[error("{path} cannot be used as a featurizer: {reason}")]
    Own {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
}

/// The network that `choice` names: one of the catalogue (with the weights in `weights`, or else those that the
/// catalogue pins), or an ONNX file. `normalization` is for an ONNX file that does not tell its own.
///
/// # Errors
/// See [`BackboneError`].
pub fn obtain(
    choice: &str,
    weights: Option<&Path>,
    normalization: Option<PreprocessingOverride>,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Backbone, BackboneError> {
    if is_file(Path::new(choice)) {
        if weights.is_some() {
            return Err(BackboneError::Options(
                "an .onnx file has its own weights: leave --weights away".to_owned(),
            ));
        }
        return own::read(Path::new(choice), normalization, cache);
    }
    let entry = catalogue::find(choice)?;
    let preprocessing = match normalization {
        Some(PreprocessingOverride { mean, std }) => {
            catalogue::preprocessing(entry.resolution, ChannelOrder::Rgb, mean, std)
        }
        None => entry.preprocessing(),
    };
    let forms = match weights {
        Some(path) => build(entry, path, &file_hash(path)?, &preprocessing, cache)?,
        None if cached(entry, &entry.sha256, cache).exist() => cached(entry, &entry.sha256, cache),
        None => {
            let weights = setup::obtain(&entry.source, &entry.sha256, cache, progress)?;
            build(entry, &weights, &entry.sha256, &preprocessing, cache)?
        }
    };
    Ok(Backbone {
        name: entry.name.clone(),
        sha256: file_hash(&forms.served)?,
        onnx: forms.served,
        trainable: forms.trainable,
        licence: weights.is_none().then(|| entry.licence.clone()),
        feature_size: entry.feature_size,
        preprocessing,
    })
}

/// Whether `choice` is the path of a network rather than a name in the catalogue.
pub fn is_file(choice: &Path) -> bool {
    choice
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

fn cached(entry: &CatalogueEntry, weights_sha256: &str, cache: &Cache) -> Forms {
    let hash: String = weights_sha256.chars().take(16).collect();
    Forms::in_cache(cache, &format!("{}-{hash}-{BUILD}", entry.name))
}

fn build(
    entry: &CatalogueEntry,
    weights: &Path,
    weights_sha256: &str,
    preprocessing: &Preprocessing,
    cache: &Cache,
) -> Result<Forms, BackboneError> {
    let forms = cached(entry, weights_sha256, cache);
    let weights = Weights::read(weights)?;
    let model = entry
        .architecture
        .build(&weights, &metadata(&entry.name, preprocessing))?;
    forms.write(model)?;
    Ok(forms)
}

/// What is written into the file, so that it can be used alone.
fn metadata(name: &str, preprocessing: &Preprocessing) -> Vec<(&'static str, String)> {
    let preprocessing = serde_json::to_string(preprocessing).unwrap_or_default();
    vec![("ikat.name", name.to_owned()), (PREPROCESSING_KEY, preprocessing)]
}

fn file_hash(path: &Path) -> Result<String, BackboneError> {
    let bytes = std::fs::read(path).map_err(|source| BackboneError::File {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(sha256_hex(&bytes))
}
