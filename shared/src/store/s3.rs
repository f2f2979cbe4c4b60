//! A store in an S3 bucket, of Amazon or of any server that speaks the same protocol.
//!
//! The SDK alone is not patient in the right places: it waits long for an answer that does not come, and
//! leaves it to the caller when a body breaks off halfway. So every attempt has its time ([`Patience`]),
//! and reading an object is one operation here, repeated as a whole until all its bytes have come.
//! Certificates are checked against the system's store, the default of the SDK's client.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::multipart::Contents;
use super::s3_error::{explain, is_not_found};
use super::{Condition, Object, ObjectInfo, Page, StoreError};
use crate::aws::Environment;
use crate::causes::chain;
use crate::files::{AtomicFile, at, hex};

/// What the environment calls it.
const SERVICE: &str = "S3";
/// Objects above this size, in bytes, go up in parts.
const MULTIPART_FROM: usize = 16 << 20;
/// What is expected of contents of unknown length, in bytes.
const LONGEST: u64 = 1 << 40;
/// Memory set aside for an object before its contents come, at most, in bytes: a promise is not yet an object.
const LARGEST_AT_ONCE: u64 = 64 << 20;
/// The longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long a request may take and how often it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// To reach the server.
    pub connect: Duration,
    /// From the request's last byte to the answer's first.
    pub answer: Duration,
    /// Between two pieces of an object's contents.
    pub stall: Duration,
    /// The slowest transfer that is waited for, in bytes per second.
    pub slowest: u64,
    /// How often an operation is tried in all.
    pub attempts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            slowest: 128 << 10,
            attempts: 3,
        }
    }
}

impl Patience {
    /// One attempt at an operation that moves `bytes`.
    fn attempt(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest.max(1))
    }

    /// Settings for a request with a body of `bytes`. Connect and read timeouts must not vary, as the
    /// SDK keeps a pool of connections for each value.
    fn settings(&self, bytes: u64) -> Builder {
        let attempt = self.attempt(bytes);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout((attempt + MAX_BACKOFF) * self.attempts.max(1))
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(self.attempts.max(1))
            .with_initial_backoff(Duration::from_millis(200))
            .with_max_backoff(MAX_BACKOFF);
        Builder::new().timeout_config(timeouts).retry_config(retries)
    }
}

/// The objects of a bucket whose keys begin with a prefix.
#[derive(Debug, Clone)]
pub struct S3Store {
    pub(super) client: Client,
    pub(super) bucket: String,
    prefix: String,
    patience: Patience,
}

/// Why one attempt at reading an object gave nothing.
enum Failure {
    /// Trying again may help.
    Passing(String),
    /// It will not.
    Lasting(StoreError),
}

impl S3Store {
    /// The store under `prefix` in `bucket`, with credentials, region and endpoint from the environment,
    /// the shared configuration files or the machine's role, as every AWS tool takes them.
    ///
    /// With another endpoint (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or a profile) the bucket goes
    /// into the path, and a missing region does not matter.
    ///
    /// # Errors
    /// [`StoreError::NoRegion`].
    pub async fn connect(bucket: &str, prefix: &str) -> Result<Self, StoreError> {
        let environment = Environment::load(SERVICE).await.ok_or(StoreError::NoRegion)?;
        let settings = Builder::from(&environment.settings).force_path_style(environment.elsewhere);
        Ok(Self::with_client(Client::from_conf(settings.build()), bucket, prefix))
    }

    /// The store under `prefix` in `bucket`, reached through `client`.
    pub fn with_client(client: Client, bucket: &str, prefix: &str) -> Self {
        Self {
            client,
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            patience: Patience::default(),
        }
    }

