//! One line a request: what was asked, what came out, where the time went; and the same as metrics.
//!
//! A line is a JSON object. Where metrics are wanted it is at the same time a document of CloudWatch's embedded
//! metric format, which turns log lines into metrics without a call. Of an image there is its hash and its size.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};
use shared::classifier::Decision;
use shared::service::{Milliseconds, Record, Scored};
use shared::store::rfc3339;

use crate::origin::Origin;

/// Images that a line tells of one by one; of more it tells the number.
const MAX_IMAGES: usize = 64;
/// The most values that a metric may have in one document.
const MAX_VALUES: usize = 100;

/// Where lines go, and what else they are.
#[derive(Debug, Clone)]
pub struct Log {
    /// The namespace of the metrics; `None` where none are wanted.
    namespace: Option<String>,
}

/// What a request asked for and got.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Path.
    pub path: &'a str,
    /// Size of the request's body, where it is known.
    pub bytes: Option<usize>,
    /// HTTP status, or what stands for it.
    pub status: u16,
    /// From when the request was read to the answer.
    pub duration: Duration,
    /// What came of each image.
    pub records: &'a [Record],
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    request_id: &'a str,
    carrier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    status: u16,
    milliseconds: f64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    images: &'a [Image<'a>],
    #[serde(flatten)]
    metrics: Value,
}

/// What a line says of an image.
#[derive(Serialize)]
struct Image<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timing_ms: Option<Milliseconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

impl<'a> From<&'a Record> for Image<'a> {
    fn from(record: &'a Record) -> Self {
        let scored = record.outcome.as_ref().ok();
        Self {
            sha256: record.sha256.as_deref(),
            bytes: record.bytes,
            version: record.model.as_ref().map(|model| model.version.as_str()),
            label: scored.map(|scored| scored.label.as_str()),
            score: scored.map(|scored| scored.score),
            decision: scored.map(|scored| scored.decision.name()),
            timing_ms: scored.map(|scored| scored.timing),
            error: record.outcome.as_ref().err().map(|code| code.name()),
        }
    }
}

impl Log {
    /// Lines that are metrics of `namespace` too, where there is one.
    pub fn new(namespace: Option<String>) -> Self {
        Self { namespace }
    }

    /// Writes the line of a request. What is said of other things does not decide about metrics.
    pub fn write(&self, origin: &Origin, exchange: &Exchange) {
        if self.namespace.is_none() && !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let now = SystemTime::now();
        for line in self.lines(origin, exchange, now) {
            put(&line);
        }
    }

    /// Counts a version that was refused, of what was published as `model`, where that is known.
    pub fn refused(&self, model: Option<&str>) {
        if let Some(line) = self.refusal(model, SystemTime::now()) {
            put(&line.to_string());
        }
    }

    fn refusal(&self, model: Option<&str>, now: SystemTime) -> Option<Value> {
        let namespace = self.namespace.as_ref()?;
        let directives = [directive(
            namespace,
            &json!([["model"]]),
            &json!([count("RefusedVersions")]),
        )];
        let mut line = embedded(now, &directives);
        line["message"] = "a version was refused".into();
        line["timestamp"] = rfc3339(now).into();
        line["level"] = "ERROR".into();
        line["model"] = dimension(model.unwrap_or("unknown")).into();
        line["RefusedVersions"] = 1.into();
        Some(line)
    }

    /// The request's line, and where its images got more than one label or version one more for each, as a metric
    /// has one value for each dimension in a line.
    fn lines(&self, origin: &Origin, exchange: &Exchange, now: SystemTime) -> Vec<String> {
        let milliseconds = exchange.duration.as_micros() as f64 / 1000.0;
        let images: Vec<Image> = exchange.records.iter().take(MAX_IMAGES).map(Image::from).collect();
        let groups = groups(exchange.records);
        let mut metrics = json!({});
        let mut further = Vec::new();
        if let Some(namespace) = &self.namespace {
            let mut directives = vec![directive(
                namespace,
                &json!([["carrier"]]),
                &json!([{ "Name": "Duration", "Unit": "Milliseconds" }, count("Images"), count("FailedImages"), count("ClientErrors"), count("ServerErrors")]),
            )];
            let mut members = json!({
                "Duration": milliseconds,
                "Images": exchange.records.len(),
                "FailedImages": exchange.records.iter().filter(|record| record.outcome.is_err()).count(),
                "ClientErrors": u8::from((400..500).contains(&exchange.status)),
                "ServerErrors": u8::from(exchange.status >= 500),
            });
            if let [group] = groups.as_slice() {
                directives.push(Group::directive(namespace));
                merge(&mut members, group.members());
            } else {
                further = groups
                    .iter()
                    .map(|group| group.line(namespace, now, &origin.request_id))
                    .collect();
            }
            metrics = embedded(now, &directives);
            merge(&mut metrics, members);
        }
        if exchange.records.len() > MAX_IMAGES {
            metrics["images_not_listed"] = (exchange.records.len() - MAX_IMAGES).into();
        }
        let line = Line {
            timestamp: rfc3339(now),
            level: "INFO",
            message: "answered",
            request_id: &origin.request_id,
            carrier: origin.carrier,
            trace_id: origin.trace.as_ref().map(|trace| trace.trace_id.as_str()),
            parent_id: origin.trace.as_ref().map(|trace| trace.parent_id.as_str()),
            method: exchange.method,
            path: exchange.path,
            bytes: exchange.bytes,
            status: exchange.status,
            milliseconds,
            images: &images,
            metrics,
        };
        std::iter::once(serde_json::to_string(&line).unwrap_or_default())
            .chain(further)
            .collect()
    }
}

