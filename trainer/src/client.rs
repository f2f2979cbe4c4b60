//! Asks a deployed or local scorer for the scores of an image file, and measures the way there and back.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Largest image file that is sent; in base64 it is what a scorer takes over plain HTTP at most.
const MAX_FILE_BYTES: u64 = 24 << 20;

/// A scorer's address, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: reqwest::Url,
    http: reqwest::Client,
}

/// What the scorer said of one image, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallResult {
    /// Best class.
    pub label: String,
    /// Its probability, in `[0, 1]`.
    pub score: f64,
    /// `accepted` or `unknown`.
    pub decision: String,
    /// Probability of each class.
    pub scores: Map<String, Value>,
    /// Milliseconds that the scorer says it worked on the image.
    pub server_ms: f64,
    /// Milliseconds from sending the request to having the whole answer.
    pub round_trip_ms: f64,
    /// Version of the model that answered.
    pub model_version: String,
}

/// Why a scorer gave no scores.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("{endpoint:?} is not an endpoint ({reason}): give an address like http://127.0.0.1:9001/")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client cannot be set up on this machine.
    #[error("cannot set up the connection: {0}")]
    Setup(#[source] reqwest::Error),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any scorer takes.
    #[error("{path} has {bytes} bytes, more than the limit of {MAX_FILE_BYTES}: send a smaller image")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Nobody answered in time.
    #[error("{endpoint} did not answer in time: try again (the first request loads the model), or allow more time")]
    Timeout {
        /// Who was asked.
        endpoint: String,
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
    #[error("the scorer refused the image: {message} (status {status}, {code})")]
    Refused {
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
    /// a local invocation endpoint; `timeout` bounds a whole call.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] and [`ClientError::Setup`].
    pub fn new(endpoint: &str, timeout: Duration) -> Result<Self, ClientError> {
        let invalid = |reason: String| ClientError::Endpoint {
            endpoint: endpoint.to_owned(),
            reason,
        };
        let url = reqwest::Url::parse(endpoint).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(format!("the scheme is {}, not http or https", url.scheme())));
        }
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self { endpoint: url, http })
    }

    /// Has the image file at `path` scored.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call_file(&self, path: &Path) -> Result<CallResult, ClientError> {
        let failed = |source| ClientError::File {
            path: path.to_owned(),
            source,
        };
        let bytes = tokio::fs::metadata(path).await.map_err(failed)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(ClientError::TooLarge {
                path: path.to_owned(),
                bytes,
            });
        }
        let image = tokio::fs::read(path).await.map_err(failed)?;
        let body = json!({"image": base64::engine::general_purpose::STANDARD.encode(image)});

        let start = Instant::now();
        let response = self.http.post(self.endpoint.clone()).json(&body).send().await;
        let response = response.map_err(|error| self.unanswered(&error))?;
        let status = response.status().as_u16();
        let answer = response.bytes().await.map_err(|error| self.unanswered(&error))?;
        let round_trip_ms = start.elapsed().as_secs_f64() * 1000.0;
        self.read(status, &answer, round_trip_ms)
    }

    fn read(&self, status: u16, body: &[u8], round_trip_ms: f64) -> Result<CallResult, ClientError> {
        let answer: Value = match serde_json::from_slice(body) {
            Ok(answer) => answer,
            Err(error) if status == 200 => return Err(self.not_a_scorer(&error.to_string())),
            Err(_) => Value::Null,
        };
        // An invocation endpoint answers 200 whatever the function said; the function's status is inside.
        let inner = answer["statusCode"]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok());
        // A function that failed altogether is told of in this form.
        let failed = answer["errorMessage"].is_string().then_some(500);
        let status = inner.or(failed).unwrap_or(status);
        if status != 200 {
            let error = &answer["error"];
            let message = [
                &error["message"],
                &answer["message"],
                &answer["Message"],
                &answer["errorMessage"],
            ];
            let message = message.into_iter().find_map(Value::as_str);
            return Err(ClientError::Refused {
                status,
                code: error["code"].as_str().unwrap_or("unknown").to_owned(),
                message: message.unwrap_or("no reason given").to_owned(),
            });
        }
        result(&answer, round_trip_ms)
            .ok_or_else(|| self.not_a_scorer("the answer lacks label, score, decision, scores, model or timing_ms"))
    }

    fn not_a_scorer(&self, reason: &str) -> ClientError {
        ClientError::NotAScorer {
            endpoint: self.endpoint.to_string(),
            reason: reason.to_owned(),
        }
    }

    fn unanswered(&self, error: &reqwest::Error) -> ClientError {
        let endpoint = self.endpoint.to_string();
        if error.is_timeout() {
            return ClientError::Timeout { endpoint };
        }
        // The innermost cause is the one that tells refused from unresolved.
        let mut cause: &dyn Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ClientError::Unreachable {
            endpoint,
            reason: cause.to_string(),
        }
    }
}

fn result(answer: &Value, round_trip_ms: f64) -> Option<CallResult> {
    Some(CallResult {
        label: answer["label"].as_str()?.to_owned(),
        score: answer["score"].as_f64()?,
        decision: answer["decision"].as_str()?.to_owned(),
        scores: answer["scores"].as_object()?.clone(),
        server_ms: answer["timing_ms"]["total"].as_f64()?,
        round_trip_ms,
        model_version: answer["model"]["version"].as_str()?.to_owned(),
    })
}
