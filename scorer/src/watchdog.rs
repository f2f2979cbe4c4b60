//! Answers in time, whatever an image does to its decoder or the network.
//!
//! A thread cannot be stopped from outside. So whoever waits is answered when the deadline is over, and the thread,
//! which stops by itself when it is done with the image at hand, is given twice the same time for that. If then every
//! place is held by an image that does not end, nothing will ever be scored again in this process: it ends, and whoever
//! runs it (Lambda, a container's supervisor) starts another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::service::{ErrorCode, ServiceError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Watches over the work of all requests.
#[derive(Debug)]
pub struct Watchdog {
    deadline: Duration,
    places: usize,
    /// Work that nobody waits for any more and that still goes on.
    late: watch::Sender<usize>,
    /// That of it which is still at the same image after two more deadlines.
    stuck: Arc<AtomicUsize>,
    give_up: fn(),
}

impl Watchdog {
    /// One that gives each request `deadline`, and the process up when images that do not end hold all `places`.
    pub fn new(deadline: Duration, places: usize) -> Self {
        Self {
            deadline,
            places,
            late: watch::Sender::default(),
            stuck: Arc::default(),
            give_up: || std::process::exit(1),
        }
    }

    /// The longest time for one piece of work.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// When a request that arrives now must be answered, at `until` at the latest.
    pub fn until(&self, until: Option<Instant>) -> Option<Instant> {
        let deadline = Instant::now().checked_add(self.deadline);
        [deadline, until].into_iter().flatten().min()
    }

    /// Waits, for as long as `patience`, until a place is not held by work that is late; else more work would wait in
    /// vain.
    pub async fn has_room(&self, patience: Duration) -> bool {
        let mut late = self.late.subscribe();
        let room = late.wait_for(|late| *late < self.places);
        tokio::time::timeout(patience, room).await.is_ok()
    }

    /// What `work` gives, or that it took too long, which is said at `until` at the latest; `work` then goes on to
    /// the end of the image at hand, and holds what it holds.
    ///
    /// # Errors
    /// `deadline_exceeded`, or `internal` where the work panicked.
    pub async fn watch<T: Send + 'static>(
        &self,
        mut work: JoinHandle<T>,
        until: Option<Instant>,
    ) -> Result<T, ServiceError> {
        let patience = before(until, self.deadline);
        match tokio::time::timeout(patience, &mut work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(internal()),
            Err(_) => {
                self.leave(work);
                Err(too_long(patience))
            }
        }
    }

    /// Leaves `work` to itself, which took too long and begins no further image, and keeps count of it.
    pub fn leave<T: Send + 'static>(&self, mut work: JoinHandle<T>) {
        // The image at hand may have been begun a moment ago.
        let patience = self.deadline.saturating_mul(2);
        let (places, give_up) = (self.places, self.give_up);
        let (late, stuck) = (self.late.clone(), Arc::clone(&self.stuck));
        late.send_modify(|late| *late += 1);
        tokio::spawn(async move {
            if tokio::time::timeout(patience, &mut work).await.is_err() {
                let count = stuck.fetch_add(1, Ordering::SeqCst) + 1;
                tracing::error!(count, places, "the work on an image does not end");
                if count >= places {
                    give_up();
                }
                // However it ends, its place is free again.
                let _ = work.await;
                stuck.fetch_sub(1, Ordering::SeqCst);
            }
            late.send_modify(|late| *late -= 1);
        });
    }
}

/// `time`, or what is left of it before `until`.
pub fn before(until: Option<Instant>, time: Duration) -> Duration {
    until.map_or(time, |until| time.min(until.saturating_duration_since(Instant::now())))
}

/// What is answered when the work took too long.
pub fn too_long(time: Duration) -> ServiceError {
    let message = format!(
        "no answer within {} s: send a smaller image, or fewer at once",
        (time.as_secs_f64() * 100.0).round() / 100.0
    );
    ServiceError::new(ErrorCode::DeadlineExceeded, message)
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

    /// Waits until something `is_so`, which on the slowest machine takes less than a minute.
    async fn wait_until(is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .expect("in time");
    }

    #[tokio::test]
    async fn whoever_waits_is_answered_and_a_process_that_is_stuck_is_given_up() {
        let watchdog = Watchdog {
            give_up: || GIVEN_UP.store(true, Ordering::SeqCst),
            ..Watchdog::new(Duration::from_millis(100), 2)
        };
        let stuck = || watchdog.stuck.load(Ordering::SeqCst);
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        assert_eq!(watchdog.watch(tokio::spawn(async { 1 }), None).await, Ok(1));
        // Without the hook: writing down where it happened can take longer than the deadline.
        let panic = tokio::spawn(async { std::panic::resume_unwind(Box::new("on purpose")) });
        let broken = watchdog.watch(panic, None).await;
        assert_eq!(broken.expect_err("a panic").code, ErrorCode::Internal);

        // One place is held for a while: the other one goes on, and nobody gives up.
        let late = watchdog.watch(tokio::spawn(held), None).await;
        let late = late.expect_err("too late");
        assert_eq!(late.code, ErrorCode::DeadlineExceeded);
        assert!(late.message.contains("0.1 s"), "{late}");
        assert!(watchdog.has_room(Duration::ZERO).await);
        wait_until(|| stuck() == 1).await;
        assert!(!GIVEN_UP.load(Ordering::SeqCst));
        drop(release);
        wait_until(|| stuck() == 0).await;

        for _ in 0..2 {
            let endless = tokio::spawn(std::future::pending::<()>());
            watchdog.watch(endless, None).await.expect_err("too late");
        }
        assert!(!watchdog.has_room(Duration::ZERO).await);
        wait_until(|| GIVEN_UP.load(Ordering::SeqCst)).await;
    }

    #[tokio::test]
    async fn nobody_waits_past_the_time_of_their_event() {
        let watchdog = Watchdog::new(Duration::from_mins(1), 2);
        let until = Instant::now() + Duration::from_millis(50);
        let endless = tokio::spawn(std::future::pending::<()>());
        let late = watchdog.watch(endless, Some(until)).await.expect_err("too late");
        assert_eq!(late.code, ErrorCode::DeadlineExceeded);
        assert!(until.elapsed() < Duration::from_secs(30));
    }
}
