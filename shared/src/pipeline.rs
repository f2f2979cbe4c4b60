//! The whole way in one row: bytes, pixels, tensor, vector, prediction.

use std::time::{Duration, Instant};

use crate::classifier::{Head, Prediction};
use crate::explain::ActivationMap;
use crate::image::{ImageError, Limits, RgbImage};
use crate::network::{Activations, Network, NetworkError, Outputs};
use crate::preprocessing::Preprocessing;

/// Bytes to the network's vector. The trainer runs this over a data set, the scorer within a [`Pipeline`].
pub struct Featurizer {
    limits: Limits,
    preprocessing: Preprocessing,
    network: Box<dyn Network>,
}

/// Why an image got no score.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The image is at fault.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The network is at fault.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// What is said of one decoded image.
pub(crate) struct Explained {
    /// Its scores.
    pub(crate) prediction: Prediction,
    /// Where the evidence for its best class is, where that was asked for and the network offers it.
    pub(crate) map: Option<ActivationMap>,
    /// All but the decoding.
    pub(crate) timing: Timing,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Bytes to upright pixels.
    pub decode: Duration,
    /// Pixels to the network's input.
    pub preprocess: Duration,
    /// The network.
    pub network: Duration,
    /// Vector to probabilities and decision.
    pub classify: Duration,
}

impl Featurizer {
    /// Puts the parts together.
    pub fn new(limits: Limits, preprocessing: Preprocessing, network: Box<dyn Network>) -> Self {
        Self {
            limits,
            preprocessing,
            network,
        }
    }

    /// Decodes an image to upright pixels, no more of them than the network has a use for.
    pub fn decode(&self, bytes: &[u8]) -> Result<RgbImage, ImageError> {
        self.preprocessing.decode(bytes, &self.limits)
    }

    /// The vector that the network gives for a decoded image, as it comes (not normalized).
    ///
    /// # Errors
    /// [`PipelineError::Network`].
    pub fn featurize_pixels(&mut self, image: &RgbImage) -> Result<Vec<f32>, PipelineError> {
        let (activations, _) = self.activations(image, Outputs::Vectors)?;
        Ok(activations.vectors)
    }

    /// What the network says of one decoded image.
    fn activations(&mut self, image: &RgbImage, outputs: Outputs) -> Result<(Activations, Timing), PipelineError> {
        let start = Instant::now();
        let tensor = self.preprocessing.tensor(image);
        let preprocess = start.elapsed();
        let activations = self.network.run(&tensor, outputs)?;
        let timing = Timing {
            preprocess,
            network: start.elapsed().saturating_sub(preprocess),
            ..Timing::default()
        };
        Ok((activations, timing))
    }
}

/// Bytes to a prediction.
pub struct Pipeline {
    featurizer: Featurizer,
    head: Head,
}

impl Pipeline {
    /// Puts the parts together.
    pub fn new(featurizer: Featurizer, head: Head) -> Self {
        Self { featurizer, head }
    }

    /// What an image may cost.
    pub(crate) fn limits(&self) -> Limits {
        self.featurizer.limits
    }

    /// Scores an encoded image, and tells where the time went.
    ///
    /// # Errors
    /// [`PipelineError::Image`] where the bytes are no image within the limits, [`PipelineError::Network`] where the
    /// network fails or gives a vector of another length than the classifier takes.
    pub fn predict(&mut self, bytes: &[u8]) -> Result<(Prediction, Timing), PipelineError> {
        let start = Instant::now();
        let image = self.featurizer.decode(bytes)?;
        let decode = start.elapsed();
        let Explained { prediction, timing, .. } = self.predict_pixels(&image, Outputs::Vectors)?;
        Ok((prediction, Timing { decode, ..timing }))
    }

    /// As [`Self::predict`] for an image that is decoded already, with a map where `outputs` ask for one.
    ///
    /// # Errors
    /// [`PipelineError::Network`].
    pub(crate) fn predict_pixels(&mut self, image: &RgbImage, outputs: Outputs) -> Result<Explained, PipelineError> {
        let (activations, timing) = self.featurizer.activations(image, outputs)?;
        let start = Instant::now();
        let prediction = self.classify(&activations.vectors)?;
        let map = ActivationMap::of_class(&activations, &self.head, prediction.best);
        let classify = start.elapsed();
        Ok(Explained {
            prediction,
            map,
            timing: Timing { classify, ..timing },
        })
    }

    /// Only a run tells how long a network's vector is.
    fn classify(&self, vector: &[f32]) -> Result<Prediction, NetworkError> {
        if vector.len() == self.head.takes() {
            return Ok(self.head.predict(vector));
        }
        Err(NetworkError::Run(format!(
            "it gave {} values where the classifier takes {}",
            vector.len(),
            self.head.takes()
        )))
    }

    /// Where in a decoded image the evidence for a class is, counted from 0 in the order of [`Head::classes`]. `None`
    /// where there is no such class, or the network offers no feature map that its vector is the mean of.
    ///
    /// # Errors
    /// [`PipelineError::Network`].
    pub fn evidence(&mut self, image: &RgbImage, class: usize) -> Result<Option<ActivationMap>, PipelineError> {
        let (activations, _) = self.featurizer.activations(image, Outputs::VectorsAndMap)?;
        Ok(ActivationMap::of_class(&activations, &self.head, class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::{Calibration, Thresholds};
    use crate::network::Tensor;
    use crate::preprocessing::tests::plain;

    /// A network with its own last layer that prefers the second of two classes.
    struct Fixed;

    impl Network for Fixed {
        fn run(&mut self, _: &Tensor, _: Outputs) -> Result<Activations, NetworkError> {
            Ok(Activations {
                vectors: vec![0.5, 1.0],
                size: 2,
                map: Some(Tensor::new([1, 2, 1, 2], vec![1.0, 0.0, 0.0, 2.0])),
            })
        }
    }

    #[test]
    fn evidence_is_shown_for_any_class() {
        let head = Head {
            classes: vec!["a".to_owned(), "b".to_owned()],
            classifier: None,
            calibration: Calibration::Temperature { scale: 1.0 },
            thresholds: Thresholds {
                probability: 0.0,
                margin: 0.0,
            },
        };
        let featurizer = Featurizer::new(Limits::default(), plain(8), Box::new(Fixed));
        let mut pipeline = Pipeline::new(featurizer, head);
        let image = RgbImage::new(4, 4);
        let explained = pipeline.predict_pixels(&image, Outputs::VectorsAndMap);
        let explained = explained.expect("explained");
        assert_eq!(explained.prediction.best, 1);
        assert_eq!(explained.map, pipeline.evidence(&image, 1).expect("a map"));
        let other = pipeline.evidence(&image, 0).expect("run").expect("a map");
        assert_eq!(other.values, [1.0, 0.0]);
        assert_eq!(pipeline.evidence(&image, 2).expect("run"), None);
    }
}
