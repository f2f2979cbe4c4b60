//! Which versions are in memory: the first one on first need, and after that whatever the alias names.
//!
//! Once a version is in memory no request waits for another. A request may find that it is time to look at the
//! alias again; the look, the download and the proof on golden images happen in the background, and what stood
//! the proof replaces the old in one step. What did not is refused and told of, and the old keeps answering.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use shared::network::Runtime;
use shared::service::{ErrorCode, Problem, Service, ServiceError, Version};
use shared::store::{Source, VersionRef, Wanted, rfc3339};
use tokio::sync::{OnceCell, OwnedMutexGuard};

use crate::configuration::{Configuration, ConfigurationError};
use crate::images::Images;
use crate::log::Log;
use crate::startup::{self, StartupError};

/// After a failure to load the first version, this long passes before the next attempt.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest time between two attempts at a version that was refused.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// The versions in memory, and the one task at a time that changes them.
pub struct Rollout {
    configuration: Configuration,
    source: OnceCell<Source>,
    runtime: OnceCell<Runtime>,
    images: Option<Arc<Images>>,
    log: Log,
    serving: RwLock<Option<Arc<Service>>>,
    /// When a request makes the alias be looked at again.
    due: Mutex<Instant>,
    /// Held by whoever loads.
    progress: Arc<tokio::sync::Mutex<Progress>>,
}

/// What whoever loads must know of earlier attempts.
#[derive(Default)]
struct Progress {
    /// The versions in memory, in the words of the alias.
    loaded: Option<Wanted>,
    /// Why there is nothing in memory yet, and since when.
    failed: Option<(ServiceError, Instant)>,
    refused: Option<Refused>,
}

/// What was wanted and did not stand the proof.
struct Refused {
    wanted: Wanted,
    problem: Problem,
    attempts: u32,
    again: Instant,
}

/// Why one of the wanted versions is not in memory.
struct Fault {
    version: String,
    error: StartupError,
}

