//! What scorers, and what stands before them, answer.

use reqwest::Url;
use serde::Serialize;
use serde_json::{Map, Value};

use super::ClientError;

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

/// Reads an answer of a scorer, in whichever of its forms.
///
/// # Errors
/// [`ClientError::Refused`], [`ClientError::Failed`] and [`ClientError::NotAScorer`].
pub(super) fn read(endpoint: &Url, status: u16, body: &[u8], round_trip_ms: f64) -> Result<CallResult, ClientError> {
    let not_a_scorer = |reason: &str| ClientError::NotAScorer {
        endpoint: endpoint.to_string(),
        reason: reason.to_owned(),
    };
    let answer: Value = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) if status == 200 => return Err(not_a_scorer(&error.to_string())),
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
            // The form of the Open Inference Protocol.
            error,
            &answer["message"],
            &answer["Message"],
            &answer["errorMessage"],
        ];
        let message = message.into_iter().find_map(Value::as_str);
        // A scorer says why, and so does what AWS puts before one: this is another server.
        if message.is_none() && matches!(status, 404 | 405) {
            return Err(not_a_scorer(&format!("status {status}")));
        }
        let code = match status {
            // What stands before a function says no more than this.
            401 | 403 => "forbidden",
            _ => "unknown",
        };
        let code = error["code"].as_str().unwrap_or(code).to_owned();
        let message = message.unwrap_or("no reason given").to_owned();
        return Err(if status >= 500 {
            ClientError::Failed { status, code, message }
        } else {
            ClientError::Refused { status, code, message }
        });
    }
    result(&answer, round_trip_ms)
        .ok_or_else(|| not_a_scorer("the answer lacks label, score, decision, scores, model or timing_ms"))
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
