//! Batches of a Step Functions Distributed Map: `{"BatchInput": {...}, "Items": [...]}`.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/dg/input-output-itembatcher.html>. Items are what the map's
//! reader makes of a manifest or a listing: `"s3://bucket/key"`, `{"s3": "s3://bucket/key"}`,
//! `{"bucket": "...", "key": "..."}`, `{"Key": "..."}` of a listing with the bucket in the batch input, or
//! `{"image": "<base64>"}`.

use std::num::NonZero;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use shared::service::{Answer, Item, ItemOutcome, ItemResult, S3Reference, ServiceError};

/// What a state takes of an answer, 256 KiB, less room for what Step Functions puts around it.
const MAX_BYTES: usize = (256 - 16) << 10;

/// A batch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Batch {
    #[serde(default)]
    batch_input: Option<BatchInput>,
    #[serde(deserialize_with = "images")]
    items: Vec<Value>,
}

/// What holds for all items.
#[derive(Debug, Default, Deserialize)]
struct BatchInput {
    /// The bucket of items that do not name one.
    #[serde(alias = "Bucket")]
    bucket: Option<String>,
    /// Scores of so many of the likeliest classes alone.
    top_k: Option<NonZero<usize>>,
}

/// The items of a batch, less what a listing has for folders.
fn images<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    let mut items = Vec::<Value>::deserialize(deserializer)?;
    items.retain(|item| !S3Reference::is_folder(item));
    Ok(items)
}

#[derive(Debug, Serialize)]
struct Response {
    results: Vec<ItemResult>,
    succeeded: usize,
    failed: usize,
}

impl Response {
    /// As text, with the scores of the likeliest classes alone where those of all are more than a state takes.
    fn write(&mut self) -> String {
        let mut text = self.to_json();
        let mut most = self.answers().map(|answer| answer.scores.len()).max().unwrap_or(0);
        while text.len() > MAX_BYTES && most > 1 {
            most = (most * MAX_BYTES / text.len()).clamp(1, most - 1);
            for answer in self.answers().filter(|answer| answer.scores.len() > most) {
                answer.scores.truncate(most);
                answer.warnings = vec![format!(
                    "scores of the {most} likeliest classes alone: AWS Step Functions carries no more for a batch of so \
                     many images"
                )];
            }
            text = self.to_json();
        }
        text
    }

    fn answers(&mut self) -> impl Iterator<Item = &mut Answer> {
        self.results.iter_mut().filter_map(|result| match &mut result.outcome {
            ItemOutcome::Answer(answer) => Some(answer.as_mut()),
            ItemOutcome::Error { .. } => None,
        })
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Batch {
    /// Whether an event is one.
    pub(super) fn is(event: &Value) -> bool {
        event["Items"].is_array()
    }

    /// How many scores each answer has; all where `None`.
    pub(super) fn top_k(&self) -> Option<usize> {
        self.batch_input.as_ref()?.top_k.map(NonZero::get)
    }

    pub(super) fn items(&self) -> Vec<Result<Item, ServiceError>> {
        self.items.iter().map(|item| self.item(item)).collect()
    }

    fn item(&self, item: &Value) -> Result<Item, ServiceError> {
        let common = self.batch_input.as_ref().and_then(|input| input.bucket.as_deref());
        if let Some(reference) = S3Reference::of_item(item, common) {
            return reference.map(Item::Reference);
        }
        item["image"].as_str().map_or_else(
            || {
                Err(ServiceError::bad_request(
                    "the item names no image: give s3, bucket and key, or image",
                ))
            },
            Item::read,
        )
    }

    /// The answer, given one result for each of `items`.
    ///
    /// # Errors
    /// The fault that all items share and that may pass, so that the state machine tries the batch again.
    pub(super) fn response(
        &self,
        items: &[Result<Item, ServiceError>],
        outcome: Result<Vec<Result<Answer, ServiceError>>, ServiceError>,
    ) -> Result<String, ServiceError> {
        let outcomes = outcome?;
        let passing = |outcome: &Result<_, ServiceError>| matches!(outcome, Err(error) if error.code.is_passing());
        if let Some(Err(error)) = outcomes.first().filter(|_| outcomes.iter().all(passing)) {
            return Err(error.clone());
        }
        let succeeded = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let results = outcomes.into_iter().zip(&self.items).zip(items);
        let mut response = Response {
            failed: self.items.len() - succeeded,
            succeeded,
            results: results
                .map(|((outcome, raw), item)| {
                    let item = match item {
                        Ok(Item::Reference(reference)) => reference.to_string().into(),
                        Ok(Item::Bytes(_)) => Value::Null,
                        Err(_) => raw.clone(),
                    };
                    ItemResult::new(item, outcome)
                })
                .collect(),
        };
        Ok(response.write())
    }
}
