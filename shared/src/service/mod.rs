//! The scoring function's requests and answers, whoever carries them.
//!
//! Lambda, plain HTTP and tests differ in how a request arrives; what it means and what is answered is
//! here once. Nothing here waits for a network: a request is answered on the thread that calls.

mod base64;
mod error;
mod pool;
mod request;
mod response;

pub use error::{ErrorCode, ServiceError};
pub use request::{MAX_IMAGES, Request};
pub use response::{Answer, Milliseconds, Model, Response, Summary};

use pool::Pool;
use request::Images;
use response::{Outcome, Results};

use crate::bundle::Manifest;
use crate::image::Limits;
use crate::pipeline::Pipeline;

/// A loaded model, ready to answer from several threads at once.
pub struct Service {
    manifest: Manifest,
    pool: Pool,
    max_image_bytes: usize,
}

impl Service {
    /// A service for the model of `manifest` over one or more `pipelines` that are all the same. As
    /// many requests are scored at once as there are pipelines; others wait.
    ///
    /// # Panics
    /// When there is no pipeline.
    pub fn new(manifest: Manifest, pipelines: Vec<Pipeline>) -> Self {
        assert!(!pipelines.is_empty(), "a service needs a pipeline");
        Self {
            manifest,
            pool: Pool::new(pipelines),
            max_image_bytes: Limits::default().max_bytes,
        }
    }

    /// The model that answers.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Answers a request; a failure is an answer too.
    pub fn answer(&self, request: &Request) -> Response {
        self.route(request).unwrap_or_else(Response::from)
    }

    fn route(&self, request: &Request) -> Result<Response, ServiceError> {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health/live" | "/health/ready") => Ok(Response::json(200, &serde_json::json!({"status": "ok"}))),
            ("GET", "/model") => Ok(Response::json(200, &self.manifest)),
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
            let (prediction, timing) = self.pool.with(|pipeline| pipeline.predict(image))?;
            let mut answer = Answer::new(&self.manifest, &prediction, timing, asked.top_k);
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
