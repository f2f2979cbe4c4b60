//! The JSON of an answer.

use std::time::Duration;

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::error::{ErrorCode, ServiceError};
use super::{Problem, Service};
use crate::bundle::Manifest;
use crate::classifier::{Decision, Prediction};
use crate::pipeline::Timing;

/// An answer, whoever carries it.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The `content-type` header.
    pub content_type: &'static str,
    /// Further headers, their names in small letters.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What to say of each image in a log, in their order.
    pub records: Vec<Record>,
}

/// What a log says of an image; never anything of what it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// SHA-256 of the image; `None` where it did not arrive.
    pub sha256: Option<String>,
    /// Size of the image.
    pub bytes: usize,
    /// What was asked.
    pub model: Option<Model>,
    /// What came out.
    pub outcome: Result<Scored, ErrorCode>,
}

impl Record {
    /// Of an image that nothing is known of, since it did not arrive or was never done with.
    pub fn unread(code: ErrorCode) -> Self {
        Self {
            sha256: None,
            bytes: 0,
            model: None,
            outcome: Err(code),
        }
    }
}

/// What a log says of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Best class.
    pub label: String,
    /// Its probability, in `[0, 1]`.
    pub score: f32,
    /// Whether it can be relied on.
    pub decision: Decision,
    /// Where the time went.
    pub timing: Milliseconds,
}

impl From<&Answer> for Scored {
    fn from(answer: &Answer) -> Self {
        Self {
            label: answer.label.clone(),
            score: answer.score,
            decision: answer.decision,
            timing: answer.timing_ms,
        }
    }
}

/// The scores of one image.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Answer {
    /// Best class.
    pub label: String,
    /// Its probability, in `[0, 1]`.
    pub score: f32,
    /// Whether it can be relied on.
    pub decision: Decision,
    /// Probability of each class, the largest first; written as a map in this order.
    #[serde(serialize_with = "as_map")]
    #[schema(value_type = std::collections::BTreeMap<String, f32>)]
    pub scores: Vec<(String, f32)>,
    /// What scored it.
    pub model: Model,
    /// Where the time went.
    pub timing_ms: Milliseconds,
    /// Where in the picture the evidence is, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// What was asked for and not done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where in a picture the evidence for its class is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Explanation {
    /// The class.
    pub class: String,
    /// A PNG in base64, transparent where there is no evidence, to be laid over the picture: it has its proportions
    /// and at most 256 pixels a side.
    pub heat_map: String,
}

impl Explanation {
    pub(super) fn new(class: &str, png: &[u8]) -> Self {
        Self {
            class: class.to_owned(),
            heat_map: STANDARD.encode(png),
        }
    }
}

/// Which model answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Model {
    /// The model of `manifest`.
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
        }
    }
}

/// [`Timing`] in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
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
            model: Model::of(manifest),
            timing_ms: timing.into(),
            explanation: None,
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

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// `ok`.
    status: &'static str,
}

impl Default for Alive {
    fn default() -> Self {
        Self { status: "ok" }
    }
}

/// Whether the scorer can answer, and whether it does so with the versions that are wanted.
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Description<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<Trial<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Problem>,
}

/// A version on trial.
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Outcome {
    #[schema(value_type = Answer)]
    Answer(Box<Answer>),
    Refusal(Refusal),
}

/// Why there is no answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Refusal {
    error: ServiceError,
}

impl From<Result<Answer, ServiceError>> for Outcome {
    fn from(result: Result<Answer, ServiceError>) -> Self {
        match result {
            Ok(answer) => Self::Answer(Box::new(answer)),
            Err(error) => Self::Refusal(Refusal { error }),
        }
    }
}

/// The answer to a list of images, in its order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Results {
    pub(super) results: Vec<Outcome>,
}

impl Response {
    /// `value` as JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self::text(status, "application/json", body),
            Err(error) => Self::text(500, "text/plain", format!("the answer has no JSON form: {error}")),
        }
    }

    pub(super) fn text(status: u16, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into_bytes(),
            records: Vec::new(),
        }
    }
}

impl From<ServiceError> for Response {
    fn from(error: ServiceError) -> Self {
        let wait = match error.code {
            ErrorCode::TooManyRequests | ErrorCode::StorageUnavailable => Some("1"),
            ErrorCode::ModelUnavailable => Some("5"),
            _ => None,
        };
        let mut response = Self::json(error.code.status(), &Refusal { error });
        response
            .headers
            .extend(wait.map(|seconds| ("retry-after", seconds.to_owned())));
        response
    }
}
