//! Requests and their answers, whoever carries them, and one line in the log for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::service::{self, Answer, ErrorCode, Item, Record, Request, Response, Service, ServiceError};
use tokio::sync::Semaphore;

use crate::configuration::Configuration;
use crate::items;
use crate::log::{Exchange, Log};
use crate::origin::Origin;
use crate::rollout::Rollout;
use crate::watchdog::{Watchdog, internal};

/// While nothing is loaded, this often is it tried without a request asking for it.
const KEEP_TRYING: Duration = Duration::from_secs(5);

/// Answers by the model in memory, each request in its time.
pub struct Responder {
    places: usize,
    refresh: Duration,
    log: Log,
    watchdog: Watchdog,
    rollout: Arc<Rollout>,
}

impl Responder {
    /// Nothing is loaded yet.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            places: configuration
                .pipelines
                .saturating_add(configuration.queue)
                .min(Semaphore::MAX_PERMITS),
            refresh: configuration.refresh,
            log: Log::new(configuration.metrics.clone()),
            watchdog: Watchdog::new(configuration.deadline, service::places(configuration.pipelines)),
            rollout: Arc::new(Rollout::new(configuration)),
        }
    }

    /// How many requests may be worked on or wait at once.
    pub fn places(&self) -> usize {
        self.places
    }

    /// When a request that arrives now must be answered.
    pub fn until(&self) -> Option<Instant> {
        self.watchdog.until(None)
    }

    /// Loads the model, if it can be; else that is tried again on each request. What is not done at `until` goes on in
    /// the background.
    pub async fn load(&self, until: Option<Instant>) {
        // What goes wrong is logged, and answered to each request.
        let _ = self.service(until).await;
    }

    /// Waits while versions are being loaded, or it is looked which are live.
    pub async fn settled(&self) {
        self.rollout.settled().await;
    }

    /// Loads the model and follows its alias for ever, also while no requests come.
    pub async fn follow(&self) {
        loop {
            self.load(None).await;
            tokio::time::sleep(self.refresh.min(KEEP_TRYING)).await;
        }
    }

    /// Answers a request, before `until` where that is sooner than its deadline, and logs one line about what `fit`
    /// makes of the answer. `place` is held until the work is done, also where nobody waits for the answer any more.
    pub async fn answer<P: Send + 'static>(
        self: &Arc<Self>,
        request: Request,
        origin: Origin,
        until: Option<Instant>,
        place: P,
        fit: impl FnOnce(Response) -> Response + Send + 'static,
    ) -> Response {
        let responder = Arc::clone(self);
        let answering = async move { responder.answer_to_the_end(request, &origin, until, place, fit).await };
        tokio::spawn(answering).await.unwrap_or_else(|_| internal().into())
    }

    async fn answer_to_the_end<P: Send + 'static>(
        &self,
        request: Request,
        origin: &Origin,
        until: Option<Instant>,
        place: P,
        fit: impl FnOnce(Response) -> Response,
    ) -> Response {
        let start = Instant::now();
        let until = self.watchdog.until(until);
        let (method, path, bytes) = (request.method.clone(), request.path.clone(), Some(request.body.len()));
        let response = fit(self.respond(request, until, place).await);
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

    /// Refuses what did not even become a request, with a body of so many bytes where that is known, and logs one line
    /// about it.
    pub fn refuse(
        &self,
        (method, path): (&str, &str),
        bytes: Option<usize>,
        error: &ServiceError,
        origin: &Origin,
    ) -> Response {
        let response = service::refuse(path, error);
        let exchange = Exchange {
            method,
            path,
            bytes,
            status: response.status,
            duration: Duration::ZERO,
            records: &[],
        };
        self.log.write(origin, &exchange);
        response
    }

    /// One answer or error for each of any number of images, all before `until`, and one line in the log for all.
    ///
    /// # Errors
    /// What keeps all of them from being answered.
    pub async fn score_each(
        &self,
        items: Vec<Result<Item, ServiceError>>,
        top_k: Option<usize>,
        origin: Origin,
        until: Option<Instant>,
    ) -> Result<Vec<Result<Answer, ServiceError>>, ServiceError> {
        let start = Instant::now();
        let scored = match self.service(until).await {
            Ok(service) => {
                let (count, items) = (items.len(), Arc::new(items));
                let score = move |first: usize, give: &mut dyn FnMut(_) -> bool| {
                    service.score_each(items[first..].to_vec(), top_k).all(give);
                };
                Ok(items::each(&self.watchdog, until, count, score).await)
            }
            Err(error) => Err(error),
        };
        let (outcome, records): (_, Vec<Record>) = match scored {
            Ok(scored) => {
                let refused = |error: ServiceError| (Err(error.clone()), Record::unread(error.code));
                let scored = scored.into_iter().map(|scored| scored.unwrap_or_else(refused));
                let (outcomes, records) = scored.unzip();
                (Ok(outcomes), records)
            }
            Err(error) => (Err(error), Vec::new()),
        };
        let exchange = Exchange {
            method: "POST",
            path: "/",
            bytes: None,
            status: outcome.as_ref().map_or_else(|error| error.code.status(), |_| 200),
            duration: start.elapsed(),
            records: &records,
        };
        self.log.write(&origin, &exchange);
        outcome
    }

    /// The versions that answer, waited for until `until` where the first is being loaded.
    async fn service(&self, until: Option<Instant>) -> Result<Arc<Service>, ServiceError> {
        if let Some(service) = self.rollout.in_memory() {
            return Ok(service);
        }
        let Some(until) = until else {
            return self.rollout.service().await;
        };
        // Loading goes on for the next request.
        let rollout = Arc::clone(&self.rollout);
        let loading = tokio::spawn(async move { rollout.service().await });
        match tokio::time::timeout_at(until.into(), loading).await {
            Ok(loaded) => loaded.unwrap_or_else(|_| Err(internal())),
            Err(_) => Err(ServiceError::new(
                ErrorCode::ModelUnavailable,
                "the model is still being loaded: try again in a moment",
            )),
        }
    }

    async fn respond<P: Send + 'static>(&self, request: Request, until: Option<Instant>, place: P) -> Response {
        let (method, path) = (&request.method, &request.path);
        if let Some(response) = service::answer_without_model(method, path) {
            return response;
        }
        let service = if service::asks_for_readiness(method, path) {
            self.rollout.service_at_once()
        } else {
            self.service(until).await
        };
        let service = match service {
            Ok(service) => service,
            Err(error) => return service::refuse(path, &error),
        };
        let path = path.clone();
        let service = Service::clone(&service).with_deadline(until);
        let work = tokio::task::spawn_blocking(move || {
            let response = service.answer(&request);
            drop(place);
            response
        });
        let answered = self.watchdog.watch(work, until).await;
        answered.unwrap_or_else(|error| service::refuse(&path, &error))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::configuration::Arguments;

    #[test]
    fn no_queue_is_too_long() {
        let longest = usize::MAX.to_string();
        let words = ["--listen", "127.0.0.1:0", "--model", "models/m", "--queue", &longest];
        let arguments = Arguments::try_parse_from(std::iter::once("scorer").chain(words)).expect("arguments");
        let (configuration, _) = Configuration::resolve(arguments).expect("a configuration");
        assert_eq!(Responder::new(configuration).places(), Semaphore::MAX_PERMITS);
    }
}
