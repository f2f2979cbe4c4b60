//! The same work on many items, by threads of its own, and what threads share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder cannot have left anything half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `work` on each item, by up to `threads` threads; what comes out in the order of the items.
pub(crate) fn in_order<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = threads.clamp(1, items.len().max(1));
    by_workers(&mut vec![(); threads], items, |(), item| work(item))
}

/// As many workers as asked for, made side by side: one after the other, many cores would take longer to begin than a
/// few items take.
pub(crate) fn workers<W: Send, E: Send>(count: usize, make: impl Fn() -> Result<W, E> + Sync) -> Result<Vec<W>, E> {
    in_order(&vec![(); count], count, |()| make()).into_iter().collect()
}

/// `work` on each item, by a thread for each of `workers`; what comes out in the order of the items.
pub(crate) fn by_workers<W: Send, T: Sync, R: Send>(
    workers: &mut [W],
    items: &[T],
    work: impl Fn(&mut W, &T) -> R + Sync,
) -> Vec<R> {
    if let [worker] = workers {
        return items.iter().map(|item| work(worker, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let take = |worker: &mut W| {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break done };
            done.push((index, work(worker, item)));
        }
    };
    let take = &take;
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(move || take(worker)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
        let joined = threads.into_iter().map(join);
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// As [`by_workers`], but for work that can fail: no item is begun after one that did.
///
/// # Errors
/// That of the first item, in their order, that failed.
pub(crate) fn try_by_workers<W: Send, T: Sync, R: Send, E: Send>(
    workers: &mut [W],
    items: &[T],
    work: impl Fn(&mut W, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let failed = AtomicBool::new(false);
    let done = by_workers(workers, items, |worker, item| {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let result = work(worker, item);
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        Some(result)
    });
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        for count in [0, 1, 2, 7, 100] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|item| 2 * item).collect();
            for threads in [0, 1, 3, 200] {
                assert_eq!(in_order(&items, threads, |item| 2 * item), doubled);
            }
        }
    }

    #[test]
    fn workers_work_at_once_each_with_its_own() {
        let meeting = Barrier::new(3);
        let mut counts = [0; 3];
        let items: Vec<usize> = (0..9).collect();
        let doubled = by_workers(&mut counts, &items, |count, item| {
            meeting.wait();
            *count += 1;
            2 * item
        });
        assert_eq!(doubled, [0, 2, 4, 6, 8, 10, 12, 14, 16]);
        assert_eq!(counts, [3; 3]);
    }

    #[test]
    fn no_item_is_begun_after_one_that_failed() {
        for threads in [1, 3] {
            let mut counts = vec![0; threads];
            let items = [0, 1, 2, 3, 4, 5];
            let work = |count: &mut usize, item: &usize| {
                *count += 1;
                if *item == 5 { Err(*item) } else { Ok(*item) }
            };
            assert_eq!(try_by_workers(&mut counts, &items[..5], work), Ok(vec![0, 1, 2, 3, 4]));
            assert_eq!(try_by_workers(&mut counts, &items, work), Err(5));
        }
        let mut count = [0];
        let failing = |count: &mut usize, item: &usize| {
            *count += 1;
            if *item < 5 { Ok(()) } else { Err(*item) }
        };
        assert_eq!(try_by_workers(&mut count, &[0, 1, 5, 6, 7], failing), Err(5));
        assert_eq!(count, [3]);
    }
}
