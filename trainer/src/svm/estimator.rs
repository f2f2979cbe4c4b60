//! The solver as a citizen of linfa: `Fit` on its datasets, `Predict` on its records.

use linfa::ParamGuard;
use linfa::dataset::{AsSingleTargets, DatasetBase};
use linfa::traits::{Fit, PredictInplace};
use ndarray::{Array1, ArrayBase, Data, Ix2};
use shared::classifier::{LinearClassifier, first_largest};

use super::problem::{Examples, squared_lengths};
use super::{Parameters, SvmError, check_input, one_vs_rest};

/// Checked parameters of [`LinearSvm`].
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSvmValidParams {
    c: f64,
    parameters: Parameters,
}

/// Parameters of [`LinearSvm`], checked when fitting begins.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSvmParams(LinearSvmValidParams);

impl LinearSvmParams {
    /// Sets the regularization parameter; positive. Larger fits the training images more closely.
    #[must_use]
    pub fn c(mut self, c: f64) -> Self {
        self.0.c = c;
        self
    }

    /// Sets solver, tolerance, seed and class weights; what concerns the choice of C is not used here.
    #[must_use]
    pub fn parameters(mut self, parameters: Parameters) -> Self {
        self.0.parameters = parameters;
        self
    }
}

impl ParamGuard for LinearSvmParams {
    type Checked = LinearSvmValidParams;
    type Error = SvmError;

    fn check_ref(&self) -> Result<&Self::Checked, Self::Error> {
        self.0.parameters.check()?;
        if !(self.0.c.is_finite() && self.0.c > 0.0) {
            return Err(SvmError::InvalidParameter {
                name: "c",
                value: self.0.c.to_string(),
                expected: "a positive number",
            });
        }
        Ok(&self.0)
    }

    fn check(self) -> Result<Self::Checked, Self::Error> {
        self.check_ref()?;
        Ok(self.0)
    }
}

/// A fitted one-vs-rest linear support vector machine of classes `0..k`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSvm {
    classifier: LinearClassifier,
}

impl LinearSvm {
    /// Starts with C = 1 and the default [`Parameters`].
    pub fn params() -> LinearSvmParams {
        LinearSvmParams(LinearSvmValidParams {
            c: 1.0,
            parameters: Parameters::default(),
        })
    }

    /// The planes as plain numbers.
    pub fn classifier(&self) -> &LinearClassifier {
        &self.classifier
    }
}

impl<D, T> Fit<ArrayBase<D, Ix2>, T, SvmError> for LinearSvmValidParams
where
    D: Data<Elem = f32>,
    T: AsSingleTargets<Elem = usize>,
{
    type Object = LinearSvm;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<LinearSvm, SvmError> {
        let standard = dataset.records().as_standard_layout();
        let features = standard.view();
        let labels = dataset.as_single_targets().to_vec();
        let classes = labels.iter().max().map_or(0, |largest| largest.saturating_add(1));
        check_input(&features, &labels, classes, &self.parameters)?;
        let lengths = squared_lengths(&features);
        let examples = Examples::new(&features, &labels, classes, &lengths)?;
        let rows: Vec<usize> = (0..labels.len()).collect();
        let fitted = one_vs_rest::fit(&examples, &rows, self.c, &self.parameters, |_| ())?;
        Ok(LinearSvm {
            classifier: fitted.classifier,
        })
    }
}

impl<D: Data<Elem = f32>> PredictInplace<ArrayBase<D, Ix2>, Array1<usize>> for LinearSvm {
    /// The class of each row, the first one on a tie.
    ///
    /// # Panics
    /// Where the numbers of rows or features disagree, as linfa's own models do.
    fn predict_inplace(&self, records: &ArrayBase<D, Ix2>, targets: &mut Array1<usize>) {
        assert_eq!(records.nrows(), targets.len(), "one target per record");
        assert_eq!(
            records.ncols(),
            self.classifier.features(),
            "the features of the training data"
        );
        for (row, target) in records.rows().into_iter().zip(targets) {
            *target = first_largest(&self.classifier.margins(&row.to_vec()));
        }
    }

    fn default_target(&self, records: &ArrayBase<D, Ix2>) -> Array1<usize> {
        Array1::zeros(records.nrows())
    }
}
