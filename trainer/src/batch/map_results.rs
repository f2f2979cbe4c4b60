//! What the result writer of a Distributed Map leaves in a bucket.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html>. `manifest.json` names files
//! of child executions that succeeded, failed, or were never started. Such a file is a JSON array (`.json`) or JSON
//! lines (`.jsonl`); an entry is what the child returned (`COMPACT` and `FLATTEN`), or the record of its execution with
//! input and output as texts of JSON (`NONE`, and everything that did not succeed).

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::files::at;
use shared::service::{ErrorCode, ItemResult, S3Reference, ServiceError};
use shared::store::S3Store;

use super::{BatchError, Journal};

/// Largest manifest that is read, in bytes.
const MOST_BYTES: u64 = 64 << 20;

/// Where a map wrote its results: the `ResultWriterDetails` of its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Details {
    /// The bucket.
    pub bucket: String,
    /// The manifest's key.
    pub key: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    destination_bucket: String,
    result_files: ResultFiles,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE", default)]
struct ResultFiles {
    succeeded: Vec<ResultFile>,
    failed: Vec<ResultFile>,
    pending: Vec<ResultFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResultFile {
    key: String,
}

/// Copies every result that the map wrote to `journal`; files are kept in `folder` meanwhile.
///
/// # Errors
/// [`BatchError::Results`] where something is not as it is documented, and [`BatchError::Store`].
pub async fn collect(details: &Details, journal: &mut Journal, folder: &Path) -> Result<(), BatchError> {
    let place = format!("s3://{}/{}", details.bucket, details.key);
    let store = S3Store::connect(&details.bucket, "").await?;
    let wrong = |reason: String| BatchError::Results {
        place: place.clone(),
        reason,
    };
    let found = store.object(&details.key, None, MOST_BYTES).await?;
    let found = found.ok_or_else(|| wrong("the execution named this manifest, which is not there".to_owned()))?;
    let manifest: Manifest = serde_json::from_slice(&found.bytes).map_err(|error| wrong(error.to_string()))?;
    let store = store.in_bucket(&manifest.destination_bucket);
    // Failures first: where a batch stands in both after a redrive, what succeeded counts.
    let files = manifest.result_files;
    for ResultFile { key } in files.pending.iter().chain(&files.failed).chain(&files.succeeded) {
        let copy = folder.join("results").with_extension(extension(key));
        if !store.download(key, &copy).await? {
            return Err(wrong(format!("it names {key}, which is not there")));
        }
        let place = format!("s3://{}/{key}", manifest.destination_bucket);
        read(&copy, &place, journal)?;
        std::fs::remove_file(&copy).map_err(at(&copy))?;
    }
    Ok(())
}

fn extension(key: &str) -> &str {
    Path::new(key)
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default()
}

/// Copies the results in one file, called `place`, to `journal`.
///
/// # Errors
/// [`BatchError::Results`].
pub fn read(file: &Path, place: &str, journal: &mut Journal) -> Result<(), BatchError> {
    let wrong = |reason: String| BatchError::Results {
        place: place.to_owned(),
        reason,
    };
    let reader = BufReader::with_capacity(1 << 20, File::open(file).map_err(at(file))?);
    let mut take = |entry: &RawValue| take_entry(entry, journal);
    if extension(place).eq_ignore_ascii_case("jsonl") {
        for (line, number) in reader.lines().zip(1_u64..) {
            let line = line.map_err(|error| wrong(error.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let entry = serde_json::from_str(&line).map_err(|error| error.to_string());
            entry
                .and_then(&mut take)
                .map_err(|reason| wrong(format!("line {number}: {reason}")))?;
        }
        return Ok(());
    }
    let mut json = serde_json::Deserializer::from_reader(reader);
    Entries(&mut take)
        .deserialize(&mut json)
        .map_err(|error| wrong(error.to_string()))
}

/// The entries of a JSON array one by one, so that not all are in memory.
struct Entries<'a, F>(&'a mut F);

impl<'de, F: FnMut(&RawValue) -> Result<(), String>> DeserializeSeed<'de> for Entries<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&RawValue) -> Result<(), String>> Visitor<'de> for Entries<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an array of results")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Box<RawValue>>()? {
            (self.0)(&entry).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// What an entry may be.
#[derive(Deserialize)]
struct Entry<'a> {
    /// What the scoring function answered for a batch.
    #[serde(borrow, default)]
    results: Option<Vec<&'a RawValue>>,
    /// What it answered for one image.
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    /// The record of an execution.
    #[serde(rename = "Status", default)]
    status: Option<String>,
    #[serde(rename = "Input", default)]
    input: Option<String>,
    #[serde(rename = "Output", default)]
    output: Option<String>,
    #[serde(rename = "Error", default)]
    error: Option<String>,
    #[serde(rename = "Cause", default)]
    cause: Option<String>,
}

