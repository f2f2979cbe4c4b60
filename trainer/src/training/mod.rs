//! The main job in a row: features, split, SVM, evaluation, bundle.

mod choice;
mod error;
mod fitted;
mod golden;
mod measured;
mod quantized;
mod refined;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use ndarray::Array2;
use rayon::prelude::*;
use serde::Serialize;
use shared::bundle::{self, Bundle, ClassifierKind, Manifest, SCHEMA_VERSION};
use shared::classifier::Head;
use shared::files::{at, sha256_hex};
use shared::image::Limits;
use shared::network::{NetworkError, Runtime};
use shared::preprocessing::Preprocessing;

use crate::backbone::Backbone;
use crate::dataset::{Dataset, Skipped, Split, SplitParameters, near_duplicate_groups};
use crate::device::Device;
use crate::evaluation::{Evaluation, Metrics, Predictions, Seconds};
use crate::feature_rows::Rows;
use crate::features::{self, CacheKey, FeatureCache, FeatureError, Features, Featurized, Networks};
use crate::image_reader::Images;
use crate::progress::Progress;
use crate::refine::{RateCurve, RateRange, Recipe};
use crate::runs::{DataSummary, Kind, RunError, TrainedOn, shortest};
use crate::svm;
use crate::workbench::Workbench;

pub use choice::{Choice, choose};
pub use error::TrainingError;
use fitted::{Fitted, Prepared};
pub use fitted::{Refinement, Selection};
pub use measured::measure;
pub use quantized::Quantization;
pub use run::{Run, Saved};

/// Everything that a training depends on besides the data and the network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameters {
    /// Name of the model.
    pub name: String,
    /// What an image may cost.
    pub limits: Limits,
    /// How the data set is divided.
    pub split: SplitParameters,
    /// What is trained.
    pub classifier: ClassifierKind,
    /// The linear classifier.
    pub svm: svm::Parameters,
    /// How the network is refined: of every classifier but [`ClassifierKind::Svm`].
    pub recipe: Option<Recipe>,
    /// Whether batch normalization is folded into the convolutions of a refined network.
    pub fold_batch_norm: bool,
    /// Whether the network that is served computes with integers.
    pub quantization: Quantization,
    /// How many images the bundle carries as proof of parity.
    pub golden_images: usize,
}

/// What a training computes with.
#[derive(Clone)]
pub struct Workplace<'a> {
    /// The loaded runtime library.
    pub runtime: &'a Runtime,
    /// Folder of the feature caches.
    pub features: PathBuf,
    /// Folder of interrupted refinements.
    pub checkpoints: PathBuf,
    /// Folder for events that TensorBoard can follow, where one wants them.
    pub events: Option<PathBuf>,
    /// Where networks are refined, and on CUDA devices that are named here also run for features.
    pub device: Device,
    /// Images worked on at once.
    pub threads: usize,
    /// Who is told of the progress.
    pub progress: &'a dyn Progress,
}

/// Trains on `dataset` with the features of `backbone`.
pub fn train(
    dataset: &Dataset,
    backbone: &Backbone,
    parameters: &Parameters,
    workplace: &Workplace,
) -> Result<Run, TrainingError> {
    let images = Images::in_folder(&dataset.root);
    let divided = prepare(dataset, backbone, parameters, workplace)?;
    finish(divided, images, backbone, parameters, workplace)
}

/// Tries the learning rates of `range` on the training part of `dataset`; gives what was left out of that too.
pub fn find_rate(
    dataset: &Dataset,
    backbone: &Backbone,
    parameters: &Parameters,
    recipe: &Recipe,
    range: RateRange,
    workplace: &Workplace,
) -> Result<(RateCurve, Vec<Skipped>), TrainingError> {
    let divided = prepare(dataset, backbone, parameters, workplace)?;
    let job = divided.job(backbone, parameters, workplace);
    let curve = refined::find_rate(&job, recipe, range)?;
    Ok((curve, divided.dataset.skipped))
}

