//! A fixed number of things, lent to one request at a time each.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Those that are not in use.
pub(super) struct Pool<T> {
    idle: Mutex<Vec<T>>,
    returned: Condvar,
}

/// Puts it back, also while a panic unwinds.
struct Lent<'a, T> {
    pool: &'a Pool<T>,
    lent: Option<T>,
}

impl<T> Pool<T> {
    pub(super) fn new(idle: Vec<T>) -> Self {
        Self {
            idle: Mutex::new(idle),
            returned: Condvar::new(),
        }
    }

    /// Waits for an idle one and lends it to `work`.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        self.lend(self.wait(), work)
    }

    /// As [`Self::with`]; `None` where it is `until` before there is an idle one.
    pub(super) fn with_before<R>(&self, until: Option<Instant>, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let one = match until {
            Some(until) => self.wait_before(until)?,
            None => self.wait(),
        };
        Some(self.lend(one, work))
    }

    // The lock is held for a push or a pop alone, so a poisoned list is still whole.
    fn wait(&self) -> T {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match idle.pop() {
                Some(one) => return one,
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn wait_before(&self, until: Instant) -> Option<T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Whoever was woken takes what it was woken for, however late it is: nobody else is told of it.
            if let Some(one) = idle.pop() {
                return Some(one);
            }
            let left = until.checked_duration_since(Instant::now())?;
            let woken = self.returned.wait_timeout(idle, left);
            idle = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lend<R>(&self, one: T, work: impl FnOnce(&mut T) -> R) -> R {
        let mut lent = Lent {
            pool: self,
            lent: Some(one),
        };
        work(lent.lent.as_mut().expect("it is there until it is returned"))
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        if let Some(one) = self.lent.take() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            self.pool.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_waits_past_their_time() {
        let pool = Pool::new(vec![7]);
        let soon = || Some(Instant::now() + Duration::from_millis(20));
        pool.with(|_| assert_eq!(pool.with_before(soon(), |one| *one), None));
        assert_eq!(pool.with_before(soon(), |one| *one), Some(7));
        assert_eq!(pool.with_before(None, |one| *one), Some(7));
    }
}
