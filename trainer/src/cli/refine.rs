use std::path::PathBuf;

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
    /// Folder of class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    job: Job,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    arguments
        .job
        .run(Source::scan(&arguments.data)?, Classifier::Dnn, session)
}
