//! The JSON of an answer.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::error::ServiceError;
use super::{Problem, Service};
use crate::bundle::Manifest;
use crate::classifier::{Decision, Prediction};
use crate::pipeline::Timing;

/// An answer, whoever carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The `content-type` header.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// What to say of it in a log.
    pub summary: Option<Summary>,
}

/// What a log says of an answer to one image; never anything of the image itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Best class.
    pub label: String,
    /// Whether it can be relied on.
    pub decision: Decision,
}

/// The scores of one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Best class.
    pub label: String,
    /// Its probability, in `[0, 1]`.
    pub score: f32,
    /// Whether it can be relied on.
    pub decision: Decision,
    /// Probability of each class, the largest first; written as a map in this order.
    #[serde(serialize_with = "as_map")]
    pub scores: Vec<(String, f32)>,
    /// What scored it.
    pub model: Model,
    /// Where the time went.
    pub timing_ms: Milliseconds,
    /// What was asked for and not done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Which model answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// [`Timing`] in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Milliseconds {
    /// Bytes to upright pixels.
    pub decode: f64,
    /// Pixels to the network's input.
    pub preprocess: f64,
    /// The network.
    pub network: f64,
    /// Vector to probabilities and decision.
    pub classify: f64,
    /// All four.
    pub total: f64,
}

impl From<Timing> for Milliseconds {
    fn from(timing: Timing) -> Self {
        // To the microsecond: further digits are noise.
        let milliseconds = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        Self {
            decode: milliseconds(timing.decode),
            preprocess: milliseconds(timing.preprocess),
            network: milliseconds(timing.network),
            classify: milliseconds(timing.classify),
            total: milliseconds(timing.decode + timing.preprocess + timing.network + timing.classify),
        }
    }
}

impl Answer {
    /// The answer for a `prediction` of the model of `manifest`, with its `top_k` best scores or all.
    /// Equal scores stay in the order of the classes.
    pub fn new(manifest: &Manifest, prediction: &Prediction, timing: Timing, top_k: Option<usize>) -> Self {
        let mut scores: Vec<(String, f32)> = manifest
            .classes
            .iter()
            .cloned()
            .zip(prediction.probabilities.iter().copied())
            .collect();
        let (label, score) = scores[prediction.best].clone();
        scores.sort_by(|left, right| right.1.total_cmp(&left.1));
        scores.truncate(top_k.unwrap_or(usize::MAX));
        Self {
            label,
            score,
            decision: prediction.decision,
            scores,
            model: Model {
                name: manifest.name.clone(),
                version: manifest.version.clone(),
            },
            timing_ms: timing.into(),
            warnings: Vec::new(),
        }
    }
}

fn as_map<S: Serializer>(scores: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(scores.len()))?;
    for (class, score) in scores {
        map.serialize_entry(class, score)?;
    }
    map.end()
}

/// Whether the scorer can answer, and whether it does so with the versions that are wanted.
#[derive(Debug, Serialize)]
pub(super) struct Readiness<'a> {
    /// `ok`, or `degraded` where another version answers than the one that is wanted.
    status: &'static str,
    /// The version that answers.
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Problem>,
}

impl<'a> Readiness<'a> {
    pub(super) fn of(service: &'a Service) -> Self {
        Self {
            status: if service.problem.is_some() { "degraded" } else { "ok" },
            version: &service.live.manifest().version,
            problem: service.problem.as_ref(),
        }
    }
}

/// The model that answers: its manifest, and what is on trial beside it.
#[derive(Debug, Serialize)]
pub(super) struct Description<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<Trial<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Problem>,
}

/// A version on trial.
#[derive(Debug, Serialize)]
struct Trial<'a> {
    version: &'a str,
    /// Share of the images that it answers for.
    share: f64,
}

impl<'a> Description<'a> {
    pub(super) fn of(service: &'a Service) -> Self {
        Self {
            manifest: service.live.manifest(),
            canary: service.canary.as_ref().map(|(canary, share)| Trial {
                version: &canary.manifest().version,
                share: *share,
            }),
            problem: service.problem.as_ref(),
        }
    }
}

/// The answer to one image of a list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Answer(Box<Answer>),
    Error { error: ServiceError },
}

/// The answer to a list of images, in its order.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) results: Vec<Outcome>,
}

impl Response {
    /// `value` as JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                content_type: "application/json",
                body,
                summary: None,
            },
            Err(error) => Self {
                status: 500,
                content_type: "text/plain",
                body: format!("the answer has no JSON form: {error}").into_bytes(),
                summary: None,
            },
        }
    }
}

impl From<&Answer> for Response {
    fn from(answer: &Answer) -> Self {
        Self {
            summary: Some(Summary {
                label: answer.label.clone(),
                decision: answer.decision,
            }),
            ..Self::json(200, answer)
        }
    }
}

impl From<ServiceError> for Response {
    fn from(error: ServiceError) -> Self {
        Self::json(error.code.status(), &Outcome::Error { error })
    }
}
