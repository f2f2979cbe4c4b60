//! Requests and their answers, whoever carries them, and one line in the log for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::service::{self, Answer, ErrorCode, Item, Record, Request, Response, ServiceError};

use crate::configuration::Configuration;
use crate::log::{Exchange, Log};
use crate::origin::Origin;
use crate::rollout::Rollout;

/// While nothing is loaded, this often is it tried without a request asking for it.
const KEEP_TRYING: Duration = Duration::from_secs(5);

/// The model that answers.
pub struct Model {
    places: usize,
    refresh: Duration,
    log: Log,
    rollout: Arc<Rollout>,
}

impl Model {
    /// Nothing is loaded yet.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            places: configuration.pipelines + configuration.queue,
            refresh: configuration.refresh,
            log: Log::new(configuration.metrics.clone()),
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
    pub async fn answer<P: Send + 'static>(self: &Arc<Self>, request: Request, origin: Origin, place: P) -> Response {
        let model = Arc::clone(self);
        let answering = tokio::spawn(async move {
            let response = model.answer_to_the_end(request, &origin).await;
            drop(place);
            response
        });
        answering.await.unwrap_or_else(|_| internal().into())
    }

    async fn answer_to_the_end(&self, request: Request, origin: &Origin) -> Response {
        let start = Instant::now();
        let (method, path, bytes) = (request.method.clone(), request.path.clone(), request.body.len());
        let response = self.respond(request).await;
        let exchange = Exchange {
            method: &method,
            path: &path,
            bytes,
            status: response.status,
            duration: start.elapsed(),
            records: &response.records,
        };
        self.log.write(origin, &exchange);
        response
    }

    /// Refuses what did not even become a request, and logs one line about it.
    pub fn refuse(&self, method: &str, path: &str, error: &ServiceError, origin: &Origin) -> Response {
        let response = service::refuse(path, error);
        let exchange = Exchange {
            method,
            path,
            bytes: 0,
            status: response.status,
            duration: Duration::ZERO,
            records: &[],
        };
        self.log.write(origin, &exchange);
        response
    }

    /// One answer or error for each of any number of images, and one line in the log for all.
    ///
    /// # Errors
    /// What keeps all of them from being answered.
    pub async fn score_each(
        &self,
        items: Vec<Result<Item, ServiceError>>,
        top_k: Option<usize>,
        origin: Origin,
    ) -> Result<Vec<Result<Answer, ServiceError>>, ServiceError> {
        let start = Instant::now();
        let outcome = match self.rollout.service().await {
            Ok(service) => tokio::task::spawn_blocking(move || service.score_each(items, top_k))
                .await
                .map_err(|_| internal()),
            Err(error) => Err(error),
        };
        let (outcome, records): (_, Vec<Record>) = match outcome {
            Ok((outcomes, records)) => (Ok(outcomes), records),
            Err(error) => (Err(error), Vec::new()),
        };
        let exchange = Exchange {
            method: "POST",
            path: "/",
            bytes: 0,
            status: outcome.as_ref().map_or_else(|error| error.code.status(), |_| 200),
            duration: start.elapsed(),
            records: &records,
        };
        self.log.write(&origin, &exchange);
        outcome
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
