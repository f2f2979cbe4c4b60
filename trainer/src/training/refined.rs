//! The way through a refined network: its own last layer, or an SVM on its features.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use ndarray::Array2;
use prost::Message;
use shared::bundle::ClassifierKind;
use shared::classifier::{Calibration, Head};
use shared::files::sha256_hex;

use super::{Fitted, Prepared, Refinement, TrainingError, read};
use crate::backbone::{Backbone, PREPROCESSING_KEY};
use crate::counted::counted;
use crate::features::Features;
use crate::onnx::fold_batch_norm;
use crate::onnx::proto::{ModelProto, StringStringEntryProto};
use crate::refine::head::{HeadLayer, with_class_maps};
use crate::refine::network::GraphError;
use crate::refine::{self, HeadStart, RateCurve, RateRange, Recipe, RefineError, Refined, Task, cut_in_two};
use crate::runs::RunError;
use crate::svm::{self, Fold, Folds};

/// Largest difference between a logit of the trainer and the same logit of the exported network, relative to the
/// logit where it is above 1.
const PARITY: f32 = 1e-3;
/// A network does no better than guessing where its calibrated loss is more than this share of that of guessing, above
/// which calibration leaves none.
const GUESSED: f32 = 0.99;
/// Keys of a refined network's metadata: its classes in order as JSON, and the SHA-256 of its training images' own
/// SHA-256 and classes.
const CLASSES_KEY: &str = "ikat.classes";
const TRAINING_DATA_KEY: &str = "ikat.training_data";

/// Checks, before anything is computed, that `backbone` can be refined for so many classes.
pub(super) fn check(backbone: &Backbone, classes: usize, recipe: &Recipe) -> Result<(), TrainingError> {
    let network = decoded(&read(&backbone.trainable)?)?;
    let head = HeadLayer::random(classes, backbone.feature_size, recipe.seed);
    head.on(&network, Some(recipe.dropout))
        .and_then(|classifier| cut_in_two(&network, &classifier, recipe.trained))
        .map_err(RefineError::from)?;
    Ok(())
}

/// Refines the network and fits what `kind` says on top of it.
pub(super) fn fit(job: &Prepared, kind: ClassifierKind, recipe: &Recipe) -> Result<Fitted<'static>, TrainingError> {
    let start = Instant::now();
    let fold = validation_fold(job, recipe);
    let refined = with_task(job, &fold, recipe, None, refine::refine)?;
    let seconds = start.elapsed().as_secs_f64();
    let fitted = match kind {
        ClassifierKind::Dnn => own_layer(job, &refined, &fold)?,
        ClassifierKind::Svm | ClassifierKind::SvmRefined => svm_on_top(job, &refined, &fold)?,
    };
    let refinement = Refinement {
        fold,
        best_epoch: refined.best_epoch,
        history: refined.history,
        seconds,
    };
    Ok(Fitted {
        refinement: Some(refinement),
        ..fitted
    })
}

impl Refinement {
    /// What the user should know of it, where so many `classes` were to be told apart.
    pub(super) fn notes(&self, classes: usize) -> Vec<String> {
        let mut notes = vec![self.told()];
        let epochs = &self.history.epochs;
        let kept = match self.best_epoch.checked_sub(1) {
            Some(epoch) => epochs.get(epoch).and_then(|epoch| epoch.calibrated_validation_loss),
            None => self.history.before.map(|before| before.calibrated),
        };
        let guessing = (classes as f32).ln();
        if kept.is_some_and(|loss| loss > GUESSED * guessing) {
            notes.push(
                "It does no better than guessing on the images held out: try another --learning-rate, a tenth for \
                 example."
                    .to_owned(),
            );
        }
        notes
    }

