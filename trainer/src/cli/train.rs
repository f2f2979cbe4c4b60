use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use shared::bundle::{ClassifierKind, Manifest};

use super::Session;
use super::data::split::SplitArguments;
use super::failure::{Done, Failure};
use super::output::{list_skipped, printable};
use super::recipe::RecipeArguments;
use super::resources::Resources;
use crate::backbone::{self, Backbone, PreprocessingOverride};
use crate::dataset::Dataset;
use crate::evaluation::{self, Metrics};
use crate::svm;
use crate::training::{self, Parameters, Run, Workplace};

/// Train a classifier on a folder of class folders.
///
/// Computes features with a pre-trained network, chooses C by cross-validation on the training part,
/// fits a linear SVM, measures it on the test part, and writes the run: bundle, metrics, split.
/// Interrupted, it goes on where it was when the same command is run again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What is trained
    #[arg(long, value_enum, default_value_t = Classifier::Svm)]
    classifier: Classifier,
    #[command(flatten)]
    job: Job,
}

/// What a training needs to know, whatever is trained.
#[derive(Debug, clap::Args)]
pub struct Job {
    /// Folder of class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the run; must not hold one already
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Name of the model [default: the name of the data folder]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    split: SplitArguments,
    #[command(flatten)]
    svm: SvmArguments,
    #[command(flatten)]
    recipe: RecipeArguments,
    /// How many small copies of test images the bundle carries, to prove parity where it is loaded
    #[arg(long, value_name = "N", default_value_t = 4)]
    golden_images: usize,
    #[command(flatten)]
    resources: Resources,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Classifier {
    /// A linear SVM on the features of the pre-trained network
    Svm,
    /// The network itself, refined on the images
    Dnn,
    /// A linear SVM on the features of the refined network
    SvmRefined,
}

/// The pre-trained network and how images are prepared for it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
struct NetworkArguments {
    /// A name from the catalogue (`trainer setup --list`) or an ONNX file
    #[arg(long, value_name = "NAME|FILE", default_value = backbone::DEFAULT)]
    backbone: String,
    /// Weights for a network of the catalogue, as .pth or .safetensors, instead of obtaining them
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Side of the network's square input, in pixels [default: the network's own]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=2048))]
    resolution: Option<u32>,
    /// Mean of each channel in 8-bit units, for an ONNX file that does not tell
    #[arg(long, value_name = "M", value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// Standard deviation of each channel in 8-bit units, for an ONNX file that does not tell
    #[arg(long, value_name = "S", value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
}

/// The linear SVM and its cross-validation.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Classifier")]
struct SvmArguments {
    /// Values of C to choose from
    #[arg(long, value_name = "C", value_delimiter = ',', default_values = ["0.0001", "0.001", "0.01", "0.1", "1", "10", "100"])]
    c_grid: Vec<f64>,
    /// Number of folds of the cross-validation
    #[arg(long, value_name = "K", default_value_t = 5)]
    folds: usize,
    /// How the SVM is solved
    #[arg(long, value_enum, default_value_t = Solver::DualCoordinateDescent)]
    solver: Solver,
    /// Stopping tolerance of the solver
    #[arg(long, default_value_t = 1e-3)]
    tolerance: f64,
    /// Most passes of the solver over the images
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_passes: usize,
    /// Whether rare classes weigh as much as frequent ones
    #[arg(long, value_enum, default_value_t = ClassWeights::Balanced)]
    class_weights: ClassWeights,
    /// Share of the rightly recognized images that the thresholds of `unknown` let pass
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
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

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    run: &'a Path,
    bundle: PathBuf,
    version: &'a str,
    skipped: &'a [crate::dataset::Skipped],
    notes: &'a [String],
    metrics: &'a Metrics,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    arguments.job.run(arguments.classifier, session)
}

impl Job {
    /// Trains, writes the run and prints what came out.
    pub fn run(&self, classifier: Classifier, session: &Session) -> Result<Done, Failure> {
        train(self, classifier, session)
    }
}

