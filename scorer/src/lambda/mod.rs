//! AWS Lambda's events to requests, and answers back in the event's own form.

mod afterwards;
mod distributed_map;
mod http_event;
mod s3_batch;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lambda_runtime::layers::TracingLayer;
use lambda_runtime::tower::layer::layer_fn;
use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::service::{self, ErrorCode, Request, Response, ServiceError};

use crate::Failure;
use crate::origin::{Origin, TRACEPARENT, Trace};
use crate::responder::Responder;
use afterwards::Afterwards;
use distributed_map::Batch;
use http_event::Form;
use s3_batch::Invocation;

/// Lambda's limit for what one invocation brings and takes away, in bytes. It is checked here too, because local
/// emulators do not, and because Lambda says nothing of a way out.
const MAX_BYTES: usize = 6 << 20;

/// Kept of an invocation's time for writing the answer and carrying it away, before Lambda ends the process.
const FAREWELL: Duration = Duration::from_millis(500);

/// What an instance may take before it asks for its first invocation. After 10 s Lambda ends it and begins anew, in the
/// time of that invocation.
///
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
const START: Duration = Duration::from_secs(9);

/// When invocations must be asked for, whether the model is loaded or not; `None` for instances that are kept warm,
/// which have minutes.
pub fn ready_by() -> Option<Instant> {
    let kind = std::env::var_os("AWS_LAMBDA_INITIALIZATION_TYPE");
    let is_on_demand = kind.is_none_or(|kind| kind == "on-demand");
    is_on_demand.then(|| Instant::now() + START)
}

/// Serves invocations until the process is told to stop.
///
/// # Errors
/// When the Runtime API is gone.
pub async fn serve(responder: Arc<Responder>) -> Result<(), Failure> {
    let follower = Arc::clone(&responder);
    let answering = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let responder = Arc::clone(&responder);
        async move {
            let (event, context) = event.into_parts();
            let until = until(context.deadline());
            let origin = Origin::new(context.request_id, Trace::of_xray(context.xray_trace_id.as_deref()));
            // The type is what a state machine's retry rules name, for example ModelUnavailable.
            let answer = answer(&responder, event.into(), origin, until).await;
            let answer = answer.map_err(|error| Diagnostic {
                error_type: format!("{:?}", error.code),
                error_message: error.message,
            })?;
            RawValue::from_string(answer).map_err(|error| Diagnostic {
                error_type: "Internal".to_owned(),
                error_message: error.to_string(),
            })
        }
    });
    let settled = move || {
        let responder = Arc::clone(&follower);
        async move { responder.settled().await }
    };
    let afterwards = layer_fn(move |answering| Afterwards::new(answering, settled.clone()));
    Runtime::new(answering)
        .layer(TracingLayer::new())
        .layer(afterwards)
        .run()
        .await
}

/// When an invocation must be answered that Lambda ends at `deadline`; `None` where that is over, as emulators may
/// tell.
fn until(deadline: SystemTime) -> Option<Instant> {
    let left = deadline.duration_since(SystemTime::now()).ok()?;
    Instant::now().checked_add(left.saturating_sub(FAREWELL))
}

/// What an event asks for, by who sent it.
enum Event {
    Http {
        form: Form,
        traceparent: Option<String>,
        method: String,
        path: String,
        request: Result<Request, ServiceError>,
    },
    S3Batch(Invocation),
    Map(Batch),
    /// Somebody invokes the function with the JSON request itself.
    Plain(Result<Request, ServiceError>),
}

impl Event {
    /// # Errors
    /// `bad_request` for what begins as the event of an engine and does not go on as one, and for what no engine reads
    /// an answer to: a queue would take its messages for done.
    fn read(text: Box<str>) -> Result<Self, ServiceError> {
        let size = check_size(text.len());
        // What callers send, an image in most cases, is not read twice.
        if is_list(&text) || Envelope::is(&text) {
            let event: Value = match serde_json::from_str(&text) {
                Ok(event) => event,
                Err(error) => {
                    let message = format!("the event cannot be read: {error}");
                    return Ok(Self::Plain(Err(ServiceError::bad_request(message))));
                }
            };
            if let Some(form) = Form::of(&event) {
                let (method, path) = form.target(&event);
                return Ok(Self::Http {
                    form,
                    traceparent: http_event::header(&event, TRACEPARENT).map(str::to_owned),
                    method,
                    path,
                    request: size.and_then(|()| form.request(&event)),
                });
            }
            if Invocation::is(&event) {
                return parse(event).map(Self::S3Batch);
            }
            if Batch::is(&event) {
                return parse(event).map(Self::Map);
            }
            let is_of_source = event["eventSource"].is_string() || event["detail-type"].is_string();
            if event.is_array() || event["Records"].is_array() || is_of_source {
                return Err(ServiceError::bad_request(
                    "events of queues, streams, topics, buckets, rules and pipes are not taken, since nobody reads what \
                     they are answered: have images scored by a request each, by S3 Batch Operations, or by a Step \
                     Functions Distributed Map",
                ));
            }
        }
        Ok(Self::Plain(size.map(|()| Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            content_type: Some("application/json".to_owned()),
            body: text.into_boxed_bytes().into(),
        })))
    }
}

/// Whether this is a list, as EventBridge Pipes send one; no request is.
fn is_list(text: &str) -> bool {
    text.trim_start().starts_with('[')
}

