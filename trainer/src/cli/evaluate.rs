use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Session;
use super::failure::{Done, Failure};
use super::finish::finish;
use super::location::BundleArguments;
use super::output::printable_path;
use super::resources::{Resources, check_outside, claim};
use super::tracking::Tracking;
use crate::dataset::{Dataset, Skipped};
use crate::evaluation::{self, Metrics};
use crate::{report, training};

/// Measure a bundle on a data set.
///
/// Evaluates on every image of the data set, or on the test part of a split file, and writes a run with the
/// report. The bundle may have been trained elsewhere; the data set's class folders must be among its classes. Where
/// the bundle lies in its run, a note says how many of the images it was trained on.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    bundle: BundleArguments,
    /// Folder of class folders, or a list of paths and labels (.csv, .tsv or metadata.jsonl)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Only the test part of this split file (split.tsv of a run)
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,
    /// Folder for metrics, predictions and report; must not hold a run already [default: runs/ID]
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// How many test images the report shows at most
    #[arg(long, value_name = "N", default_value_t = report::DEFAULT_PICTURES)]
    report_images: usize,
    #[command(flatten)]
    tracking: Tracking,
    #[command(flatten)]
    resources: Resources,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    #[serde(serialize_with = "crate::dataset::as_text")]
    run: &'a Path,
    #[serde(serialize_with = "crate::dataset::as_text")]
    report: PathBuf,
    skipped: &'a [Skipped],
    notes: &'a [String],
    advice: &'a [String],
    #[serde(flatten)]
    metrics: &'a Metrics,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if let Some(out) = &arguments.out {
        check_outside(out, &arguments.data, "--out")?;
    }
    arguments.tracking.warn_of_idle(session);
    let cache = session.cache()?;
    let _claim = claim(arguments.out.as_deref(), &cache)?;
    let bundle = arguments.bundle.read()?;
    let dataset = Dataset::scan(&arguments.data)?;
    let runtime = Resources::runtime(&cache, session)?;
    let workplace = arguments.resources.workplace(&runtime, &cache, session);
    let trained = arguments.bundle.run();
    let run = training::measure(
        bundle,
        trained.as_deref(),
        &dataset,
        arguments.split.as_deref(),
        arguments.resources.limits(),
        &workplace,
    )?;
    let (out, pictures) = (arguments.out.as_deref(), arguments.report_images);
    let (saved, advice) = finish(&run, out, pictures, &workplace, &arguments.tracking, session)?;
    let document = Document {
        id: &saved.record.id,
        run: &saved.folder,
        report: saved.report(),
        skipped: &run.skipped,
        notes: &run.notes,
        advice: &advice,
        metrics: &run.metrics,
    };
    let text = format!(
        "{}\nReport:   {}",
        evaluation::table(&run.metrics.evaluation),
        printable_path(&saved.report())
    );
    session.output.result(&document, &text)?;
    Ok(Done::unless_left_out(&run.skipped))
}
