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

use shared::files::{FileError, at, sha256_hex};
use shared::network::{Network, NetworkError, Outputs, Runtime, Tensor};
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
    /// Where the user's own network is.
    pub own: Option<PathBuf>,
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
    /// Side of the images, in pixels, where it takes no other.
    pub fixed_resolution: Option<u32>,
    /// How images are prepared.
    pub preprocessing: Preprocessing,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

impl Backbone {
    /// The network for images whose sides have `resolution` pixels.
    ///
    /// # Errors
    /// [`BackboneError::Options`] where it takes others alone.
    pub fn at(mut self, resolution: u32) -> Result<Self, BackboneError> {
        if let Some(fixed) = self.fixed_resolution.filter(|fixed| *fixed != resolution) {
            return Err(BackboneError::Options(format!(
                "the network {} takes images of {fixed} x {fixed} pixels alone: leave --resolution away, or export it for \
                 any height and width",
                self.name
            )));
        }
        self.preprocessing.resolution = resolution;
        Ok(self)
    }

    /// Runs a user's own network on an image of one colour, so that one that cannot be run is told of by its file, and
    /// before hours are spent on others.
    ///
    /// # Errors
    /// [`BackboneError::Own`].
    pub fn try_out(&self, runtime: &Runtime) -> Result<(), BackboneError> {
        let Some(path) = &self.own else { return Ok(()) };
        let own = |reason: String| BackboneError::Own {
            path: path.clone(),
            reason,
        };
        let model = std::fs::read(&self.onnx).map_err(at(&self.onnx))?;
        let network = runtime.network(&model, 1);
        let mut network = network.map_err(|error| own(error.to_string().trim_end().to_owned()))?;
        let side = self.preprocessing.resolution as usize;
        let image = Tensor::new([1, 3, side, side], vec![0.0; 3 * side * side]);
        match network.run(&image, Outputs::Vectors) {
            // There may be numbers for other images.
            Ok(_) | Err(NetworkError::NotFinite) => Ok(()),
            Err(error) => Err(own(format!(
                "on an image of {side} x {side} pixels {}; if it takes another size alone, give that with --resolution",
                error.to_string().trim_end()
            ))),
        }
    }
}

/// Normalization for a network that does not tell its own: per channel red, green, blue, in 8-bit units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreprocessingOverride {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

impl PreprocessingOverride {
    /// The preprocessing of a network that takes squares of this side, with its channels in this order.
    fn preprocessing(self, resolution: u32, channels: ChannelOrder) -> Preprocessing {
        let in_order = |mut values: [f32; 3]| {
            if channels == ChannelOrder::Bgr {
                values.reverse();
            }
            values
        };
        catalogue::preprocessing(resolution, channels, in_order(self.mean), in_order(self.std))
    }
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
    #[error(transparent)]
    File(#[from] FileError),
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
        Some(given) => given.preprocessing(entry.resolution, entry.channels),
        None => entry.preprocessing(),
    };
    let forms = if let Some(path) = weights {
        build(entry, path, &file_hash(path)?, &preprocessing, cache)?
    } else {
        let forms = cached(entry, &entry.sha256, &preprocessing, cache);
        if forms.exist() {
            forms.touch();
            forms
        } else {
            let weights = setup::obtain(&entry.source, &entry.sha256, cache, progress)?;
            build(entry, &weights, &entry.sha256, &preprocessing, cache)?
        }
    };
    Ok(Backbone {
        name: entry.name.clone(),
        own: None,
        sha256: file_hash(&forms.served)?,
        onnx: forms.served,
        trainable: forms.trainable,
        licence: weights.is_none().then(|| entry.licence.clone()),
        feature_size: entry.feature_size,
        fixed_resolution: None,
        preprocessing,
        notes: Vec::new(),
    })
}

/// Whether `choice` is the path of a network rather than a name in the catalogue.
pub fn is_file(choice: &Path) -> bool {
    choice
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// Where a network is kept: by what it is built from, which is also the preprocessing that its file tells of.
fn cached(entry: &CatalogueEntry, weights_sha256: &str, preprocessing: &Preprocessing, cache: &Cache) -> Forms {
    let hash: String = weights_sha256.chars().take(16).collect();
    let mut stem = format!("{}-{hash}-{BUILD}", entry.name);
    if *preprocessing != entry.preprocessing() {
        let json = serde_json::to_string(preprocessing).unwrap_or_default();
        stem = format!("{stem}-{}", &sha256_hex(json.as_bytes())[..8]);
    }
    Forms::in_cache(cache, &stem)
}

fn build(
    entry: &CatalogueEntry,
    weights: &Path,
    weights_sha256: &str,
    preprocessing: &Preprocessing,
    cache: &Cache,
) -> Result<Forms, BackboneError> {
    let forms = cached(entry, weights_sha256, preprocessing, cache);
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
    let bytes = std::fs::read(path).map_err(at(path))?;
    Ok(sha256_hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_kept_by_the_preprocessing_that_its_file_tells_of() {
        let entry = find(DEFAULT).expect("the default");
        let cache = Cache::at(Path::new("cache"));
        let place = |preprocessing: &Preprocessing| cached(entry, &entry.sha256, preprocessing, &cache).served;
        let own = entry.preprocessing();
        let given = |mean: f32| {
            let given = PreprocessingOverride {
                mean: [mean; 3],
                std: own.std,
            };
            given.preprocessing(entry.resolution, entry.channels)
        };
        let places = [&own, &given(1.0), &given(2.0)].map(place);
        assert!(
            places[0] != places[1] && places[0] != places[2] && places[1] != places[2],
            "{places:?}"
        );
        assert_eq!(place(&own), places[0]);
    }

    #[test]
    fn what_is_given_as_red_green_blue_is_turned_for_a_network_that_takes_blue_first() {
        let given = PreprocessingOverride {
            mean: [1.0, 2.0, 3.0],
            std: [4.0, 5.0, 6.0],
        };
        let turned = given.preprocessing(224, ChannelOrder::Bgr);
        assert_eq!((turned.channels, turned.background), (ChannelOrder::Bgr, [1, 2, 3]));
        assert_eq!((turned.mean, turned.std), ([3.0, 2.0, 1.0], [6.0, 5.0, 4.0]));
        let same = given.preprocessing(224, ChannelOrder::Rgb);
        assert_eq!((same.mean, same.std), (given.mean, given.std));
    }
}
