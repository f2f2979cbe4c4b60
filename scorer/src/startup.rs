//! From a published version to one in memory that has proved itself: library, network, golden images.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::bundle::{Bundle, BundleError};
use shared::files::user_cache;
use shared::image::Limits;
use shared::network::{NetworkError, Runtime, library};
use shared::service::Version;
use shared::store::StoreError;
use shared::store::versions::VersionError;
use tokio::task::JoinError;

use crate::configuration::{Configuration, ConfigurationError};

/// Why a version cannot be served.
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
    /// The loading of the library panicked.
    #[error("loading broke off: {0}")]
    Interrupted(#[from] JoinError),
    /// What was at work on the version panicked.
    #[error("the version cannot be loaded: {0}")]
    Panicked(JoinError),
}

impl StartupError {
    /// What callers are told, which is less than the log is.
    pub fn for_callers(self) -> String {
        match self {
            Self::Version(error) => error.for_callers().to_string(),
            error => error.to_string(),
        }
    }

    /// Whether what was published is at fault, and not the way to it or that nothing was published.
    pub fn is_of_the_version(&self) -> bool {
        use VersionError::{Bundle, Live, Manifest, Missing, NoVersion, OtherVersion, Store, Withheld};
        matches!(
            self,
            Self::Bundle(_)
                | Self::Panicked(_)
                | Self::Version(
                    Live { .. }
                        | Missing { .. }
                        | Withheld { .. }
                        | NoVersion { .. }
                        | Manifest { .. }
                        | Bundle { .. }
                        | OtherVersion { .. }
                        | Store(StoreError::TooLarge { .. })
                )
        )
    }
}

/// Where the time of a start goes, besides the way of the model from the store.
#[derive(Debug, Clone, Copy)]
pub struct Stages {
    /// From the network's bytes to networks that are ready to compute.
    pub network: Duration,
    /// The golden images.
    pub proof: Duration,
}

/// The runtime library; a process loads it once.
///
/// # Errors
/// [`StartupError::Network`] and [`StartupError::Interrupted`].
pub async fn runtime() -> Result<Runtime, StartupError> {
    let start = Instant::now();
    let runtime = tokio::task::spawn_blocking(|| Runtime::load(&candidates())).await??;
    tracing::info!(ms = start.elapsed().as_millis() as u64, "ONNX Runtime is loaded");
    Ok(runtime)
}

/// A version with all its pipelines, after it gave the trainer's scores for the golden images.
///
/// # Errors
/// [`StartupError::Bundle`] and [`StartupError::Panicked`].
pub async fn prepare(
    bundle: Bundle,
    runtime: Runtime,
    configuration: &Configuration,
) -> Result<(Arc<Version>, Stages), StartupError> {
    let (threads, pipelines) = (configuration.threads, configuration.pipelines);
    let prepared = tokio::task::spawn_blocking(move || -> Result<_, BundleError> {
        let begin = Instant::now();
        let mut all = Vec::with_capacity(pipelines);
        for _ in 0..pipelines.max(1) {
            all.push(bundle.pipeline(&runtime, Limits::default(), threads)?);
        }
        let network = begin.elapsed();
        let begin = Instant::now();
        bundle.verify_golden(&mut all[0])?;
        let proof = begin.elapsed();
        Ok((Arc::new(Version::new(bundle.manifest, all)), Stages { network, proof }))
    });
    Ok(prepared.await.map_err(StartupError::Panicked)??)
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn broken() -> JoinError {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        task.await.expect_err("it was ended")
    }

    #[tokio::test]
    async fn what_was_published_is_told_apart_from_the_way_to_it() {
        let place = || "s3://models/team/textures".to_owned();
        let published: [StartupError; 6] = [
            StartupError::Panicked(broken().await),
            BundleError::Unsigned.into(),
            VersionError::Missing { place: place() }.into(),
            VersionError::Withheld {
                version: "v".to_owned(),
                name: "textures".to_owned(),
                source: Box::new(StoreError::NoRegion),
            }
            .into(),
            VersionError::Live {
                place: place(),
                reason: "a reason".to_owned(),
            }
            .into(),
            VersionError::from(StoreError::TooLarge {
                place: place(),
                size: 2,
                limit: 1,
            })
            .into(),
        ];
        for error in published {
            assert!(error.is_of_the_version(), "{error}");
        }
        let others: [StartupError; 6] = [
            StartupError::Interrupted(broken().await),
            ConfigurationError::NoModel.into(),
            NetworkError::LibraryMissing(Vec::new()).into(),
            VersionError::NotPublished {
                place: place(),
                name: "textures".to_owned(),
            }
            .into(),
            VersionError::NoModel { folder: place() }.into(),
            VersionError::from(StoreError::NoRegion).into(),
        ];
        for error in others {
            assert!(!error.is_of_the_version(), "{error}");
        }
    }
}
