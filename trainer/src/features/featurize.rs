//! Running the network over a data set: every core decodes and computes, memory stays flat.

use sha2::{Digest, Sha256};
use shared::image::Limits;
use shared::network::NetworkError;
use shared::pipeline::{Featurizer, PipelineError};
use shared::preprocessing::Preprocessing;

use super::cache::Record;
use super::{FeatureCache, FeatureError, Networks};
use crate::dataset::{Dataset, Item, Skipped, dhash_256, read};
use crate::progress::{Progress, stage};
use crate::threads::try_by_workers;

/// A data set with its features.
#[derive(Debug, Clone, PartialEq)]
pub struct Featurized {
    /// Each readable image with its record, in the data set's order.
    pub images: Vec<(Item, Record)>,
    /// What the data set had left out, and every image that could not be read.
    pub skipped: Vec<Skipped>,
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
        networks,
        preprocessing,
        limits,
        cache,
    };
    let mut featurizers: Vec<Option<Featurizer>> = Vec::new();
    featurizers.resize_with(networks.threads(threads).clamp(1, dataset.items.len().max(1)), || None);
    let _stage = stage(progress, "Computing features", Some(dataset.items.len() as u64));
    let outcomes = try_by_workers(&mut featurizers, &dataset.items, |featurizer, item| {
        work.record(featurizer, item).inspect(|_| progress.advance(1))
    })?;
    featurized(dataset, outcomes)
}

impl Record {
    /// The record of an encoded image whose SHA-256 is `image`.
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
    networks: &'a Networks<'a>,
    preprocessing: &'a Preprocessing,
    limits: Limits,
    cache: &'a FeatureCache,
}

impl Work<'_> {
    /// The record of an image, or why it has none.
    fn record(&self, featurizer: &mut Option<Featurizer>, item: &Item) -> Result<Result<Record, String>, FeatureError> {
        let bytes = match read(&self.dataset.root.join(&item.path), self.limits) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        if let Some(record) = self.cache.get(&hash)? {
            return Ok(Ok(record));
        }
        // The network is made only where there is something to compute.
        let featurizer = match featurizer {
            Some(featurizer) => featurizer,
            none => {
                let network = self.networks.network()?;
                none.insert(Featurizer::new(self.limits, self.preprocessing.clone(), network))
            }
        };
        match Record::compute(featurizer, hash, &bytes) {
            Ok(record) => {
                self.cache.append(&record)?;
                Ok(Ok(record))
            }
            Err(PipelineError::Image(error)) => Ok(Err(error.to_string())),
            Err(PipelineError::Network(error @ NetworkError::NotFinite)) => Ok(Err(error.to_string())),
            Err(PipelineError::Network(error)) => Err(error.into()),
        }
    }
}

/// The images of `dataset` with what came out for each.
fn featurized(dataset: &Dataset, outcomes: Vec<Result<Record, String>>) -> Result<Featurized, FeatureError> {
    let mut images = Vec::with_capacity(outcomes.len());
    let mut skipped = dataset.skipped.clone();
    let mut first_reason = None;
    for (item, outcome) in dataset.items.iter().zip(outcomes) {
        match outcome {
            Ok(record) => images.push((item.clone(), record)),
            Err(reason) => {
                first_reason.get_or_insert_with(|| format!("{}: {reason}", item.path.display()));
                skipped.push(Skipped {
                    path: item.path.clone(),
                    reason,
                });
            }
        }
    }
    if let (true, Some(reason)) = (images.is_empty(), first_reason) {
        return Err(FeatureError::NothingReadable(dataset.items.len(), reason));
    }
    Ok(Featurized { images, skipped })
}
