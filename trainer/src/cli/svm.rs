//! Options about the linear classifier.

use clap::ValueEnum;

use super::values;
use crate::svm;

/// The linear SVM and its cross-validation.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Classifier")]
pub struct SvmArguments {
    /// Values of C to choose from
    #[arg(long, value_name = "C", value_delimiter = ',', default_value = "0.0001,0.001,0.01,0.1,1,10,100",
          value_parser = values::positive)]
    c_grid: Vec<f64>,
    /// Number of folds of the cross-validation
    #[arg(long, value_name = "K", default_value_t = 5,
          value_parser = values::number("a whole number from 2", |folds: &usize| *folds >= 2))]
    folds: usize,
    /// How the SVM is solved
    #[arg(long, value_enum, default_value_t = Solver::DualCoordinateDescent)]
    solver: Solver,
    /// Stopping tolerance of the solver
    #[arg(long, default_value_t = 1e-3, value_parser = values::positive)]
    tolerance: f64,
    /// Most passes of the solver over the images
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = values::count::<usize>)]
    max_passes: usize,
    /// Whether rare classes weigh as much as frequent ones: in the SVM, its C, and a refinement
    #[arg(long, value_enum, default_value_t = ClassWeights::Balanced)]
    class_weights: ClassWeights,
    /// Share of the rightly recognized images that the thresholds of `unknown` let pass
    #[arg(long, value_name = "SHARE", default_value_t = 0.95,
          value_parser = values::number("a number above 0 and at most 1", |share: &f64| *share > 0.0 && *share <= 1.0))]
    accept_quantile: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Solver {
    /// Ours: squared hinge loss, any number of images
    DualCoordinateDescent,
    /// linfa-svm: hinge loss, a few thousand images at most
    Smo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClassWeights {
    /// Every class counts the same
    Balanced,
    /// Every image counts the same
    None,
}

impl SvmArguments {
    /// What the solver and its cross-validation take.
    pub fn parameters(&self, seed: u64) -> svm::Parameters {
        svm::Parameters {
            c_grid: self.c_grid.clone(),
            folds: self.folds,
            solver: match self.solver {
                Solver::DualCoordinateDescent => svm::Solver::DualCoordinateDescent,
                Solver::Smo => svm::Solver::Smo,
            },
            tolerance: self.tolerance,
            max_passes: self.max_passes,
            seed,
            class_weights: match self.class_weights {
                ClassWeights::Balanced => svm::ClassWeights::Balanced,
                ClassWeights::None => svm::ClassWeights::None,
            },
            accept_quantile: self.accept_quantile,
        }
    }
}
