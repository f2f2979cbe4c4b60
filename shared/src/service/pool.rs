//! A fixed number of pipelines, lent to one request at a time each.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::pipeline::Pipeline;

/// The pipelines that are not in use.
pub(super) struct Pool {
    idle: Mutex<Vec<Pipeline>>,
    returned: Condvar,
}

/// Puts the pipeline back, also while a panic unwinds.
struct Lent<'a> {
    pool: &'a Pool,
    pipeline: Option<Pipeline>,
}

impl Pool {
    pub(super) fn new(pipelines: Vec<Pipeline>) -> Self {
        Self {
            idle: Mutex::new(pipelines),
            returned: Condvar::new(),
        }
    }

    /// Waits for an idle pipeline and lends it to `work`.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Pipeline) -> T) -> T {
        // The lock is held for a push or a pop alone, so a poisoned list is still whole.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = loop {
            match idle.pop() {
                Some(pipeline) => break pipeline,
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(idle);
        let mut lent = Lent {
            pool: self,
            pipeline: Some(pipeline),
        };
        work(
            lent.pipeline
                .as_mut()
                .expect("the pipeline is there until it is returned"),
        )
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            self.pool
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(pipeline);
            self.pool.returned.notify_one();
        }
    }
}