/// Trains on features that were computed before, wherever their images are: the bundle's golden images and those of
/// the report are read from there, from addresses in private networks only where `allow_private`. What comes out is
/// what [`train`] gives for the same images.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::NoImages`] where the network is to be refined, and
/// [`TrainingError::NoImagesToQuantizeBy`] where it is to be quantized.
pub fn train_on_rows(
    rows: Rows,
    backbone: &Backbone,
    parameters: &Parameters,
    workplace: &Workplace,
    allow_private: bool,
) -> Result<Run, TrainingError> {
    if parameters.recipe.is_some() {
        return Err(TrainingError::NoImages);
    }
    if parameters.quantization != Quantization::None {
        return Err(TrainingError::NoImagesToQuantizeBy);
    }
    let images =
        Images::at(&rows.dataset.root, parameters.limits, allow_private).map_err(TrainingError::Connections)?;
    let model = Bytes::from(read(&backbone.onnx)?);
    let divided = Divided::new(&rows.dataset, rows.featurized, backbone, model, parameters)?;
    finish(divided, images, backbone, parameters, workplace)
}

/// The images of a data set that have features, divided.
struct Divided {
    dataset: Dataset,
    features: Features,
    split: Split,
    /// The file of the network that gave the features.
    model: Bytes,
    /// What the features took, where they were not known.
    seconds: f64,
}

impl Divided {
    /// Divides the images of `dataset` whose features are known.
    fn new(
        dataset: &Dataset,
        featurized: Featurized,
        backbone: &Backbone,
        model: Bytes,
        parameters: &Parameters,
    ) -> Result<Self, TrainingError> {
        let (mut dataset, features) = assembled(dataset, featurized, backbone.feature_size, parameters.split.distance)?;
        if dataset.classes.len() < 2 {
            return Err(TrainingError::too_few_classes(&dataset));
        }

        let split = Split::new(&dataset, &features.groups, &parameters.split)?;
        dataset.skipped.extend(split.unknown());
        let train = split.train_rows();
        for (class, name) in dataset.classes.iter().enumerate() {
            if !train.iter().any(|row| dataset.items[*row].class == class) {
                return Err(TrainingError::NothingToTrainOn(name.clone()));
            }
        }
        Ok(Self {
            dataset,
            features,
            split,
            model,
            seconds: 0.0,
        })
    }

    /// All that a training needs.
    fn job<'a>(
        &'a self,
        backbone: &'a Backbone,
        parameters: &'a Parameters,
        workplace: &'a Workplace<'a>,
    ) -> Prepared<'a> {
        Prepared {
            dataset: &self.dataset,
            features: &self.features,
            train: self.split.train_rows(),
            backbone,
            model: &self.model,
            parameters,
            workplace,
        }
    }
}

/// Computes what features are not in the cache, and divides the images that have them.
fn prepare(
    dataset: &Dataset,
    backbone: &Backbone,
    parameters: &Parameters,
    workplace: &Workplace,
) -> Result<Divided, TrainingError> {
    if dataset.classes.len() < 2 {
        return Err(TrainingError::too_few_classes(&dataset.existing()));
    }
    parameters.split.check(dataset)?;
    if let Some(recipe) = &parameters.recipe {
        refined::check(backbone, dataset.classes.len(), recipe)?;
    }
    let model = Bytes::from(read(&backbone.onnx)?);
    if parameters.quantization == Quantization::Int8 {
        quantized::check(&model)?;
    }
    let start = Instant::now();
    let featurized = workplace.featurized(dataset, &NetworkFile::of(backbone, &model), parameters.limits)?;
    let seconds = start.elapsed().as_secs_f64();
    let divided = Divided::new(dataset, featurized, backbone, model, parameters)?;
    Ok(Divided { seconds, ..divided })
}