fn take_entry(entry: &RawValue, journal: &mut Journal) -> Result<(), String> {
    if entry.get().trim_start().starts_with('[') {
        let entries: Vec<&RawValue> = serde_json::from_str(entry.get()).map_err(|error| error.to_string())?;
        return entries.into_iter().try_for_each(|entry| take_entry(entry, journal));
    }
    let read: Entry = serde_json::from_str(entry.get()).map_err(|error| error.to_string())?;
    if let Some(results) = read.results {
        let mut results = results.into_iter();
        return results.try_for_each(|result| append(journal, result.get()));
    }
    if read.item.is_some() {
        return append(journal, entry.get());
    }
    match (read.status.as_deref(), &read.output) {
        (Some("SUCCEEDED"), Some(output)) => {
            let output: &RawValue = serde_json::from_str(output).map_err(|error| error.to_string())?;
            take_entry(output, journal)
        }
        (Some(status), _) => {
            let input = read.input.as_deref().unwrap_or_default();
            let input: Value =
                serde_json::from_str(input).map_err(|error| format!("the input of an execution: {error}"))?;
            let error = failure(status, read.error.as_deref(), read.cause.as_deref());
            for item in items(&input) {
                let result = ItemResult::new(item, Err(error.clone()));
                append(journal, &serde_json::to_string(&result).unwrap_or_default())?;
            }
            Ok(())
        }
        (None, _) => {
            Err("an entry is neither an answer of the scoring function nor the record of an execution".to_owned())
        }
    }
}

fn append(journal: &mut Journal, json: &str) -> Result<(), String> {
    journal.append(json).map_err(|error| error.to_string())
}

/// Why a child execution has no answer, in the words of the scoring function.
fn failure(status: &str, error: Option<&str>, cause: Option<&str>) -> ServiceError {
    let code = match error {
        Some("ModelUnavailable") => ErrorCode::ModelUnavailable,
        Some("StorageUnavailable") => ErrorCode::StorageUnavailable,
        Some("TooManyRequests") => ErrorCode::TooManyRequests,
        _ => ErrorCode::Internal,
    };
    let said: Vec<&str> = [error, cause].into_iter().flatten().collect();
    let message = match status {
        "SUCCEEDED" => "the output of the execution was too large to be kept".to_owned(),
        "PENDING" => "the execution ended before this was begun".to_owned(),
        _ if said.is_empty() => format!("the execution ended as {status}"),
        _ => said.join(": "),
    };
    ServiceError::new(code, message)
}

/// The places of a batch's images.
fn items(input: &Value) -> Vec<Value> {
    let common = ["bucket", "Bucket"]
        .into_iter()
        .find_map(|name| input["BatchInput"][name].as_str());
    let batch = input["Items"]
        .as_array()
        .map_or_else(|| vec![input.clone()], Clone::clone);
    let images = batch.into_iter().filter(|item| !S3Reference::is_folder(item));
    images.map(|item| place(item, common)).collect()
}

