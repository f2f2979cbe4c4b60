//! AWS Step Functions on loopback, as far as its documentation says how a Distributed Map over a bucket or a list
//! behaves: batches of twenty, each a child execution with retries, the files of the result writer, and redriving.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/apireference/Welcome.html>

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::lock;

/// Items that one child execution gets.
const BATCH: usize = 20;
/// How often a child execution tries again what the template's `Retry` names.
const RETRIES: usize = 6;
/// What it names of the errors that the function may end with.
const RETRIED: [&str; 5] = [
    "ModelUnavailable",
    "StorageUnavailable",
    "TooManyRequests",
    "Internal",
    "Runtime.ExitError",
];
/// For so long is an execution told of as it was before it was started or redriven.
const LAG: Duration = Duration::from_millis(50);
/// How the ARNs of executions begin.
const EXECUTIONS: &str = "arn:aws:states:us-east-1:123456789012:execution:ikat-batch";
/// Seconds since 1970 that answers carry.
const DATE: f64 = 1_767_225_600.0;

/// Invokes the function with an event; gives what it returned, `{"errorType", "errorMessage"}` for an error.
type Invoke = dyn Fn(&Value) -> Value + Send + Sync;

/// The service.
pub struct StepFunctions {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    s3: Client,
    invoke: Box<Invoke>,
    executions: Mutex<HashMap<String, Execution>>,
    /// After so many batches, the execution that runs fails; once.
    breakdown: Mutex<Option<usize>>,
    requests: Mutex<BTreeMap<String, usize>>,
}

#[derive(Clone)]
struct Execution {
    input: Value,
    status: &'static str,
    /// What its status was before, and until when that is told.
    before: (Option<&'static str>, Instant),
    output: Option<String>,
    total: usize,
    /// Records of the child executions that are done, by the number of their batch.
    children: BTreeMap<usize, Child>,
}

#[derive(Clone)]
struct Child {
    input: Value,
    outcome: Result<Value, (String, String)>,
}

impl StepFunctions {
    /// The state machine of the template.
    pub const STATE_MACHINE: &str = "arn:aws:states:us-east-1:123456789012:stateMachine:ikat-batch";

    /// Starts the service; executions read and write with `s3`, and have `invoke` score their batches.
    ///
    /// # Panics
    /// When the machine has no port left.
    pub fn start(s3: Client, invoke: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            s3,
            invoke: Box::new(invoke),
            executions: Mutex::default(),
            breakdown: Mutex::default(),
            requests: Mutex::default(),
        });
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    /// Its address, for `AWS_ENDPOINT_URL_SFN`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The execution that runs, or the next one, fails after so many batches.
    pub fn break_down_after(&self, batches: usize) {
        *lock(&self.shared.breakdown) = Some(batches);
    }

    /// How many batches are done, of all executions.
    pub fn batches(&self) -> usize {
        let executions = lock(&self.shared.executions);
        executions.values().map(|execution| execution.children.len()).sum()
    }

    /// How often an operation was asked for.
    pub fn asked(&self, operation: &str) -> usize {
        lock(&self.shared.requests).get(operation).copied().unwrap_or(0)
    }

    /// The inputs of all executions.
    pub fn inputs(&self) -> Vec<Value> {
        let executions = lock(&self.shared.executions);
        executions.values().map(|execution| execution.input.clone()).collect()
    }
}

impl Drop for StepFunctions {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("AWSStepFunctions."));
    let operation = operation.unwrap_or_default();
    *lock(&shared.requests).entry(operation.to_owned()).or_default() += 1;
    let request: Value = serde_json::from_str(&body).unwrap_or_default();
    let (status, body) = match respond(&shared, operation, &request) {
        Ok(body) => (StatusCode::OK, body),
        Err((code, message)) => (StatusCode::BAD_REQUEST, json!({ "__type": code, "message": message })),
    };
    let kind = [(header::CONTENT_TYPE, "application/x-amz-json-1.0")];
    (status, kind, body.to_string()).into_response()
}