/// Fits, measures on the test part, and makes the bundle.
fn finish(
    divided: Divided,
    images: Images,
    backbone: &Backbone,
    parameters: &Parameters,
    workplace: &Workplace,
) -> Result<Run, TrainingError> {
    let job = divided.job(backbone, parameters, workplace);
    let train = &job.train;
    let Divided {
        dataset,
        features,
        split,
        ..
    } = &divided;
    let test = split.test_rows();
    let fitted = match &parameters.recipe {
        Some(recipe) => refined::fit(&job, parameters.classifier, recipe)?,
        None => job.svm()?,
    };
    let fitted = quantized::apply(&job, fitted)?;

    let start = Instant::now();
    let predictions = predict(&fitted.head, dataset, &fitted.features, &test);
    let (selection, refinement) = (fitted.selection.as_ref(), fitted.refinement.as_ref());
    let metrics = Metrics {
        chosen_c: selection.map(|selection| selection.chosen_c),
        c_sweep: selection.map_or_else(Vec::new, |selection| selection.c_sweep.clone()),
        train_count: Some(train.len()),
        seconds: Seconds {
            featurize: Some(divided.seconds),
            svm: selection.map(|selection| selection.seconds),
            evaluate: Some(start.elapsed().as_secs_f64()),
            refine: refinement.map(|refinement| refinement.seconds),
        },
        ..Metrics::from(Evaluation::new(&predictions).calibrated_by(&fitted.head.calibration))
    };

    let mut notes = backbone.notes.clone();
    notes.extend(parameters.split.notes(dataset));
    notes.extend(dataset.conflict_note(&features.groups));
    notes.extend(parameters.split.file_notes(dataset, &features.groups, split));
    let classes = dataset.classes.len();
    notes.extend(refinement.iter().flat_map(|refinement| refinement.notes(classes)));
    notes.extend(fitted.notes.iter().cloned());
    let bundle = assemble(&fitted, backbone, &metrics, parameters)?;
    let shown = if test.is_empty() { train } else { &test };
    let golden = golden::choose(dataset, shown, parameters.golden_images);
    let bundle = golden::add(&bundle, &images, &golden, parameters.limits, workplace.runtime)?;
    Ok(Run {
        kind: Kind::Train,
        bundle,
        metrics,
        predictions,
        data: DataSummary::new(dataset, &features.contents, split),
        images,
        trained_on: TrainedOn::new(train.iter().map(|row| &features.contents[*row])),
        notes,
        selection: fitted.selection,
        refinement: fitted.refinement,
        split: divided.split,
        skipped: divided.dataset.skipped,
        parameters: serde_json::to_value(parameters).map(shortest).map_err(RunError::from)?,
        limits: parameters.limits,
    })
}

impl Workplace<'_> {
    /// The part of it that runs a network over images.
    fn workbench(&self) -> Workbench<'_> {
        Workbench {
            runtime: self.runtime,
            threads: self.threads,
            progress: self.progress,
        }
    }

    /// The readable part of `dataset`, and the features of each of its images in order, for whoever looks at data
    /// rather than trains on it; images whose hashes differ in at most `distance` bits of 256 share a group.
    pub fn featurize(
        &self,
        dataset: &Dataset,
        backbone: &Backbone,
        limits: Limits,
        distance: u32,
    ) -> Result<(Dataset, Features), TrainingError> {
        let model = read(&backbone.onnx)?;
        self.features(dataset, &NetworkFile::of(backbone, &model), limits, distance)
    }

    /// The same by any network.
    fn features(
        &self,
        dataset: &Dataset,
        network: &NetworkFile,
        limits: Limits,
        distance: u32,
    ) -> Result<(Dataset, Features), TrainingError> {
        let featurized = self.featurized(dataset, network, limits)?;
        assembled(dataset, featurized, network.feature_size, distance)
    }

    fn featurized(
        &self,
        dataset: &Dataset,
        network: &NetworkFile,
        limits: Limits,
    ) -> Result<Featurized, TrainingError> {
        let networks = Networks::new(self.runtime, network.model, &self.device);
        let key = CacheKey::new(&sha256_hex(network.model), network.preprocessing).on(&self.device);
        let cache = FeatureCache::open(&self.features, &key, network.feature_size)?;
        Ok(features::featurize(
            dataset,
            &networks,
            network.preprocessing,
            limits,
            &cache,
            self.threads,
            self.progress,
        )?)
    }
}

