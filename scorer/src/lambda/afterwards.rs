//! What an instance does between an answer and the next invocation.
//!
//! Lambda stops an instance while it waits for an invocation, and with it what goes on in the background: a version
//! that is being loaded would take as many invocations as it needs. The caller has the answer once it was posted,
//! whenever the next invocation is asked for, so that an instance can see its loading through without anybody waiting
//! for it.
//!
//! <https://aws.amazon.com/blogs/compute/running-code-after-returning-a-response-from-an-aws-lambda-function/>

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use lambda_runtime::{LambdaInvocation, Service};

use super::until;
use crate::Failure;
use crate::model::Model;

/// No instance is kept awake for longer than this, which models take to load, and which is little where a store does
/// not answer. What is not loaded by then goes on with the next invocation.
const LONGEST: Duration = Duration::from_secs(3);

/// The runtime's way from an invocation to an answer that is posted, and then to nothing that is still being loaded.
pub struct Afterwards<S> {
    pub answering: S,
    pub model: Arc<Model>,
}

impl<S> Service<LambdaInvocation> for Afterwards<S>
where
    S: Service<LambdaInvocation, Response = (), Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.answering.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let until = until(invocation.context.deadline());
        let answering = self.answering.call(invocation);
        let model = Arc::clone(&self.model);
        Box::pin(async move {
            answering.await?;
            let longest = Instant::now() + LONGEST;
            let until = until.map_or(longest, |until| until.min(longest));
            // What is too late is left to the next invocation.
            let _ = tokio::time::timeout_at(until.into(), model.settled()).await;
            Ok(())
        })
    }
}
