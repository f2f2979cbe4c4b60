//! What is said of a request that gets no score: a stable code, its HTTP status, a message for people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::image::ImageError;
use crate::pipeline::PipelineError;

/// The stable name of a failure. Callers branch on it, so that messages stay free to improve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, no image, several images where one is asked for, not base64.
    BadRequest,
    /// An image in a bucket that this deployment does not read, or that the store refuses for good.
    Forbidden,
    /// A path, a model or an image in a bucket that does not exist.
    NotFound,
    /// A method that no path takes.
    MethodNotAllowed,
    /// More bytes than are taken.
    TooLarge,
    /// Not an image format that is read here.
    UnsupportedFormat,
    /// An image that is damaged, empty, or has too many pixels.
    UndecodableImage,
    /// More requests at once than are taken.
    TooManyRequests,
    /// The scoring function is at fault.
    Internal,
    /// No model is loaded yet, or none can be.
    ModelUnavailable,
    /// The store that an image is to be read from does not answer.
    StorageUnavailable,
    /// The answer took longer than a request may.
    DeadlineExceeded,
}

impl ErrorCode {
    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedFormat => "unsupported_format",
            Self::UndecodableImage => "undecodable_image",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::ModelUnavailable => "model_unavailable",
            Self::StorageUnavailable => "storage_unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    /// The HTTP status that goes with the code.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::UnsupportedFormat => 415,
            Self::UndecodableImage => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::ModelUnavailable | Self::StorageUnavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// Whether the same request may be answered later.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::TooManyRequests | Self::Internal | Self::ModelUnavailable | Self::StorageUnavailable
        )
    }
}

/// Why a request, or one image of it, got no score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, ToSchema)]
#[error("{message}")]
pub struct ServiceError {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What happened and what to do next.
    pub message: String,
}

impl ServiceError {
    /// An error of kind `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// It was not this image's turn before the time of its request was over.
    pub(super) fn over() -> Self {
        Self::new(
            ErrorCode::DeadlineExceeded,
            "the time of the request was over before it was this image's turn: send fewer at once",
        )
    }

    /// The request is at fault.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }
}

impl From<PipelineError> for ServiceError {
    fn from(error: PipelineError) -> Self {
        let code = match &error {
            PipelineError::Image(ImageError::TooManyBytes { .. }) => ErrorCode::TooLarge,
            PipelineError::Image(ImageError::UnsupportedFormat) => ErrorCode::UnsupportedFormat,
            PipelineError::Image(
                ImageError::TooManyPixels { .. } | ImageError::Empty { .. } | ImageError::Undecodable { .. },
            ) => ErrorCode::UndecodableImage,
            PipelineError::Network(_) => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkError;

    #[test]
    fn each_pipeline_error_has_its_status() {
        let cases: [(PipelineError, u16, &str); 6] = [
            (ImageError::TooManyBytes { bytes: 2, limit: 1 }.into(), 413, "too_large"),
            (ImageError::UnsupportedFormat.into(), 415, "unsupported_format"),
            (
                ImageError::TooManyPixels {
                    width: 9,
                    height: 9,
                    limit: 1,
                }
                .into(),
                422,
                "undecodable_image",
            ),
            (
                ImageError::Empty { width: 0, height: 1 }.into(),
                422,
                "undecodable_image",
            ),
            (
                ImageError::Undecodable {
                    reason: "cut".to_owned(),
                }
                .into(),
                422,
                "undecodable_image",
            ),
            (NetworkError::NotFinite.into(), 500, "internal"),
        ];
        for (error, status, code) in cases {
            let error = ServiceError::from(error);
            assert_eq!(error.code.status(), status);
            assert_eq!(serde_json::to_value(error.code).expect("a code has a JSON form"), code);
        }
    }
}
