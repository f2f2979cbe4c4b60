//! The place where bundles are published: a folder or an S3 bucket behind the same few operations.
//!
//! A published model lies at `NAME/versions/VERSION/...`, written once, and `NAME/live.json` names the
//! version that is served. That file is the only one that ever changes, by a conditional write.
//! [`versions`] knows this layout, and [`source`] how to follow it while it changes; [`FolderStore`] and
//! [`S3Store`] know nothing but keys and bytes.

mod folder;
mod multipart;
mod s3;
mod s3_error;
pub mod source;
pub mod versions;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use tokio::task::JoinError;

pub use folder::FolderStore;
pub use s3::{Patience, S3Store};
pub use source::{Source, Wanted};
pub use versions::VersionRef;

use crate::files::FileError;

/// A store's contents at one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The contents.
    pub bytes: Bytes,
    /// Names this state of the object, for [`Condition::Unchanged`].
    pub etag: String,
    /// SHA-256 of the contents, 64 lower-case hexadecimal digits, computed while they came.
    pub sha256: String,
}

/// What a store knows of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// In bytes.
    pub size: u64,
    /// When it was written, where the store tells.
    pub modified: Option<SystemTime>,
}

/// Some of the objects of a bucket, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Their keys, below the store's prefix.
    pub keys: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

/// When a write may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Only where nothing is at the key yet.
    Absent,
    /// Only where the object is still in the state that this etag names.
    Unchanged(String),
}

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The text names no place.
    #[error("{text:?} is no store ({reason}): write s3://BUCKET/PREFIX or the path of a folder")]
    Location {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key could lead out of the store.
    #[error("{0:?} is not a valid key: its parts must be names, separated by single slashes")]
    Key(String),
    /// Somebody else wrote the object first.
    #[error("{place} was written by somebody else in the meantime")]
    ConditionFailed {
        /// Which object.
        place: String,
    },
    /// The object is larger than the caller is ready to hold.
    #[error("{place} has {size} bytes; at most {limit} are expected there")]
    TooLarge {
        /// Which object.
        place: String,
        /// In bytes; for a stream without a length, what had come when reading stopped.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// The bucket is not there.
    #[error("the bucket {bucket} does not exist at this endpoint: create it, or correct its name or the region")]
    NoBucket {
        /// Its name.
        bucket: String,
    },
    /// The store does not accept the credentials, or there are none.
    #[error(
        "{place}: no valid credentials ({reason}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, \
         or give the function a role"
    )]
    Credentials {
        /// Which object.
        place: String,
        /// What the store or the chain of providers said.
        reason: String,
    },
    /// The store refuses.
    #[error(
        "{place}: access denied ({reason}). Either these credentials may not {action}, or the object does not exist \
         and the missing permission s3:ListBucket keeps the store from saying so: check the policy and the name"
    )]
    Denied {
        /// Which object.
        place: String,
        /// The operation, as a verb with its object.
        action: &'static str,
        /// What the store said.
        reason: String,
    },
    /// The bucket is elsewhere.
    #[error(
        "{place} is in another region than the one configured ({reason}): set AWS_REGION to the bucket's region (which \
         AWS Lambda sets by itself: deploy the function there)"
    )]
    Region {
        /// Which object.
        place: String,
        /// What the store said.
        reason: String,
    },
    /// The object is not at hand.
    #[error("{place} is archived ({reason}): restore it, or copy it to another storage class")]
    Archived {
        /// Which object.
        place: String,
        /// What the store said.
        reason: String,
    },
    /// No region is configured.
    #[error("no AWS region is configured: set AWS_REGION, or AWS_ENDPOINT_URL for another S3 server")]
    NoRegion,
    /// The contents kept breaking off, or did not come in time.
    #[error("{place} could not be read whole in {attempts} attempts: {reason}")]
    Interrupted {
        /// Which object.
        place: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        reason: String,
    },
    /// Another failure of a request, after the retries.
    #[error("{place}: could not {action}: {reason}")]
    Request {
        /// Which object.
        place: String,
        /// The operation, as a verb with its object.
        action: &'static str,
        /// Whether another attempt may succeed.
        passes: bool,
        /// What the store or the network said.
        reason: String,
    },
    /// The file system refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