/// The part of `dataset` that has features, and these in its order.
fn assembled(
    dataset: &Dataset,
    featurized: Featurized,
    feature_size: usize,
    distance: u32,
) -> Result<(Dataset, Features), TrainingError> {
    let records: Vec<_> = featurized.images.iter().map(|(_, record)| record).collect();
    let hashes: Vec<_> = records.iter().map(|record| record.dhash).collect();
    let contents = records.iter().map(|record| record.image).collect();
    let values = records
        .iter()
        .flat_map(|record| record.features.iter().copied())
        .collect();
    let matrix = Array2::from_shape_vec((records.len(), feature_size), values)
        .map_err(|_| NetworkError::Run("it gave vectors of another length than announced".to_owned()))
        .map_err(FeatureError::from)?;
    let groups = near_duplicate_groups(&hashes, distance);
    let items = featurized.images.into_iter().map(|(item, _)| item).collect();
    let readable = dataset.restricted(items, featurized.skipped);
    let labels = readable.items.iter().map(|item| item.class).collect();
    let features = Features {
        matrix,
        labels,
        groups,
        contents,
    };
    Ok((readable, features))
}

/// A network as a file, with what its features depend on.
struct NetworkFile<'a> {
    model: &'a [u8],
    preprocessing: &'a Preprocessing,
    feature_size: usize,
}

impl<'a> NetworkFile<'a> {
    fn of(backbone: &'a Backbone, model: &'a [u8]) -> Self {
        Self {
            model,
            preprocessing: &backbone.preprocessing,
            feature_size: backbone.feature_size,
        }
    }
}

/// What `head` answers for these rows of `features`, whose labels count in the order of its classes.
fn predict(head: &Head, dataset: &Dataset, features: &Features, rows: &[usize]) -> Predictions {
    let truths: Vec<usize> = rows.iter().map(|row| features.labels[*row]).collect();
    let paths = rows.iter().map(|row| dataset.items[*row].path.clone());
    let predictions: Vec<_> = rows
        .par_iter()
        .map(|row| head.predict(&features.matrix.row(*row).to_vec()))
        .collect();
    Predictions::new(&head.classes, paths, &truths, &predictions)
}

/// The bundle without golden images.
fn assemble(
    fitted: &Fitted,
    backbone: &Backbone,
    metrics: &Metrics,
    parameters: &Parameters,
) -> Result<Bundle, TrainingError> {
    let head = &fitted.head;
    let figures = metrics.figures().into_iter();
    let figures = figures.filter_map(|(name, figure)| Some((name.to_owned(), figure?)));
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        name: parameters.name.clone(),
        version: String::new(),
        classes: head.classes.clone(),
        classifier: parameters.classifier,
        backbone: bundle::Backbone {
            name: backbone.name.clone(),
            sha256: backbone.sha256.clone(),
            licence: backbone.licence.clone(),
        },
        feature_size: head.takes(),
        preprocessing: backbone.preprocessing.clone(),
        calibration: head.calibration.clone(),
        thresholds: head.thresholds,
        files: BTreeMap::new(),
        metrics: figures.collect(),
    };
    let mut files = BTreeMap::from([(bundle::MODEL.to_owned(), fitted.model.clone())]);
    if let Some(classifier) = &head.classifier {
        files.insert(bundle::SVM.to_owned(), classifier.to_json()?.into());
    }
    Ok(Bundle::new(manifest, files))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TrainingError> {
    Ok(std::fs::read(path).map_err(at(path))?)
}
