//! Requests and their answers, whoever carries them, and one line in the log for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::service::{self, ErrorCode, Request, Response, ServiceError};

use crate::configuration::Configuration;
use crate::rollout::Rollout;

/// While nothing is loaded, this often is it tried without a request asking for it.
const KEEP_TRYING: Duration = Duration::from_secs(5);

/// The model that answers.
pub struct Model {
    places: usize,
    refresh: Duration,
    rollout: Arc<Rollout>,
}

impl Model {
    /// Nothing is loaded yet.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            places: configuration.pipelines + configuration.queue,
            refresh: configuration.refresh,
            rollout: Arc::new(Rollout::new(configuration)),
        }
    }

    /// How many requests may be worked on or wait at once.
    pub fn places(&self) -> usize {
        self.places
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
        answering.await.unwrap_or_else(|_| internal().into())
    }

    async fn answer_to_the_end(&self, request: Request, request_id: &str) -> Response {
        let start = Instant::now();
        let (method, path, bytes) = (request.method.clone(), request.path.clone(), request.body.len());
        let response = self.respond(request).await;
        let scored = response.records.first().and_then(|record| record.outcome.as_ref().ok());
        tracing::info!(
            request_id,
            method,
            path,
            bytes,
            status = response.status,
            milliseconds = start.elapsed().as_secs_f64() * 1e3,
            label = scored.map(|scored| scored.label.as_str()),
            decision = scored.map(|scored| scored.decision.name()),
            "answered"
        );
        response
    }

    async fn respond(&self, request: Request) -> Response {
        let (method, path) = (&request.method, &request.path);
        if let Some(response) = service::answer_without_model(method, path) {
            return response;
        }
        let service = if service::asks_for_readiness(method, path) {
            self.rollout.service_at_once()
        } else {
            self.rollout.service().await
        };
        let service = match service {
            Ok(service) => service,
            Err(error) => return service::refuse(path, &error),
        };
        let path = path.clone();
        let answered = tokio::task::spawn_blocking(move || service.answer(&request)).await;
        answered.unwrap_or_else(|_| service::refuse(&path, &internal()))
    }
}

/// What is answered when the work panicked.
fn internal() -> ServiceError {
    ServiceError::new(ErrorCode::Internal, "a fault of the scorer; its log says more")
}