    /// Which network is kept, and on how many images it was trained and chosen.
    fn told(&self) -> String {
        let (best, epochs) = (self.best_epoch, self.history.epochs.len());
        let (trained, held_out) = (self.fold.train.len(), self.fold.held_out.len());
        let all = trained + held_out;
        let parts = format!(
            "Of the {all} images of the training part, {trained} train the network and {held_out} are held out"
        );
        match (held_out, best) {
            (0, _) => {
                "Nothing was held out, so the last epoch is kept and the probabilities are not calibrated.".to_owned()
            }
            (_, 0) => {
                let after = self.history.epochs.iter();
                let after = after.filter_map(|epoch| epoch.calibrated_validation_loss);
                let losses = self.history.before.zip(after.reduce(f32::min));
                let losses = losses.map_or_else(String::new, |(before, after)| {
                    format!(" (calibrated loss {:.3} before, {after:.3} at best)", before.calibrated)
                });
                format!(
                    "{parts}. It is kept as it was before the first of {}: none did better on those held out{losses}.",
                    counted(epochs, "epoch", "epochs")
                )
            }
            _ => format!("{parts}. That of epoch {best} of {epochs} is kept: it did best on those held out."),
        }
    }
}

/// Refines the network once, and fits its own layer and an SVM on top of it: each of them with the vectors of all
/// images that it scores.
///
/// # Errors
/// [`RefineError::OutOfTime`] where it would not be done by `deadline`.
pub(super) fn both(
    job: &Prepared,
    recipe: &Recipe,
    deadline: Instant,
) -> Result<[(Head, Array2<f32>); 2], TrainingError> {
    let fold = validation_fold(job, recipe);
    let refined = with_task(job, &fold, recipe, Some(deadline), refine::refine)?;
    let (own, _) = own_head(job, &fold, &refined.logits);
    let svm = svm_on_top(job, &refined, &fold)?;
    let vectors = svm.features.into_owned().matrix;
    // What the network with its own layer gives follows from the features that are there: it need not be run.
    let mut logits = Array2::zeros((vectors.nrows(), own.classes.len()));
    for (mut row, vector) in logits.rows_mut().into_iter().zip(vectors.rows()) {
        for (place, logit) in row.iter_mut().zip(refined.head.logits(&vector.to_vec())) {
            *place = logit;
        }
    }
    Ok([(own, logits), (svm.head, vectors)])
}

/// Tries learning rates on the training part.
pub(super) fn find_rate(job: &Prepared, recipe: &Recipe, range: RateRange) -> Result<RateCurve, TrainingError> {
    let fold = validation_fold(job, recipe);
    with_task(job, &fold, recipe, None, |task| refine::find_rate(task, range))
}

/// Hands the refinement of the training part without `fold` to `work`.
fn with_task<T>(
    job: &Prepared,
    fold: &Fold,
    recipe: &Recipe,
    deadline: Option<Instant>,
    work: impl FnOnce(&Task) -> Result<T, RefineError>,
) -> Result<T, TrainingError> {
    let backbone = read(&job.backbone.trainable)?;
    let backbone_sha256 = sha256_hex(&backbone);
    let backbone = decoded(&backbone)?;
    let path = |row: &usize| job.dataset.root.join(&job.dataset.items[*row].path);
    // The features themselves are not kept while the network is refined.
    let (head, name, labels) = {
        let training = job.features.normalized_rows(&job.train);
        let head = first_head(job, &training, fold, recipe)?;
        let name = checkpoint_name(job, &backbone_sha256, &training, fold, &head, recipe);
        (head, name, training.labels)
    };
    let task = Task {
        backbone: &backbone,
        preprocessing: &job.backbone.preprocessing,
        limits: job.parameters.limits,
        paths: job.train.iter().map(path).collect(),
        labels,
        classes: job.dataset.classes.len(),
        validation: fold.held_out.clone(),
        head,
        recipe,
        device: job.workplace.device.clone(),
        runtime: job.workplace.runtime,
        checkpoint: job.workplace.checkpoints.join(name),
        events: job.workplace.events.clone(),
        deadline,
        progress: job.workplace.progress,
    };
    Ok(work(&task)?)
}

/// A network that is to be refined.
fn decoded(file: &[u8]) -> Result<ModelProto, RefineError> {
    Ok(ModelProto::decode(file).map_err(|error| GraphError::Unsound(error.to_string()))?)
}

