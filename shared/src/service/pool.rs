//! A fixed number of things, lent to one request at a time each.

use std::sync::{Condvar, Mutex, PoisonError};

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
        // The lock is held for a push or a pop alone, so a poisoned list is still whole.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let one = loop {
            match idle.pop() {
                Some(one) => break one,
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(idle);
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