/// The images of a request that one version gave one label: what drift is noticed by.
struct Group<'a> {
    model: &'a str,
    version: &'a str,
    label: &'a str,
    scored: Vec<&'a Scored>,
}

fn groups(records: &[Record]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(&str, &str, &str), Vec<&Scored>> = BTreeMap::new();
    for record in records {
        if let (Some(model), Ok(scored)) = (&record.model, &record.outcome) {
            let key = (model.name.as_str(), model.version.as_str(), scored.label.as_str());
            groups.entry(key).or_default().push(scored);
        }
    }
    let group = |((model, version, label), scored)| Group {
        model,
        version,
        label,
        scored,
    };
    groups.into_iter().map(group).collect()
}

impl Group<'_> {
    fn directive(namespace: &str) -> Value {
        directive(
            namespace,
            &json!([["model", "label"], ["model", "version"]]),
            &json!([count("Predictions"), count("Unknown"), { "Name": "Confidence", "Unit": "None" }]),
        )
    }

    fn members(&self) -> Value {
        let unknown = self
            .scored
            .iter()
            .filter(|scored| scored.decision == Decision::Unknown)
            .count();
        let confidence: Vec<f32> = self.scored.iter().map(|scored| scored.score).take(MAX_VALUES).collect();
        json!({
            "model": dimension(self.model),
            "version": self.version,
            "label": dimension(self.label),
            "Predictions": self.scored.len(),
            "Unknown": unknown,
            "Confidence": confidence,
        })
    }

    fn line(&self, namespace: &str, now: SystemTime, request_id: &str) -> String {
        let mut line = embedded(now, &[Self::directive(namespace)]);
        merge(&mut line, self.members());
        line["timestamp"] = rfc3339(now).into();
        line["level"] = "INFO".into();
        line["message"] = "predicted".into();
        line["request_id"] = request_id.into();
        line.to_string()
    }
}

/// `text` as the value of a dimension, of which CloudWatch takes ASCII alone: other characters as `\u{e4}`.
///
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html>
fn dimension(text: &str) -> String {
    let is_taken = |letter: char| letter == ' ' || letter.is_ascii_graphic();
    let mut value = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_taken(letter) {
            value.push(letter);
        } else {
            value.extend(letter.escape_unicode());
        }
    }
    value
}

fn count(name: &str) -> Value {
    json!({ "Name": name, "Unit": "Count" })
}

fn directive(namespace: &str, dimensions: &Value, metrics: &Value) -> Value {
    json!({ "Namespace": namespace, "Dimensions": dimensions, "Metrics": metrics })
}

