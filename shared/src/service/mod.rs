//! The scoring function's requests and answers, whoever carries them.
//!
//! Lambda, plain HTTP and tests differ in how a request arrives; what it means and what is answered is
//! here once. Nothing here waits for a network: a request is answered on the thread that calls.

mod base64;
mod error;
mod pool;
mod request;
mod response;
mod version;

pub use error::{ErrorCode, ServiceError};
pub use request::{MAX_IMAGES, Request};
pub use response::{Answer, Milliseconds, Model, Response, Summary};
pub use version::Version;

use std::sync::Arc;

use request::Images;
use response::{Description, Outcome, Readiness, Results};
use serde::Serialize;

use crate::image::Limits;

/// The versions that answer, ready to do so from several threads at once. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    live: Arc<Version>,
    canary: Option<(Arc<Version>, f64)>,
    problem: Option<Problem>,
    max_image_bytes: usize,
}

/// Why the versions in memory are not those that should answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The version that was refused, where the fault is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What is wrong with it, or why the wanted versions are not known.
    pub reason: String,
    /// When it was noticed first, RFC 3339 in UTC.
    pub since: String,
}

impl Service {
    /// A service in which `live` answers.
    pub fn new(live: Arc<Version>) -> Self {
        Self {
            live,
            canary: None,
            problem: None,
            max_image_bytes: Limits::default().max_bytes,
        }
    }

    /// The same with `canary` answering for a share of the images, which is chosen by the image alone.
    #[must_use]
    pub fn with_canary(self, canary: Option<(Arc<Version>, f64)>) -> Self {
        Self { canary, ..self }
    }

    /// The same, telling whoever asks what is wrong.
    #[must_use]
    pub fn with_problem(self, problem: Option<Problem>) -> Self {
        Self { problem, ..self }
    }

    /// What is wrong with the wanted versions, if anything.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Share of the images that the version on trial answers for, where one is.
    pub fn canary_share(&self) -> Option<f64> {
        self.canary.as_ref().map(|(_, share)| *share)
    }

    /// The version in memory that is called `version`.
    pub fn version(&self, version: &str) -> Option<&Arc<Version>> {
        let canary = self.canary.as_ref().map(|(canary, _)| canary);
        [Some(&self.live), canary]
            .into_iter()
            .flatten()
            .find(|candidate| candidate.manifest().version == version)
    }

    /// The version that answers for `image`.
    fn speaker(&self, image: &[u8]) -> &Version {
        match &self.canary {
            Some((canary, share)) if version::fraction(image) < *share => canary,
            _ => &self.live,
        }
    }

    /// Answers a request; a failure is an answer too.
    pub fn answer(&self, request: &Request) -> Response {
        self.route(request).unwrap_or_else(Response::from)
    }

    fn route(&self, request: &Request) -> Result<Response, ServiceError> {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health/live") => Ok(Response::json(200, &serde_json::json!({"status": "ok"}))),
            ("GET", "/health/ready") => Ok(Response::json(200, &Readiness::of(self))),
            ("GET", "/model") => Ok(Response::json(200, &Description::of(self))),
            ("GET", path) => Err(ServiceError::new(
                ErrorCode::NotFound,
                format!("there is nothing at {path}: GET /health/live, /health/ready or /model, or POST an image"),
            )),
            ("POST", "/health/live" | "/health/ready" | "/model") => Err(ServiceError::new(
                ErrorCode::MethodNotAllowed,
                format!("{} takes GET alone", request.path),
            )),
            ("POST", _) => self.score(request),
            (method, _) => Err(ServiceError::new(
                ErrorCode::MethodNotAllowed,
                format!("{method} is not taken: POST an image"),
            )),
        }
    }

    fn score(&self, request: &Request) -> Result<Response, ServiceError> {
        let asked = request::parse(request, self.max_image_bytes)?;
        let score = |image: &[u8]| {
            let version = self.speaker(image);
            let (prediction, timing) = version.predict(image)?;
            let mut answer = Answer::new(version.manifest(), &prediction, timing, asked.top_k);
            if asked.explain {
                answer.warnings.push("this version gives no explanations".to_owned());
            }
            Ok::<_, ServiceError>(answer)
        };
        match asked.images {
            Images::One(image) => Ok(Response::from(&score(&image)?)),
            Images::Several(images) => {
                let results = images
                    .into_iter()
                    .map(|image| match image.and_then(|image| score(&image)) {
                        Ok(answer) => Outcome::Answer(Box::new(answer)),
                        Err(error) => Outcome::Error { error },
                    })
                    .collect();
                Ok(Response::json(200, &Results { results }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
