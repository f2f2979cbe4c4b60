//! What an S3 server or the network said, as errors that tell what to do.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::{S3Store, StoreError};
use crate::causes::chain;

/// Codes of faults that pass, whatever the status they come with: those that the SDK tries again (`THROTTLING_ERRORS`
/// and `TRANSIENT_ERRORS` in `retries/classifiers.rs` of aws-runtime), and a conflict that S3 asks to try again.
const PASSING: [&str; 17] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "OperationAborted",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// Whether the answer is that there is no such object (and not that there is no such bucket).
pub(super) fn is_not_found<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    status(error) == Some(404) && error.code() != Some("NoSuchBucket")
}

/// Translates `error`, the outcome of an attempt at `action` on `key`.
pub(super) fn explain<E>(
    store: &S3Store,
    key: &str,
    action: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let place = store.place(key);
    let code = error.code().unwrap_or_default();
    let reason = match (code, error.message()) {
        ("", _) => chain(error),
        (code, None) => code.to_owned(),
        (code, Some(message)) => format!("{code}: {message}"),
    };
    let status = status(error);
    let passes = passes(code, status);
    match (code, status) {
        // Reads answer "no such key" with nothing; a write meets it where the object to replace is gone.
        ("PreconditionFailed" | "ConditionalRequestConflict" | "NoSuchKey", _) | (_, Some(412)) => {
            StoreError::ConditionFailed { place }
        }
        ("NoSuchBucket", _) => StoreError::NoBucket {
            bucket: store.bucket.clone(),
        },
        (
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired",
            _,
        ) => StoreError::Credentials { place, reason },
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (_, Some(301)) => StoreError::Region { place, reason },
        ("InvalidObjectState", _) => StoreError::Archived { place, reason },
        (_, Some(403)) if !passes => StoreError::Denied { place, action, reason },
        // The chain of credential providers fails before any request is sent, without a code of its own.
        (_, None) if reason.contains("credential") => StoreError::Credentials { place, reason },
        _ => StoreError::Request {
            place,
            action,
            passes,
            reason,
        },
    }
}

/// Whether another attempt may succeed: of the errors that a client is told to be its own, only some may.
fn passes(code: &str, status: Option<u16>) -> bool {
    let is_refused = status.is_some_and(|status| (400..500).contains(&status) && !matches!(status, 408 | 429));
    !is_refused || PASSING.contains(&code)
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn what_lasts_is_told_apart_by_code_and_status() {
        for (code, status) in [
            ("", 400),
            ("InvalidRequest", 400),
            ("AccessDenied", 403),
            ("MethodNotAllowed", 405),
            ("InvalidBucketState", 409),
        ] {
            assert!(!passes(code, Some(status)), "{code} {status}");
        }
        for (code, status) in [
            ("", None),
            ("", Some(200)),
            ("", Some(307)),
            ("", Some(408)),
            ("", Some(429)),
            ("InternalError", Some(500)),
            ("SlowDown", Some(503)),
            ("RequestTimeout", Some(400)),
            ("ThrottlingException", Some(400)),
            ("RequestLimitExceeded", Some(403)),
            ("OperationAborted", Some(409)),
        ] {
            assert!(passes(code, status), "{code} {status:?}");
        }
    }
}
