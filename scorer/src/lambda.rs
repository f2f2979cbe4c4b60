//! AWS Lambda's events to requests, and answers back in the event's own form.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use shared::service::{ErrorCode, Request, Response, ServiceError};

use crate::Failure;
use crate::model::Model;

/// Lambda's limit for what one invocation brings, in bytes. It is checked here too, because local emulators do not.
const MAX_EVENT_BYTES: usize = 6 << 20;

/// Serves invocations until the process is told to stop.
///
/// # Errors
/// When the Runtime API is gone.
pub async fn serve(model: Arc<Model>) -> Result<(), Failure> {
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let model = Arc::clone(&model);
        async move {
            let answer = answer(&model, event.payload.get(), event.context.request_id).await;
            Ok::<_, Failure>(RawValue::from_string(answer)?)
        }
    }))
    .await
}

async fn answer(model: &Arc<Model>, event: &str, request_id: String) -> String {
    let (form, request) = match serde_json::from_str(event) {
        Ok(event) => {
            let form = Form::of(&event);
            (form, form.request(&event))
        }
        Err(error) => (
            Form::Plain,
            Err(ServiceError::bad_request(format!("the event cannot be read: {error}"))),
        ),
    };
    let response = match request {
        Ok(request) => model.answer(request, request_id, ()).await,
        Err(error) => error.into(),
    };
    form.response(&response)
}

/// Who sent an event, which decides how it is read and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A function URL, or API Gateway with payload version 2.
    HttpV2,
    /// API Gateway with payload version 1.
    HttpV1,
    /// Somebody who invokes the function with the JSON request itself.
    Plain,
}

impl Form {
    fn of(event: &Value) -> Self {
        if event["requestContext"]["http"].is_object() {
            Self::HttpV2
        } else if event["httpMethod"].is_string() && event["requestContext"].is_object() {
            Self::HttpV1
        } else {
            Self::Plain
        }
    }

    fn request(self, event: &Value) -> Result<Request, ServiceError> {
        let (method, path) = match self {
            Self::HttpV2 => (&event["requestContext"]["http"]["method"], &event["rawPath"]),
            Self::HttpV1 => (&event["httpMethod"], &event["path"]),
            Self::Plain => return plain(event),
        };
        let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
        let (method, mut path) = (text(method, "POST").to_ascii_uppercase(), text(path, "/"));
        // API Gateway puts a stage that has a name before the path.
        let stage = event["requestContext"]["stage"]
            .as_str()
            .map(|stage| format!("/{stage}/"));
        if let Some(rest) = stage.and_then(|stage| path.strip_prefix(&stage)) {
            path = format!("/{rest}");
        }
        let content_type = event["headers"].as_object().and_then(content_type);
        let Value::String(body) = event.get("body").cloned().unwrap_or_default() else {
            return Ok(Request {
                method,
                path,
                content_type,
                body: Vec::new().into(),
            });
        };
        check_size(body.len())?;
        let body = if event["isBase64Encoded"].as_bool() == Some(true) {
            STANDARD
                .decode(body)
                .map_err(|error| ServiceError::bad_request(format!("the event's body is not valid base64: {error}")))?
        } else {
            body.into_bytes()
        };
        Ok(Request {
            method,
            path,
            content_type,
            body: body.into(),
        })
    }

    /// The answer as JSON text: the body as it is, so that scores stay in their order.
    fn response(self, response: &Response) -> String {
        let body = String::from_utf8_lossy(&response.body);
        if self != Self::Plain {
            let mut answer = json!({
                "statusCode": response.status,
                "headers": { "content-type": response.content_type },
                "body": body,
                "isBase64Encoded": false,
            });
            if self == Self::HttpV2 {
                // Optional for AWS, not for cargo-lambda's emulator.
                answer["cookies"] = json!([]);
            }
            return answer.to_string();
        }
        let status = format!("\"statusCode\":{}", response.status);
        match body.strip_prefix('{') {
            Some("}") | None => format!("{{{status}}}"),
            Some(fields) => format!("{{{status},{fields}"),
        }
    }
}

/// A plain event is the request itself.
fn plain(event: &Value) -> Result<Request, ServiceError> {
    let body = event.to_string();
    check_size(body.len())?;
    Ok(Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        content_type: Some("application/json".to_owned()),
        body: body.into(),
    })
}

fn content_type(headers: &Map<String, Value>) -> Option<String> {
    let header = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    header.and_then(|(_, value)| value.as_str()).map(str::to_owned)
}

fn check_size(bytes: usize) -> Result<(), ServiceError> {
    if bytes <= MAX_EVENT_BYTES {
        return Ok(());
    }
    Err(ServiceError::new(
        ErrorCode::TooLarge,
        format!(
            "the request has {bytes} bytes; AWS Lambda takes {MAX_EVENT_BYTES}: send a smaller image (a side of 1000 \
             pixels is plenty), or an S3 reference where the deployment allows one"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Value {
        let path = format!("{}/../tests/fixtures/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        serde_json::from_str(&text).expect("an event")
    }

    #[test]
    fn each_event_becomes_the_same_request() {
        for (name, form, path) in [
            ("function_url", Form::HttpV2, "/score"),
            ("api_gateway_v2", Form::HttpV2, "/score"),
            ("api_gateway_v1", Form::HttpV1, "/score"),
            ("plain", Form::Plain, "/"),
        ] {
            let event = fixture(name);
            assert_eq!(Form::of(&event), form, "{name}");
            let request = form.request(&event).expect(name);
            assert_eq!(
                (request.method.as_str(), request.path.as_str()),
                ("POST", path),
                "{name}"
            );
            assert_eq!(request.content_type.as_deref(), Some("application/json"), "{name}");
            let body: Value = serde_json::from_slice(&request.body).expect(name);
            assert_eq!(body, json!({ "image": "AAAA" }), "{name}");
        }
    }

    #[test]
    fn http_events_are_answered_as_http_and_plain_ones_plainly() {
        let response = Response::from(ServiceError::bad_request("no"));
        let parsed = |form: Form| serde_json::from_str::<Value>(&form.response(&response)).expect("JSON");
        let http = parsed(Form::HttpV2);
        assert_eq!(http["statusCode"], 400);
        assert_eq!(http["headers"]["content-type"], "application/json");
        let body: Value = serde_json::from_str(http["body"].as_str().expect("a body")).expect("JSON");
        assert_eq!(body["error"]["code"], "bad_request");
        let plain = parsed(Form::Plain);
        assert_eq!(
            plain,
            json!({ "statusCode": 400, "error": { "code": "bad_request", "message": "no" } })
        );
    }

    #[test]
    fn what_lambda_would_refuse_is_refused() {
        let large = "A".repeat(MAX_EVENT_BYTES + 1);
        let mut event = fixture("function_url");
        event["body"] = large.clone().into();
        for (form, event) in [(Form::HttpV2, event), (Form::Plain, json!({ "image": large }))] {
            let error = form.request(&event).expect_err("too large");
            assert_eq!(error.code, ErrorCode::TooLarge);
            assert!(error.message.contains("S3"), "{error}");
        }
    }

    #[test]
    fn an_event_of_any_shape_gets_an_answer() {
        for event in [
            Value::Null,
            json!([]),
            json!("text"),
            json!({ "requestContext": { "http": {} } }),
        ] {
            let form = Form::of(&event);
            let request = form.request(&event).expect("a request");
            assert_eq!(request.method, "POST");
        }
    }
}
