//! Answers in time, whatever an image does to its decoder or the network.
//!
//! A thread cannot be stopped from outside. So whoever waits is answered when the deadline is over, and the thread is
//! given the same time once more. If then every pipeline is held by work that does not end, nothing will ever be
//! scored again in this process: it ends, and whoever runs it (Lambda, a container's supervisor) starts another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::service::{ErrorCode, ServiceError};
use tokio::task::JoinHandle;

/// Watches over the work of all requests.
#[derive(Debug)]
pub struct Watchdog {
    deadline: Duration,
    pipelines: usize,
    /// Work that is past its second deadline and still goes on.
    stuck: Arc<AtomicUsize>,
    give_up: fn(),
}

impl Watchdog {
    /// One that gives each request `deadline`, and the process up when as many as there are `pipelines` do not end.
    pub fn new(deadline: Duration, pipelines: usize) -> Self {
        Self {
            deadline,
            pipelines,
            stuck: Arc::default(),
            give_up: || std::process::exit(1),
        }
    }

    /// What `work` gives, or that it took too long; `work` then goes on, and holds what it holds.
    ///
    /// # Errors
    /// `deadline_exceeded`, or `internal` where the work panicked.
    pub async fn watch<T: Send + 'static>(&self, mut work: JoinHandle<T>) -> Result<T, ServiceError> {
        match tokio::time::timeout(self.deadline, &mut work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(internal()),
            Err(_) => {
                self.wait_on(work);
                let message = format!(
                    "no answer within {} s: send a smaller image, or fewer at once",
                    self.deadline.as_secs_f64()
                );
                Err(ServiceError::new(ErrorCode::DeadlineExceeded, message))
            }
        }
    }

    fn wait_on<T: Send + 'static>(&self, mut work: JoinHandle<T>) {
        let (deadline, pipelines, give_up) = (self.deadline, self.pipelines, self.give_up);
        let stuck = Arc::clone(&self.stuck);
        tokio::spawn(async move {
            if tokio::time::timeout(deadline, &mut work).await.is_ok() {
                return;
            }
            let count = stuck.fetch_add(1, Ordering::SeqCst) + 1;
            tracing::error!(count, pipelines, "work on a request does not end");
            if count >= pipelines {
                give_up();
            }
            // However it ends, the pipeline is free again.
            let _ = work.await;
            stuck.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// What is answered when the work panicked.
pub fn internal() -> ServiceError {
    ServiceError::new(ErrorCode::Internal, "a fault of the scorer; its log says more")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    static GIVEN_UP: AtomicBool = AtomicBool::new(false);

    #[tokio::test]
    async fn whoever_waits_is_answered_and_a_process_that_is_stuck_is_given_up() {
        let watchdog = Watchdog {
            give_up: || GIVEN_UP.store(true, Ordering::SeqCst),
            ..Watchdog::new(Duration::from_millis(100), 2)
        };
        let pause = |milliseconds| tokio::time::sleep(Duration::from_millis(milliseconds));
        let stuck = || watchdog.stuck.load(Ordering::SeqCst);
        assert_eq!(watchdog.watch(tokio::spawn(async { 1 })).await, Ok(1));
        let broken = watchdog.watch(tokio::spawn(async { panic!("on purpose") })).await;
        assert_eq!(broken.expect_err("a panic").code, ErrorCode::Internal);

        // One pipeline is stuck for a while: the other one goes on, and nobody gives up.
        let late = watchdog.watch(tokio::spawn(pause(1000))).await.expect_err("too late");
        assert_eq!(late.code, ErrorCode::DeadlineExceeded);
        assert!(late.message.contains("0.1 s"), "{late}");
        while stuck() == 0 {
            pause(10).await;
        }
        assert!(!GIVEN_UP.load(Ordering::SeqCst));
        while stuck() == 1 {
            pause(10).await;
        }

        for _ in 0..2 {
            let endless = tokio::spawn(std::future::pending::<()>());
            watchdog.watch(endless).await.expect_err("too late");
        }
        while !GIVEN_UP.load(Ordering::SeqCst) {
            pause(10).await;
        }
    }
}
