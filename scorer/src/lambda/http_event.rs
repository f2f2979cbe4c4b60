//! Events that stand for an HTTP request: of a function URL, of API Gateway, of an Application Load Balancer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use shared::service::{Request, Response, ServiceError};

/// Who sent the event, which decides how it is read and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A function URL, or API Gateway with payload version 2.
    V2,
    /// API Gateway with payload version 1.
    V1,
    /// An Application Load Balancer; with several values for each header where its target group says so.
    LoadBalancer { multi_value: bool },
}

impl Form {
    /// `None` for an event that stands for no HTTP request.
    pub(super) fn of(event: &Value) -> Option<Self> {
        let context = &event["requestContext"];
        if context["elb"].is_object() {
            let multi_value = event["multiValueHeaders"].is_object();
            Some(Self::LoadBalancer { multi_value })
        } else if context["http"].is_object() {
            Some(Self::V2)
        } else if event["httpMethod"].is_string() && context.is_object() {
            Some(Self::V1)
        } else {
            None
        }
    }

    /// What a log calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V2 => "http-v2",
            Self::V1 => "http-v1",
            Self::LoadBalancer { .. } => "load-balancer",
        }
    }

    /// The most bytes of an answer that it takes.
    pub(super) fn most_bytes(self) -> usize {
        match self {
            Self::V2 | Self::V1 => super::MAX_BYTES,
            Self::LoadBalancer { .. } => 1 << 20,
        }
    }

    /// Method and path of the request.
    pub(super) fn target(self, event: &Value) -> (String, String) {
        let (method, path) = match self {
            Self::V2 => (&event["requestContext"]["http"]["method"], &event["rawPath"]),
            Self::V1 | Self::LoadBalancer { .. } => (&event["httpMethod"], &event["path"]),
        };
        let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
        let (method, mut path) = (text(method, "POST").to_ascii_uppercase(), text(path, "/"));
        // API Gateway puts a stage that has a name before the path, but for REST APIs, whose events have no version.
        let is_of_rest_api = self == Self::V1 && event["version"].is_null();
        let stage = event["requestContext"]["stage"]
            .as_str()
            .filter(|_| !is_of_rest_api)
            .map(|stage| format!("/{stage}/"));
        if let Some(rest) = stage.and_then(|stage| path.strip_prefix(&stage)) {
            path = format!("/{rest}");
        }
        (method, path)
    }

    /// # Errors
    /// `bad_request` where the body is not what the event says it is.
    pub(super) fn request(self, event: &Value) -> Result<Request, ServiceError> {
        let (method, path) = self.target(event);
        let body = event["body"].as_str().unwrap_or_default();
        let body = if event["isBase64Encoded"].as_bool() == Some(true) {
            STANDARD
                .decode(body)
                .map_err(|error| ServiceError::bad_request(format!("the event's body is not valid base64: {error}")))?
        } else {
            body.as_bytes().to_vec()
        };
        Ok(Request {
            method,
            path,
            content_type: header(event, "content-type").map(str::to_owned),
            body: body.into(),
        })
    }

    /// The answer as JSON text.
    pub(super) fn response(self, response: &Response) -> String {
        let mut headers = Map::from_iter([("content-type".to_owned(), Value::from(response.content_type))]);
        let further = response.headers.iter();
        headers.extend(further.map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))));
        let mut answer = json!({
            "statusCode": response.status,
            "body": String::from_utf8_lossy(&response.body),
            "isBase64Encoded": false,
        });
        match self {
            // Optional for AWS, not for cargo-lambda's emulator.
            Self::V2 => answer["cookies"] = json!([]),
            Self::V1 => {}
            Self::LoadBalancer { multi_value } => {
                let status = http::StatusCode::from_u16(response.status).unwrap_or_default();
                answer["statusDescription"] = status.to_string().into();
                if multi_value {
                    answer["multiValueHeaders"] = headers
                        .iter()
                        .map(|(name, value)| (name.clone(), json!([value])))
                        .collect();
                    return answer.to_string();
                }
            }
        }
        answer["headers"] = headers.into();
        answer.to_string()
    }
}

/// The value of a header, the last one where there are several; names are compared without regard to case.
pub(super) fn header<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    let find = |headers: &'a Value| {
        let mut headers = headers.as_object()?.iter();
        headers
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let several = || find(&event["multiValueHeaders"])?.as_array()?.last();
    find(&event["headers"]).or_else(several)?.as_str()
}
