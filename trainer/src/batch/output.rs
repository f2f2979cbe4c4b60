//! The files of a finished job: `results.csv`, `results.jsonl`, `failures.csv`, and `job.json`, which is written last.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::classifier::Decision;
use shared::files::at;
use shared::store::{Location, ObjectStore};

use super::journal::{Line, Model};
use super::new_file::NewFile;
use super::{BatchError, Job, Journal};

/// Scores, a line an image: item, label, score, decision, version, a column per class.
pub const TABLE: &str = "results.csv";
/// The same with everything that the scoring function answers, a JSON object an image.
pub const RESULTS: &str = "results.jsonl";
/// What has no scores, and why.
pub const FAILURES: &str = "failures.csv";
/// The [`Summary`].
pub const SUMMARY: &str = "job.json";
/// Largest summary that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Names the job.
    pub id: String,
    /// What was to be done.
    #[serde(flatten)]
    pub job: Job,
    /// Whether all files have been written.
    pub complete: bool,
    /// How many images there were.
    pub images: u64,
    /// How many have scores.
    pub succeeded: u64,
    /// How many of those are answered with `unknown`, since no label is sure enough.
    pub unknown: u64,
    /// How many have no scores.
    pub failed: u64,
    /// How many of the failed may have scores when they are tried again.
    pub passing: u64,
    /// How many images are likeliest to have each label, `unknown` or not.
    pub labels: BTreeMap<String, u64>,
    /// What scored: more than one where a version was on trial, or published meanwhile.
    pub models: BTreeSet<Model>,
}

/// The place that results go to.
pub struct Output {
    store: ObjectStore,
}

impl Output {
    /// The folder or part of a bucket that `text` names.
    ///
    /// # Errors
    /// [`BatchError::Store`].
    pub async fn connect(text: &str) -> Result<Self, BatchError> {
        let store = ObjectStore::connect(&Location::parse(text)?).await?;
        Ok(Self { store })
    }

    /// What became of `job`, where its results are there already.
    ///
    /// # Errors
    /// [`BatchError::Occupied`] where there are results of something else.
    pub async fn finished(&self, job: &Job) -> Result<Option<Summary>, BatchError> {
        let occupied = || BatchError::Occupied(self.store.to_string());
        if let Some(found) = self.store.get(SUMMARY, MOST_BYTES).await? {
            let summary: Summary = serde_json::from_slice(&found.bytes).map_err(|_| occupied())?;
            if summary.id != job.id() {
                return Err(occupied());
            }
            return Ok(Some(summary).filter(|summary| summary.complete));
        }
        for name in [TABLE, RESULTS, FAILURES] {
            if self.store.head(name).await?.is_some() {
                return Err(occupied());
            }
        }
        Ok(None)
    }

    /// What the user should know where the results, with this `summary`, are those of an earlier call.
    pub fn finished_note(&self, summary: &Summary) -> String {
        let failed = if summary.failed == 0 {
            String::new()
        } else {
            // Under other limits for example.
            format!(
                ", or what failed alone, with {} as the input",
                self.store.place(FAILURES)
            )
        };
        format!(
            "{} holds the results of this job already, of the images that there were then: choose another output to \
             score all of it again{failed}",
            self.store
        )
    }

    /// Writes the results in `journal` as those of `job`; files are made in `folder` first.
    ///
    /// # Errors
    /// [`BatchError::Store`] and [`BatchError::File`].
    pub async fn write(&self, job: &Job, journal: &Journal, folder: &Path) -> Result<Summary, BatchError> {
        let mut summary = tables(job, journal, folder)?;
        // First of all, so that an interrupted writer finds its own files and not somebody else's.
        self.put(&summary).await?;
        for name in [RESULTS, TABLE, FAILURES] {
            let path = folder.join(name);
            self.store.upload(name, &path).await?;
            std::fs::remove_file(&path).map_err(at(&path))?;
        }
        summary.complete = true;
        self.put(&summary).await?;
        Ok(summary)
    }

    async fn put(&self, summary: &Summary) -> Result<(), BatchError> {
        let json = serde_json::to_vec_pretty(summary).unwrap_or_default();
        self.store.put(SUMMARY, json.into(), None).await?;
        Ok(())
    }
}

/// Makes the files of results and failures in `folder`.
fn tables(job: &Job, journal: &Journal, folder: &Path) -> Result<Summary, BatchError> {
    let mut summary = Summary {
        id: job.id(),
        job: job.clone(),
        complete: false,
        images: 0,
        succeeded: 0,
        unknown: 0,
        failed: 0,
        passing: 0,
        labels: BTreeMap::new(),
        models: BTreeSet::new(),
    };
    let classes: Vec<&str> = journal.classes().collect();
    let mut results = NewFile::create(&folder.join(RESULTS))?;
    let mut table = csv::Writer::from_writer(NewFile::create(&folder.join(TABLE))?);
    let mut failures = csv::Writer::from_writer(NewFile::create(&folder.join(FAILURES))?);
    let written = |name: &'static str| {
        let path = folder.join(name);
        move |error: csv::Error| BatchError::from(at(&path)(error.into()))
    };
    let header = ["item", "label", "score", "decision", "version"];
    table
        .write_record(header.iter().chain(&classes))
        .map_err(written(TABLE))?;
    failures
        .write_record(["item", "code", "message", "passing"])
        .map_err(written(FAILURES))?;
    journal.each(|bytes, line| {
        summary.add(&line);
        if let Some(error) = &line.error {
            let passing = line.passing.to_string();
            let record = [&line.name(), error.code.name(), &error.message, &passing];
            return failures.write_record(record).map_err(written(FAILURES));
        }
        results.write_all(bytes).map_err(at(&folder.join(RESULTS)))?;
        table.write_record(record(&line, &classes)).map_err(written(TABLE))
    })?;
    results.finish()?;
    for (writer, name) in [(table, TABLE), (failures, FAILURES)] {
        let file = writer
            .into_inner()
            .map_err(|error| at(&folder.join(name))(error.into_error()))?;
        file.finish()?;
    }
    Ok(summary)
}

impl Summary {
    fn add(&mut self, line: &Line) {
        self.images += 1;
        if line.error.is_some() {
            self.failed += 1;
            self.passing += u64::from(line.passing);
        } else {
            self.succeeded += 1;
            self.unknown += u64::from(line.decision == Decision::Unknown.name());
            *self.labels.entry(line.label.clone()).or_default() += 1;
        }
        self.models.extend(line.model.clone());
    }
}

fn record(line: &Line, classes: &[&str]) -> Vec<String> {
    let version = line.model.as_ref().map(|model| model.version.clone());
    let mut record = vec![
        line.name(),
        line.label.clone(),
        line.score.to_string(),
        line.decision.clone(),
        version.unwrap_or_default(),
    ];
    let score = |class: &&str| line.scores.get(*class).map_or_else(String::new, f64::to_string);
    record.extend(classes.iter().map(score));
    record
}
