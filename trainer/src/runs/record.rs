//! `run.json`: what a run is and what it was made from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::bundle::{Backbone, ClassifierKind, FileEntry, Manifest};
use shared::files::{at, hex, sha256_hex};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::{RECORD, RunError, unreadable};
use crate::dataset::{Dataset, Item, Side, Split, escape};
use crate::evaluation::{Basis, Metrics};

/// The newest form of the record that this version reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// What a run is and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Form of this file.
    pub schema_version: u32,
    /// Names the run: time of its end (UTC) and a few hexadecimal digits.
    pub id: String,
    /// Time of its end, RFC 3339, UTC.
    pub created: String,
    /// What was done.
    pub kind: Kind,
    /// Name of the model.
    pub name: String,
    /// Version of the model: the hash of its contents.
    pub version: String,
    /// What turns the network's vector into scores.
    pub classifier: ClassifierKind,
    /// Where the network came from.
    pub backbone: Backbone,
    /// Side of the network's square input, in pixels.
    pub resolution: u32,
    /// What it was made from.
    pub data: DataSummary,
    /// Name and version of the program.
    pub program: String,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Size and hash of each file.
    pub files: BTreeMap<String, FileEntry>,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Trained and measured a model.
    Train,
    /// Measured a model that was there.
    Evaluate,
}

impl Kind {
    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Evaluate => "evaluate",
        }
    }
}

/// The data set of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSummary {
    /// The folder, as it was at the time.
    pub root: String,
    /// Hash of the path, class and content of each image that was read: equal for the same images.
    pub fingerprint: String,
    /// Number of images that were read.
    pub images: usize,
    /// Number of files that were left out.
    pub left_out: usize,
    /// By class, in the data set's order.
    pub classes: Vec<ClassCount>,
}

/// How many images of a class there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// The class.
    pub label: String,
    /// Images that were trained on.
    pub train: usize,
    /// Images of the test.
    pub test: usize,
}

impl DataSummary {
    /// Of the readable images of a data set, the hash of each one's encoded content, and their division.
    pub fn new(dataset: &Dataset, contents: &[[u8; 32]], split: &Split) -> Self {
        let mut classes: Vec<ClassCount> = dataset
            .classes
            .iter()
            .map(|label| ClassCount {
                label: label.clone(),
                train: 0,
                test: 0,
            })
            .collect();
        for (item, side) in dataset.items.iter().zip(split.sides()) {
            match side {
                Some(Side::Train) => classes[item.class].train += 1,
                Some(Side::Test) => classes[item.class].test += 1,
                None => {}
            }
        }
        let root = dataset.root.canonicalize().unwrap_or_else(|_| dataset.root.clone());
        Self {
            root: root.to_string_lossy().into_owned(),
            fingerprint: Self::fingerprint(dataset, contents),
            images: dataset.items.len(),
            left_out: dataset.skipped.len(),
            classes,
        }
    }

    /// The hash of the path, class and content of each image of a data set, in whatever order.
    pub fn fingerprint(dataset: &Dataset, contents: &[[u8; 32]]) -> String {
        let line = |(item, content): (&Item, &[u8; 32])| {
            let (path, label) = (escape(&item.path), &dataset.classes[item.class]);
            format!("{path}\t{label}\t{}\n", hex(content))
        };
        let mut lines: Vec<String> = dataset.items.iter().zip(contents).map(line).collect();
        lines.sort_unstable();
        hex(&lines.iter().fold(Sha256::new(), Sha256::chain_update).finalize())
    }
}

impl Record {
    /// The record of a run that ends now, still without files.
    pub fn new(kind: Kind, manifest: &Manifest, data: DataSummary, notes: &[String]) -> Self {
        let now = OffsetDateTime::now_utc();
        let day_and_time = format_description!("[year][month][day]-[hour][minute][second]");
        let stamp = now.format(day_and_time).unwrap_or_default();
        let own = format!(
            "{} {} {}",
            now.unix_timestamp_nanos(),
            manifest.version,
            std::process::id()
        );
        Self {
            schema_version: SCHEMA_VERSION,
            id: format!("{stamp}-{}", &sha256_hex(own.as_bytes())[..6]),
            created: now
                .replace_nanosecond(0)
                .unwrap_or(now)
                .format(&Rfc3339)
                .unwrap_or_default(),
            kind,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            classifier: manifest.classifier,
            backbone: manifest.backbone.clone(),
            resolution: manifest.preprocessing.resolution,
            data,
            program: concat!("ikat trainer ", env!("CARGO_PKG_VERSION")).to_owned(),
            notes: notes.to_vec(),
            files: BTreeMap::new(),
        }
    }

    /// Reads the record of the run in `folder`.
    ///
    /// # Errors
    /// [`RunError::File`] and [`RunError::Unreadable`].
    pub fn load(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(RECORD);
        let json = std::fs::read(&path).map_err(at(&path))?;
        let record: Self = serde_json::from_slice(&json)
            .map_err(|error| unreadable(&path, &format!("not the record of a run: {error}")))?;
        if record.schema_version > SCHEMA_VERSION {
            return Err(unreadable(&path, &"written by a newer version of this program"));
        }
        if !record.files.keys().all(|name| stays_inside(name)) {
            return Err(unreadable(&path, &"it names a file outside the run"));
        }
        Ok(record)
    }

    /// What to do next, as far as the `metrics` of the run tell.
    pub fn advice(&self, metrics: &Metrics) -> Vec<String> {
        let trained_on = || {
            let counts = self.data.classes.iter();
            counts.map(|class| (class.label.as_str(), class.train)).collect()
        };
        metrics.evaluation.advice(&Basis {
            trained_on: (self.kind == Kind::Train).then(trained_on),
            images: self.data.images,
            left_out: self.data.left_out,
        })
    }

    /// The files that are no longer as they were written, or gone.
    pub fn changed_files(&self, folder: &Path) -> Vec<PathBuf> {
        let changed = self.files.iter().filter(|(name, entry)| {
            let contents = std::fs::read(folder.join(name)).unwrap_or_default();
            entry.verify(name, &contents).is_err()
        });
        changed.map(|(name, _)| PathBuf::from(name)).collect()
    }
}

fn stays_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.is_empty() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}