/// A refined network as it is served. It tells of its classes in order, how images are prepared for it, and the hash of
/// what it was trained on.
fn exported(job: &Prepared, mut model: ModelProto) -> Result<ModelProto, TrainingError> {
    if job.parameters.fold_batch_norm {
        fold_batch_norm(&mut model);
    }
    let json = |value: serde_json::Result<String>| value.map_err(RunError::from);
    let mut trained_on = Vec::new();
    for row in &job.train {
        trained_on.extend(job.features.contents[*row]);
        trained_on.extend((job.dataset.items[*row].class as u64).to_le_bytes());
    }
    let described = [
        (CLASSES_KEY, json(serde_json::to_string(&job.dataset.classes))?),
        (
            PREPROCESSING_KEY,
            json(serde_json::to_string(&job.backbone.preprocessing))?,
        ),
        (TRAINING_DATA_KEY, sha256_hex(&trained_on)),
    ];
    for (key, value) in described {
        model.metadata_props.retain(|entry| entry.key != key);
        model.metadata_props.push(StringStringEntryProto {
            key: key.to_owned(),
            value,
        });
    }
    Ok(model)
}

/// Which rows of the training part validate: a share of each class, near-duplicates together.
fn validation_fold(job: &Prepared, recipe: &Recipe) -> Fold {
    let all = Fold {
        train: (0..job.train.len()).collect(),
        held_out: Vec::new(),
    };
    if recipe.validation <= 0.0 {
        return all;
    }
    let count = ((1.0 / recipe.validation).round() as usize).max(2);
    let of_rows = |values: &[usize]| -> Vec<usize> { job.train.iter().map(|row| values[*row]).collect() };
    let (labels, groups) = (of_rows(&job.features.labels), of_rows(&job.features.groups));
    let folds = svm::stratified_grouped(&labels, &groups, job.dataset.classes.len(), count, recipe.seed).folds;
    nearest(folds, job.train.len().div_ceil(count)).unwrap_or(all)
}

/// The fold that comes nearest to holding out so many rows. Near-duplicates stay together: the largest group of them is
/// in the first fold, whatever its size, and where there are few groups, all folds hold out more.
fn nearest(folds: Vec<Fold>, share: usize) -> Option<Fold> {
    folds.into_iter().min_by_key(|fold| fold.held_out.len().abs_diff(share))
}

/// The last layer to begin with.
fn first_head(job: &Prepared, training: &Features, fold: &Fold, recipe: &Recipe) -> Result<HeadLayer, TrainingError> {
    let classes = job.dataset.classes.len();
    if recipe.head == HeadStart::Random {
        return Ok(HeadLayer::random(classes, job.backbone.feature_size, recipe.seed));
    }
    // Normalizing twice changes nothing.
    let seen = training.normalized_rows(&fold.train);
    let trained = job.train_svm(&seen, None)?;
    let Calibration::Temperature { scale } = trained.calibration;
    let scaled = |value: &f32| (scale * f64::from(*value)) as f32;
    Ok(HeadLayer {
        weights: trained.classifier.weights.iter().flatten().map(scaled).collect(),
        biases: trained.classifier.intercepts.iter().map(scaled).collect(),
        normalized: true,
    })
}

/// One file per task: whoever would train the same network in the same way on the same images finds it again.
fn checkpoint_name(
    job: &Prepared,
    backbone_sha256: &str,
    training: &Features,
    fold: &Fold,
    head: &HeadLayer,
    recipe: &Recipe,
) -> String {
    let mut identity = format!(
        "{} {backbone_sha256} {:?} {recipe:?} {:?}",
        env!("CARGO_PKG_VERSION"),
        job.backbone.preprocessing,
        fold.held_out
    )
    .into_bytes();
    for (content, class) in training.contents.iter().zip(&training.labels) {
        identity.extend(content);
        identity.extend((*class as u64).to_le_bytes());
    }
    for value in head.weights.iter().chain(&head.biases) {
        identity.extend(value.to_le_bytes());
    }
    format!("{}.safetensors", &sha256_hex(&identity)[..24])
}

