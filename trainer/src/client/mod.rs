//! Asks a deployed or local scorer for the scores of image files, and measures the way there and back.

mod answer;
mod load;
mod signing;
mod statistics;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{StatusCode, Url};
use serde_json::json;

use crate::image_reader::instead_of_folder;
use crate::web_answers::innermost;

pub use answer::CallResult;
pub use load::{Call, Load, Outcome, call_all};
pub use signing::{Signer, region_of_function_url};
pub use statistics::{Percentiles, Summary};

/// Largest image file that is sent: in base64 and with what is around it, it is what a scorer takes over plain HTTP at
/// most.
const MAX_FILE_BYTES: u64 = ((32 << 20) - r#"{"image":""}"#.len() as u64) / 4 * 3;

/// A scorer's address, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Url,
    /// Of every request.
    headers: HeaderMap,
    http: reqwest::Client,
    signer: Option<Signer>,
}

/// A request that can be sent any number of times.
#[derive(Debug, Clone)]
pub struct Prepared(Bytes);

/// Why a scorer gave no scores. What is wrong with a file does not say with which: whoever asks knows that.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A signature needs a region.
    #[error("cannot tell the region of {endpoint}: name it with --region, or set AWS_REGION")]
    NoRegion {
        /// Who was to be asked.
        endpoint: String,
    },
    /// A signature needs credentials.
    #[error(
        "there are no AWS credentials to sign with ({reason}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
         choose a profile with AWS_PROFILE"
    )]
    NoCredentials {
        /// What the last place to look said.
        reason: String,
    },
    /// The request could not be signed.
    #[error("cannot sign the request: {0}")]
    Signature(String),
    /// The client cannot be set up on this machine.
    #[error("cannot set up the connection: {0}")]
    Setup(#[source] reqwest::Error),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// It is no file.
    #[error("{}", instead_of_folder(.0))]
    Folder(PathBuf),
    /// There is nothing in it.
    #[error("it is empty: send an image")]
    Empty,
    /// The file is larger than any scorer takes.
    #[error("it has {0} bytes, more than the limit of {MAX_FILE_BYTES}: send a smaller image")]
    TooLarge(u64),
    /// Nobody answered in time.
    #[error("{endpoint} did not answer in time: try again (the first request loads the model), or allow more time")]
    Timeout {
        /// Who was asked.
        endpoint: String,
    },
    /// There was a connection, and it ended before the answer did.
    #[error(
        "{endpoint} broke the connection off before it had answered ({reason}): try again, and read the scorer's log"
    )]
    BrokenOff {
        /// Who was asked.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// There is no connection.
    #[error("cannot reach {endpoint} ({reason}): check the address, and that the scorer runs")]
    Unreachable {
        /// Who was asked.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// The scorer, or what stands before it, refused the request.
    #[error("the scorer refused the request: {message} (status {status}, {code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The error's stable name; `unknown` where the answer holds none.
        code: String,
        /// What it said.
        message: String,
    },
    /// The scorer, or what stands before it, is at fault, and the request is not.
    #[error("the scorer could not answer: {message} (status {status}, {code})")]
    Failed {
        /// HTTP status.
        status: u16,
        /// The error's stable name; `unknown` where the answer holds none.
        code: String,
        /// What it said.
        message: String,
    },
    /// The answer is none of a scorer's.
    #[error("{endpoint} answered, but not like a scorer ({reason}): check the address")]
    NotAScorer {
        /// Who was asked.
        endpoint: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl Client {
    /// A client for the scorer at `endpoint`, which may be a function URL, a scorer that listens, or
    /// a local invocation endpoint; `timeout` bounds a whole call. A name and a password in the address go into a
    /// header (basic authentication).
    ///
    /// # Errors
    /// [`ClientError::Setup`].
    pub fn new(endpoint: Url, timeout: Duration) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(Policy::custom(with_its_body))
            .build()
            .map_err(ClientError::Setup)?;
        // This takes the password out of the address, which messages repeat.
        let request = http
            .post(endpoint)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self {
            endpoint: request.url().clone(),
            headers: request.headers().clone(),
            http,
            signer: None,
        })
    }

    /// The same client, with a signature in every request.
    #[must_use]
    pub fn signed(self, signer: Signer) -> Self {
        Self {
            signer: Some(signer),
            ..self
        }
    }

    /// Where requests go.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Reads the image file at `path` into a request.
    ///
    /// # Errors
    /// [`ClientError::File`], [`ClientError::Folder`], [`ClientError::Empty`] and [`ClientError::TooLarge`].
    pub async fn prepare(path: &Path) -> Result<Prepared, ClientError> {
        let found = tokio::fs::metadata(path).await?;
        if found.is_dir() {
            return Err(ClientError::Folder(path.to_owned()));
        }
        let bytes = found.len();
        if bytes > MAX_FILE_BYTES {
            return Err(ClientError::TooLarge(bytes));
        }
        let image = tokio::fs::read(path).await?;
        if image.is_empty() {
            return Err(ClientError::Empty);
        }
        let body = json!({"image": base64::engine::general_purpose::STANDARD.encode(image)});
        Ok(Prepared(body.to_string().into()))
    }

    /// Sends a request and reads its answer. The first call pays for the connection too.
    pub async fn call(&self, Prepared(body): Prepared) -> Result<CallResult, ClientError> {
        let mut request = reqwest::Request::new(reqwest::Method::POST, self.endpoint.clone());
        request.headers_mut().clone_from(&self.headers);
        if let Some(signer) = &self.signer {
            signer.sign(&mut request, &body)?;
        }
        *request.body_mut() = Some(body.into());

        let start = Instant::now();
        let response = self.http.execute(request).await;
        let response = response.map_err(|error| self.unanswered(&error))?;
        if response.status().is_redirection()
            && let Some(place) = response.headers().get(LOCATION)
        {
            return Err(ClientError::Unreachable {
                endpoint: self.endpoint.to_string(),
                reason: format!("it leads on to {}", String::from_utf8_lossy(place.as_bytes())),
            });
        }
        let status = response.status().as_u16();
        let answer = response.bytes().await.map_err(|error| self.unanswered(&error))?;
        let round_trip_ms = start.elapsed().as_secs_f64() * 1000.0;
        answer::read(&self.endpoint, status, &answer, round_trip_ms)
    }

    fn unanswered(&self, error: &reqwest::Error) -> ClientError {
        let endpoint = self.endpoint.to_string();
        if error.is_timeout() {
            return ClientError::Timeout { endpoint };
        }
        let reason = innermost(error);
        // Who sends in circles was never the scorer.
        if error.is_connect() || error.is_redirect() {
            ClientError::Unreachable { endpoint, reason }
        } else {
            ClientError::BrokenOff { endpoint, reason }
        }
    }
}

/// Follows what asks for the same request elsewhere. The other kinds (301 to 303) make one without an image of it,
/// which a scorer refuses for a reason that would mislead.
fn with_its_body(attempt: Attempt<'_>) -> Action {
    match attempt.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => Policy::default().redirect(attempt),
        _ => attempt.stop(),
    }
}

impl ClientError {
    /// A stable name to count by: the scorer's own where it gave one.
    pub fn code(&self) -> &str {
        match self {
            Self::Setup(_) => "endpoint",
            Self::NoRegion { .. } | Self::NoCredentials { .. } | Self::Signature(_) => "signature",
            Self::File(_) | Self::Folder(_) | Self::Empty | Self::TooLarge(_) => "file",
            Self::Timeout { .. } => "timeout",
            Self::BrokenOff { .. } => "broken_off",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { code, .. } | Self::Failed { code, .. } => code,
            Self::NotAScorer { .. } => "not_a_scorer",
        }
    }
}
