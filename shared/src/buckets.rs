//! Images that are named by their place in a bucket, for the scoring function and for whoever scores as it does.

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::service::{ErrorCode, S3Reference, ServiceError};
use crate::store::{Patience, S3Store, StoreError};

/// Every bucket that the environment's credentials open.
#[derive(Debug, Default)]
pub struct Buckets {
    any: OnceCell<S3Store>,
    patience: Patience,
}

impl Buckets {
    /// The same buckets, waited for with other time limits.
    pub fn with_patience(patience: Patience) -> Self {
        Self {
            patience,
            ..Self::default()
        }
    }

    /// The image that `reference` names, of at most `limit` bytes. What is told of an error is for `tell` to say.
    ///
    /// # Errors
    /// With the codes of the scoring function: `not_found`, `too_large`, `forbidden` for what the store refuses, and
    /// `storage_unavailable` for what may pass.
    pub async fn fetch(
        &self,
        reference: &S3Reference,
        limit: u64,
        tell: fn(StoreError) -> String,
    ) -> Result<Bytes, ServiceError> {
        let failed = |error: StoreError| ServiceError::new(code(&error), tell(error));
        let connect = || async {
            let store = S3Store::connect(&reference.bucket, "").await?;
            Ok::<_, StoreError>(store.with_patience(self.patience))
        };
        let any = self.any.get_or_try_init(connect).await.map_err(failed)?;
        let bucket = any.in_bucket(&reference.bucket);
        let found = bucket
            .object(&reference.key, reference.version.as_deref(), limit)
            .await
            .map_err(failed)?;
        found.map(|object| object.bytes).ok_or_else(|| {
            let message = format!("there is no object {reference}");
            ServiceError::new(ErrorCode::NotFound, message)
        })
    }
}

fn code(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::TooLarge { .. } => ErrorCode::TooLarge,
        StoreError::NoBucket { .. } => ErrorCode::NotFound,
        error if error.is_refusal() => ErrorCode::Forbidden,
        _ => ErrorCode::StorageUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_not_told_as_passing() {
        for (passes, expected) in [(false, ErrorCode::Forbidden), (true, ErrorCode::StorageUnavailable)] {
            let error = StoreError::Request {
                place: "s3://bucket/key".to_owned(),
                action: "read it",
                passes,
                reason: "a reason".to_owned(),
            };
            assert_eq!(code(&error), expected);
        }
    }
}
