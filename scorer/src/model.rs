//! The model in memory, and what is answered while there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::service::{ErrorCode, Request, Response, Service, ServiceError};
use tokio::sync::Mutex;

use crate::configuration::Configuration;
use crate::startup;

/// After a failure to load, this long passes before the next attempt.
const PAUSE: Duration = Duration::from_secs(5);

/// The model, loaded on first need and kept for the life of the process.
pub struct Model {
    configuration: Configuration,
    state: Mutex<State>,
}

enum State {
    Empty,
    Ready(Arc<Service>),
    Failed { reason: String, at: Instant },
}

impl Model {
    /// Nothing is loaded yet.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            state: Mutex::new(State::Empty),
        }
    }

    /// How many requests can be worked on at once.
    pub fn parallelism(&self) -> usize {
        self.configuration.pipelines
    }

    /// The service, loaded if it is not yet. A failure is remembered for a while, so that requests that come
    /// meanwhile are answered at once.
    ///
    /// # Errors
    /// `model_unavailable` with the reason.
    pub async fn service(&self) -> Result<Arc<Service>, ServiceError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Ready(service) => return Ok(Arc::clone(service)),
            State::Failed { reason, at } if at.elapsed() < PAUSE => return Err(unavailable(reason)),
            State::Failed { .. } | State::Empty => {}
        }
        match startup::load(&self.configuration).await {
            Ok(service) => {
                let service = Arc::new(service);
                *state = State::Ready(Arc::clone(&service));
                Ok(service)
            }
            Err(error) => {
                tracing::error!(%error, model = self.configuration.model, "the model cannot be loaded");
                let reason = error.to_string();
                let failure = unavailable(&reason);
                *state = State::Failed {
                    reason,
                    at: Instant::now(),
                };
                Err(failure)
            }
        }
    }

    /// Answers a request and logs one line about it. `place` is held until the work is done, also where nobody
    /// waits for the answer any more.
    pub async fn answer<P: Send + 'static>(
        self: &Arc<Self>,
        request: Request,
        request_id: String,
        place: P,
    ) -> Response {
        let model = Arc::clone(self);
        let answering = tokio::spawn(async move {
            let response = model.answer_to_the_end(request, &request_id).await;
            drop(place);
            response
        });
        answering.await.unwrap_or_else(|_| internal())
    }

    async fn answer_to_the_end(&self, request: Request, request_id: &str) -> Response {
        let start = Instant::now();
        let (method, path, bytes) = (request.method.clone(), request.path.clone(), request.body.len());
        let response = self.respond(request).await;
        let summary = response.summary.as_ref();
        tracing::info!(
            request_id,
            method,
            path,
            bytes,
            status = response.status,
            milliseconds = start.elapsed().as_secs_f64() * 1e3,
            label = summary.map(|summary| summary.label.as_str()),
            decision = summary.map(|summary| summary.decision.name()),
            "answered"
        );
        response
    }

    async fn respond(&self, request: Request) -> Response {
        if let Some(alive) = liveness(&request.method, &request.path) {
            return alive;
        }
        let service = match self.service().await {
            Ok(service) => service,
            Err(error) => return error.into(),
        };
        let answered = tokio::task::spawn_blocking(move || service.answer(&request)).await;
        answered.unwrap_or_else(|_| internal())
    }
}

/// Alive is a process that answers at all, however busy it is and whatever it has loaded.
pub fn liveness(method: &str, path: &str) -> Option<Response> {
    (method == "GET" && path == "/health/live").then(|| Response::json(200, &serde_json::json!({ "status": "ok" })))
}

/// What is answered when the work panicked.
fn internal() -> Response {
    ServiceError::new(ErrorCode::Internal, "a fault of the scorer; its log says more").into()
}

fn unavailable(reason: &str) -> ServiceError {
    ServiceError::new(ErrorCode::ModelUnavailable, format!("no model is loaded: {reason}"))
}
