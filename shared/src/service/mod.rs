//! The scoring function's requests and answers, whoever carries them.
//!
//! Lambda, plain HTTP and tests differ in how a request arrives; what it means and what is answered is
//! here once. A request is answered on the thread that calls; the one thing it may wait for is an image in a
//! bucket, which the caller obtains ([`References`]).

mod base64;
mod error;
mod inference;
mod item_result;
mod openapi;
mod pool;
mod references;
mod request;
mod response;
mod routes;
mod scoring;
mod version;

pub use error::{ErrorCode, ServiceError};
pub use item_result::{ItemOutcome, ItemResult};
pub use openapi::document as openapi;
pub use references::{AllowedBuckets, References, S3Reference, not_allowed};
pub use request::{Item, Request};
pub use response::{Answer, Milliseconds, Model, Record, Response, Scored};
pub use version::{Version, places};

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use references::NoReferences;
use response::{Description, Readiness};
use routes::{Route, Standing};

/// The versions that answer, ready to do so from several threads at once. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    live: Arc<Version>,
    canary: Option<(Arc<Version>, f64)>,
    problem: Option<Problem>,
    references: Arc<dyn References>,
    until: Option<Instant>,
}

/// Why the versions in memory are not those that should answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
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
    /// A service in which `live` answers, and which reads images from no bucket.
    pub fn new(live: Arc<Version>) -> Self {
        Self {
            live,
            canary: None,
            problem: None,
            references: Arc::new(NoReferences),
            until: None,
        }
    }

    /// The same, reading the images that requests name through `references`.
    #[must_use]
    pub fn with_references(self, references: Arc<dyn References>) -> Self {
        Self { references, ..self }
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

    /// The same, beginning with no further image once it is `until`, when nobody waits for the answer any more.
    #[must_use]
    pub fn with_deadline(self, until: Option<Instant>) -> Self {
        Self { until, ..self }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// What is wrong with the wanted versions, if anything.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// The versions in memory, the live one first.
    fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        let canary = self.canary.as_ref().map(|(canary, _)| canary);
        std::iter::once(&self.live).chain(canary)
    }

    /// The version in memory that is called `version`.
    pub fn version(&self, version: &str) -> Option<&Arc<Version>> {
        self.versions()
            .find(|candidate| candidate.manifest().version == version)
    }

    /// The version that answers for the image of this SHA-256.
    fn speaker(&self, hash: &[u8; 32]) -> &Version {
        match &self.canary {
            Some((canary, share)) if version::fraction(hash) < *share => canary,
            _ => &self.live,
        }
    }

    /// Answers a request; a failure is an answer too.
    pub fn answer(&self, request: &Request) -> Response {
        let route = routes::find(&request.method, &request.path);
        let answer = route.and_then(|route| match route {
            Route::Ready => Ok(Response::json(200, &Readiness::of(self))),
            Route::Model => Ok(Response::json(200, &Description::of(self))),
            Route::Score => self.score(request),
            Route::Inference(route) => self.infer(&route, request),
            Route::Standing(standing) => Ok(standing.response()),
        });
        answer.unwrap_or_else(|error| refuse(&request.path, &error))
    }
}

/// The answer to what needs no model: whether the process answers at all, and a path or a method that there is not;
/// `None` for everything else.
pub fn answer_without_model(method: &str, path: &str) -> Option<Response> {
    match routes::find(method, path) {
        Ok(Route::Standing(standing)) => Some(standing.response()),
        Ok(_) => None,
        Err(error) => Some(refuse(path, &error)),
    }
}

/// Whether a request is answered however busy the process is, without a place among those that wait.
pub fn is_answered_at_once(method: &str, path: &str) -> bool {
    match routes::find(method, path) {
        Ok(route) => route.is_readiness() || matches!(route, Route::Standing(_)),
        Err(_) => true,
    }
}

/// Whether a request asks for nothing but whether there is a model.
pub fn asks_for_readiness(method: &str, path: &str) -> bool {
    routes::find(method, path).is_ok_and(|route| route.is_readiness())
}

/// An error in the form that callers of `path` expect.
pub fn refuse(path: &str, error: &ServiceError) -> Response {
    let mut response = if routes::is_inference(path) {
        inference::refuse(error)
    } else {
        Response::from(error.clone())
    };
    if error.code == ErrorCode::MethodNotAllowed {
        response.headers.push(("allow", routes::allowed(path).to_owned()));
    }
    response
}

impl Standing {
    fn response(self) -> Response {
        match self {
            Self::Live => Response::json(200, &response::Alive::default()),
            Self::OpenApi => Response::text(200, "application/json", openapi().to_owned()),
            Self::Server => Response::json(200, &inference::Server::this()),
            Self::InferenceLive => Response::json(200, &inference::Liveness { live: true }),
        }
    }
}

/// The SHA-256 of an image.
fn hash(image: &[u8]) -> [u8; 32] {
    Sha256::digest(image).into()
}

#[cfg(test)]
mod tests;
