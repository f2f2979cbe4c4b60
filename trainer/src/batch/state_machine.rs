//! A job by the template's state machine: a Step Functions Distributed Map over the deployed scoring function.
//!
//! The execution is named after the job, so that Step Functions itself keeps it from running twice: the same command
//! joins an execution that runs, collects from one that succeeded, and redrives one that failed or was stopped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::retry::RetryConfig;
use aws_sdk_sfn::config::{Builder, Region};
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sfn::operation::describe_execution::DescribeExecutionOutput;
use aws_sdk_sfn::types::{ExecutionStatus, MapRunItemCounts};
use serde::Deserialize;
use serde_json::json;
use shared::aws::Environment;
use shared::causes::chain;
use shared::files::at;
use shared::store::{Location, ObjectStore, S3Store, StoreError};

use super::map_results::{self, Details};
use super::new_file::NewFile;
use super::{BatchError, Input, Job, Journal, Output, Summary};
use crate::progress::{Progress, stage};

/// What the environment calls Step Functions.
const SERVICE: &str = "SFN";
/// The first look at an execution comes after this time, since what is told of one lags behind what was begun; the
/// others at intervals that grow ...
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What an execution that is there already is about.
const SAME_IMAGES: &str = "with the images that it began with (another --output begins anew)";
/// How often an operation is tried in all.
const ATTEMPTS: u32 = 5;

/// The ARN of a state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arn {
    text: String,
    region: String,
    /// How the ARNs of its executions begin.
    executions: String,
}

impl FromStr for Arn {
    type Err = BatchError;

    fn from_str(text: &str) -> Result<Self, BatchError> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", partition, "states", region, account, "stateMachine", name, ..] = parts[..] else {
            return Err(BatchError::Arn(text.to_owned()));
        };
        Ok(Self {
            text: text.to_owned(),
            region: region.to_owned(),
            executions: format!("arn:{partition}:states:{region}:{account}:execution:{name}"),
        })
    }
}

/// A state machine of the template.
pub struct StateMachine {
    client: Client,
    arn: Arn,
}

/// What a state machine is to do.
pub struct Order<'a> {
    /// The images, which must lie in buckets.
    pub input: &'a Input,
    /// A part of the bucket that the state machine may write to.
    pub output: &'a str,
    /// Batches scored at once.
    pub concurrency: u32,
}

