//! What came out so far: one line a result, appended as it comes, so that nothing is lost but the images in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use shared::files::{LockedFile, at, try_lock};
use shared::service::ServiceError;

use super::BatchError;

/// A line: as [`shared::service::ItemResult`] is written, by this program or by the scoring function.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub item: Value,
    #[serde(default)]
    pub label: String,
    #[serde(default)]
    pub score: f64,
    #[serde(default)]
    pub decision: String,
    #[serde(default)]
    pub scores: BTreeMap<String, f64>,
    #[serde(default)]
    pub model: Option<Model>,
    #[serde(default)]
    pub error: Option<ServiceError>,
    #[serde(default)]
    pub passing: bool,
}

/// What scored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Line {
    /// The image's place, or the item as it came.
    pub fn name(&self) -> String {
        self.item.as_str().map_or_else(|| self.item.to_string(), str::to_owned)
    }
}

/// Where the result of an item stands.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    length: u32,
    scored: bool,
}

/// The results of a job by item. Of several for one item the last counts.
pub struct Journal {
    path: PathBuf,
    file: LockedFile,
    length: u64,
    entries: BTreeMap<Box<str>, Entry>,
    classes: BTreeSet<String>,
}

impl Journal {
    /// Opens the journal at `path`, or begins one. A line that was cut short is dropped.
    ///
    /// # Errors
    /// [`BatchError::Busy`] where another process has it open, and [`BatchError::File`].
    pub fn open(path: &Path) -> Result<Self, BatchError> {
        let file = try_lock(path).map_err(at(path))?;
        let file = file.ok_or_else(|| BatchError::Busy(path.to_path_buf()))?;
        let mut journal = Self {
            path: path.to_path_buf(),
            file,
            length: 0,
            entries: BTreeMap::new(),
            classes: BTreeSet::new(),
        };
        journal.index().map_err(at(path))?;
        Ok(journal)
    }

    fn index(&mut self) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, self.file.try_clone()?);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            reader.read_until(b'\n', &mut bytes)?;
            let whole = bytes.strip_suffix(b"\n");
            let Some(line) = whole.and_then(|line| serde_json::from_slice::<Line>(line).ok()) else {
                break;
            };
            self.note(&line, bytes.len());
        }
        // What follows is at most the line that a kill cut short.
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        Ok(())
    }

    fn note(&mut self, line: &Line, length: usize) {
        self.classes.extend(
            line.scores
                .keys()
                .filter(|class| !self.classes.contains(*class))
                .cloned()
                .collect::<Vec<_>>(),
        );
        let entry = Entry {
            offset: self.length,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            scored: line.error.is_none(),
        };
        self.entries.insert(line.name().into_boxed_str(), entry);
        self.length += length as u64;
    }

    /// Appends a result, which is one line of JSON.
    ///
    /// # Errors
    /// [`BatchError::Results`] where it is no result, and [`BatchError::File`].
    pub fn append(&mut self, json: &str) -> Result<(), BatchError> {
        let line: Line = serde_json::from_str(json).map_err(|error| BatchError::Results {
            place: self.path.display().to_string(),
            reason: format!("not the result of an image: {error}"),
        })?;
        let mut bytes = Vec::with_capacity(json.len() + 1);
        bytes.extend(json.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(at(&self.path))?;
        self.note(&line, bytes.len());
        Ok(())
    }

    /// The items that were scored, sorted. What failed may not fail again: limits may be others by now, or the image.
    pub fn scored(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.scored)
            .map(|(item, _)| &**item)
    }

    /// Leaves out the results of items that are not `wanted`, and gives their number. The file keeps them.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|item, _| wanted(item));
        before - self.entries.len()
    }

    /// Whether no item has a result.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every class that a result has a score for, sorted.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().map(String::as_str)
    }

    /// Gives the result of each item to `take`, in the order of the items: the line and what it says.
    ///
    /// # Errors
    /// Those of `take`, and [`BatchError::File`].
    pub(super) fn each(&self, mut take: impl FnMut(&[u8], Line) -> Result<(), BatchError>) -> Result<(), BatchError> {
        let mut file = File::open(&self.path).map_err(at(&self.path))?;
        let mut bytes = Vec::new();
        for entry in self.entries.values() {
            bytes.resize(entry.length as usize, 0);
            file.seek(SeekFrom::Start(entry.offset))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(at(&self.path))?;
            let line = serde_json::from_slice(&bytes).map_err(|error| BatchError::Results {
                place: self.path.display().to_string(),
                reason: error.to_string(),
            })?;
            take(&bytes, line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(item: &str, label: &str) -> String {
        format!(r#"{{"item":"{item}","label":"{label}","score":0.5,"decision":"accepted","scores":{{"{label}":0.5}}}}"#)
    }

    fn broken(item: &str, passing: bool) -> String {
        format!(r#"{{"item":"{item}","error":{{"code":"not_found","message":"no"}},"passing":{passing}}}"#)
    }

    fn labels(journal: &Journal) -> Vec<(String, String)> {
        let mut found = Vec::new();
        journal
            .each(|_, line| {
                found.push((line.name(), line.label.clone()));
                Ok(())
            })
            .expect("readable");
        found
    }

    #[test]
    fn a_journal_cut_at_any_byte_keeps_the_whole_lines_and_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path).expect("new");
        for item in ["b", "a"] {
            journal.append(&scored(item, "x")).expect("appended");
        }
        drop(journal);
        let whole = std::fs::read(&path).expect("readable");
        for cut in 1..=scored("a", "x").len() + 1 {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("writable");
            let mut journal = Journal::open(&path).expect("opens");
            assert_eq!(journal.scored().collect::<Vec<_>>(), ["b"], "{cut}");
            journal.append(&scored("a", "x")).expect("appended");
            assert_eq!(
                labels(&journal),
                [("a".to_owned(), "x".to_owned()), ("b".to_owned(), "x".to_owned())]
            );
        }
    }

    #[test]
    fn the_last_result_of_an_item_counts_and_what_failed_is_not_scored() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path).expect("new");
        assert!(matches!(Journal::open(&path), Err(BatchError::Busy(_))));
        journal.append(&broken("a", true)).expect("appended");
        journal.append(&broken("b", false)).expect("appended");
        assert_eq!(journal.scored().next(), None);
        journal.append(&scored("a", "y")).expect("appended");
        assert_eq!(journal.scored().collect::<Vec<_>>(), ["a"]);
        assert_eq!(labels(&journal)[0], ("a".to_owned(), "y".to_owned()));
        assert_eq!(journal.classes().collect::<Vec<_>>(), ["y"]);
        journal.append("{}").expect_err("no result");
    }
}