/// The network's own last layer.
fn own_layer(job: &Prepared, refined: &Refined, fold: &Fold) -> Result<Fitted<'static>, TrainingError> {
    let classes = job.dataset.classes.len();
    let model = exported(
        job,
        with_class_maps(refined.classifier.clone()).map_err(RefineError::from)?,
    )?;
    let (model, features) = features_of(job, &model, classes)?;
    check_parity(refined, |row| features.matrix.row(job.train[row]).to_vec())?;
    Ok(with_own_layer(job, model, features, fold, &refined.logits))
}

/// The last layer of a refined network in another form, `model`, which gave `features` for all images.
pub(super) fn own_layer_of(job: &Prepared, model: Bytes, features: Features, fold: &Fold) -> Fitted<'static> {
    let rows = fold.held_out.iter();
    let logits: Vec<f32> = rows
        .flat_map(|row| features.matrix.row(job.train[*row]))
        .copied()
        .collect();
    with_own_layer(job, model, features, fold, &logits)
}

/// A network that gives logits, and what follows from those of the images held out.
fn with_own_layer(job: &Prepared, model: Bytes, features: Features, fold: &Fold, logits: &[f32]) -> Fitted<'static> {
    let (head, note) = own_head(job, fold, logits);
    Fitted {
        head,
        model,
        features: Cow::Owned(features),
        notes: note.into_iter().collect(),
        selection: None,
        refinement: None,
    }
}

/// What turns logits into answers, with the calibration and thresholds that follow from those of the images held out,
/// and perhaps a note on these.
fn own_head(job: &Prepared, fold: &Fold, logits: &[f32]) -> (Head, Option<String>) {
    let classes = job.dataset.classes.clone();
    let label = |row: &usize| job.features.labels[job.train[*row]];
    let truths: Vec<usize> = fold.held_out.iter().map(label).collect();
    // Where nothing was held out, the logits are of other images.
    let logits = Array2::from_shape_vec((truths.len(), classes.len()), logits.to_vec())
        .unwrap_or_else(|_| Array2::zeros((0, classes.len())));
    let svm::Calibrated {
        calibration,
        thresholds,
        note,
    } = svm::calibrate(logits.view(), &truths, job.parameters.svm.accept_quantile);
    let head = Head {
        classes,
        classifier: None,
        calibration,
        thresholds,
    };
    (head, note)
}

/// An SVM on the refined features. The network has seen the training images, so they cannot choose C: the images
/// held out of the refinement do.
fn svm_on_top(job: &Prepared, refined: &Refined, fold: &Fold) -> Result<Fitted<'static>, TrainingError> {
    let model = exported(job, refined.backbone.clone())?;
    let (model, features) = features_of(job, &model, job.backbone.feature_size)?;
    let logits = |row: usize| refined.head.logits(&features.matrix.row(job.train[row]).to_vec());
    check_parity(refined, logits)?;
    svm_of(job, model, features, fold)
}

/// An SVM on a refined network in whatever form, `model`, which gave `features` for all images.
pub(super) fn svm_of(
    job: &Prepared,
    model: Bytes,
    features: Features,
    fold: &Fold,
) -> Result<Fitted<'static>, TrainingError> {
    let validating = [fold].into_iter().filter(|fold| !fold.held_out.is_empty());
    let folds = Folds {
        folds: validating.cloned().collect(),
        never_held_out: Vec::new(),
    };
    job.svm_on(model, Cow::Owned(features), Some(&folds))
}

/// The exported network's vectors of all images.
fn features_of(job: &Prepared, model: &ModelProto, feature_size: usize) -> Result<(Bytes, Features), TrainingError> {
    let model = Bytes::from(model.encode_to_vec());
    let features = job.features_by(&model, feature_size)?;
    Ok((model, features))
}

/// The exported network, whose logits of a row of the training part `logits` gives, must say of the images that prove
/// it what the trained one said.
fn check_parity(refined: &Refined, logits: impl Fn(usize) -> Vec<f32>) -> Result<(), TrainingError> {
    let exported: Vec<f32> = refined.proof.iter().flat_map(|row| logits(*row)).collect();
    let difference = largest_difference(&exported, &refined.logits);
    if exported.len() == refined.logits.len() && difference <= PARITY {
        Ok(())
    } else {
        Err(RefineError::Parity { difference }.into())
    }
}

