//! Many images through every core, one result after the other in the order of the items, in bounded memory.
//!
//! Images are read ahead, so that no core waits for a disk or a network; an item takes its place among those under way
//! before it is read, and gives it back when its result has been taken. So there are never more than [`UNDER_WAY`]
//! for each thread, however long the list is and however slow the taker.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use shared::service::ServiceError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::image_reader::ImageReader;
use crate::threads::lock;

/// Items between the list and the taker of results, for each thread.
const UNDER_WAY: usize = 32;
/// Images read at once, for each thread.
const READS: usize = 8;

/// Something with an image to read.
pub trait Addressed {
    /// Where the image is, as [`ImageReader::read`] understands it, or why there is none.
    ///
    /// # Errors
    /// What is wrong with the item.
    fn address(&self) -> Result<&str, ServiceError>;
}

/// An item whose image has been read.
struct Loaded<T> {
    number: u64,
    item: T,
    image: Result<Bytes, ServiceError>,
    place: OwnedSemaphorePermit,
}

/// Ends the reading when its owner ends, also by a panic: from there on results lack one, or nobody takes them.
struct Ending<'a>(&'a Notify);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Gives each of `items` with its image to one of `workers`, each on a thread of its own, and what comes out to `take`,
/// in the order of the items. An error of `take` ends it all.
///
/// `items` is read on a thread that outlives this call where it is waiting for input.
///
/// # Panics
/// Where a worker does, or `items`.
///
/// # Errors
/// Those of `take`, and of the system where it has no thread or runtime left.
pub fn run<T, R, E, W>(
    items: impl Iterator<Item = T> + Send + 'static,
    reader: &ImageReader,
    workers: Vec<W>,
    mut take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    T: Addressed + Send + 'static,
    R: Send,
    E: From<std::io::Error>,
    W: FnMut(T, Result<Bytes, ServiceError>) -> R + Send,
{
    let threads = workers.len().max(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (items_in, items_out) = mpsc::channel(threads);
    let listing = std::thread::Builder::new().spawn(move || {
        for item in items {
            if items_in.blocking_send(item).is_err() {
                break;
            }
        }
    })?;
    let (loaded_in, loaded_out) = mpsc::channel(threads);
    let loaded_out = Arc::new(Mutex::new(loaded_out));
    // Bounded by the places.
    let (results_in, results_out) = std::sync::mpsc::channel();
    let over = &Notify::new();
    std::thread::scope(|scope| {
        let _ending = Ending(over);
        scope.spawn(move || runtime.block_on(load(items_out, reader, loaded_in, threads, over)));
        for mut worker in workers {
            let loaded = Arc::clone(&loaded_out);
            let results = results_in.clone();
            scope.spawn(move || {
                let _ending = Ending(over);
                loop {
                    let next = lock(&loaded).blocking_recv();
                    let Some(Loaded {
                        number,
                        item,
                        image,
                        place,
                    }) = next
                    else {
                        break;
                    };
                    if results.send((number, worker(item, image), place)).is_err() {
                        break;
                    }
                }
            });
        }
        drop((results_in, loaded_out));
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for (number, result, place) in results_out {
            waiting.insert(number, (result, place));
            while let Some((result, _place)) = waiting.remove(&next) {
                take(result)?;
                next += 1;
            }
        }
        Ok::<_, E>(())
    })?;
    // Every item has been taken, so that nothing is waited for. A panic in between is no end of them.
    if let Err(panic) = listing.join() {
        resume_unwind(panic);
    }
    Ok(())
}

/// Reads the images of `items`, several at once, until there are no more or it is `over`.
async fn load<T: Addressed>(
    items: mpsc::Receiver<T>,
    reader: &ImageReader,
    loaded: mpsc::Sender<Loaded<T>>,
    threads: usize,
    over: &Notify,
) {
    let places = Arc::new(Semaphore::new(UNDER_WAY * threads));
    let numbered = stream::unfold((items, 0), |(mut items, number)| {
        let places = Arc::clone(&places);
        async move {
            let place = places.acquire_owned().await.ok()?;
            let item = items.recv().await?;
            Some(((number, item, place), (items, number + 1)))
        }
    });
    let images = numbered.map(|(number, item, place)| async move {
        let image = match item.address() {
            Ok(address) => reader.read(address).await,
            Err(error) => Err(error),
        };
        Loaded {
            number,
            item,
            image,
            place,
        }
    });
    let sending = images.buffer_unordered(READS * threads).for_each(|image| async {
        // Nobody takes it: `over` ends this.
        let _ = loaded.send(image).await;
    });
    tokio::select! {
        () = sending => {}
        () = over.notified() => {}
    }
}

#[cfg(test)]
mod tests {
    use shared::image::Limits;

    use super::*;

    impl Addressed for usize {
        fn address(&self) -> Result<&str, ServiceError> {
            Err(ServiceError::bad_request(self.to_string()))
        }
    }

    fn reader() -> ImageReader {
        ImageReader::new(Limits::default(), false).expect("a reader")
    }

    #[test]
    fn results_come_in_the_order_of_the_items_whatever_the_threads() {
        for threads in [1, 3, 8] {
            let workers = (0..threads)
                .map(|_| {
                    |item: usize, image: Result<Bytes, ServiceError>| {
                        if item.is_multiple_of(7) {
                            std::thread::sleep(std::time::Duration::from_millis(2));
                        }
                        (item, image.expect_err("no image").message)
                    }
                })
                .collect();
            let mut taken = Vec::new();
            let take = |(item, message): (usize, String)| {
                assert_eq!(message, item.to_string());
                taken.push(item);
                Ok::<_, std::io::Error>(())
            };
            run(0..1000_usize, &reader(), workers, take).expect("all");
            assert_eq!(taken, (0..1000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_taker_that_fails_ends_it_although_items_never_end() {
        let workers = vec![|item: usize, _| item; 2];
        let mut count = 0;
        let take = |_| {
            count += 1;
            if count == 100 {
                return Err(std::io::Error::other("enough"));
            }
            Ok(())
        };
        run(0_usize.., &reader(), workers, take).expect_err("the taker's error");
        assert_eq!(count, 100);
    }

    #[test]
    fn a_worker_that_panics_ends_it_although_its_result_is_waited_for() {
        let (running, ended) = std::sync::mpsc::channel::<()>();
        let call = std::thread::spawn(move || {
            let _running = running;
            let worker = |item: usize, _| {
                assert_ne!(item, 3, "more than the worker can take");
                item
            };
            run(0_usize.., &reader(), vec![worker; 2], |_| Ok::<_, std::io::Error>(()))
        });
        let waited = ended.recv_timeout(std::time::Duration::from_mins(1));
        assert_eq!(waited, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        call.join().expect_err("the panic");
    }

    #[test]
    fn a_list_that_panics_is_not_taken_for_one_that_ends() {
        let items = (0..10_usize).inspect(|item| assert_ne!(*item, 3, "more than can be listed"));
        let call = std::thread::spawn(move || {
            let workers = vec![|item: usize, _| item; 2];
            run(items, &reader(), workers, |_| Ok::<_, std::io::Error>(()))
        });
        call.join().expect_err("the panic");
    }

    #[test]
    fn a_taker_that_fails_ends_it_although_the_next_item_is_waited_for() {
        let (keyboard, typed) = std::sync::mpsc::channel::<usize>();
        keyboard.send(0).expect("a listener");
        let (running, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let _running = running;
            let workers = vec![|item: usize, _| item; 2];
            let take = |_| Err(std::io::Error::other("enough"));
            run(typed.into_iter(), &reader(), workers, take).expect_err("the taker's error");
        });
        let waited = ended.recv_timeout(std::time::Duration::from_mins(1));
        assert_eq!(waited, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        drop(keyboard);
    }

    #[test]
    fn no_more_items_are_taken_from_the_list_than_are_under_way() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static READ: AtomicUsize = AtomicUsize::new(0);
        let items = (0..10_000_usize).inspect(|_| {
            READ.fetch_add(1, Ordering::SeqCst);
        });
        let workers = vec![|item: usize, _| item];
        let take = |item| {
            let most = item + UNDER_WAY + 8;
            assert!(READ.load(Ordering::SeqCst) <= most, "{item}");
            Ok::<_, std::io::Error>(())
        };
        run(items, &reader(), workers, take).expect("all");
    }
}
