use std::path::PathBuf;

use super::Session;
use super::failure::{Done, Failure};
use super::location::bundle;
use super::output::list_skipped;
use super::resources::Resources;
use crate::dataset::Dataset;
use crate::{evaluation, training};

/// Measure a bundle on a data set.
///
/// Evaluates on every image of the data set, or on the test part of a split file. The bundle may have
/// been trained elsewhere; the data set's class folders must be among its classes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A run or the bundle in it
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Folder of class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only the test part of this split file (split.tsv of a run)
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,
    /// Also write metrics.json here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    resources: Resources,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let bundle = bundle(&arguments.bundle)?;
    let dataset = Dataset::scan(&arguments.data)?;
    let cache = session.cache()?;
    let runtime = Resources::runtime(&cache, session)?;
    let workplace = arguments.resources.workplace(&runtime, &cache, session);
    let (metrics, skipped) = training::measure(
        &bundle,
        &dataset,
        arguments.split.as_deref(),
        arguments.resources.limits(),
        &workplace,
    )?;
    if let Some(path) = &arguments.out {
        metrics.save(path)?;
    }
    list_skipped(&skipped, session.quiet);
    session
        .output
        .result(&metrics, &evaluation::table(&metrics.evaluation))?;
    Ok(if skipped.is_empty() {
        Done::Complete
    } else {
        Done::Partly
    })
}