/// What the events of Amazon's HTTP services, of S3 Batch Operations, of Step Functions, of queues and the like (those
/// of Kafka and Amazon MQ have their source alone in common), and of EventBridge have, and requests have not.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    request_context: Option<IgnoredAny>,
    invocation_schema_version: Option<IgnoredAny>,
    #[serde(rename = "Items")]
    items: Option<IgnoredAny>,
    #[serde(rename = "Records")]
    records: Option<IgnoredAny>,
    event_source: Option<IgnoredAny>,
    #[serde(rename = "detail-type")]
    detail_type: Option<IgnoredAny>,
}

impl Envelope {
    fn is(text: &str) -> bool {
        let event: Result<Self, _> = serde_json::from_str(text);
        event.is_ok_and(|event| {
            let of_engines = [
                event.request_context,
                event.invocation_schema_version,
                event.items,
                event.records,
                event.event_source,
                event.detail_type,
            ];
            of_engines.iter().any(Option::is_some)
        })
    }
}

/// Reads an event as far as can be without a model, and answers that there is none: what whoever sends events can reach
/// before an image is looked at.
pub fn examine(text: &str) {
    let error = || ServiceError::new(ErrorCode::ModelUnavailable, "there is none");
    match Event::read(text.into()) {
        Ok(Event::Http {
            form, path, request, ..
        }) => {
            let refusal = request.err().unwrap_or_else(error);
            let refusal = service::refuse(&path, &refusal);
            fitting(&path, refusal, form.most_bytes(), |response| form.response(response));
        }
        Ok(Event::S3Batch(invocation)) => {
            invocation.items();
            invocation.response(Err(error()));
        }
        Ok(Event::Map(batch)) => {
            batch.top_k();
            // An engine is told of a failure by a failure.
            let _ = batch.response(&batch.items(), Err(error()));
        }
        Ok(Event::Plain(_)) | Err(_) => {}
    }
}

fn parse<T: DeserializeOwned>(event: Value) -> Result<T, ServiceError> {
    serde_json::from_value(event)
        .map_err(|error| ServiceError::bad_request(format!("the event does not go on as it begins: {error}")))
}

/// The answer to an event, before `until`.
///
/// # Errors
/// For an engine that has its own way with failed invocations, and tries them again.
async fn answer(
    responder: &Arc<Responder>,
    text: Box<str>,
    origin: Origin,
    until: Option<Instant>,
) -> Result<String, ServiceError> {
    let event = Event::read(text)
        .inspect_err(|error| tracing::error!(%error, request_id = origin.request_id, "an event is not taken"))?;
    match event {
        Event::Http {
            form,
            traceparent,
            method,
            path,
            request,
        } => {
            let origin = origin.by(form.name()).following(traceparent.as_deref());
            let carried = (form.most_bytes(), move |response: &Response| form.response(response));
            Ok(respond(responder, (&method, &path), request, origin, until, carried).await)
        }
        Event::Plain(request) => {
            let origin = origin.by("invoke");
            Ok(respond(responder, ("POST", "/"), request, origin, until, (MAX_BYTES, plain)).await)
        }
        Event::S3Batch(invocation) => {
            let origin = origin.by("s3-batch");
            let outcome = responder.score_each(invocation.items(), None, origin, until).await;
            Ok(invocation.response(outcome))
        }
        Event::Map(batch) => {
            let items = batch.items();
            let origin = origin.by("distributed-map");
            let outcome = responder.score_each(items.clone(), batch.top_k(), origin, until).await;
            batch.response(&items, outcome)
        }
    }
}

/// The answer to a request as `write` writes it, in at most so many bytes.
async fn respond(
    responder: &Arc<Responder>,
    (method, path): (&str, &str),
    request: Result<Request, ServiceError>,
    origin: Origin,
    until: Option<Instant>,
    (most, write): (usize, impl Fn(&Response) -> String + Copy + Send + 'static),
) -> String {
    let response = match request {
        Ok(request) => {
            let path = path.to_owned();
            let fit = move |response| fitting(&path, response, most, write);
            responder.answer(request, origin, until, (), fit).await
        }
        Err(error) => responder.refuse((method, path), None, &error, &origin),
    };
    write(&response)
}

/// The answer to a request for `path`, or that it is more than the `most` bytes that are carried.
fn fitting(path: &str, response: Response, most: usize, write: impl Fn(&Response) -> String) -> Response {
    let bytes = write(&response).len();
    if bytes <= most {
        return response;
    }
    let message = format!("the answer has {bytes} bytes, more than the {most} that are carried: ask for fewer images");
    Response {
        records: response.records,
        ..service::refuse(path, &ServiceError::new(ErrorCode::TooLarge, message))
    }
}

/// The answer to a plain event: the body as it is, so that scores stay in their order, and the status beside it.
fn plain(response: &Response) -> String {
    let body = String::from_utf8_lossy(&response.body);
    let status = format!("\"statusCode\":{}", response.status);
    match body.strip_prefix('{') {
        Some("}") | None => format!("{{{status}}}"),
        Some(fields) => format!("{{{status},{fields}"),
    }
}

fn check_size(bytes: usize) -> Result<(), ServiceError> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(ServiceError::new(
        ErrorCode::TooLarge,
        format!(
            "the request has {bytes} bytes; AWS Lambda takes {MAX_BYTES}: send a smaller image (a side of 1000 \
             pixels is plenty), or its place in S3 as {{\"s3\": \"s3://bucket/key\"}} where the deployment allows that \
             bucket"
        ),
    ))
}
