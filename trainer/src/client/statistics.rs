//! Many calls in a few numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Call, CallResult, Outcome};

/// How long calls took, in milliseconds. Percentiles are by nearest rank: each is the time of a real call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten took at most so long.
    pub p90: f64,
    /// 99 of 100 took at most so long.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// What came of many calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// How many calls were made.
    pub calls: usize,
    /// How many of them were answered with a label.
    pub answered: usize,
    /// How many failed, for each error's stable name.
    pub errors: BTreeMap<String, usize>,
    /// How many answers each version of the model gave.
    pub versions: BTreeMap<String, usize>,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// Answered calls in each second.
    pub per_second: f64,
    /// From sending a request to having its answer; `None` where no call was answered.
    pub round_trip_ms: Option<Percentiles>,
    /// What the scorer says it worked.
    pub server_ms: Option<Percentiles>,
    /// What is left of each round trip: network, signature check, queues, start of instances.
    pub around_ms: Option<Percentiles>,
}

impl Percentiles {
    /// Those of `values`, in any order; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (percent * values.len()).div_ceil(100);
            values.get(rank.max(1) - 1).copied()
        };
        Some(Self {
            p50: rank(50)?,
            p90: rank(90)?,
            p99: rank(99)?,
            max: *values.last()?,
        })
    }
}

impl Summary {
    /// The summary of calls that took `duration` in all.
    pub fn of(calls: &[Call], duration: Duration) -> Self {
        let mut errors = BTreeMap::new();
        let mut versions = BTreeMap::new();
        let mut answers: Vec<&CallResult> = Vec::new();
        for call in calls {
            match &call.outcome {
                Outcome::Answer(answer) => {
                    *versions.entry(answer.model_version.clone()).or_default() += 1;
                    answers.push(answer);
                }
                Outcome::Error { code, .. } => *errors.entry(code.clone()).or_default() += 1,
            }
        }
        let percentiles = |value: fn(&CallResult) -> f64| Percentiles::of(answers.iter().map(|answer| value(answer)));
        let seconds = duration.as_secs_f64();
        Self {
            calls: calls.len(),
            answered: answers.len(),
            errors,
            versions,
            seconds,
            per_second: answers.len() as f64 / seconds.max(f64::MIN_POSITIVE),
            round_trip_ms: percentiles(|answer| answer.round_trip_ms),
            server_ms: percentiles(|answer| answer.server_ms),
            around_ms: percentiles(|answer| answer.round_trip_ms - answer.server_ms),
        }
    }
}