    /// The whole of another bucket, reached in the same way.
    #[must_use]
    pub fn in_bucket(&self, bucket: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: String::new(),
            ..self.clone()
        }
    }

    /// The object at `key`, or a `version` of it, as [`super::ObjectStore::get`] reads it; any key that S3 takes
    /// will do.
    ///
    /// # Errors
    /// As there.
    pub async fn object(&self, key: &str, version: Option<&str>, limit: u64) -> Result<Option<Object>, StoreError> {
        let mut attempt = 1;
        loop {
            match self.get_once(key, version, limit).await {
                Ok(object) => return Ok(object),
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
            attempt += 1;
        }
    }

    /// Writes the object at `key` to the file `to`, which appears whole or not at all; false where there is none.
    ///
    /// # Errors
    /// As [`super::ObjectStore::get`], and [`StoreError::File`].
    pub async fn download(&self, key: &str, to: &Path) -> Result<bool, StoreError> {
        let mut attempt = 1;
        loop {
            match self.download_once(key, to).await {
                Ok(found) => return Ok(found),
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
            attempt += 1;
        }
    }

    /// Up to a thousand of the objects whose keys begin with `prefix`, in the order of their keys, from where the page
    /// before ended. Any text will do as a prefix, as S3 takes it.
    ///
    /// # Errors
    /// Whatever keeps the store from answering.
    pub async fn page(&self, prefix: &str, after: Option<String>) -> Result<Page, StoreError> {
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.full_key(prefix))
            .set_continuation_token(after)
            .customize()
            .config_override(self.settings(0))
            .send()
            .await
            .map_err(|error| explain(self, prefix, "list it", &error))?;
        let keys = answer.contents().iter().filter_map(|object| {
            let key = object.key()?;
            let own = match self.prefix.as_str() {
                "" => Some(key),
                prefix => key.strip_prefix(prefix)?.strip_prefix('/'),
            };
            own.map(str::to_owned)
        });
        Ok(Page {
            keys: keys.collect(),
            next: answer.next_continuation_token.clone(),
        })
    }

    /// Waits before the attempt after the one with this number (from 1), which failed.
    ///
    /// # Errors
    /// Where another attempt is in vain or there were enough.
    async fn pause(&self, key: &str, attempt: u32, failure: Failure) -> Result<(), StoreError> {
        match failure {
            Failure::Lasting(error) => Err(error),
            Failure::Passing(reason) if attempt < self.patience.attempts => {
                tracing::warn!(place = self.place(key), reason, "reading broke off");
                let pause = Duration::from_millis(200) * 2_u32.saturating_pow(attempt - 1);
                tokio::time::sleep(pause.min(MAX_BACKOFF)).await;
                Ok(())
            }
            Failure::Passing(reason) => Err(StoreError::Interrupted {
                place: self.place(key),
                attempts: attempt,
                reason,
            }),
        }
    }

    /// The same store with other time limits.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The key within the bucket.
    pub(super) fn full_key(&self, key: &str) -> String {
        match self.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    pub(super) fn place(&self, key: &str) -> String {
        let address = format!("s3://{}/{}", self.bucket, self.full_key(key));
        address.trim_end_matches('/').to_owned()
    }

    /// Settings for a request with a body of `bytes`.
    pub(super) fn settings(&self, bytes: usize) -> Builder {
        self.patience.settings(bytes as u64)
    }

    pub(super) async fn get(&self, key: &str, limit: u64) -> Result<Option<Object>, StoreError> {
        self.object(key, None, limit).await
    }

    async fn get_once(&self, key: &str, version: Option<&str>, limit: u64) -> Result<Option<Object>, Failure> {
        let Some(answer) = self.request(key, version).await? else {
            return Ok(None);
        };
        let Some(etag) = answer.e_tag.clone() else {
            return Err(Failure::Passing("the answer has no etag".to_owned()));
        };
        let expected = promised(&answer).unwrap_or(0).min(limit).min(LARGEST_AT_ONCE);
        let mut bytes = Vec::with_capacity(expected as usize);
        let mut hash = Sha256::new();
        let take = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            hash.update(piece);
            Ok(())
        };
        self.receive(key, answer, limit, take).await?;
        Ok(Some(Object {
            bytes: bytes.into(),
            etag,
            sha256: hex(&hash.finalize()),
        }))
    }

    async fn download_once(&self, key: &str, to: &Path) -> Result<bool, Failure> {
        let Some(answer) = self.request(key, None).await? else {
            return Ok(false);
        };
        let failed = |error| Failure::Lasting(StoreError::File(at(to)(error)));
        let mut file = AtomicFile::create(to).map_err(failed)?;
        let mut broken = None;
        let take = |piece: &[u8]| file.write_all(piece).map_err(|error| broken = Some(error));
        let received = self.receive(key, answer, u64::MAX, take).await;
        if let Some(error) = broken {
            return Err(failed(error));
        }
        received?;
        file.finish().map_err(failed)?;
        Ok(true)
    }

    /// The answer with the object at `key`, its contents still to come.
    async fn request(&self, key: &str, version: Option<&str>) -> Result<Option<GetObjectOutput>, Failure> {
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .set_version_id(version.map(str::to_owned))
            .customize()
            .config_override(self.settings(0));
        match request.send().await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(Failure::Lasting(explain(self, key, "read it", &error))),
        }
    }

    /// Gives the whole body to `take`, piece by piece; stops where that fails.
    async fn receive(
        &self,
        key: &str,
        answer: GetObjectOutput,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), ()> + Send,
    ) -> Result<(), Failure> {
        let too_large = |size| {
            Failure::Lasting(StoreError::TooLarge {
                place: self.place(key),
                size,
                limit,
            })
        };
        let promised = promised(&answer);
        if let Some(size) = promised.filter(|&size| size > limit) {
            return Err(too_large(size));
        }
        let deadline = tokio::time::Instant::now() + self.patience.attempt(promised.unwrap_or(limit.min(LONGEST)));
        let mut received = 0;
        let mut body = answer.body;
        loop {
            let until = deadline.min(tokio::time::Instant::now() + self.patience.stall);
            match tokio::time::timeout_at(until, body.next()).await {
                Err(_) => {
                    return Err(Failure::Passing(format!(
                        "no more came after {received} bytes in the time allowed"
                    )));
                }
                Ok(Some(Err(error))) => return Err(Failure::Passing(chain(&error))),
                Ok(Some(Ok(piece))) => {
                    received += piece.len() as u64;
                    if received > limit {
                        return Err(too_large(received));
                    }
                    if take(&piece).is_err() {
                        return Err(Failure::Passing("it could not be kept".to_owned()));
                    }
                }
                Ok(None) => break,
            }
        }
        match promised {
            Some(size) if size != received => Err(Failure::Passing(format!("{received} of {size} bytes came"))),
            _ => Ok(()),
        }
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let found = self.look(key).await?;
        Ok(found.map(|answer| ObjectInfo {
            size: answer
                .content_length()
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or(0),
            modified: answer.last_modified().and_then(|time| SystemTime::try_from(*time).ok()),
        }))
    }

    /// All that the server tells of the object at `key` without its contents.
    pub(super) async fn look(&self, key: &str) -> Result<Option<HeadObjectOutput>, StoreError> {
        let request = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .customize()
            .config_override(self.settings(0));
        match request.send().await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(explain(self, key, "look at it", &error)),
        }
    }

    pub(super) async fn put(
        &self,
        key: &str,
        bytes: Bytes,
        condition: Option<Condition>,
    ) -> Result<String, StoreError> {
        if bytes.len() > MULTIPART_FROM {
            return self.put_in_parts(key, &Contents::Memory(bytes), condition).await;
        }
        let (if_match, if_none_match) = condition_headers(condition);
        let size = bytes.len();
        let answer = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(self.settings(size))
            .send()
            .await
            .map_err(|error| explain(self, key, "write it", &error))?;
        Ok(answer.e_tag.unwrap_or_default())
    }

    /// Writes the file at `from` to `key`, whole or not at all, without holding all of it in memory.
    pub(super) async fn upload(&self, key: &str, from: &Path) -> Result<(), StoreError> {
        let size = tokio::fs::metadata(from).await.map_err(at(from))?.len();
        if size <= MULTIPART_FROM as u64 {
            let bytes = tokio::fs::read(from).await.map_err(at(from))?;
            return self.put(key, bytes.into(), None).await.map(drop);
        }
        let contents = Contents::File {
            path: from.to_path_buf(),
            size: usize::try_from(size).unwrap_or(usize::MAX),
        };
        self.put_in_parts(key, &contents, None).await.map(drop)
    }

    pub(super) async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let full = match self.full_key(prefix).trim_end_matches('/') {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let mut names = Vec::new();
        let mut token = None;
        loop {
            let answer = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&full)
                .delimiter("/")
                .set_continuation_token(token)
                .customize()
                .config_override(self.settings(0))
                .send()
                .await
                .map_err(|error| explain(self, prefix, "list it", &error))?;
            for folder in answer.common_prefixes() {
                let name = folder.prefix().and_then(|folder| folder.strip_prefix(&full));
                names.extend(name.map(|name| name.trim_end_matches('/').to_owned()));
            }
            token = answer.next_continuation_token;
            if token.is_none() {
                names.sort();
                return Ok(names);
            }
        }
    }
}

/// The length that an answer announces, in bytes.
fn promised(answer: &GetObjectOutput) -> Option<u64> {
    answer.content_length().and_then(|length| u64::try_from(length).ok())
}

/// `If-Match` and `If-None-Match`.
pub(super) fn condition_headers(condition: Option<Condition>) -> (Option<String>, Option<String>) {
    match condition {
        None => (None, None),
        Some(Condition::Absent) => (None, Some("*".to_owned())),
        Some(Condition::Unchanged(etag)) => (Some(etag), None),
    }
}
