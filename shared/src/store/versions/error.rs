//! Why a published model cannot be read.

use super::LIVE;
use crate::bundle::{BundleError, MANIFEST};
use crate::store::StoreError;

/// Why a published model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name cannot be one.
    #[error(
        "{0:?} is not a name: use letters, digits, dots, underscores and hyphens, beginning with a letter or digit"
    )]
    Name(String),
    /// A store is named, and no model in it.
    #[error("{0:?} names no model: write s3://BUCKET/PREFIX/NAME, or s3://BUCKET/NAME where there is no prefix")]
    Unnamed(String),
    /// No version is live.
    #[error("{place} does not exist: no version of {name} is published there")]
    NotPublished {
        /// Where `live.json` would be.
        place: String,
        /// Of which model.
        name: String,
    },
    /// `live.json` is damaged.
    #[error("{place} is not valid: {reason}")]
    Live {
        /// Where it is.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing lies where a version that was asked for by its name would be.
    #[error(
        "there is no version {version} of {name} in {store}: `trainer versions --to {store} --name {name}` lists those \
         there are"
    )]
    NoVersion {
        /// The version.
        version: String,
        /// Of which model.
        name: String,
        /// Where it was looked for.
        store: String,
    },
    /// A file of the version may not be read. That is also what S3 says of one that is not there, to whoever may not
    /// list.
    #[error("version {version} of {name} is not there, not whole, or may not be read: {source}")]
    Withheld {
        /// The version.
        version: String,
        /// Of which model.
        name: String,
        /// What the store says of the file.
        source: Box<StoreError>,
    },
    /// A file of the version is not there.
    #[error("{place} is missing: this version was not published completely, or part of it was removed")]
    Missing {
        /// Where the file would be.
        place: String,
    },
    /// The manifest is not the one that was made live.
    #[error("{place} is damaged: {reason}")]
    Manifest {
        /// Where it is.
        place: String,
        /// How one can tell.
        reason: String,
    },
    /// A file differs from the manifest, or the manifest is not one.
    #[error("{place}: {source}")]
    Bundle {
        /// Where it is.
        place: String,
        /// What is wrong.
        source: BundleError,
    },
    /// The folder is neither a bundle nor a published model.
    #[error(
        "{folder} holds neither {MANIFEST} (a bundle) nor {LIVE} (a published model): give the folder of a run's \
         bundle, or STORE/NAME as published"
    )]
    NoModel {
        /// What was given.
        folder: String,
    },
    /// The folder is a bundle, but not of the wanted version.
    #[error("{folder} holds version {found}, not {pinned} as asked for")]
    OtherVersion {
        /// What was given.
        folder: String,
        /// The version it holds.
        found: String,
        /// The version asked for.
        pinned: String,
    },
}

impl VersionError {
    /// The same for whoever calls the scoring function: see [`StoreError::for_callers`].
    #[must_use]
    pub fn for_callers(self) -> Self {
        match self {
            Self::Store(error) => Self::Store(error.for_callers()),
            Self::Withheld { version, name, source } => Self::Withheld {
                version,
                name,
                source: Box::new(source.for_callers()),
            },
            error => error,
        }
    }
}
