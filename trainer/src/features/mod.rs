//! Feature vectors of a data set: computed once per image, kept in a cache that survives a kill.

mod cache;
mod featurize;
mod networks;
mod shared_network;
mod similarity;

use ndarray::{Array2, Axis};
use shared::files::FileError;

pub use cache::{CacheKey, FeatureCache, Record};
pub use featurize::{Featurized, featurize};
pub use networks::Networks;
pub use shared_network::SharedNetwork;
pub use similarity::{similar_groups, similarity_to_nearest};

use crate::dataset::DatasetError;
use crate::device::DeviceError;

/// Features of labelled images, one row per image.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// `images x features`, as the network gave them (not normalized).
    pub matrix: Array2<f32>,
    /// Class index of each row.
    pub labels: Vec<usize>,
    /// Near-duplicate group of each row: rows of one group never stand on both sides of a division.
    pub groups: Vec<usize>,
    /// SHA-256 of each row's encoded image.
    pub contents: Vec<[u8; 32]>,
}

impl Features {
    /// The rows with the given indices, each scaled to Euclidean length 1.
    #[must_use]
    pub fn normalized_rows(&self, rows: &[usize]) -> Self {
        let mut matrix = self.matrix.select(Axis(0), rows);
        for mut row in matrix.rows_mut() {
            if let Some(values) = row.as_slice_mut() {
                shared::classifier::l2_normalize(values);
            }
        }
        Self {
            matrix,
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
            groups: rows.iter().map(|row| self.groups[*row]).collect(),
            contents: rows.iter().map(|row| self.contents[*row]).collect(),
        }
    }
}

/// Why features could not be computed or kept.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The data set itself.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The network cannot be loaded or run.
    #[error(transparent)]
    Network(#[from] shared::network::NetworkError),
    /// The card that is to run it cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The cache file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache file holds something else.
    #[error("{path} is not a feature cache of {size} features: delete it, it will be made anew")]
    Foreign {
        /// Which file.
        path: std::path::PathBuf,
        /// Expected number of features.
        size: usize,
    },
    /// Not one image of the data set can be read.
    #[error("none of the {0} images could be read; the first reason: {1}")]
    NothingReadable(usize, String),
}