impl StateMachine {
    /// The state machine `arn`, in its region, with the environment's credentials.
    ///
    /// # Errors
    /// [`BatchError::Store`]. Nothing is asked yet.
    pub async fn connect(arn: &Arn) -> Result<Self, BatchError> {
        let environment = Environment::load(SERVICE).await.ok_or(StoreError::NoRegion)?;
        let settings = Builder::from(&environment.settings)
            .region(Region::new(arn.region.clone()))
            .retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS));
        Ok(Self {
            client: Client::from_conf(settings.build()),
            arn: arn.clone(),
        })
    }

    /// Has the images scored and writes the results; what they are read into is kept below `cache` until then.
    /// Where that was done before, a note beside the summary says so.
    ///
    /// # Errors
    /// See [`BatchError`]. An image at fault is none: it is among the failures.
    pub async fn run(
        &self,
        order: &Order<'_>,
        cache: &Path,
        progress: &dyn Progress,
    ) -> Result<(Summary, Option<String>), BatchError> {
        let job = Job::new(order.input, order.output, &self.arn.text);
        let place = Output::connect(order.output).await?;
        if let Some(summary) = place.finished(&job).await? {
            let note = place.finished_note(&summary);
            return Ok((summary, Some(note)));
        }
        let folder = job.folder(cache);
        let mut journal = Journal::open(&folder.join("journal.jsonl"))?;
        let execution = self.begin(order, &job, &folder, progress).await?;
        let details = self.follow(&execution, progress).await?;
        map_results::collect(&details, &mut journal, &folder).await?;
        if journal.is_empty() {
            return Err(BatchError::FoundNone {
                arn: execution,
                input: job.input,
            });
        }
        let summary = place.write(&job, &journal, &folder).await?;
        std::fs::remove_dir_all(&folder).map_err(at(&folder))?;
        Ok((summary, None))
    }

    /// Starts the job's execution, or finds it; gives its ARN.
    async fn begin(
        &self,
        order: &Order<'_>,
        job: &Job,
        folder: &Path,
        progress: &dyn Progress,
    ) -> Result<String, BatchError> {
        let name = format!("ikat-{}", job.id());
        let arn = format!("{}:{name}", self.arn.executions);
        let found = self.client.describe_execution().execution_arn(&arn).send().await;
        match found {
            Ok(found) => {
                use ExecutionStatus::{Aborted, Failed, TimedOut};
                if matches!(found.status, Aborted | Failed | TimedOut) {
                    let redriven = self.client.redrive_execution().execution_arn(&arn).send().await;
                    redriven
                        .map_err(|error| explain(&arn, "take it up again (another --output begins anew)", &error))?;
                    progress.note(&format!(
                        "Taking up again {arn}, which ended as {}, {SAME_IMAGES}",
                        found.status
                    ));
                } else {
                    progress.note(&format!("Joining {arn}, which is {}, {SAME_IMAGES}", found.status));
                }
                Ok(arn)
            }
            Err(error) if error.code() == Some("ExecutionDoesNotExist") => {
                let input = self.order(order, &name, folder).await?;
                let started = self
                    .client
                    .start_execution()
                    .state_machine_arn(&self.arn.text)
                    .name(&name)
                    .input(input)
                    .send()
                    .await
                    .map_err(|error| explain(&self.arn.text, "start an execution of it", &error))?;
                progress.note(&format!("Started {}", started.execution_arn));
                Ok(started.execution_arn)
            }
            Err(error) => Err(explain(&arn, "look at it", &error)),
        }
    }

    /// The input of an execution; a list goes to the output first, in the form that the map reads.
    async fn order(&self, order: &Order<'_>, name: &str, folder: &Path) -> Result<String, BatchError> {
        let Location::S3 { bucket, prefix } = Location::parse(order.output)? else {
            return Err(BatchError::NotInBucket(order.output.to_owned()));
        };
        let inside = |name: &str| {
            let parts = [prefix.as_str(), name].into_iter().filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join("/")
        };
        let mut input = json!({
            "output_bucket": bucket,
            "output_prefix": inside(name),
            "concurrency": order.concurrency,
        });
        match order.input {
            Input::Prefix { bucket, prefix } => {
                input["bucket"] = bucket.as_str().into();
                input["prefix"] = prefix.as_str().into();
            }
            Input::List(_) | Input::ListInBucket { .. } => {
                let list = folder.join("items.jsonl");
                order.input.list(&list).await?;
                let lines = map_lines(&list)?;
                let key = inside(&format!("{name}/items.jsonl"));
                let store = ObjectStore::S3(S3Store::connect(&bucket, "").await?);
                store.upload(&key, &lines).await?;
                input["manifest"] = json!({ "bucket": bucket, "key": key });
            }
            Input::Folder(path) => return Err(BatchError::NotInBucket(path.display().to_string())),
        }
        Ok(input.to_string())
    }

    /// Watches an execution until it ends; gives where it wrote its results.
    async fn follow(&self, arn: &str, progress: &dyn Progress) -> Result<Details, BatchError> {
        let ended = self.watch(arn, progress).await?;
        if ended.status != ExecutionStatus::Succeeded {
            return Err(BatchError::Execution {
                arn: arn.to_owned(),
                end: end(ended.status.as_str(), ended.error(), ended.cause()),
            });
        }
        let output = ended.output().unwrap_or_default();
        let ended: Ended = serde_json::from_str(output).map_err(|error| BatchError::Results {
            place: arn.to_owned(),
            reason: format!("its output does not say where the results are: {error}"),
        })?;
        Ok(ended.result_writer_details)
    }

    async fn watch(&self, arn: &str, progress: &dyn Progress) -> Result<DescribeExecutionOutput, BatchError> {
        let _stage = stage(progress, "Scoring", None);
        let mut pause = FIRST_LOOK;
        let mut map_run = None;
        let mut told = Told::default();
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LONGEST_PAUSE);
            let found = self.client.describe_execution().execution_arn(arn).send().await;
            let found = found.map_err(|error| explain(arn, "look at it", &error))?;
            if map_run.is_none() {
                map_run = self.map_run(arn).await?;
            }
            if let Some(map_run) = &map_run {
                let described = self.client.describe_map_run().map_run_arn(map_run).send().await;
                let described = described.map_err(|error| explain(map_run, "look at it", &error))?;
                if let Some(counts) = described.item_counts() {
                    told.tell(counts, progress);
                }
            }
            if !matches!(found.status, ExecutionStatus::Running | ExecutionStatus::PendingRedrive) {
                return Ok(found);
            }
        }
    }

    /// The execution's map run, once there is one.
    async fn map_run(&self, arn: &str) -> Result<Option<String>, BatchError> {
        let runs = self.client.list_map_runs().execution_arn(arn).send().await;
        let runs = runs.map_err(|error| explain(arn, "list its map runs", &error))?;
        Ok(runs.map_runs().first().map(|run| run.map_run_arn().to_owned()))
    }
}

