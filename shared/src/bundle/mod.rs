//! The trained model as files: what is published and what the scorer loads.

mod golden;
mod manifest;
mod signature;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use golden::{Golden, GoldenImage};
pub use manifest::{Backbone, ClassifierKind, FileEntry, Manifest, SCHEMA_VERSION};
pub use signature::{SIGNATURE, SIGNATURE_BYTES, TrustedKeys, TrustedKeysError};

use signature::TRUSTED_KEYS_VARIABLE;

use crate::classifier::{Head, LinearClassifier, LinearClassifierError};
use crate::files::{FileError, at, write_atomically};
use crate::image::Limits;
use crate::network::{NetworkError, Runtime};
use crate::pipeline::{Featurizer, Pipeline, PipelineError};

/// Name of the folder of a bundle within a run.
pub const FOLDER: &str = "bundle";
/// Name of the manifest within a bundle.
pub const MANIFEST: &str = "manifest.json";
/// Name of the network within a bundle.
pub const MODEL: &str = "model.onnx";
/// Name of the linear classifier within a bundle.
pub const SVM: &str = "svm.json";
/// Name of the golden scores within a bundle; the images lie beside it.
pub const GOLDEN: &str = "golden/golden.json";

/// The largest manifest that is read, in bytes.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The largest file of a bundle, in bytes.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// A bundle in memory: its manifest and the files that the manifest lists, by name.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What the model is.
    pub manifest: Manifest,
    /// Contents of each file but the manifest.
    pub files: BTreeMap<String, Bytes>,
    /// Signature of the manifest in its JSON form, where somebody vouches for it.
    pub signature: Option<Bytes>,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file of the bundle is not there.
    #[error("the bundle has no {0}")]
    Missing(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The manifest is not one.
    #[error("manifest.json is not a valid manifest: {0}")]
    Manifest(String),
    /// The manifest was written by a newer version of this software.
    #[error("the bundle has schema version {found}; this program reads up to {SCHEMA_VERSION}: update it")]
    Newer {
        /// What the manifest says.
        found: u32,
    },
    /// Size or hash differ from the manifest.
    #[error("{name} is damaged: its {what} differs from the manifest")]
    Damaged {
        /// Which file.
        name: String,
        /// Size or hash.
        what: &'static str,
    },
    /// Keys are trusted, and nobody has signed the bundle.
    #[error(
        "the bundle is not signed ({SIGNATURE} is missing), and --trusted-key (or {TRUSTED_KEYS_VARIABLE}) asks for a \
         signature: publish it with `trainer publish --sign KEYFILE`"
    )]
    Unsigned,
    /// Keys are trusted, and none of them has signed the bundle as it is.
    #[error(
        "the signature {SIGNATURE} is not one of this bundle by a key that --trusted-key (or {TRUSTED_KEYS_VARIABLE}) names"
    )]
    Untrusted,
    /// The classifier's file is not one.
    #[error("svm.json: {0}")]
    Classifier(#[from] LinearClassifierError),
    /// The golden file is not one.
    #[error("golden/golden.json: {0}")]
    Golden(serde_json::Error),
    /// The golden scores are none that a wrong network would miss.
    #[error("golden/golden.json proves nothing: {0}; train the model anew")]
    NoProof(String),
    /// The network cannot be loaded.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A golden image cannot be scored.
    #[error("golden image {name}: {source}")]
    GoldenImage {
        /// Which image.
        name: String,
        /// Why.
        source: PipelineError,
    },
    /// The scores of a golden image are not those that the trainer saw.
    #[error("golden image {name} scores {found} for {class} where the trainer saw {expected}")]
    Parity {
        /// Which image.
        name: String,
        /// Which class.
        class: String,
        /// What the trainer saw.
        expected: f32,
        /// What this machine computes.
        found: f32,
    },
}

impl Bundle {
    /// Puts a bundle together, filling in the manifest's file list and version.
    pub fn new(manifest: Manifest, files: BTreeMap<String, Bytes>) -> Self {
        let manifest = manifest.sealed(&files);
        Self {
            manifest,
            files,
            signature: None,
        }
    }

    /// Reads and verifies a bundle from a folder; one of `trusted` must have signed it, where there are any.
    pub fn read(folder: &Path, trusted: &TrustedKeys) -> Result<Self, BundleError> {
        let (manifest, _, signature) = read_manifest(folder, trusted)?;
        let mut files = BTreeMap::new();
        for (name, entry) in &manifest.files {
            let contents = Bytes::from(read_file(folder, name, entry.size)?);
            entry.verify(name, &contents)?;
            files.insert(name.clone(), contents);
        }
        Ok(Self {
            manifest,
            files,
            signature,
        })
    }

