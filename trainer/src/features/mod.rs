//! Feature vectors of a data set.

use ndarray::Array2;

/// Features of labelled images, one row per image.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// `images x features`, as the network gave them (not normalized).
    pub matrix: Array2<f32>,
    /// Class index of each row.
    pub labels: Vec<usize>,
    /// Near-duplicate group of each row: rows of one group never stand on both sides of a division.
    pub groups: Vec<usize>,
}