/// What an execution gives whose map has a result writer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ended {
    result_writer_details: Details,
}

/// How an execution ended, and why, as far as that is told: whoever stops one need give no reason.
fn end(status: &str, error: Option<&str>, cause: Option<&str>) -> String {
    let reason: Vec<&str> = [error, cause].into_iter().flatten().collect();
    if reason.is_empty() {
        status.to_owned()
    } else {
        format!("{status} ({})", reason.join(": "))
    }
}

/// What progress has been told of.
#[derive(Default)]
struct Told {
    total: u64,
    done: u64,
}

impl Told {
    fn tell(&mut self, counts: &MapRunItemCounts, progress: &dyn Progress) {
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        let total = number(counts.total());
        if total != self.total {
            self.total = total;
            progress.total(total);
        }
        let failed = number(counts.failed()) + number(counts.timed_out()) + number(counts.aborted());
        let done = number(counts.succeeded()) + failed;
        progress.advance(done.saturating_sub(self.done));
        self.done = self.done.max(done);
        if failed > 0 {
            progress.status(&format!("{failed} in batches that failed"));
        }
    }
}

/// The items of a list as the map reads them: a JSON object a line, in a file beside the list.
fn map_lines(list: &Path) -> Result<PathBuf, BatchError> {
    let path = list.with_extension("map.jsonl");
    let mut file = NewFile::create(&path)?;
    for item in super::input::items(list)? {
        let item = item?;
        if !item.starts_with("s3://") {
            return Err(BatchError::NotInBucket(item));
        }
        writeln!(file, "{}", json!({ "s3": item })).map_err(at(&path))?;
    }
    file.finish()?;
    Ok(path)
}

fn explain<E, R>(arn: &str, action: &'static str, error: &SdkError<E, R>) -> BatchError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let reason = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => chain(error),
    };
    BatchError::StepFunctions {
        arn: arn.to_owned(),
        action,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sfn::operation::describe_execution::DescribeExecutionError;

    use super::*;

    #[test]
    fn what_the_network_says_is_told_in_words() {
        let error: SdkError<DescribeExecutionError, ()> = SdkError::timeout_error("no answer within 5 s");
        let told = explain("arn", "look at it", &error).to_string();
        assert_eq!(
            told,
            "arn: could not look at it: request has timed out: no answer within 5 s"
        );
    }

    #[test]
    fn a_list_with_a_damaged_line_is_no_shorter_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("items.jsonl");
        for damaged in [&b"\"s3://b/2"[..], b"\"\xff\""] {
            let lines = [&b"\"s3://b/1\""[..], damaged, b"\"s3://b/3\"", b""];
            std::fs::write(&list, lines.join(&b'\n')).expect("written");
            let error = map_lines(&list).expect_err("one image of three");
            assert!(error.to_string().contains("items.jsonl"), "{error}");
        }
    }

    #[test]
    fn an_end_without_a_reason_has_none() {
        for (error, cause, expected) in [
            (None, None, "ABORTED"),
            (None, Some("too dear"), "ABORTED (too dear)"),
            (Some("States.Timeout"), Some("late"), "ABORTED (States.Timeout: late)"),
        ] {
            assert_eq!(end("ABORTED", error, cause), expected);
        }
    }
}
