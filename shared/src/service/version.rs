//! One version of a model in memory.

use std::time::Instant;

use super::error::ServiceError;
use super::pool::Pool;
use crate::bundle::Manifest;
use crate::classifier::Prediction;
use crate::image::Limits;
use crate::network::Outputs;
use crate::pipeline::{Explained, Pipeline, PipelineError, Timing};

/// A version of a model, ready to score on several threads at once.
pub struct Version {
    manifest: Manifest,
    limits: Limits,
    /// Lent to each image that is decoded, until it is scored.
    places: Pool<()>,
    pipelines: Pool<Pipeline>,
}

impl Version {
    /// The version of `manifest` over one or more `pipelines` that are all the same. As many images are
    /// scored at once as there are pipelines, and one more is decoded; others wait.
    ///
    /// # Panics
    /// When there is no pipeline.
    pub fn new(manifest: Manifest, pipelines: Vec<Pipeline>) -> Self {
        let limits = pipelines.first().expect("a version needs a pipeline").limits();
        Self {
            manifest,
            limits,
            places: Pool::new(vec![(); places(pipelines.len())]),
            pipelines: Pool::new(pipelines),
        }
    }

    /// What it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Scores an image, unless it is `until` before there is a place for it; to `explain` it, with a heat map of the
    /// best class as a PNG of the picture's proportions, where the network offers one. Who has a place waits for a
    /// pipeline however long it takes: that is the work of one image, and none can be scored where it does not end.
    pub(super) fn predict(
        &self,
        bytes: &[u8],
        explain: bool,
        until: Option<Instant>,
    ) -> Result<(Prediction, Timing, Option<Vec<u8>>), ServiceError> {
        let outputs = if explain {
            Outputs::VectorsAndMap
        } else {
            Outputs::Vectors
        };
        let predicted = self.places.with_before(until, |()| {
            let start = Instant::now();
            let image = self.manifest.preprocessing.decode(bytes, &self.limits)?;
            let decode = start.elapsed();
            let explained = self
                .pipelines
                .with(|pipeline| pipeline.predict_pixels(&image, outputs))?;
            let Explained {
                prediction,
                map,
                timing,
            } = explained;
            let map = map.map(|map| map.to_png(image.width(), image.height()));
            Ok::<_, PipelineError>((prediction, Timing { decode, ..timing }, map))
        });
        Ok(predicted.ok_or_else(ServiceError::over)??)
    }
}

/// How many images a version over so many pipelines has in memory at once: one more, so that an image that is decoded
/// for ever does not keep the last pipeline from all others.
pub fn places(pipelines: usize) -> usize {
    pipelines + 1
}

/// A number in `[0, 1)` that depends on nothing but the image, evenly spread: the first 53 bits of its SHA-256, `hash`.
/// An image below the share of a version on trial is answered by it, and stays so as the share grows.
pub(super) fn fraction(hash: &[u8; 32]) -> f64 {
    let bits = hash
        .iter()
        .take(8)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte))
        >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::fraction;
    use crate::service::hash;

    #[test]
    fn fractions_are_fixed_and_evenly_spread() {
        // The hash of "abc" begins with ba7816bf.
        assert!((fraction(&hash(b"abc")) - f64::from(0xba78_16bf_u32) / 2_f64.powi(32)).abs() < 1e-9);
        let tenth = (0..10_000_u32)
            .filter(|image| fraction(&hash(&image.to_be_bytes())) < 0.1)
            .count();
        assert!((900..1100).contains(&tenth), "{tenth}");
    }
}
