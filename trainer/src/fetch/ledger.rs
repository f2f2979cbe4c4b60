//! The provenance ledger: where each image of a data set came from, a line of JSON per address.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::append_log::{AppendLog, lines};
use crate::dataset::OWN_FOLDER;

/// Name within the folder that the scanner passes over.
const FILE: &str = "provenance.jsonl";

/// What came of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Origin {
    /// An image.
    Image(Provenance),
    /// Nothing, and asking again is in vain.
    LeftOut {
        /// What is the matter.
        kind: Kind,
        /// Why, for people to read.
        reason: String,
        /// Of a copy, what the server sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source_sha256: Option<String>,
    },
}

/// Where an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The class that it was fetched for.
    pub label: String,
    /// Where it was put, below the data set's root.
    pub path: PathBuf,
    /// Of the file.
    pub sha256: String,
    /// Of what the server sent.
    pub source_sha256: String,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// When it was fetched, RFC 3339, UTC.
    pub time: String,
    /// Whose it is.
    #[serde(flatten)]
    pub credits: Credits,
}

/// Whose an image is, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credits {
    /// The page that shows it.
    pub page: Option<String>,
    /// Its licence.
    pub licence: Option<String>,
    /// Who made it.
    pub creator: Option<String>,
    /// How its maker wants to be named.
    pub attribution: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    url: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    origin: std::borrow::Cow<'a, Origin>,
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system said no.
    #[error("the provenance ledger {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line other than the last is no entry.
    #[error("the provenance ledger {path}, line {line}: {reason}; mend the line or move the file away")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

/// The ledger of one data set, open for more lines.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    log: AppendLog,
    origins: HashMap<String, Origin>,
}

impl Ledger {
    /// Opens the ledger of the data set in `root`, or makes it. A last line that a killed program left incomplete is
    /// cut off.
    pub fn open(root: &Path) -> Result<Self, LedgerError> {
        let path = Self::place(root);
        let failed = |source| LedgerError::File {
            path: path.clone(),
            source,
        };
        let (log, text) = AppendLog::open(&path).map_err(failed)?;
        let mut origins = HashMap::new();
        for (number, line) in lines(&text) {
            let line: Line = serde_json::from_slice(line).map_err(|error| LedgerError::Line {
                path: path.clone(),
                line: number,
                reason: error.to_string(),
            })?;
            origins.insert(line.url.into_owned(), line.origin.into_owned());
        }
        Ok(Self { path, log, origins })
    }

    /// Where the ledger of the data set in `root` is, or would be.
    pub fn place(root: &Path) -> PathBuf {
        root.join(OWN_FOLDER).join(FILE)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What came of an address.
    pub fn of(&self, url: &Url) -> Option<&Origin> {
        self.origins.get(url.as_str())
    }

    /// The images.
    pub fn images(&self) -> impl Iterator<Item = &Provenance> {
        self.origins.values().filter_map(|origin| match origin {
            Origin::Image(image) => Some(image),
            Origin::LeftOut { .. } => None,
        })
    }

    /// Adds a line and sees that it is on disk.
    ///
    /// # Errors
    /// [`LedgerError::File`].
    pub fn append(&mut self, url: &Url, origin: &Origin) -> Result<(), LedgerError> {
        let line = Line {
            url: url.as_str().into(),
            origin: std::borrow::Cow::Borrowed(origin),
        };
        self.log.append(&line).map_err(|source| LedgerError::File {
            path: self.path.clone(),
            source,
        })?;
        self.origins.insert(url.to_string(), origin.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_by_a_kill_is_forgotten_and_another_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = |number: u32| Url::parse(&format!("http://a.example/{number}")).expect("an address");
        let dead = Origin::LeftOut {
            kind: Kind::Dead,
            reason: "gone".to_owned(),
            source_sha256: None,
        };
        let mut ledger = Ledger::open(folder.path()).expect("a ledger");
        ledger.append(&url(1), &dead).expect("a line");
        let path = ledger.path().to_path_buf();
        drop(ledger);
        let mut text = std::fs::read(&path).expect("the file");
        text.extend(b"{\"url\":\"http://a.exam");
        std::fs::write(&path, text).expect("written");
        let mut ledger = Ledger::open(folder.path()).expect("a ledger");
        assert_eq!((ledger.of(&url(1)), ledger.of(&url(2))), (Some(&dead), None));
        ledger.append(&url(2), &dead).expect("a line");
        drop(ledger);
        assert_eq!(Ledger::open(folder.path()).expect("a ledger").of(&url(2)), Some(&dead));
        std::fs::write(&path, "nonsense\n").expect("written");
        assert!(matches!(
            Ledger::open(folder.path()),
            Err(LedgerError::Line { line: 1, .. })
        ));
    }
}
