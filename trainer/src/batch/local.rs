//! A job on this machine's cores.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use shared::bundle::Bundle;
use shared::files::{FileError, at};
use shared::image::Limits;
use shared::network::Runtime;
use shared::pipeline::Pipeline;
use shared::service::{Answer, ItemResult, ServiceError};

use super::{BatchError, Input, Job, Journal, Output, Summary, input};
use crate::conveyor::{self, Addressed};
use crate::counted::counted;
use crate::image_reader::ImageReader;
use crate::progress::{Progress, stage};
use crate::scoring;

/// What scores, and with what.
pub struct Scorer<'a> {
    /// The model.
    pub bundle: &'a Bundle,
    /// The loaded runtime library.
    pub runtime: &'a Runtime,
    /// What an image may cost.
    pub limits: Limits,
    /// Images scored at once.
    pub threads: usize,
    /// Whether images are also read from addresses in private networks.
    pub allow_private: bool,
}

/// What is wrong with the list goes the way of its images, to whoever takes the results.
impl Addressed for Result<String, FileError> {
    fn address(&self) -> Result<&str, ServiceError> {
        self.as_deref()
            .map_err(|error| ServiceError::bad_request(error.to_string()))
    }
}

/// Scores the images of `input` and writes the results to `output`; what is done is kept below `cache` until then. A
/// job that was interrupted is about the images that are there when it goes on, and tries again what failed. One that
/// was finished is not done again, unless some of its failures may have passed. A note beside the summary tells of
/// results that are missing, or that were there before.
///
/// # Errors
/// See [`BatchError`]. An image at fault is none: it is among the failures.
pub async fn run(
    input: &Input,
    output: &str,
    scorer: &Scorer<'_>,
    cache: &Path,
    progress: &dyn Progress,
) -> Result<(Summary, Option<String>), BatchError> {
    let job = Job::new(input, output, &scorer.bundle.manifest.version);
    let place = Output::connect(output).await?;
    if let Some(summary) = place.finished(&job).await?.filter(|summary| summary.passing == 0) {
        let note = place.finished_note(&summary);
        return Ok((summary, Some(note)));
    }
    let folder = job.folder(cache);
    let mut journal = Journal::open(&folder.join("journal.jsonl"))?;
    let list = folder.join("items.jsonl");
    let count = input.list(&list).await?;
    let mut note = None;
    if !journal.is_empty() {
        let listed: HashSet<String> = input::items(&list)?.collect::<Result<_, _>>()?;
        let left_out = journal.retain(|item| listed.contains(item));
        let images = counted(left_out, "image that had a result is", "images that had a result are");
        note = (left_out > 0).then(|| format!("{images} no longer part of the input, nor of the results"));
    }
    score(&list, count, scorer, &mut journal, progress)?;
    let summary = place.write(&job, &journal, &folder).await?;
    if summary.passing == 0 {
        std::fs::remove_dir_all(&folder).map_err(at(&folder))?;
    }
    Ok((summary, note))
}

/// Scores what has no scores in `journal` yet, which knows images of the list alone, on threads of its own; nothing
/// else waits for this one.
fn score(
    list: &Path,
    count: u64,
    scorer: &Scorer,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<(), BatchError> {
    let scored: HashSet<String> = journal.scored().map(str::to_owned).collect();
    let left = count - scored.len() as u64;
    if left == 0 {
        return Ok(());
    }
    if !scored.is_empty() {
        progress.note(&format!("Going on after {} of {count} images", scored.len()));
    }
    let threads = scorer.threads.clamp(1, usize::try_from(left).unwrap_or(usize::MAX));
    let mut pipelines = scoring::pipelines(scorer.bundle, scorer.runtime, scorer.limits, threads)?;
    scorer.bundle.verify_golden(&mut pipelines[0])?;
    let workers = pipelines
        .into_iter()
        .map(|pipeline| worker(scorer.bundle, pipeline))
        .collect();
    let reader = ImageReader::new(scorer.limits, scorer.allow_private)?;
    let _stage = stage(progress, "Scoring", Some(left));
    let items = input::items(list)?.filter(move |item| !matches!(item, Ok(item) if scored.contains(item)));
    conveyor::run(items, &reader, workers, |json: Result<String, FileError>| {
        let json = json?;
        progress.advance(1);
        journal.append(&json)
    })
}

/// From an image to the line of its result.
fn worker(
    bundle: &Bundle,
    mut pipeline: Pipeline,
) -> impl FnMut(Result<String, FileError>, Result<Bytes, ServiceError>) -> Result<String, FileError> + Send {
    move |item, image| {
        let item = item?;
        let outcome = image.and_then(|image| {
            let (prediction, timing) = pipeline.predict(&image)?;
            Ok(Answer::new(&bundle.manifest, &prediction, timing, None))
        });
        Ok(serde_json::to_string(&ItemResult::new(item.into(), outcome)).unwrap_or_default())
    }
}
