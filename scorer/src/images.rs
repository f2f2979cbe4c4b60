//! Images that requests name instead of bringing them, read from the buckets that the deployment allows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use shared::buckets::Buckets;
use shared::service::{AllowedBuckets, References, S3Reference, ServiceError, not_allowed};
use shared::store::{Patience, StoreError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::configuration::Configuration;

/// The largest image that is read from a bucket, in bytes.
const MAX_BYTES: u64 = 32 << 20;
/// How long an attempt waits for an answer, and for each piece of it, before S3 is best asked again. Three attempts
/// take 7 s at most, and so are over within the time of a request, or half of it, which an item of a batch has: it is
/// the store that is told of then, and not the image.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html>
const ANSWER: Duration = Duration::from_secs(2);
/// How many images of one request are fetched at once.
const AHEAD: usize = 4;

/// The buckets that images are read from.
pub struct Images {
    allowed: AllowedBuckets,
    buckets: Arc<Buckets>,
    handle: Handle,
}

impl Images {
    /// Nothing where no bucket is allowed.
    pub fn of(configuration: &Configuration) -> Option<Self> {
        (!configuration.allowed.is_empty()).then(|| Self {
            allowed: configuration.allowed.clone(),
            buckets: Arc::new(Buckets::with_patience(Patience {
                answer: ANSWER,
                stall: ANSWER,
                ..Patience::default()
            })),
            handle: Handle::current(),
        })
    }
}

impl References for Images {
    fn fetch(&self, references: Vec<S3Reference>) -> Box<dyn Iterator<Item = Result<Bytes, ServiceError>> + '_> {
        let (sender, mut receiver) = mpsc::channel(1);
        let fetches = references.into_iter().map(|reference| {
            let allowed = self.allowed.allows(&reference);
            let buckets = Arc::clone(&self.buckets);
            async move {
                if allowed {
                    buckets.fetch(&reference, MAX_BYTES, tell).await
                } else {
                    Err(not_allowed(&reference))
                }
            }
        });
        let fetches: Vec<_> = fetches.collect();
        self.handle.spawn(async move {
            let mut images = stream::iter(fetches).buffered(AHEAD);
            while let Some(image) = images.next().await {
                // Nobody waits any more.
                if sender.send(image).await.is_err() {
                    break;
                }
            }
        });
        Box::new(std::iter::from_fn(move || receiver.blocking_recv()))
    }
}

/// What callers are told of an error, after the log was told all of it.
fn tell(error: StoreError) -> String {
    tracing::warn!(%error, "an image cannot be read from its bucket");
    error.for_callers().to_string()
}