type Refusal = (&'static str, String);

fn respond(shared: &Arc<Shared>, operation: &str, request: &Value) -> Result<Value, Refusal> {
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let arn = text("executionArn");
    match operation {
        "StartExecution" => start(shared, &text("stateMachineArn"), &text("name"), &text("input")),
        "DescribeExecution" => {
            let execution = find(shared, &arn)?;
            let status = execution.told().ok_or_else(|| missing(&arn))?;
            let mut answer = json!({
                "executionArn": arn, "stateMachineArn": StepFunctions::STATE_MACHINE, "status": status,
                "startDate": DATE, "input": execution.input.to_string(), "output": execution.output,
            });
            if status == "FAILED" {
                answer["error"] = "States.ItemReaderFailed".into();
                answer["cause"] = "broken on purpose".into();
            }
            Ok(answer)
        }
        "ListMapRuns" => {
            find(shared, &arn)?;
            let run = json!({
                "executionArn": arn, "mapRunArn": map_run(&arn), "stateMachineArn": StepFunctions::STATE_MACHINE,
                "startDate": DATE,
            });
            Ok(json!({ "mapRuns": [run] }))
        }
        "DescribeMapRun" => {
            let map_run = text("mapRunArn");
            let arn = map_run.replace(":mapRun:ikat-batch/Score:", ":execution:ikat-batch:");
            let execution = find(shared, &arn)?;
            let counts = execution.counts();
            Ok(json!({
                "mapRunArn": map_run, "executionArn": arn, "status": execution.status, "startDate": DATE,
                "maxConcurrency": execution.input["concurrency"], "toleratedFailurePercentage": 100.0,
                "toleratedFailureCount": 0, "itemCounts": counts, "executionCounts": counts,
            }))
        }
        "RedriveExecution" => {
            let mut executions = lock(&shared.executions);
            let execution = executions.get_mut(&arn).ok_or_else(|| missing(&arn))?;
            if !matches!(execution.status, "FAILED" | "ABORTED" | "TIMED_OUT") {
                return Err(("ExecutionNotRedrivable", format!("it is {}", execution.status)));
            }
            execution.before = (Some(execution.status), Instant::now() + LAG);
            execution.status = "RUNNING";
            tokio::spawn(run(Arc::clone(shared), arn.clone()));
            Ok(json!({ "redriveDate": DATE }))
        }
        _ => Err(("UnknownOperationException", operation.to_owned())),
    }
}

fn start(shared: &Arc<Shared>, machine: &str, name: &str, input: &str) -> Result<Value, Refusal> {
    if machine != StepFunctions::STATE_MACHINE {
        return Err(("StateMachineDoesNotExist", format!("there is no {machine}")));
    }
    let input: Value = serde_json::from_str(input).map_err(|error| ("InvalidExecutionInput", error.to_string()))?;
    let arn = format!("{EXECUTIONS}:{name}");
    let mut executions = lock(&shared.executions);
    if executions.contains_key(&arn) {
        return Err(("ExecutionAlreadyExists", format!("{arn} exists")));
    }
    let execution = Execution {
        input,
        status: "RUNNING",
        before: (None, Instant::now() + LAG),
        output: None,
        total: 0,
        children: BTreeMap::new(),
    };
    executions.insert(arn.clone(), execution);
    tokio::spawn(run(Arc::clone(shared), arn.clone()));
    Ok(json!({ "executionArn": arn, "startDate": DATE }))
}

fn find(shared: &Shared, arn: &str) -> Result<Execution, Refusal> {
    lock(&shared.executions).get(arn).cloned().ok_or_else(|| missing(arn))
}

fn missing(arn: &str) -> Refusal {
    ("ExecutionDoesNotExist", format!("Execution Does Not Exist: '{arn}'"))
}

fn map_run(arn: &str) -> String {
    arn.replace(":execution:ikat-batch:", ":mapRun:ikat-batch/Score:")
}

impl Execution {
    /// Its status as it is told, which is consistent only in the end; `None` where nothing is known of it yet.
    fn told(&self) -> Option<&'static str> {
        let (before, until) = self.before;
        if Instant::now() < until {
            before
        } else {
            Some(self.status)
        }
    }

    fn counts(&self) -> Value {
        let items = |child: &Child| child.input["Items"].as_array().map_or(0, Vec::len);
        let of = |right: bool| -> usize {
            let children = self.children.values();
            children.filter(|child| child.outcome.is_ok() == right).map(items).sum()
        };
        let (succeeded, failed) = (of(true), of(false));
        json!({
            "pending": self.total - succeeded - failed, "running": 0, "succeeded": succeeded, "failed": failed,
            "timedOut": 0, "aborted": 0, "total": self.total, "resultsWritten": 0,
        })
    }
}

