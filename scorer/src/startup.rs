//! From nothing to a service that has proved itself: library, bundle, hashes, golden images.

use std::path::{Path, PathBuf};
use std::time::Instant;

use shared::bundle::BundleError;
use shared::files::user_cache;
use shared::image::Limits;
use shared::network::{NetworkError, Runtime, library};
use shared::service::Service;
use shared::store::versions::{self, VersionError};

use crate::configuration::{Configuration, ConfigurationError};

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// No model is named.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The runtime library.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The published model.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// What was published.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A step that panicked.
    #[error("loading broke off: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Loads the model while the library loads, verifies both, and hands back the service.
///
/// # Errors
/// See [`StartupError`].
pub async fn load(configuration: &Configuration) -> Result<Service, StartupError> {
    let start = Instant::now();
    let library = tokio::task::spawn_blocking(|| Runtime::load(&candidates()));
    let model = configuration.model.as_deref().ok_or(ConfigurationError::NoModel)?;
    let bundle = versions::open(model, configuration.pinned.as_deref()).await?;
    let fetched = start.elapsed();
    let runtime = library.await??;

    let (threads, pipelines) = (configuration.threads, configuration.pipelines);
    let service = tokio::task::spawn_blocking(move || -> Result<Service, BundleError> {
        let mut first = bundle.pipeline(&runtime, Limits::default(), threads)?;
        bundle.verify_golden(&mut first)?;
        let mut all = vec![first];
        while all.len() < pipelines {
            all.push(bundle.pipeline(&runtime, Limits::default(), threads)?);
        }
        Ok(Service::new(bundle.manifest, all))
    })
    .await??;

    let manifest = service.manifest();
    tracing::info!(
        model = manifest.name,
        version = manifest.version,
        fetch_ms = fetched.as_millis() as u64,
        total_ms = start.elapsed().as_millis() as u64,
        "the model is loaded and verified"
    );
    Ok(service)
}

/// Where a function's package or layer puts the library, and where the trainer keeps it on a user's machine.
fn candidates() -> Vec<PathBuf> {
    let folder = |variable: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let package = folder("LAMBDA_TASK_ROOT").map(|root| root.join("lib").join(library::FILE_NAME));
    let layer = Path::new("/opt/lib").join(library::FILE_NAME);
    let cache = folder("IKAT_CACHE")
        .or_else(user_cache)
        .map(|cache| library::in_cache(&cache));
    package.into_iter().chain([layer]).chain(cache).collect()
}
