//! Scoring more images than anybody wants to wait for: on this machine's cores, or by an AWS Step Functions Distributed
//! Map that invokes the deployed scoring function. Either way gives the same files.
//!
//! A job is named by the hash of what it is to do, so that the same command finds it again. What has been scored is
//! kept in a [`Journal`] until every result is in its place: a job that was killed goes on where it was, and each image
//! has one result in the end, however often it was begun. [`input`] finds the images, `list` those that a list names,
//! [`local`] and [`state_machine`] score them, [`map_results`] reads what a Distributed Map wrote, and [`output`] puts
//! the results in their files.

pub mod input;
mod journal;
mod list;
pub mod local;
pub mod map_results;
mod new_file;
pub mod output;
pub mod state_machine;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::bundle::BundleError;
use shared::files::{FileError, sha256_hex};
use shared::store::StoreError;

pub use input::Input;
pub use journal::Journal;
pub use output::{Output, Summary};

use crate::dataset::DatasetError;
use crate::fetch::TransferError;

/// Why a job did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The input is nothing that holds images.
    #[error("{input}: {reason}; give a folder, s3://bucket/prefix, or a list of images (.csv, .tsv, .jsonl, .txt)")]
    Input {
        /// What was given.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of a list is wrong.
    #[error("{list}, line {line}: {reason}")]
    List {
        /// Which list.
        list: String,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There is not one image.
    #[error("{0} holds no image")]
    Empty(String),
    /// The execution found not one image.
    #[error(
        "{arn} found no image in {input}, and no execution is started twice: choose another output once there are some"
    )]
    FoundNone {
        /// Which execution.
        arn: String,
        /// Where it looked.
        input: String,
    },
    /// A Step Functions execution reads from buckets alone.
    #[error("{0} is not in a bucket: copy the images to S3, or score them here with --local")]
    NotInBucket(String),
    /// The output holds something else.
    #[error("{0} holds the results of another job: choose another output")]
    Occupied(String),
    /// Another process works on the same job.
    #[error("another trainer is working on the same job (its journal is {0}): wait until it has ended")]
    Busy(PathBuf),
    /// A folder cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system has no thread left.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// No state machine has such a name.
    #[error(
        "{0:?} is not the ARN of a state machine, which looks like \
         arn:aws:states:REGION:ACCOUNT:stateMachine:NAME (`StateMachine` among the stack's outputs)"
    )]
    Arn(String),
    /// Step Functions refuses, or cannot be reached.
    #[error("{arn}: could not {action}: {reason}")]
    StepFunctions {
        /// The state machine or execution.
        arn: String,
        /// The operation, as a verb with its object.
        action: &'static str,
        /// What was answered.
        reason: String,
    },
    /// The execution did not succeed.
    #[error(
        "the execution {arn} ended as {end}: look at it in the Step Functions console; the same command takes it up \
         again where it stopped"
    )]
    Execution {
        /// Which execution.
        arn: String,
        /// `FAILED`, `TIMED_OUT` or `ABORTED`, and what it says of that.
        end: String,
    },
    /// The execution wrote what cannot be understood.
    #[error("{place}: {reason}")]
    Results {
        /// Which object.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is to be done, by which the same command finds it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What is scored: a folder, a list, or a part of a bucket.
    pub input: String,
    /// Where the results go.
    pub output: String,
    /// What scores: the version of a bundle, or the ARN of a state machine.
    pub scorer: String,
}

impl Job {
    /// The job of scoring `input` into `output`, the same from whatever folder it is started.
    pub fn new(input: &Input, output: &str, scorer: &str) -> Self {
        let output = match output.strip_prefix("s3://") {
            Some(_) => output.trim_end_matches('/').to_owned(),
            None => std::path::absolute(output).map_or_else(
                |_| output.to_owned(),
                // Without the slash that shells put behind the name of a folder that is there.
                |path| path.components().collect::<PathBuf>().display().to_string(),
            ),
        };
        Self {
            input: input.canonical(),
            output,
            scorer: scorer.to_owned(),
        }
    }

    /// Names the job: 16 hexadecimal digits.
    ///
    /// # Panics
    /// Never: a job has a JSON form.
    pub fn id(&self) -> String {
        let json = serde_json::to_vec(self).expect("a job has a JSON form");
        sha256_hex(&json)[..16].to_owned()
    }

    /// Where what is known of the job so far is kept, below the folder of the caches.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        cache.join("batch").join(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_behind_the_output_makes_no_other_job() {
        let input = Input::Prefix {
            bucket: "photos".to_owned(),
            prefix: String::new(),
        };
        let id = |output: &str| Job::new(&input, output, "version").id();
        for output in ["out", "s3://scores/out"] {
            assert_eq!(id(output), id(&format!("{output}/")));
            assert_ne!(id(output), id(&format!("{output}/in")));
        }
    }
}