/// As the scoring function names it.
fn place(item: Value, common: Option<&str>) -> Value {
    match S3Reference::of_item(&item, common) {
        Some(Ok(reference)) => reference.to_string().into(),
        _ => item,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(key: &str) -> Value {
        json!({ "item": format!("s3://photos/{key}"), "label": "red", "score": 0.5, "scores": { "red": 0.5 } })
    }

    fn batch(keys: &[&str]) -> Value {
        let results: Vec<Value> = keys.iter().map(|key| answered(key)).collect();
        json!({ "results": results, "succeeded": keys.len(), "failed": 0 })
    }

    fn input(keys: &[&str]) -> Value {
        let items: Vec<Value> = keys.iter().map(|key| json!({ "Key": key })).collect();
        json!({ "BatchInput": { "bucket": "photos" }, "Items": items })
            .to_string()
            .into()
    }

    /// The names and errors of the results in files of these names and contents.
    fn results(files: &[(&str, String)]) -> Result<Vec<(String, Option<ErrorCode>)>, BatchError> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::open(&folder.path().join("journal"))?;
        for (name, text) in files {
            let path = folder.path().join("file");
            std::fs::write(&path, text).expect("written");
            read(&path, name, &mut journal)?;
        }
        let mut found = Vec::new();
        journal.each(|_, line| {
            found.push((line.name(), line.error.map(|error| error.code)));
            Ok(())
        })?;
        Ok(found)
    }

    fn expected(keys: &[&str], code: Option<ErrorCode>) -> Vec<(String, Option<ErrorCode>)> {
        keys.iter().map(|key| (format!("s3://photos/{key}"), code)).collect()
    }

    #[test]
    fn every_form_of_the_result_writer_gives_the_same_results() {
        let lines = format!("{}\n{}\n", batch(&["1", "2"]), batch(&["3"]));
        let record = |keys: &[&str]| {
            json!({
                "ExecutionArn": "arn:aws:states:us-east-1:123456789012:execution:batch/ScoreAll:1",
                "Input": input(keys), "InputDetails": { "Included": true }, "Name": "1",
                "Output": batch(keys).to_string(), "OutputDetails": { "Included": true },
                "StartDate": "2026-01-01T00:00:00.000Z", "Status": "SUCCEEDED",
            })
        };
        let keys = expected(&["1", "2", "3"], None);
        for (name, text) in [
            ("SUCCEEDED_0.jsonl", lines),
            (
                "SUCCEEDED_0.jsonl",
                format!("{}\n", json!([answered("1"), answered("2"), answered("3")])),
            ),
            (
                "SUCCEEDED_0.json",
                json!([batch(&["1"]), [batch(&["2"]), batch(&["3"])]]).to_string(),
            ),
            (
                "SUCCEEDED_0.json",
                serde_json::to_string_pretty(&json!([record(&["1", "2"]), record(&["3"])])).expect("JSON"),
            ),
            (
                "SUCCEEDED_0.jsonl",
                format!("{}\n{}\n", record(&["1"]), record(&["2", "3"])),
            ),
        ] {
            assert_eq!(results(&[(name, text.clone())]).expect(name), keys, "{text}");
        }
    }

    #[test]
    fn each_image_of_a_batch_that_failed_is_a_failure() {
        let failed = json!({
            "Input": input(&["folder/", "1", "2"]), "Status": "FAILED", "Error": "ModelUnavailable", "Cause": "no model",
        });
        let pending = json!([{ "Input": input(&["3"]), "Status": "PENDING" }]);
        let mut all = expected(&["1", "2"], Some(ErrorCode::ModelUnavailable));
        all.extend(expected(&["3"], Some(ErrorCode::Internal)));
        let files = [
            ("FAILED_0.jsonl", format!("{failed}\n")),
            ("PENDING_0.json", pending.to_string()),
        ];
        assert_eq!(results(&files).expect("results"), all);
        // What succeeded when it was tried again.
        let mut files = files.to_vec();
        files.push(("SUCCEEDED_0.jsonl", format!("{}\n", batch(&["1", "2", "3"]))));
        assert_eq!(results(&files).expect("results"), expected(&["1", "2", "3"], None));
    }

    #[test]
    fn what_is_not_as_documented_is_told_of() {
        for (name, text) in [
            ("SUCCEEDED_0.jsonl", "{}\n"),
            ("SUCCEEDED_0.jsonl", "nonsense\n"),
            ("SUCCEEDED_0.json", "{}"),
            ("SUCCEEDED_0.json", "[{\"results\":[{}]}]"),
            ("SUCCEEDED_0.json", "[{\"results\":["),
            ("FAILED_0.json", "[{\"Status\":\"FAILED\"}]"),
        ] {
            let error = results(&[(name, text.to_owned())]).expect_err(text);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
