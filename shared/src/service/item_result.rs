//! What came out for one of many images that are scored in a row, by whoever scores them.

use serde::Serialize;
use serde_json::Value;

use super::{Answer, ServiceError};

/// One image of a batch and what came out for it: the line of a batch's results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ItemResult {
    /// The image's place; the item as it came where it has none.
    pub item: Value,
    /// Its scores, or why there are none.
    #[serde(flatten)]
    pub outcome: ItemOutcome,
}

/// Scores, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ItemOutcome {
    /// Scores.
    Answer(Box<Answer>),
    /// Why there are none.
    Error {
        /// As the scoring function would say it.
        error: ServiceError,
        /// Whether the same item may be answered later.
        passing: bool,
    },
}

impl ItemResult {
    /// The line for `item`.
    pub fn new(item: Value, outcome: Result<Answer, ServiceError>) -> Self {
        let outcome = match outcome {
            Ok(answer) => ItemOutcome::Answer(Box::new(answer)),
            Err(error) => ItemOutcome::Error {
                passing: error.code.is_passing(),
                error,
            },
        };
        Self { item, outcome }
    }
}