fn train(arguments: &Job, classifier: Classifier, session: &Session) -> Result<Done, Failure> {
    training::check_vacant(&arguments.out)
        .map_err(|error| Failure::hinted(&error, "choose another folder with --out"))?;
    let dataset = Dataset::scan(&arguments.data)?;
    let cache = session.cache()?;
    let runtime = Resources::runtime(&cache, session)?;
    let backbone = arguments.network.obtain(&cache, session)?;
    let workplace = Workplace {
        device: arguments.recipe.device,
        ..arguments.resources.workplace(&runtime, &cache, session)
    };
    let run = training::train(&dataset, &backbone, &arguments.parameters(classifier), &workplace)?;
    run.save(&arguments.out)?;

    list_skipped(&run.skipped, session.quiet);
    for note in &run.notes {
        session.note(note);
    }
    let document = Document {
        run: &arguments.out,
        bundle: training::bundle_folder(&arguments.out),
        version: &run.bundle.manifest.version,
        skipped: &run.skipped,
        notes: &run.notes,
        metrics: &run.metrics,
    };
    session.output.result(&document, &arguments.text(&run))?;
    Ok(if run.skipped.is_empty() {
        Done::Complete
    } else {
        Done::Partly
    })
}

impl Job {
    fn parameters(&self, classifier: Classifier) -> Parameters {
        Parameters {
            name: self.model_name(),
            limits: self.resources.limits(),
            split: self.split.parameters(),
            classifier: match classifier {
                Classifier::Svm => ClassifierKind::Svm,
                Classifier::Dnn => ClassifierKind::Dnn,
                Classifier::SvmRefined => ClassifierKind::SvmRefined,
            },
            svm: self.svm.parameters(self.split.seed()),
            recipe: (classifier != Classifier::Svm).then(|| self.recipe.recipe(self.split.seed())),
            golden_images: self.golden_images,
        }
    }

    fn model_name(&self) -> String {
        let folder = || {
            let path = self.data.canonicalize().unwrap_or_else(|_| self.data.clone());
            path.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        let name = self.name.clone().or_else(folder).unwrap_or_default();
        let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let name: String = name
            .chars()
            .map(|character| if allowed(character) { character } else { '-' })
            .collect();
        let name = name.trim_matches(['-', '.']);
        if name.is_empty() {
            "model".to_owned()
        } else {
            name.to_owned()
        }
    }

    fn text(&self, run: &Run) -> String {
        let mut text = evaluation::table(&run.metrics.evaluation);
        let out = printable(&self.out.to_string_lossy());
        let images = run.metrics.train_count.unwrap_or_default();
        let how = match run.metrics.chosen_c {
            Some(c) if run.history.is_empty() => {
                format!("C {c} by {}-fold cross-validation on {images} images", self.svm.folds)
            }
            Some(c) => format!("Network refined on {images} images, C {c} by those held out"),
            None => format!("Network refined on {images} images"),
        };
        let Manifest { name, version, .. } = &run.bundle.manifest;
        let _ = write!(
            text,
            "\n{how}; version {version}\n\nRun:      {out}\nPublish:  trainer publish --bundle {out} --to STORE --name {name}",
        );
        text
    }
}

impl NetworkArguments {
    fn obtain(&self, cache: &crate::setup::Cache, session: &Session) -> Result<Backbone, Failure> {
        let normalization = match (triple(&self.mean), triple(&self.std)) {
            (Some(mean), Some(std)) => Some(PreprocessingOverride { mean, std }),
            (None, None) if self.mean.is_empty() && self.std.is_empty() => None,
            _ => {
                return Err(Failure::usage(
                    "--mean and --std take three comma-separated numbers each",
                ));
            }
        };
        let mut backbone = backbone::obtain(
            &self.backbone,
            self.weights.as_deref(),
            normalization,
            cache,
            &session.progress,
        )
        .map_err(|error| Failure::backbone(&error))?;
        if let Some(resolution) = self.resolution {
            backbone.preprocessing.resolution = resolution;
        }
        Ok(backbone)
    }
}

fn triple(values: &[f32]) -> Option<[f32; 3]> {
    values.try_into().ok()
}

impl SvmArguments {
    fn parameters(&self, seed: u64) -> svm::Parameters {
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
