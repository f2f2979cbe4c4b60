//! What a binary solver is given and what it answers, without copying features.

use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2};

use super::{ClassWeights, SvmError};

/// Labelled features that every class, fold and value of C share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Examples<'a> {
    /// Row after row, `rows x columns`.
    values: &'a [f32],
    columns: usize,
    /// Class of each row, below `classes`.
    pub(crate) labels: &'a [usize],
    pub(crate) classes: usize,
    /// `‖x‖² + 1` of each row; the 1 is the constant feature.
    squared_lengths: &'a [f64],
}

impl<'a> Examples<'a> {
    /// `features` must be in standard layout and `squared_lengths` come from [`squared_lengths`].
    pub(crate) fn new(
        features: &'a ArrayView2<'a, f32>,
        labels: &'a [usize],
        classes: usize,
        squared_lengths: &'a [f64],
    ) -> Result<Self, SvmError> {
        let values = features
            .as_slice()
            .ok_or_else(|| SvmError::InvalidInput("the features are not stored row after row".to_owned()))?;
        Ok(Self {
            values,
            columns: features.ncols(),
            labels,
            classes,
            squared_lengths,
        })
    }

    /// Features of some images, one after the other.
    pub(crate) fn block(&self, rows: Range<usize>) -> ArrayView2<'a, f32> {
        let values = &self.values[rows.start * self.columns..rows.end * self.columns];
        ArrayView2::from_shape((rows.len(), self.columns), values).expect("whole rows")
    }

    /// `‖x‖² + 1` of one image.
    pub(crate) fn squared_length(&self, row: usize) -> f64 {
        self.squared_lengths[row]
    }

    /// Features of one image.
    #[inline]
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// Factor on C of each class's own images over `rows`: 1, or, balanced, `n / (present classes x
    /// images of the class)` as in scikit-learn.
    pub(crate) fn class_weights(&self, rows: &[usize], weighting: ClassWeights) -> Vec<f64> {
        let mut counts = vec![0_usize; self.classes];
        for row in rows {
            counts[self.labels[*row]] += 1;
        }
        let present = counts.iter().filter(|count| **count > 0).count();
        counts
            .into_iter()
            .map(|count| match weighting {
                ClassWeights::Balanced if count > 0 => rows.len() as f64 / (present * count) as f64,
                _ => 1.0,
            })
            .collect()
    }
}

/// `‖x‖² + 1` of each row.
pub(crate) fn squared_lengths(features: &ArrayView2<f32>) -> Vec<f64> {
    features
        .rows()
        .into_iter()
        .map(|row| 1.0 + row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>())
        .collect()
}

/// One class against the rest, on some of the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BinaryProblem<'a> {
    pub(crate) examples: &'a Examples<'a>,
    /// Which rows take part.
    pub(crate) rows: &'a [usize],
    /// The class whose images are positive.
    pub(crate) class: usize,
    /// Cost of an error on a positive row.
    pub(crate) positive_cost: f64,
    /// Cost of an error on any other row.
    pub(crate) negative_cost: f64,
}

impl<'a> BinaryProblem<'a> {
    /// The problem of `class` at C = 1, weighted as LIBLINEAR (and so scikit-learn's `LinearSVC`) does:
    /// with three and more classes the weight of a class multiplies the cost of its own images, and
    /// the rest cost C; with two classes each side has its own weight.
    pub(crate) fn new(examples: &'a Examples<'a>, rows: &'a [usize], class: usize, weights: &[f64]) -> Self {
        let rest = if examples.classes == 2 { weights[1 - class] } else { 1.0 };
        Self {
            examples,
            rows,
            class,
            positive_cost: weights[class],
            negative_cost: rest,
        }
    }

    /// The same problem with every cost `c` times as high.
    pub(crate) fn at(&self, c: f64) -> Self {
        Self {
            positive_cost: self.positive_cost * c,
            negative_cost: self.negative_cost * c,
            ..*self
        }
    }

    pub(crate) fn features(&self) -> usize {
        self.examples.columns
    }

    pub(crate) fn is_positive(&self, row: usize) -> bool {
        self.examples.labels[row] == self.class
    }

    /// +1 or -1.
    pub(crate) fn sign(&self, row: usize) -> f64 {
        if self.is_positive(row) { 1.0 } else { -1.0 }
    }

    /// Diagonal term of the dual that the squared loss adds: one over twice the cost.
    pub(crate) fn diagonal(&self, row: usize) -> f64 {
        let cost = if self.is_positive(row) {
            self.positive_cost
        } else {
            self.negative_cost
        };
        0.5 / cost
    }
}

/// A separating plane: the margin of `x` is `weights · x + intercept`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hyperplane {
    pub(crate) weights: Vec<f32>,
    pub(crate) intercept: f32,
    /// Whether the solver reached its tolerance.
    pub(crate) converged: bool,
}

impl Hyperplane {
    /// The same plane seen from the other class.
    pub(crate) fn negated(&self) -> Self {
        Self {
            weights: self.weights.iter().map(|weight| -weight).collect(),
            intercept: -self.intercept,
            converged: self.converged,
        }
    }

    /// Margin of one row.
    pub(crate) fn margin(&self, row: &[f32]) -> f32 {
        ArrayView1::from(&self.weights).dot(&ArrayView1::from(row)) + self.intercept
    }
}