fn embedded(now: SystemTime, directives: &[Value]) -> Value {
    let milliseconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    json!({ "_aws": { "Timestamp": milliseconds, "CloudWatchMetrics": directives } })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// One write, so that lines of several threads do not mix.
fn put(line: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::classifier::Decision;
    use shared::service::{ErrorCode, Model};

    use crate::origin::Trace;

    fn record(label: &str, version: &str) -> Record {
        let timing = Milliseconds {
            decode: 1.0,
            preprocess: 2.0,
            network: 3.0,
            classify: 0.5,
            total: 6.5,
        };
        Record {
            sha256: Some("ab".repeat(32)),
            bytes: 700,
            model: Some(Model {
                name: "textures".to_owned(),
                version: version.to_owned(),
            }),
            outcome: Ok(Scored {
                label: label.to_owned(),
                score: 0.75,
                decision: if label == "odd" {
                    Decision::Unknown
                } else {
                    Decision::Accepted
                },
                timing,
            }),
        }
    }

    fn lines(namespace: Option<&str>, records: &[Record]) -> Vec<Value> {
        let origin = Origin {
            request_id: "7".to_owned(),
            carrier: "http",
            trace: Trace::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        };
        let exchange = Exchange {
            method: "POST",
            path: "/",
            bytes: Some(1000),
            status: 200,
            duration: Duration::from_micros(7250),
            records,
        };
        let lines = Log::new(namespace.map(str::to_owned)).lines(&origin, &exchange, UNIX_EPOCH);
        lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Every metric and dimension that a document names must be a member of it.
    fn assert_embedded(line: &Value) {
        for directive in line["_aws"]["CloudWatchMetrics"].as_array().expect("directives") {
            for metric in directive["Metrics"].as_array().expect("metrics") {
                let member = &line[metric["Name"].as_str().expect("a name")];
                assert!(member.is_number() || member.is_array(), "{metric} in {line}");
            }
            for dimension in directive["Dimensions"]
                .as_array()
                .expect("sets")
                .iter()
                .filter_map(Value::as_array)
                .flatten()
            {
                assert!(
                    line[dimension.as_str().expect("a name")].is_string(),
                    "{dimension} in {line}"
                );
            }
        }
    }

    #[test]
    fn a_line_tells_everything_but_the_image() {
        let lines = lines(None, &[record("dotted", "v1")]);
        let image = json!({
            "sha256": "ab".repeat(32), "bytes": 700, "version": "v1", "label": "dotted", "score": 0.75, "decision": "accepted",
            "timing_ms": { "decode": 1.0, "preprocess": 2.0, "network": 3.0, "classify": 0.5, "total": 6.5 },
        });
        let expected = json!({
            "timestamp": "1970-01-01T00:00:00Z", "level": "INFO", "message": "answered", "request_id": "7", "carrier": "http",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent_id": "00f067aa0ba902b7",
            "method": "POST", "path": "/", "bytes": 1000, "status": 200, "milliseconds": 7.25, "images": [image],
        });
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn the_line_of_an_image_is_its_metrics() {
        let lines = lines(Some("Ikat"), &[record("odd", "v1")]);
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_embedded(line);
        assert_eq!(
            (&line["Duration"], &line["Images"], &line["ServerErrors"]),
            (&json!(7.25), &json!(1), &json!(0))
        );
        assert_eq!(
            (&line["label"], &line["Predictions"], &line["Unknown"]),
            (&json!("odd"), &json!(1), &json!(1))
        );
    }

    #[test]
    fn dimensions_are_of_ascii_and_the_image_keeps_its_label() {
        let lines = lines(Some("Ikat"), &[record("groß 'x'\n", "v1")]);
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_embedded(line);
        assert_eq!(line["label"], "gro\\u{df} 'x'\\u{a}");
        assert_eq!(line["images"][0]["label"], "groß 'x'\n");
        // No two labels become one.
        assert_ne!(dimension("ä"), dimension("ö"));
    }

    #[test]
    fn a_refused_version_is_counted_for_its_model() {
        let log = |namespace: Option<&str>| Log::new(namespace.map(str::to_owned));
        let line = log(Some("Ikat")).refusal(Some("textures"), UNIX_EPOCH).expect("a line");
        assert_embedded(&line);
        assert_eq!(
            (&line["model"], &line["RefusedVersions"]),
            (&json!("textures"), &json!(1))
        );
        assert_eq!(log(None).refusal(Some("textures"), UNIX_EPOCH), None);
    }

    #[test]
    fn several_labels_have_lines_of_their_own() {
        let refused = Record {
            outcome: Err(ErrorCode::UnsupportedFormat),
            ..record("", "v1")
        };
        let records = [
            record("a", "v1"),
            record("b", "v1"),
            record("a", "v1"),
            record("a", "v2"),
            refused,
        ];
        let lines = lines(Some("Ikat"), &records);
        assert_eq!(lines.len(), 4);
        assert_eq!((&lines[0]["Images"], &lines[0]["FailedImages"]), (&json!(5), &json!(1)));
        lines.iter().for_each(assert_embedded);
        assert_eq!(lines[0]["images"][4]["error"], "unsupported_format");
        let counts: Vec<_> = lines[1..]
            .iter()
            .map(|line| (line["label"].as_str(), line["Predictions"].as_u64()))
            .collect();
        assert_eq!(
            counts,
            [(Some("a"), Some(2)), (Some("b"), Some(1)), (Some("a"), Some(1))]
        );
    }

    #[test]
    fn a_line_stays_short() {
        let lines = lines(None, &vec![record("a", "v1"); 1000]);
        assert_eq!(lines[0]["images"].as_array().map(Vec::len), Some(MAX_IMAGES));
        assert_eq!(lines[0]["images_not_listed"], 1000 - MAX_IMAGES);
        assert!(lines[0].to_string().len() < 64 << 10);
    }
}