    /// Writes the bundle into `folder`, the manifest last.
    ///
    /// # Errors
    /// [`BundleError::File`].
    pub fn write(&self, folder: &Path) -> Result<(), BundleError> {
        let write = |name: &str, contents: &[u8]| {
            let path = folder.join(name);
            write_atomically(&path, contents).map_err(at(&path))
        };
        for (name, contents) in &self.files {
            write(name, contents)?;
        }
        if let Some(signature) = &self.signature {
            write(SIGNATURE, signature)?;
        }
        Ok(write(MANIFEST, &self.manifest.to_json())?)
    }

    /// What follows the network.
    ///
    /// # Errors
    /// When the classifier is missing, damaged, or does not fit the manifest.
    pub fn head(&self) -> Result<Head, BundleError> {
        let manifest = &self.manifest;
        let classifier = match manifest.classifier {
            ClassifierKind::Dnn => None,
            ClassifierKind::Svm | ClassifierKind::SvmRefined => {
                let classifier = LinearClassifier::from_json(self.file(SVM)?)?;
                if classifier.classes() != manifest.classes.len() || classifier.features() != manifest.feature_size {
                    return Err(BundleError::Manifest(format!(
                        "it names {} classes and {} features, svm.json has {} and {}",
                        manifest.classes.len(),
                        manifest.feature_size,
                        classifier.classes(),
                        classifier.features()
                    )));
                }
                Some(classifier)
            }
        };
        Ok(Head {
            classes: manifest.classes.clone(),
            classifier,
            calibration: manifest.calibration.clone(),
            thresholds: manifest.thresholds,
        })
    }

    /// A pipeline ready to score, its network running on `threads` threads.
    ///
    /// # Errors
    /// When the network or the classifier cannot be loaded.
    pub fn pipeline(&self, runtime: &Runtime, limits: Limits, threads: usize) -> Result<Pipeline, BundleError> {
        let network = runtime.network(self.file(MODEL)?, threads)?;
        let featurizer = Featurizer::new(limits, self.manifest.preprocessing.clone(), Box::new(network));
        Ok(Pipeline::new(featurizer, self.head()?))
    }

    /// Scores the golden images with `pipeline` and compares with what the trainer saw: proof that
    /// this machine computes the same function.
    ///
    /// # Errors
    /// [`BundleError::Parity`] for the first score that is off by more than the golden tolerance, and
    /// [`BundleError::NoProof`] where nothing could be.
    pub fn verify_golden(&self, pipeline: &mut Pipeline) -> Result<(), BundleError> {
        let golden = Golden::from_json(self.file(GOLDEN)?, self.manifest.classes.len())?;
        for image in &golden.images {
            let bytes = self.file(&image.path())?;
            let (prediction, _) = pipeline.predict(bytes).map_err(|source| BundleError::GoldenImage {
                name: image.file.clone(),
                source,
            })?;
            golden.compare(image, &self.manifest.classes, &prediction)?;
        }
        Ok(())
    }

    /// The contents of a file.
    ///
    /// # Errors
    /// [`BundleError::Missing`].
    pub fn file(&self, name: &str) -> Result<&Bytes, BundleError> {
        self.files
            .get(name)
            .ok_or_else(|| BundleError::Missing(name.to_owned()))
    }
}

/// The folder of the bundle that `path` names: a run or the bundle in it. `path` itself where there is neither.
pub fn folder_in(path: &Path) -> PathBuf {
    let inside = path.join(FOLDER);
    if !path.join(MANIFEST).is_file() && inside.join(MANIFEST).is_file() {
        return inside;
    }
    path.to_path_buf()
}

/// The manifest in `folder`, its bytes and its signature. It is looked into after one of `trusted` was found to have
/// signed it, where there are any.
pub(crate) fn read_manifest(
    folder: &Path,
    trusted: &TrustedKeys,
) -> Result<(Manifest, Vec<u8>, Option<Bytes>), BundleError> {
    let json = read_file(folder, MANIFEST, MAX_MANIFEST_BYTES)?;
    let signature = match read_file(folder, SIGNATURE, SIGNATURE_BYTES as u64) {
        Ok(signature) => Some(Bytes::from(signature)),
        Err(BundleError::Missing(_)) => None,
        Err(error) => return Err(error),
    };
    trusted.check(&json, signature.as_deref())?;
    Ok((Manifest::from_json(&json)?, json, signature))
}

/// Reads at most `limit` bytes and one: enough to notice a file that is longer than it should be.
fn read_file(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, BundleError> {
    use std::io::Read;
    let path = folder.join(name);
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => BundleError::Missing(name.to_owned()),
        _ => BundleError::File(at(&path)(source)),
    };
    let mut contents = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut contents))
        .map_err(failed)?;
    Ok(contents)
}

#[cfg(test)]
mod tests;