impl Rollout {
    /// Nothing is loaded yet.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            images: Images::of(&configuration).map(Arc::new),
            log: Log::new(configuration.metrics.clone()),
            configuration,
            source: OnceCell::new(),
            runtime: OnceCell::new(),
            serving: RwLock::new(None),
            due: Mutex::new(Instant::now()),
            progress: Arc::default(),
        }
    }

    fn serving(&self) -> Option<Arc<Service>> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The service where there is one, and then the alias is looked at in the background when it is time.
    pub fn in_memory(self: &Arc<Self>) -> Option<Arc<Service>> {
        let service = self.serving()?;
        self.follow_when_due();
        Some(service)
    }

    /// As [`Self::service`], waiting for nothing: what is in memory, or why there is nothing. What is not loaded
    /// is loaded in the background.
    ///
    /// # Errors
    /// `model_unavailable`.
    pub fn service_at_once(self: &Arc<Self>) -> Result<Arc<Service>, ServiceError> {
        if let Some(service) = self.in_memory() {
            return Ok(service);
        }
        let rollout = Arc::clone(self);
        tokio::spawn(async move { rollout.service().await.is_ok() });
        let known = self
            .progress
            .try_lock()
            .ok()
            .and_then(|progress| progress.failed.clone());
        Err(known.map_or_else(
            || {
                ServiceError::new(
                    ErrorCode::ModelUnavailable,
                    "the model is being loaded: try again in a moment",
                )
            },
            |(error, _)| error,
        ))
    }

    /// As [`Self::in_memory`], and the first is waited for; why it cannot be loaded is remembered for a while, so that
    /// requests that come meanwhile are answered at once.
    ///
    /// # Errors
    /// `model_unavailable` with the reason.
    pub async fn service(self: &Arc<Self>) -> Result<Arc<Service>, ServiceError> {
        if let Some(service) = self.in_memory() {
            return Ok(service);
        }
        let mut progress = self.progress.lock().await;
        if let Some(service) = self.serving() {
            return Ok(service);
        }
        match &progress.failed {
            Some((error, at)) if at.elapsed() < PAUSE => return Err(error.clone()),
            _ => {}
        }
        match self.load_first().await {
            Ok((service, wanted)) => {
                // One on trial follows with the next request; else there is nothing to look for yet.
                if wanted.canary.is_none() {
                    *self.due() = Instant::now() + self.configuration.refresh;
                }
                progress.loaded = Some(Wanted { canary: None, ..wanted });
                Ok(self.serve(service))
            }
            Err(error) => {
                tracing::error!(%error, model = self.configuration.model, "the model cannot be loaded");
                self.count(&error);
                let message = format!("no model is loaded: {}", error.for_callers());
                let error = ServiceError::new(ErrorCode::ModelUnavailable, message);
                progress.failed = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }

    /// Loads the live version alone: one on trial follows in the background, so that a cold start waits for one.
    async fn load_first(self: &Arc<Self>) -> Result<(Service, Wanted), StartupError> {
        // The library loads while the model is on its way, and to its end whatever becomes of the model: a process that
        // forgot its first one gets no second.
        let rollout = Arc::clone(self);
        let library = tokio::spawn(async move { rollout.runtime().await.cloned() });
        let fetch = async {
            let wanted = self.source().await?.wanted().await?;
            let live = self.load(&wanted.live).await?;
            Ok((wanted, live))
        };
        let (_, (wanted, live)) = tokio::try_join!(async { library.await? }, fetch)?;
        Ok((self.service_of(live), wanted))
    }

    fn due(&self) -> MutexGuard<'_, Instant> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a look at the alias where it is time for one.
    fn follow_when_due(self: &Arc<Self>) {
        if self.configuration.pinned.is_some() {
            return;
        }
        {
            let mut due = self.due();
            if Instant::now() < *due {
                return;
            }
            *due = Instant::now() + self.configuration.refresh;
        }
        // Where an earlier look is not done yet, that one will do.
        let Ok(progress) = Arc::clone(&self.progress).try_lock_owned() else {
            return;
        };
        let rollout = Arc::clone(self);
        tokio::spawn(async move { rollout.follow(progress).await });
    }

    /// Waits for whoever loads.
    pub async fn settled(&self) {
        drop(self.progress.lock().await);
    }

    /// Brings what the alias names into memory.
    async fn follow(&self, mut progress: OwnedMutexGuard<Progress>) {
        let Some(serving) = self.serving() else {
            return;
        };
        let wanted = match self.look().await {
            Ok(wanted) => wanted,
            Err(error) => {
                const MESSAGE: &str = "which version is live cannot be found out; the one in memory keeps answering";
                if error.is_of_the_version() {
                    tracing::error!(%error, "{MESSAGE}");
                } else {
                    tracing::warn!(%error, "{MESSAGE}");
                }
                self.count(&error);
                self.tell(&serving, Some(problem(serving.problem(), None, error)));
                return;
            }
        };
        if progress.loaded.as_ref() == Some(&wanted) {
            progress.refused = None;
            self.tell(&serving, None);
            return;
        }
        let known = progress.refused.as_ref().filter(|refused| refused.wanted == wanted);
        if let Some(refused) = known.filter(|refused| Instant::now() < refused.again) {
            // A look that failed since then may have told of something else.
            self.tell(&serving, Some(refused.problem.clone()));
            return;
        }
        let attempts = known.map_or(0, |refused| refused.attempts) + 1;
        let outcome = self.replace(&serving, &wanted, &mut progress).await;
        // What is in memory may have changed, also where one is refused: a live version without the one on trial.
        let serving = self.serving().unwrap_or(serving);
        let Err(Fault { version, error }) = outcome else {
            progress.refused = None;
            self.tell(&serving, None);
            return;
        };
        if !error.is_of_the_version() {
            tracing::warn!(%error, version, "a version cannot be loaded; the one in memory keeps answering");
            progress.refused = None;
            self.tell(&serving, Some(problem(serving.problem(), None, error)));
            return;
        }
        tracing::error!(%error, version, "a version is refused; the one in memory keeps answering");
        self.count(&error);
        let known = progress.refused.as_ref().map(|refused| &refused.problem);
        let problem = problem(known, Some(version), error);
        self.tell(&serving, Some(problem.clone()));
        let pause = self.configuration.refresh * 2_u32.saturating_pow(attempts.min(16) - 1);
        progress.refused = Some(Refused {
            wanted,
            problem,
            attempts,
            again: Instant::now() + pause.min(LONGEST_PAUSE.max(self.configuration.refresh)),
        });
    }

    async fn look(&self) -> Result<Wanted, StartupError> {
        Ok(self.source().await?.wanted().await?)
    }

    /// Loads what of `wanted` is not in memory and serves it, if that is not what is served already. A live version
    /// goes into service also where the one on trial cannot; without the live one nothing changes. What is wrong is for
    /// the caller to tell.
    async fn replace(&self, serving: &Service, wanted: &Wanted, progress: &mut Progress) -> Result<(), Fault> {
        let live = self.obtain(serving, &wanted.live).await?;
        let canary = match &wanted.canary {
            Some((canary, share)) => self.obtain(serving, canary).await.map(|canary| Some((canary, *share))),
            None => Ok(None),
        };
        let (canary, outcome) = match canary {
            Ok(canary) => (canary, Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        let loaded = Wanted {
            live: wanted.live.clone(),
            canary: wanted.canary.clone().filter(|_| canary.is_some()),
        };
        if progress.loaded.as_ref() == Some(&loaded) {
            return outcome;
        }
        progress.loaded = Some(loaded);
        tracing::info!(
            version = live.manifest().version,
            canary = canary.as_ref().map(|(canary, _)| canary.manifest().version.as_str()),
            share = canary.as_ref().map(|(_, share)| *share),
            "other versions answer from now on"
        );
        let service = self.service_of(live).with_canary(canary);
        self.serve(service.with_problem(serving.problem().cloned()));
        outcome
    }

    async fn obtain(&self, serving: &Service, reference: &VersionRef) -> Result<Arc<Version>, Fault> {
        // A version is named by the hash of its contents: the same name is the same model.
        if let Some(version) = serving.version(&reference.version) {
            return Ok(Arc::clone(version));
        }
        self.load(reference).await.map_err(|error| Fault {
            version: reference.version.clone(),
            error,
        })
    }

    async fn load(&self, reference: &VersionRef) -> Result<Arc<Version>, StartupError> {
        let start = Instant::now();
        let bundle = self.source().await?.load(reference).await?;
        let fetched = start.elapsed();
        let (version, stages) = startup::prepare(bundle, self.runtime().await?.clone(), &self.configuration).await?;
        tracing::info!(
            model = version.manifest().name,
            version = version.manifest().version,
            fetch_ms = fetched.as_millis() as u64,
            network_ms = stages.network.as_millis() as u64,
            proof_ms = stages.proof.as_millis() as u64,
            total_ms = start.elapsed().as_millis() as u64,
            "a version is loaded and verified"
        );
        Ok(version)
    }

    async fn source(&self) -> Result<&Source, StartupError> {
        let find = || async {
            let model = self.configuration.model.as_deref().ok_or(ConfigurationError::NoModel)?;
            let (pinned, trusted) = (self.configuration.pinned.as_deref(), &self.configuration.trusted);
            Ok(Source::find(model, pinned, trusted.clone()).await?)
        };
        self.source.get_or_try_init(find).await
    }

    async fn runtime(&self) -> Result<&Runtime, StartupError> {
        self.runtime.get_or_try_init(startup::runtime).await
    }

    fn service_of(&self, live: Arc<Version>) -> Service {
        match &self.images {
            Some(images) => Service::new(live).with_references(Arc::<Images>::clone(images)),
            None => Service::new(live),
        }
    }

    /// Counts a refusal where the version, or what names it, is at fault.
    fn count(&self, error: &StartupError) {
        if error.is_of_the_version() {
            self.log.refused(self.configuration.model_name());
        }
    }

    /// Lets `/model` and `/health/ready` tell what is wrong, if anything.
    fn tell(&self, serving: &Service, problem: Option<Problem>) {
        if serving.problem() != problem.as_ref() {
            self.serve(serving.clone().with_problem(problem));
        }
    }

    /// From here on `service` answers; requests that were begun finish with the one before.
    fn serve(&self, service: Service) -> Arc<Service> {
        let service = Arc::new(service);
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&service));
        service
    }
}

/// What is wrong, since when it was `known` first.
fn problem(known: Option<&Problem>, refused: Option<String>, error: StartupError) -> Problem {
    let since = match known {
        Some(known) if known.refused == refused => known.since.clone(),
        _ => rfc3339(SystemTime::now()),
    };
    let reason = error.for_callers();
    Problem { refused, reason, since }
}