impl StoreError {
    /// Whether the store refuses the request as it is, so that it need not be tried again.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NoBucket { .. }
                | Self::Denied { .. }
                | Self::Region { .. }
                | Self::Archived { .. }
                | Self::Request { passes: false, .. }
        )
    }

    /// The same for whoever calls the scoring function: what the store or the network said may name accounts, roles and
    /// machines, and is for its log.
    #[must_use]
    pub fn for_callers(mut self) -> Self {
        if let Self::Credentials { reason, .. }
        | Self::Denied { reason, .. }
        | Self::Region { reason, .. }
        | Self::Archived { reason, .. }
        | Self::Interrupted { reason, .. }
        | Self::Request { reason, .. } = &mut self
        {
            "the log says more".clone_into(reason);
        }
        self
    }
}

/// A folder or a part of an S3 bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub enum ObjectStore {
    /// On this machine.
    Folder(FolderStore),
    /// In a bucket.
    S3(S3Store),
}

impl ObjectStore {
    /// The store at `location`, with what the environment says of credentials, region and endpoint.
    ///
    /// # Errors
    /// [`StoreError::NoRegion`]. Nothing is read or written yet.
    pub async fn connect(location: &Location) -> Result<Self, StoreError> {
        match location {
            Location::Folder(path) => Ok(Self::Folder(FolderStore::new(path.clone()))),
            Location::S3 { bucket, prefix } => Ok(Self::S3(S3Store::connect(bucket, prefix).await?)),
        }
    }

    /// The object at `key` with its contents, `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] before anything is read where it has more than `limit` bytes, and
    /// whatever keeps the store from answering. Contents that broke off are never handed out.
    pub async fn get(&self, key: &str, limit: u64) -> Result<Option<Object>, StoreError> {
        check_key(key)?;
        match self {
            Self::Folder(store) => store.get(key, limit).await,
            Self::S3(store) => store.get(key, limit).await,
        }
    }

    /// Size and time of the object at `key`, `None` where there is none.
    ///
    /// # Errors
    /// Whatever keeps the store from answering.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        check_key(key)?;
        match self {
            Self::Folder(store) => store.head(key).await,
            Self::S3(store) => store.head(key).await,
        }
    }

    /// Writes `bytes` to `key`, whole or not at all, and answers with the new etag.
    ///
    /// # Errors
    /// [`StoreError::ConditionFailed`] where `condition` does not hold. As a request can be repeated
    /// after an answer got lost, a caller who was refused should look whether it was its own write
    /// that went through.
    pub async fn put(&self, key: &str, bytes: Bytes, condition: Option<Condition>) -> Result<String, StoreError> {
        check_key(key)?;
        match self {
            Self::Folder(store) => store.put(key, bytes, condition).await,
            Self::S3(store) => store.put(key, bytes, condition).await,
        }
    }

    /// Writes the file at `from` to `key`, whole or not at all, replacing what is there; memory stays flat.
    ///
    /// # Errors
    /// Whatever keeps the file from being read or the store from answering.
    pub async fn upload(&self, key: &str, from: &Path) -> Result<(), StoreError> {
        check_key(key)?;
        match self {
            Self::Folder(store) => store.upload(key, from).await,
            Self::S3(store) => store.upload(key, from).await,
        }
    }

    /// Names of the folders directly under `prefix`, or in the store itself where that is empty; sorted. Common
    /// prefixes, in the terms of S3.
    ///
    /// # Errors
    /// Whatever keeps the store from answering; a folder that is not there has no folders.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        if !prefix.is_empty() {
            check_key(prefix)?;
        }
        match self {
            Self::Folder(store) => store.folders(prefix).await,
            Self::S3(store) => store.folders(prefix).await,
        }
    }

    /// Where `key` is, for messages.
    pub fn place(&self, key: &str) -> String {
        match self {
            Self::Folder(store) => store.path(key).display().to_string(),
            Self::S3(store) => store.place(key),
        }
    }
}

impl fmt::Display for ObjectStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(store) => write!(formatter, "{}", store.root().display()),
            Self::S3(store) => formatter.write_str(&store.place("")),
        }
    }
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder, which need not exist yet.
    Folder(PathBuf),
    /// The keys of a bucket that begin with a prefix.
    S3 {
        /// Name of the bucket.
        bucket: String,
        /// Names separated by single slashes; may be empty.
        prefix: String,
    },
}