/// Largest difference of two values, relative where the second is above 1; infinite where one is no number.
fn largest_difference(actual: &[f32], expected: &[f32]) -> f32 {
    let differences = actual.iter().zip(expected).map(|(actual, expected)| {
        let difference = (actual - expected).abs() / expected.abs().max(1.0);
        if difference.is_nan() { f32::INFINITY } else { difference }
    });
    differences.fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refine::{EPOCH, Epoch, History, Validation};

    fn fold(held_out: usize) -> Fold {
        Fold {
            train: (held_out..12).collect(),
            held_out: (0..held_out).collect(),
        }
    }

    #[test]
    fn about_the_share_that_is_asked_for_is_held_out() {
        let folds = || vec![fold(6), fold(2), fold(4)];
        assert_eq!(nearest(folds(), 1), Some(fold(2)));
        assert_eq!(nearest(folds(), 4), Some(fold(4)));
        assert_eq!(nearest(Vec::new(), 1), None);
    }

    #[test]
    fn a_large_group_of_near_duplicates_trains_rather_than_validates() {
        // Forty images of one scene, and a hundred of a scene each.
        let groups: Vec<usize> = (0..140_usize).map(|row| row.saturating_sub(39)).collect();
        let labels: Vec<usize> = (0..140).map(|row| usize::from(row >= 100)).collect();
        for seed in 0..5 {
            let folds = svm::stratified_grouped(&labels, &groups, 2, 7, seed).folds;
            let held_out = nearest(folds, 20).expect("a fold").held_out;
            assert!((14..=20).contains(&held_out.len()), "{}", held_out.len());
        }
    }

    #[test]
    fn trained_and_held_out_images_are_told_apart() {
        let before = Validation {
            loss: 0.5,
            calibrated: 0.25,
            error: 0.2,
        };
        let history = History {
            before: Some(before),
            epochs: vec![EPOCH; 4],
        };
        let told = |best_epoch: usize, held_out: usize| {
            let refinement = Refinement {
                fold: fold(held_out),
                best_epoch,
                history: history.clone(),
                seconds: 0.0,
            };
            refinement.told()
        };
        let note = told(3, 5);
        assert!(
            note.contains("the 12 images") && note.contains("7 train") && note.contains("5 are held out"),
            "{note}"
        );
        let note = told(0, 5);
        assert!(
            note.contains("before the first of 4 epochs")
                && note.ends_with("(calibrated loss 0.250 before, 0.300 at best)."),
            "{note}"
        );
        assert!(told(4, 0).contains("Nothing was held out"));
    }

    #[test]
    fn guessing_is_told_by_the_loss_that_the_network_is_kept_for() {
        let is_told = |best_epoch: usize, calibrated: f32| {
            let epoch = Epoch {
                // One sure mistake among ten right answers is enough for as much.
                validation_loss: Some(0.9),
                calibrated_validation_loss: Some(calibrated),
                ..EPOCH
            };
            let before = Validation {
                loss: 0.9,
                calibrated,
                error: 0.1,
            };
            let refinement = Refinement {
                fold: fold(5),
                best_epoch,
                history: History {
                    before: Some(before),
                    epochs: vec![epoch],
                },
                seconds: 0.0,
            };
            refinement.notes(2).iter().any(|note| note.contains("guessing"))
        };
        for best_epoch in [0, 1] {
            assert!(!is_told(best_epoch, 0.3));
            assert!(is_told(best_epoch, 0.693));
        }
    }

    #[test]
    fn what_is_no_number_is_no_parity() {
        assert!(largest_difference(&[1.0, 20.01], &[1.0, 20.0]) <= PARITY);
        assert!(largest_difference(&[1.1], &[1.0]) > PARITY);
        for odd in [f32::NAN, f32::INFINITY] {
            assert!(largest_difference(&[0.0, odd], &[0.0, 1.0]) > PARITY);
            assert!(largest_difference(&[0.0, 1.0], &[0.0, odd]) > PARITY);
        }
    }
}
