//! What can be set about the SVM, and why it can fail.

use serde::Serialize;

/// How the classifier is trained. The default is what the documentation recommends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameters {
    /// Values of C to try, each positive; the order does not matter.
    pub c_grid: Vec<f64>,
    /// Parts of the cross-validation, at least 2.
    pub folds: usize,
    /// Which solver.
    pub solver: Solver,
    /// Stopping tolerance of dual coordinate descent, in units of the margin. Positive.
    pub tolerance: f64,
    /// Most passes of dual coordinate descent over the images.
    pub max_passes: usize,
    /// Seed of folds and orders. The same seed gives the same classifier whatever the number of threads.
    pub seed: u64,
    /// Whether rare classes weigh as much as frequent ones.
    pub class_weights: ClassWeights,
    /// Share of rightly classified known images, in `(0, 1]`, that must stay accepted when the
    /// thresholds of `unknown` are set.
    pub accept_quantile: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            c_grid: vec![1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0],
            folds: 5,
            solver: Solver::DualCoordinateDescent,
            tolerance: 1e-3,
            max_passes: 1000,
            seed: 0,
            class_weights: ClassWeights::Balanced,
            accept_quantile: 0.95,
        }
    }
}

impl Parameters {
    /// Checks every range.
    ///
    /// # Errors
    /// [`SvmError::InvalidParameter`] names the first value out of range.
    pub fn check(&self) -> Result<(), SvmError> {
        let invalid = |name: &'static str, value: String, expected: &'static str| {
            Err(SvmError::InvalidParameter { name, value, expected })
        };
        if self.c_grid.is_empty() || self.c_grid.iter().any(|c| !c.is_finite() || *c <= 0.0) {
            return invalid("c_grid", format!("{:?}", self.c_grid), "one or more positive numbers");
        }
        if self.folds < 2 {
            return invalid("folds", self.folds.to_string(), "2 or more");
        }
        if !(self.tolerance.is_finite() && self.tolerance > 0.0) {
            return invalid("tolerance", self.tolerance.to_string(), "a positive number");
        }
        if self.max_passes == 0 {
            return invalid("max_passes", "0".to_owned(), "1 or more");
        }
        if !(self.accept_quantile > 0.0 && self.accept_quantile <= 1.0) {
            return invalid(
                "accept_quantile",
                self.accept_quantile.to_string(),
                "above 0, at most 1",
            );
        }
        Ok(())
    }
}

/// Which algorithm finds the planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// Ours: squared hinge loss, any number of images.
    DualCoordinateDescent,
    /// `linfa-svm`: hinge loss, up to 5000 images.
    Smo,
}

impl Solver {
    /// The name in parameter files and in the bundle.
    pub fn name(self) -> &'static str {
        match self {
            Self::DualCoordinateDescent => "dual-coordinate-descent",
            Self::Smo => "smo",
        }
    }
}

/// How much an error costs in each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// C of a class's images times `n / (classes x images of the class)`.
    Balanced,
    /// C for every image.
    None,
}

impl ClassWeights {
    /// The share of images that are recognized, `right` of `images` in each class. Balanced, each class that has images
    /// counts the same: otherwise who forgets rare classes would win.
    pub fn accuracy(self, right: &[usize], images: &[usize]) -> f64 {
        let share = |right: usize, images: usize| right as f64 / images.max(1) as f64;
        match self {
            Self::Balanced => {
                let of_class = right.iter().zip(images).map(|(right, images)| share(*right, *images));
                let present = images.iter().filter(|images| **images > 0).count();
                of_class.sum::<f64>() / present.max(1) as f64
            }
            Self::None => share(right.iter().sum(), images.iter().sum()),
        }
    }
}

/// Why no classifier was trained.
#[derive(Debug, thiserror::Error)]
pub enum SvmError {
    /// A parameter out of range.
    #[error("the SVM parameter {name} is {value}; give {expected}")]
    InvalidParameter {
        /// Its name in the parameter file.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// Features, labels and groups do not fit together, or a feature is not finite.
    #[error("the SVM cannot be trained on this: {0}")]
    InvalidInput(String),
    /// Fewer than two classes.
    #[error("a classifier needs at least two classes with images, but there are {0}; add a class folder with images")]
    TooFewClasses(usize),
    /// A class without any training image.
    #[error("class number {0} has no training image; add images or leave the class out")]
    EmptyClass(usize),
    /// Too many images for the `smo` solver.
    #[error(
        "the smo solver takes at most {most} images, but there are {rows}: its time and memory grow with the \
         square of their number; use the solver dual-coordinate-descent"
    )]
    TooLargeForSmo {
        /// Images given.
        rows: usize,
        /// Images allowed.
        most: usize,
    },
    /// `linfa-svm` failed.
    #[error("the smo solver failed on class number {class}: {reason}; use the solver dual-coordinate-descent")]
    Smo {
        /// Index of the class.
        class: usize,
        /// What it said.
        reason: String,
    },
    /// An error of linfa's own.
    #[error(transparent)]
    Linfa(#[from] linfa::Error),
}
