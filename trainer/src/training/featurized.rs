//! Features of a data set by a backbone, for whoever looks at data rather than trains on it.

use bytes::Bytes;
use shared::image::Limits;

use super::{NetworkFile, TrainingError, Workplace, read};
use crate::backbone::Backbone;
use crate::dataset::Dataset;
use crate::features::Features;

impl Workplace<'_> {
    /// The readable part of `dataset`, and the features of each of its images in order; images whose hashes differ
    /// in at most `distance` bits of 256 share a group.
    ///
    /// # Errors
    /// See [`TrainingError`].
    pub fn featurize(
        &self,
        dataset: &Dataset,
        backbone: &Backbone,
        limits: Limits,
        distance: u32,
    ) -> Result<(Dataset, Features), TrainingError> {
        let model = Bytes::from(read(&backbone.onnx)?);
        self.features(dataset, &NetworkFile::of(backbone, &model), limits, distance)
    }
}
