//! Running the network over a data set: every core decodes and computes, memory stays flat.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use shared::image::Limits;
use shared::network::NetworkError;
use shared::pipeline::{Featurizer, PipelineError};
use shared::preprocessing::Preprocessing;

use super::cache::Record;
use super::{FeatureCache, FeatureError, Networks};
use crate::dataset::{Dataset, Item, Skipped, dhash_256, read};
use crate::progress::Progress;
use crate::threads::lock;

/// A data set with its features.
#[derive(Debug, Clone, PartialEq)]
pub struct Featurized {
    /// Each readable image with its record, in the data set's order.
    pub images: Vec<(Item, Record)>,
    /// What the data set had left out, and every image that could not be read.
    pub skipped: Vec<Skipped>,
    /// How many records came from the cache.
    pub cached: usize,
}

/// Computes, or takes from `cache`, the record of each image of `dataset`.
///
/// The numbers do not depend on how many `threads` there are. An interrupted call loses nothing but the images in
/// flight.
///
/// # Errors
/// [`FeatureError`] for anything but an image at fault; those are listed in [`Featurized::skipped`].
pub fn featurize(
    dataset: &Dataset,
    networks: &Networks,
    preprocessing: &Preprocessing,
    limits: Limits,
    cache: &FeatureCache,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Featurized, FeatureError> {
    let work = Work {
        dataset,
        limits,
        cache,
        progress,
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        cached: AtomicUsize::new(0),
        outcomes: Mutex::new(Vec::with_capacity(dataset.items.len())),
    };
    progress.begin("Computing features", dataset.items.len() as u64);
    let finished: Result<Vec<()>, FeatureError> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..networks.threads(threads).clamp(1, dataset.items.len().max(1)))
            .map(|_| scope.spawn(|| work.run(networks, preprocessing).inspect_err(|_| work.stop())))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    progress.end();
    finished?;
    work.finish()
}

impl Record {
    /// The record of an encoded image whose SHA-256 is `image`.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub fn compute(featurizer: &mut Featurizer, image: [u8; 32], bytes: &[u8]) -> Result<Self, PipelineError> {
        let pixels = featurizer.decode(bytes)?;
        let features = featurizer.featurize_pixels(&pixels)?;
        Ok(Self {
            image,
            dhash: dhash_256(&pixels),
            features,
        })
    }
}

/// What the threads share.
struct Work<'a> {
    dataset: &'a Dataset,
    limits: Limits,
    cache: &'a FeatureCache,
    progress: &'a dyn Progress,
    next: AtomicUsize,
    stopped: AtomicBool,
    cached: AtomicUsize,
    outcomes: Mutex<Vec<(usize, Result<Record, String>)>>,
}

impl Work<'_> {
    fn run(&self, networks: &Networks, preprocessing: &Preprocessing) -> Result<(), FeatureError> {
        let mut featurizer = None;
        while !self.stopped.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.dataset.items.get(index) else {
                break;
            };
            let outcome = match read(&self.dataset.root.join(&item.path), self.limits) {
                Ok(bytes) => {
                    let hash: [u8; 32] = Sha256::digest(&bytes).into();
                    if let Some(record) = self.cache.get(&hash)? {
                        self.cached.fetch_add(1, Ordering::Relaxed);
                        Ok(record)
                    } else {
                        // The network is made only where there is something to compute.
                        let featurizer = match &mut featurizer {
                            Some(featurizer) => featurizer,
                            none => {
                                let network = networks.network()?;
                                none.insert(Featurizer::new(self.limits, preprocessing.clone(), network))
                            }
                        };
                        self.compute(featurizer, hash, &bytes)?
                    }
                }
                Err(error) => Err(error.to_string()),
            };
            lock(&self.outcomes).push((index, outcome));
            self.progress.advance(1);
        }
        Ok(())
    }

    fn compute(
        &self,
        featurizer: &mut Featurizer,
        hash: [u8; 32],
        bytes: &[u8],
    ) -> Result<Result<Record, String>, FeatureError> {
        match Record::compute(featurizer, hash, bytes) {
            Ok(record) => {
                self.cache.append(&record)?;
                Ok(Ok(record))
            }
            Err(PipelineError::Image(error)) => Ok(Err(error.to_string())),
            Err(PipelineError::Network(error @ NetworkError::NotFinite)) => Ok(Err(error.to_string())),
            Err(PipelineError::Network(error)) => Err(error.into()),
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn finish(self) -> Result<Featurized, FeatureError> {
        let mut outcomes = self
            .outcomes
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        let mut images = Vec::with_capacity(outcomes.len());
        let mut skipped = self.dataset.skipped.clone();
        let mut first_reason = None;
        for (index, outcome) in outcomes {
            let item = self.dataset.items[index].clone();
            match outcome {
                Ok(record) => images.push((item, record)),
                Err(reason) => {
                    first_reason.get_or_insert_with(|| format!("{}: {reason}", item.path.display()));
                    skipped.push(Skipped {
                        path: item.path,
                        reason,
                    });
                }
            }
        }
        if let (true, Some(reason)) = (images.is_empty(), first_reason) {
            return Err(FeatureError::NothingReadable(self.dataset.items.len(), reason));
        }
        Ok(Featurized {
            images,
            skipped,
            cached: self.cached.into_inner(),
        })
    }
}
