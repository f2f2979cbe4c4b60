//! Requests and their answers, whoever carries them, and one line in the log for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::service::{ErrorCode, Request, Response, ServiceError};

use crate::configuration::Configuration;
use crate::rollout::Rollout;

/// While nothing is loaded, this often is it tried without a request asking for it.
const KEEP_TRYING: Duration = Duration::from_secs(5);

/// The model that answers.
pub struct Model {
    parallelism: usize,
    refresh: Duration,
    rollout: Arc<Rollout>,
}

impl Model {
    /// Nothing is loaded yet.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            parallelism: configuration.pipelines,
            refresh: configuration.refresh,
            rollout: Arc::new(Rollout::new(configuration)),
        }
    }

    /// How many requests can be worked on at once.
    pub fn parallelism(&self) -> usize {
        self.parallelism
    }

    /// Loads the model, if it can be; else that is tried again on each request.
    pub async fn load(&self) {
        // What goes wrong is logged, and answered to each request.
        let _ = self.rollout.service().await;
    }

    /// Loads the model and follows its alias for ever, also while no requests come.
    pub async fn follow(&self) {
        loop {
            self.load().await;
            tokio::time::sleep(self.refresh.min(KEEP_TRYING)).await;
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
        let service = match self.rollout.service().await {
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
