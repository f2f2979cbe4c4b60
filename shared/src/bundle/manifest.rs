//! `manifest.json`: what the model is, and the hash of everything it consists of.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BundleError, MAX_FILE_BYTES};
use crate::classifier::{Calibration, Thresholds};
use crate::files::sha256_hex;
use crate::preprocessing::Preprocessing;

/// The newest manifest form that this version reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Number of hexadecimal digits in a version.
const VERSION_DIGITS: usize = 16;

/// What the model is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// Form of this file, [`SCHEMA_VERSION`] for those written now.
    pub schema_version: u32,
    /// Name of the model.
    pub name: String,
    /// Hash of the contents: the first 16 hexadecimal digits of the SHA-256 of this manifest with an
    /// empty version. As the manifest holds the hash of each file, it stands for all of them.
    pub version: String,
    /// Class names, in the order of weights and scores.
    pub classes: Vec<String>,
    /// What turns the network's vector into scores.
    pub classifier: ClassifierKind,
    /// Where the network came from.
    pub backbone: Backbone,
    /// Length of the network's vector.
    pub feature_size: usize,
    /// Every constant between pixels and the network.
    pub preprocessing: Preprocessing,
    /// Margins to probabilities.
    pub calibration: Calibration,
    /// When to answer `unknown`.
    pub thresholds: Thresholds,
    /// Size and hash of each file.
    pub files: BTreeMap<String, FileEntry>,
    /// The evaluation's main figures, by their names in `metrics.json`.
    pub metrics: BTreeMap<String, f64>,
}

/// What turns the network's vector into scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClassifierKind {
    /// A linear SVM on the features of the pre-trained network.
    Svm,
    /// The refined network's own head.
    Dnn,
    /// A linear SVM on the features of the refined network.
    SvmRefined,
}

impl ClassifierKind {
    /// As a manifest and the command line name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svm => "svm",
            Self::Dnn => "dnn",
            Self::SvmRefined => "svm-refined",
        }
    }
}

/// Where the network came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backbone {
    /// Name in the catalogue, or the file name of the user's own network.
    pub name: String,
    /// SHA-256 of the `backbone.onnx` that the features were computed with.
    pub sha256: String,
    /// Licence of the weights, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub licence: Option<String>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileEntry {
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

impl FileEntry {
    /// The entry for `contents`.
    pub fn of(contents: &[u8]) -> Self {
        Self {
            sha256: sha256_hex(contents),
            size: contents.len() as u64,
        }
    }

    /// Compares `contents` with size and hash.
    ///
    /// # Errors
    /// [`BundleError::Damaged`].
    pub fn verify(&self, name: &str, contents: &[u8]) -> Result<(), BundleError> {
        self.verify_hashed(name, contents.len() as u64, &sha256_hex(contents))
    }

    /// Compares contents of `size` bytes, whose SHA-256 is known.
    ///
    /// # Errors
    /// [`BundleError::Damaged`].
    pub(crate) fn verify_hashed(&self, name: &str, size: u64, sha256: &str) -> Result<(), BundleError> {
        let what = if size != self.size {
            "size"
        } else if sha256 == self.sha256 {
            return Ok(());
        } else {
            "hash"
        };
        Err(BundleError::Damaged {
            name: name.to_owned(),
            what,
        })
    }
}

impl Manifest {
    /// Reads a manifest and checks it: known schema, names that stay within the bundle, sizes within
    /// bounds, and the version that its contents have.
    ///
    /// # Errors
    /// [`BundleError::Manifest`] or [`BundleError::Newer`].
    pub fn from_json(json: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Schema {
            schema_version: u32,
        }
        let invalid = |error: serde_json::Error| BundleError::Manifest(error.to_string());
        let Schema { schema_version } = serde_json::from_slice(json).map_err(invalid)?;
        if schema_version > SCHEMA_VERSION {
            return Err(BundleError::Newer { found: schema_version });
        }
        let manifest: Self = serde_json::from_slice(json).map_err(invalid)?;
        manifest.check().map_err(BundleError::Manifest)?;
        Ok(manifest)
    }

    /// The JSON form, for people to read.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest has a JSON form")
    }

    /// The manifest with the list of `files` and the version that follows.
    pub(super) fn sealed(mut self, files: &BTreeMap<String, Bytes>) -> Self {
        self.schema_version = SCHEMA_VERSION;
        self.files = files
            .iter()
            .map(|(name, contents)| (name.clone(), FileEntry::of(contents)))
            .collect();
        self.version = self.content_version();
        self
    }

    fn content_version(&self) -> String {
        let unversioned = Self {
            version: String::new(),
            ..self.clone()
        };
        let mut hash = sha256_hex(&unversioned.to_json());
        hash.truncate(VERSION_DIGITS);
        hash
    }

    fn check(&self) -> Result<(), String> {
        if self.classes.is_empty() || self.feature_size == 0 {
            return Err("it names no class or no feature".to_owned());
        }
        self.preprocessing.check()?;
        if !self.calibration.is_usable() {
            return Err("a calibration whose scale is not a positive number".to_owned());
        }
        if self.classifier == ClassifierKind::Dnn && self.feature_size != self.classes.len() {
            return Err(format!(
                "it names {} classes, and {} values of a network that has its own head",
                self.classes.len(),
                self.feature_size
            ));
        }
        for (name, entry) in &self.files {
            let inside = Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if !inside || name.is_empty() || name.contains('\\') {
                return Err(format!("file name {name:?} leads out of the bundle"));
            }
            if entry.size > MAX_FILE_BYTES {
                return Err(format!("{name} would have {} bytes", entry.size));
            }
        }
        if self.version != self.content_version() {
            return Err("its version is not the hash of its contents".to_owned());
        }
        Ok(())
    }
}
