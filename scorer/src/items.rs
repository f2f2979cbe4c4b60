//! The items of one event, one after the other and each in its time.
//!
//! One thread works on them, and fetches ahead. Where an item takes too long, that thread is left to itself and another
//! goes on with the next item: an image costs its own answer and no other's. What no longer fits the time of the event
//! is answered with a code that makes whoever sent it try again.

use std::time::{Duration, Instant};

use shared::service::{ErrorCode, ServiceError};
use tokio::sync::mpsc;

use crate::watchdog::{Watchdog, before, internal, too_long};

/// The outcome of each of `count` items, before `until`.
///
/// `work` is given the number of an item and works on this one and all after it, in their order; it passes on each
/// outcome and stops when it is told that nobody wants more.
pub async fn each<T: Send + 'static>(
    watchdog: &Watchdog,
    until: Option<Instant>,
    count: usize,
    work: impl Fn(usize, &mut dyn FnMut(T) -> bool) + Clone + Send + 'static,
) -> Vec<Result<T, ServiceError>> {
    let share = share(watchdog.deadline(), until);
    let mut outcomes = Vec::with_capacity(count);
    while outcomes.len() < count {
        // Not as long as it takes the watchdog to give the process up, with an event that is not answered.
        let patience = before(until, share / 2);
        if patience.is_zero() || !watchdog.has_room(patience).await {
            outcomes.resize_with(count, || Err(no_time()));
            break;
        }
        let (sender, mut receiver) = mpsc::channel(1);
        let (work, first) = (work.clone(), outcomes.len());
        let worker = tokio::task::spawn_blocking(move || {
            work(first, &mut |outcome| sender.blocking_send(outcome).is_ok());
        });
        while outcomes.len() < count {
            let patience = before(until, share);
            match tokio::time::timeout(patience, receiver.recv()).await {
                Ok(Some(outcome)) => outcomes.push(Ok(outcome)),
                // It panicked.
                Ok(None) => {
                    outcomes.push(Err(internal()));
                    break;
                }
                Err(_) => {
                    watchdog.leave(worker);
                    // Nobody knows what an item would have taken that was cut short.
                    let is_slow = patience == share;
                    outcomes.push(Err(if is_slow { too_long(share) } else { no_time() }));
                    break;
                }
            }
        }
    }
    outcomes
}

/// What one item may take: at most half of the event's time, so that the others have the other half.
fn share(deadline: Duration, until: Option<Instant>) -> Duration {
    before(until, deadline.saturating_mul(2)) / 2
}

fn no_time() -> ServiceError {
    ServiceError::new(
        ErrorCode::TooManyRequests,
        "the time of this event was over before it was this item's turn: try it again, with fewer items at once",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items that take so many milliseconds each; one that takes 0 panics.
    fn items(times: &'static [u64]) -> impl Fn(usize, &mut dyn FnMut(u64) -> bool) + Clone + Send + 'static {
        |first, give| {
            for time in &times[first..] {
                if *time == 0 {
                    // Without the hook: writing down where it happened can take longer than an item may.
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
                std::thread::sleep(Duration::from_millis(*time));
                if !give(*time) {
                    return;
                }
            }
        }
    }

    fn codes(outcomes: &[Result<u64, ServiceError>]) -> Vec<&'static str> {
        let code = |outcome: &Result<u64, ServiceError>| outcome.as_ref().map_or_else(|e| e.code.name(), |_| "done");
        outcomes.iter().map(code).collect()
    }

    fn after(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn an_item_that_is_slow_or_panics_costs_no_other_its_answer() {
        let watchdog = Watchdog::new(Duration::from_secs(1), 2);
        let outcomes = each(&watchdog, None, 5, items(&[1, 3000, 1, 0, 1])).await;
        assert_eq!(
            codes(&outcomes),
            ["done", "deadline_exceeded", "done", "internal", "done"]
        );
    }

    #[tokio::test]
    async fn what_no_longer_fits_the_time_of_the_event_is_to_be_tried_again() {
        let watchdog = Watchdog::new(Duration::from_mins(1), 9);
        let outcomes = each(&watchdog, Some(after(4000)), 4, items(&[1100, 1100, 3000, 1])).await;
        assert_eq!(
            codes(&outcomes),
            ["done", "done", "too_many_requests", "too_many_requests"]
        );
        // The first alone has half of the time.
        let outcomes = each(&watchdog, Some(after(2000)), 3, items(&[2500, 1, 1])).await;
        assert_eq!(codes(&outcomes), ["deadline_exceeded", "done", "done"]);
        assert!(outcomes[0].as_ref().is_err_and(|error| !error.code.is_passing()));
        assert_eq!(
            codes(&each(&watchdog, Some(after(0)), 1, items(&[1])).await),
            ["too_many_requests"]
        );
    }

    #[tokio::test]
    async fn no_deadline_is_too_long() {
        let watchdog = Watchdog::new(Duration::MAX, 1);
        assert_eq!(codes(&each(&watchdog, None, 1, items(&[1])).await), ["done"]);
    }

    #[tokio::test]
    async fn nothing_is_begun_while_every_place_is_held() {
        let watchdog = Watchdog::new(Duration::from_mins(1), 1);
        let outcomes = each(&watchdog, Some(after(1000)), 2, items(&[3000, 1])).await;
        assert_eq!(codes(&outcomes), ["deadline_exceeded", "too_many_requests"]);
        let outcomes = each(&watchdog, None, 1, items(&[1])).await;
        assert_eq!(codes(&outcomes), ["done"]);
    }
}
