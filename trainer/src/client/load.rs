//! Many calls, some of them at once.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{CallResult, Client, Summary};
use crate::progress::{Progress, stage};

/// Which calls to make.
#[derive(Debug, Clone)]
pub struct Load {
    /// The images.
    pub images: Vec<PathBuf>,
    /// How often each is sent.
    pub repeat: u32,
    /// Calls on their way at once.
    pub concurrency: NonZero<usize>,
}

/// One call and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Call {
    /// The image.
    #[serde(serialize_with = "crate::dataset::as_text")]
    pub image: PathBuf,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// The scorer's answer.
    Answer(CallResult),
    /// Why there is none.
    Error {
        /// In words.
        error: String,
        /// Its stable name.
        code: String,
    },
}

/// Makes the calls, image by image; they come back in that order, with their summary. Files are read as their turn
/// comes, so that memory holds no more of them than calls are on their way.
pub async fn call_all(client: &Client, load: &Load, progress: &dyn Progress) -> (Vec<Call>, Summary) {
    let _stage = stage(
        progress,
        "Calling",
        Some(load.images.len() as u64 * u64::from(load.repeat)),
    );
    let start = Instant::now();
    let mut calls: Vec<(usize, Call)> = stream::iter(&load.images)
        .then(async |image| (image, Client::prepare(image).await.map_err(|error| failed(&error))))
        .flat_map(|prepared| stream::iter((0..load.repeat).map(move |_| prepared.clone())))
        .enumerate()
        .map(async |(number, (image, prepared))| {
            let outcome = match prepared {
                Ok(prepared) => match client.call(prepared).await {
                    Ok(answer) => Outcome::Answer(answer),
                    Err(error) => failed(&error),
                },
                Err(failed) => failed,
            };
            progress.advance(1);
            let image = image.clone();
            (number, Call { image, outcome })
        })
        .buffer_unordered(load.concurrency.get())
        .collect()
        .await;
    let duration = start.elapsed();
    calls.sort_by_key(|(number, _)| *number);
    let calls: Vec<Call> = calls.into_iter().map(|(_, call)| call).collect();
    let summary = Summary::of(&calls, duration);
    (calls, summary)
}

fn failed(error: &super::ClientError) -> Outcome {
    Outcome::Error {
        error: error.to_string(),
        code: error.code().to_owned(),
    }
}
