//! Amazon S3 Batch Operations, invocation schemas 1.0 and 2.0: tasks that each name an object, a result code for
//! each in the answer.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html>

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::service::{Answer, Item, S3Reference, ServiceError};

/// Most characters of a result: the report of a job holds no more.
const MAX_RESULT: usize = 1000;

/// An invocation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Invocation {
    #[serde(rename = "invocationSchemaVersion")]
    schema_version: String,
    #[serde(rename = "invocationId")]
    id: String,
    tasks: Vec<Task>,
}

/// An object to work on.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    #[serde(rename = "taskId")]
    id: String,
    /// As in the manifest: URL-encoded.
    s3_key: String,
    s3_version_id: Option<String>,
    /// In schema 1.0.
    s3_bucket_arn: Option<String>,
    /// In schema 2.0.
    s3_bucket: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    invocation_schema_version: &'a str,
    treat_missing_keys_as: &'static str,
    invocation_id: &'a str,
    results: Vec<TaskResult<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskResult<'a> {
    task_id: &'a str,
    result_code: &'static str,
    result_string: String,
}

impl Invocation {
    /// Whether an event is one.
    pub(super) fn is(event: &Value) -> bool {
        event["invocationSchemaVersion"].is_string() && event["tasks"].is_array()
    }

    pub(super) fn items(&self) -> Vec<Result<Item, ServiceError>> {
        self.tasks.iter().map(Task::item).collect()
    }

    /// The answer, given one result for each task, or what is wrong with all of them.
    pub(super) fn response(&self, outcome: Result<Vec<Result<Answer, ServiceError>>, ServiceError>) -> String {
        let outcomes = outcome.unwrap_or_else(|error| vec![Err(error); self.tasks.len()]);
        let results = self.tasks.iter().zip(&outcomes).map(|(task, outcome)| TaskResult {
            task_id: &task.id,
            result_code: match outcome {
                Ok(_) => "Succeeded",
                Err(error) if error.code.is_passing() => "TemporaryFailure",
                Err(_) => "PermanentFailure",
            },
            result_string: match outcome {
                Ok(answer) => short(answer),
                Err(error) => format!("{}: {}", error.code.name(), error.message)
                    .chars()
                    .take(MAX_RESULT)
                    .collect(),
            },
        });
        let response = Response {
            invocation_schema_version: &self.schema_version,
            // A task without a result was never begun.
            treat_missing_keys_as: "TemporaryFailure",
            invocation_id: &self.id,
            results: results.collect(),
        };
        serde_json::to_string(&response).unwrap_or_default()
    }
}

impl Task {
    fn item(&self) -> Result<Item, ServiceError> {
        let arn = self.s3_bucket_arn.as_deref();
        let bucket = arn.and_then(|arn| arn.rsplit(':').next()).or(self.s3_bucket.as_deref());
        let key = self.s3_key.replace('+', " ");
        let key = percent_decode_str(&key)
            .decode_utf8()
            .map_err(|_| ServiceError::bad_request("the key is not valid UTF-8"))?;
        let reference = S3Reference::new(bucket.unwrap_or_default(), &key)?;
        Ok(Item::Reference(S3Reference {
            version: self.s3_version_id.clone().filter(|version| !version.is_empty()),
            ..reference
        }))
    }
}

/// An answer without its scores, which a report has no room for.
fn short(answer: &Answer) -> String {
    json!({
        "label": answer.label,
        "score": answer.score,
        "decision": answer.decision,
        "version": answer.model.version,
    })
    .to_string()
    .chars()
    .take(MAX_RESULT)
    .collect()
}
