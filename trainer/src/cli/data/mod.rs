//! The commands that make a data set and look after it.

mod audit;
mod dedupe;
mod export;
mod features;
pub mod fetch;
mod search;
pub mod split;

use clap::Subcommand;

use super::Session;
use super::failure::{Done, Failure};
use super::resources::Resources;
use crate::dataset::{self, Dataset, Picture};
use crate::features::FeatureError;

/// Work on a data set.
#[derive(Debug, Subcommand)]
pub enum Data {
    Audit(audit::Arguments),
    Dedupe(dedupe::Arguments),
    Export(export::Arguments),
    Fetch(fetch::Arguments),
    Search(search::Arguments),
    Split(split::Arguments),
}

/// Runs one of them.
pub fn run(data: &Data, session: &Session) -> Result<Done, Failure> {
    match data {
        Data::Audit(arguments) => audit::run(arguments, session),
        Data::Dedupe(arguments) => dedupe::run(arguments, session),
        Data::Export(arguments) => export::run(arguments, session),
        Data::Fetch(arguments) => fetch::run(arguments, session),
        Data::Search(arguments) => search::run(arguments, session),
        Data::Split(arguments) => split::run(arguments, session),
    }
}

/// The part of `found` that can be read, if any can, and the picture of each of its images.
fn readable(
    found: &Dataset,
    hash_size: u32,
    resources: &Resources,
    session: &Session,
) -> Result<(Dataset, Vec<Picture>), FeatureError> {
    let (limits, threads) = (resources.limits(), resources.threads());
    let examined = dataset::examine(found, hash_size, limits, threads, &session.progress);
    let (readable, pictures) = dataset::readable(found, examined);
    // What cannot be read follows on what was left out before.
    match readable.skipped.get(found.skipped.len()) {
        Some(first) if readable.items.is_empty() => {
            let reason = format!("{}: {}", first.path.display(), first.reason);
            Err(FeatureError::NothingReadable(found.items.len(), reason))
        }
        _ => Ok((readable, pictures)),
    }
}
