use std::path::PathBuf;
use std::time::Duration;

use super::Session;
use super::failure::{Done, Failure};
use super::train::{Job, Source};
use super::training::Classifier;

/// Refine the network itself on a folder of class folders.
///
/// Trains the upper part of a pre-trained network further on the images (all of it on a GPU), keeps the epoch that
/// does best on images held out of the training part, and exports the network with its new last layer as ONNX. The
/// same as `train --classifier dnn`. Interrupted, it goes on after the last whole epoch when the same command is
/// run again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders, or a list of paths and labels (.csv, .tsv or metadata.jsonl)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    #[command(flatten)]
    job: Job,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let source = || Source::scan(&arguments.data);
    arguments.job.run(source, Classifier::Dnn, Duration::ZERO, session)
}
