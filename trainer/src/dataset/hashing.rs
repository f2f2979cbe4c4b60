//! Hashes of a data set's pictures without a network, for dividing it before any training.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use shared::image::{self, Limits};

use super::{Dataset, Skipped, dhash, near_duplicate_groups, read};
use crate::progress::Progress;

/// The difference hash of each image, in the data set's order, or why it could not be read.
pub fn hashes(
    dataset: &Dataset,
    limits: Limits,
    threads: usize,
    progress: &dyn Progress,
) -> Vec<Result<[u8; 32], String>> {
    let hash = |index: usize| {
        let bytes = read(&dataset.root.join(&dataset.items[index].path), limits)?;
        let pixels = image::decode(&bytes, &limits).map_err(|error| error.to_string())?;
        Ok(dhash(&pixels).to_bytes())
    };
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(dataset.items.len()));
    progress.begin("Reading images", dataset.items.len() as u64);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, dataset.items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= dataset.items.len() {
                        break;
                    }
                    let hash = hash(index);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, hash));
                    progress.advance(1);
                }
            });
        }
    });
    progress.end();
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, hash)| hash).collect()
}

/// The readable part of a data set, and the near-duplicate group of each of its images.
pub fn grouped(dataset: &Dataset, hashes: Vec<Result<[u8; 32], String>>, distance: u32) -> (Dataset, Vec<usize>) {
    let mut items = Vec::with_capacity(hashes.len());
    let mut readable = Vec::with_capacity(hashes.len());
    let mut skipped = dataset.skipped.clone();
    for (item, hash) in dataset.items.iter().zip(hashes) {
        match hash {
            Ok(hash) => {
                items.push(item.clone());
                readable.push(hash);
            }
            Err(reason) => skipped.push(Skipped {
                path: item.path.clone(),
                reason,
            }),
        }
    }
    (
        dataset.restricted(items, skipped),
        near_duplicate_groups(&readable, distance),
    )
}