impl Location {
    /// Reads `s3://BUCKET`, `s3://BUCKET/PREFIX` or the path of a folder.
    ///
    /// # Errors
    /// [`StoreError::Location`].
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let invalid = |reason| StoreError::Location {
            text: text.to_owned(),
            reason,
        };
        let Some(address) = text.strip_prefix("s3://") else {
            let scheme = text.get(..3).unwrap_or_default();
            return match text {
                "" => Err(invalid("it is empty")),
                _ if scheme.eq_ignore_ascii_case("s3:") => Err(invalid("an S3 address begins with s3://")),
                _ if text.contains("://") => Err(invalid("only s3:// addresses are known")),
                _ => Ok(Self::Folder(PathBuf::from(text))),
            };
        };
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() {
            return Err(invalid("it names no bucket"));
        }
        if !prefix.is_empty() && check_key(prefix).is_err() {
            return Err(invalid("its prefix is not made of names separated by single slashes"));
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// `time` as RFC 3339 in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::from(time)
        .fmt(DateTimeFormat::DateTimeWithOffset)
        .unwrap_or_default()
}

/// A key is made of names only, so that it cannot leave the root of a store.
fn check_key(key: &str) -> Result<(), StoreError> {
    let name = |part: &str| {
        !matches!(part, "" | "." | "..")
            && !part.starts_with(folder::RESERVED)
            && !part.contains(|letter: char| matches!(letter, '\\' | ':') || letter.is_control())
    };
    if key.split('/').all(name) {
        Ok(())
    } else {
        Err(StoreError::Key(key.to_owned()))
    }
}

/// Runs `work` where waiting for a disk or a lock holds nothing else up.
async fn off_the_executor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work)
        .await
        .map_err(JoinError::try_into_panic)
    {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Called off, which happens where the runtime ends, and whoever waits here with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_is_called_off_is_no_panic() {
        let ended = tokio::runtime::Runtime::new().expect("a runtime");
        let handle = ended.handle().clone();
        ended.shutdown_background();
        let mut waiting = Box::pin(off_the_executor(|| 1));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _inside = handle.enter();
        assert!(waiting.as_mut().poll(&mut context).is_pending());
    }

    #[test]
    fn callers_are_told_nothing_that_the_store_said() {
        let (place, reason) = (|| "s3://bucket/key".to_owned(), || "arn:aws:iam::1:role/r".to_owned());
        let errors = [
            StoreError::Credentials {
                place: place(),
                reason: reason(),
            },
            StoreError::Denied {
                place: place(),
                action: "read it",
                reason: reason(),
            },
            StoreError::Region {
                place: place(),
                reason: reason(),
            },
            StoreError::Archived {
                place: place(),
                reason: reason(),
            },
            StoreError::Interrupted {
                place: place(),
                attempts: 3,
                reason: reason(),
            },
            StoreError::Request {
                place: place(),
                action: "read it",
                passes: true,
                reason: reason(),
            },
        ];
        for error in errors {
            assert!(error.to_string().contains(&reason()), "{error}");
            let told = error.for_callers().to_string();
            assert!(told.contains(&place()) && !told.contains(&reason()), "{told}");
        }
    }

    #[test]
    fn a_function_is_not_only_told_to_set_what_lambda_sets() {
        let error = StoreError::Region {
            place: "s3://bucket/key".to_owned(),
            reason: "PermanentRedirect".to_owned(),
        };
        let told = error.for_callers().to_string();
        assert!(
            told.contains("set AWS_REGION") && told.contains("deploy the function"),
            "{told}"
        );
    }

    #[test]
    fn locations_are_buckets_or_folders() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (text, expected) in [
            ("s3://models", s3("models", "")),
            ("s3://models/", s3("models", "")),
            ("s3://models/a/b/", s3("models", "a/b")),
            ("./models", Location::Folder("./models".into())),
            ("/srv/models", Location::Folder("/srv/models".into())),
            ("./s3:", Location::Folder("./s3:".into())),
        ] {
            assert_eq!(Location::parse(text).expect(text), expected);
        }
        for text in [
            "",
            "s3://",
            "s3:///a",
            "s3://models//a",
            "s3://models/../a",
            "gs://models",
            "s3:/models",
            "s3:models",
            "S3://models",
        ] {
            assert!(
                matches!(Location::parse(text), Err(StoreError::Location { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn keys_stay_within_the_store() {
        for key in ["a", "a/b.json", "texture-v1/versions/0123/golden/1.jpg"] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        for key in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "./a",
            "a\\b",
            "c:/a",
            "a\n",
            ".ikat-live.json.lock",
        ] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_250);
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20.25Z");
    }
}
