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
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use lambda_runtime::{LambdaInvocation, Service};

use super::until;
use crate::Failure;
use crate::watchdog::before;

/// No instance is kept awake for longer than this, which models take to load. What is not loaded by then goes on with
/// the next invocation.
const LONGEST: Duration = Duration::from_secs(3);

/// The runtime's way from an invocation to an answer that is posted, and then to nothing that is still being loaded.
///
/// While a store does not answer, every invocation finds a look at it that is not over. Waiting for it each time would
/// take many times the instances that the answers need: after once in vain, none waits longer than its answer took.
pub struct Afterwards<S, F> {
    answering: S,
    /// Waits while something is being loaded.
    settled: F,
    /// Whether that was waited for in vain the last time.
    in_vain: Arc<AtomicBool>,
}

impl<S, F> Afterwards<S, F> {
    pub fn new(answering: S, settled: F) -> Self {
        Self {
            answering,
            settled,
            in_vain: Arc::default(),
        }
    }
}

impl<S, F, W> Service<LambdaInvocation> for Afterwards<S, F>
where
    S: Service<LambdaInvocation, Response = (), Error = Failure>,
    S::Future: Send + 'static,
    F: Fn() -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    type Response = ();
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.answering.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let begun = Instant::now();
        let until = until(invocation.context.deadline());
        let answering = self.answering.call(invocation);
        let (settled, in_vain) = (self.settled.clone(), Arc::clone(&self.in_vain));
        Box::pin(async move {
            answering.await?;
            let patience = if in_vain.load(Ordering::Relaxed) {
                begun.elapsed().min(LONGEST)
            } else {
                LONGEST
            };
            let settling = tokio::time::timeout(before(until, patience), settled());
            in_vain.store(settling.await.is_err(), Ordering::Relaxed);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use lambda_runtime::service_fn;

    use super::*;

    #[tokio::test]
    async fn what_does_not_settle_is_waited_for_once() {
        let answering = service_fn(|_: LambdaInvocation| async { Ok::<_, Failure>(()) });
        let mut afterwards = Afterwards::new(answering, std::future::pending::<()>);
        let mut times = Vec::new();
        for _ in 0..3 {
            let (parts, ()) = http::Response::new(()).into_parts();
            let invocation = LambdaInvocation {
                parts,
                body: bytes::Bytes::new(),
                context: lambda_runtime::Context::default(),
            };
            let begun = Instant::now();
            afterwards.call(invocation).await.expect("an answer");
            times.push(begun.elapsed());
        }
        assert!(times[0] >= LONGEST && times[1] + times[2] < LONGEST, "{times:?}");
    }
}