async fn run(shared: Arc<Shared>, arn: String) {
    let (input, done) = {
        let mut executions = lock(&shared.executions);
        let execution = executions.get_mut(&arn).expect("it was started");
        // Redriving keeps what succeeded.
        execution.children.retain(|_, child| child.outcome.is_ok());
        (execution.input.clone(), execution.children.clone())
    };
    let items = shared.items(&input).await;
    let with = |act: &dyn Fn(&mut Execution)| {
        act(lock(&shared.executions).get_mut(&arn).expect("it was started"));
    };
    with(&|execution| execution.total = items.len());
    for (number, batch) in items.chunks(BATCH).enumerate() {
        if done.contains_key(&number) {
            continue;
        }
        if lock(&shared.breakdown).take_if(|after| *after <= number).is_some() {
            with(&|execution| execution.status = "FAILED");
            return;
        }
        let event = match &input["manifest"] {
            Value::Null => json!({ "BatchInput": { "bucket": input["bucket"] }, "Items": batch }),
            _ => json!({ "Items": batch }),
        };
        let child = tokio::task::spawn_blocking({
            let (shared, event) = (Arc::clone(&shared), event);
            move || shared.child(event)
        });
        let child = child.await.expect("no panic");
        with(&|execution| {
            execution.children.insert(number, child.clone());
        });
    }
    let output = shared.write(&arn).await;
    with(&|execution| {
        execution.status = "SUCCEEDED";
        execution.output = Some(output.to_string());
    });
}

impl Shared {
    /// What the map's reader finds: the keys below a prefix, or the lines of a list.
    async fn items(&self, input: &Value) -> Vec<Value> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        if let Some(manifest) = input.get("manifest") {
            let object = self.s3.get_object().bucket(text(&manifest["bucket"]));
            let object = object.key(text(&manifest["key"])).send().await.expect("the list");
            let bytes = object.body.collect().await.expect("its contents").into_bytes();
            let lines = std::str::from_utf8(&bytes).expect("a text").lines();
            return lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        }
        let listing = self.s3.list_objects_v2().bucket(text(&input["bucket"]));
        let mut pages = listing.prefix(text(&input["prefix"])).into_paginator().send();
        let mut items = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.expect("a page");
            items.extend(page.contents().iter().map(|object| json!({ "Key": object.key() })));
        }
        items
    }

    fn child(&self, input: Value) -> Child {
        let mut answer = Value::Null;
        for _ in 0..=RETRIES {
            answer = (self.invoke)(&input);
            if !RETRIED.iter().any(|error| answer["errorType"] == *error) {
                break;
            }
        }
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let outcome = match answer.get("errorType") {
            Some(_) => Err((text("errorType"), text("errorMessage"))),
            None => Ok(answer),
        };
        Child { input, outcome }
    }

    /// What the result writer leaves, with the transformation `FLATTEN` and lines of JSON; gives the map's output.
    async fn write(&self, arn: &str) -> Value {
        let execution = find(self, arn).expect("it was started");
        let text = |name: &str| execution.input[name].as_str().expect("a text").to_owned();
        let (bucket, prefix) = (text("output_bucket"), text("output_prefix"));
        let folder = format!("{prefix}/0b6ad7f0-3f0d-4a4b-8a53-5c1f3a1d9f6e");
        let mut files = BTreeMap::from([("SUCCEEDED", String::new()), ("FAILED", String::new())]);
        for (number, child) in &execution.children {
            let (name, line) = match &child.outcome {
                Ok(answer) => ("SUCCEEDED", answer.clone()),
                Err((error, cause)) => (
                    "FAILED",
                    json!({
                        "ExecutionArn": format!("{arn}/Score:{number}"), "Name": number.to_string(),
                        "Input": child.input.to_string(), "InputDetails": { "Included": true },
                        "Error": error, "Cause": cause, "Status": "FAILED", "RedriveCount": 0,
                        "StartDate": "2026-01-01T00:00:00.000Z", "StopDate": "2026-01-01T00:00:01.000Z",
                    }),
                ),
            };
            let file = files.get_mut(name).expect("one of the two");
            file.push_str(&line.to_string());
            file.push('\n');
        }
        let mut listed = json!({ "SUCCEEDED": [], "FAILED": [], "PENDING": [] });
        for (name, lines) in files {
            if lines.is_empty() {
                continue;
            }
            let key = format!("{folder}/{name}_0.jsonl");
            listed[name] = json!([{ "Key": key, "Size": lines.len() }]);
            self.put(&bucket, &key, lines).await;
        }
        let manifest = json!({ "DestinationBucket": bucket, "MapRunArn": map_run(arn), "ResultFiles": listed });
        let key = format!("{folder}/manifest.json");
        self.put(&bucket, &key, manifest.to_string()).await;
        json!({ "MapRunArn": map_run(arn), "ResultWriterDetails": { "Bucket": bucket, "Key": key } })
    }

    async fn put(&self, bucket: &str, key: &str, text: String) {
        let put = self
            .s3
            .put_object()
            .bucket(bucket)
            .key(key)
            .body(text.into_bytes().into());
        put.send().await.expect("written");
    }
}
