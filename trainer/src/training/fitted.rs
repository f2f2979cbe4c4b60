//! What a training works on, and what it comes to, whichever classifier is trained.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use shared::classifier::Head;

use super::{NetworkFile, Parameters, TrainingError, Workplace};
use crate::backbone::Backbone;
use crate::dataset::{Dataset, escape};
use crate::features::Features;
use crate::refine::History;
use crate::svm::{self, Fold, Folds, SvmError, SweepEntry};

/// A data set with features, divided, ready for a classifier.
pub(super) struct Prepared<'a> {
    pub dataset: &'a Dataset,
    pub features: &'a Features,
    /// Rows of the training part.
    pub train: Vec<usize>,
    pub backbone: &'a Backbone,
    pub model: &'a Bytes,
    pub parameters: &'a Parameters,
    pub workplace: &'a Workplace<'a>,
}

/// A network and a classifier on it, with what was learned on the way.
pub(super) struct Fitted<'a> {
    pub head: Head,
    pub model: Bytes,
    /// What the network gives for every image of the data set.
    pub features: Cow<'a, Features>,
    /// On the classifier.
    pub notes: Vec<String>,
    /// Where it is an SVM.
    pub selection: Option<Selection>,
    /// Where the network was refined.
    pub refinement: Option<Refinement>,
}

/// How an SVM was fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The C that was chosen.
    pub chosen_c: f64,
    /// Every C tried.
    pub c_sweep: Vec<SweepEntry>,
    /// Folds that C was chosen by; 0 where nothing was held out.
    pub folds: usize,
    /// What it took.
    pub seconds: f64,
}

/// How a network was refined.
#[derive(Debug, Clone, PartialEq)]
pub struct Refinement {
    /// Which rows of the training part it was trained on, and which it was chosen by.
    pub fold: Fold,
    /// The network after which epoch is kept, counted from 1; 0 where none did better than the start.
    pub best_epoch: usize,
    /// Epoch by epoch.
    pub history: History,
    /// What it took.
    pub seconds: f64,
}

impl<'a> Fitted<'a> {
    /// An SVM on `features`, which `model` gave for all images.
    fn of_svm(job: &Prepared, trained: svm::Trained, model: Bytes, features: Cow<'a, Features>, seconds: f64) -> Self {
        let classes = &job.dataset.classes;
        let mut notes = trained.notes;
        if !trained.never_held_out.is_empty() {
            let names = trained.never_held_out.iter().map(|class| shown(classes, *class));
            notes.push(format!(
                "These classes have one image or one group of near-duplicates only, which is never held out; they count in the \
                 choice of C by whether it is recognized where it was trained on: {}.",
                names.collect::<Vec<_>>().join(", ")
            ));
        }
        Self {
            head: Head {
                classes: classes.clone(),
                classifier: Some(trained.classifier),
                calibration: trained.calibration,
                thresholds: trained.thresholds,
            },
            model,
            features,
            notes,
            selection: Some(Selection {
                chosen_c: trained.sweep.chosen_c,
                c_sweep: trained.sweep.entries,
                folds: trained.sweep.folds,
                seconds,
            }),
            refinement: None,
        }
    }
}

/// The name of a class, for people to read.
fn shown(classes: &[String], class: usize) -> String {
    classes
        .get(class)
        .map_or_else(|| class.to_string(), |name| escape(Path::new(name)))
}

/// What went wrong with an SVM, with the names of classes in place of their numbers.
fn named(error: SvmError, classes: &[String]) -> TrainingError {
    match error {
        SvmError::EmptyClass(class) => TrainingError::NothingToTrainOn(shown(classes, class)),
        SvmError::Smo { class, reason } => TrainingError::Smo {
            class: shown(classes, class),
            reason,
        },
        error => error.into(),
    }
}

impl<'a> Prepared<'a> {
    /// What `model` gives for every image of the data set, `feature_size` values each.
    ///
    /// # Errors
    /// [`TrainingError::Vanished`] where one of the images is no longer there: rows would not be those of the data set.
    pub fn features_by(&self, model: &Bytes, feature_size: usize) -> Result<Features, TrainingError> {
        let network = NetworkFile {
            model,
            preprocessing: &self.backbone.preprocessing,
            feature_size,
        };
        let Parameters { limits, split, .. } = self.parameters;
        let (readable, features) = self
            .workplace
            .features(self.dataset, &network, *limits, split.distance)?;
        check_all_there(self.dataset, &readable)?;
        Ok(features)
    }

    /// An SVM on normalized rows of the training part. C is chosen on `folds` of them, or on folds that are drawn.
    pub fn train_svm(&self, training: &Features, folds: Option<&Folds>) -> Result<svm::Trained, TrainingError> {
        let classes = &self.dataset.classes;
        let input = svm::Input {
            features: training.matrix.view(),
            labels: &training.labels,
            groups: &training.groups,
            classes: classes.len(),
        };
        let (parameters, progress) = (&self.parameters.svm, self.workplace.progress);
        let trained = match folds {
            Some(folds) => svm::train_on_folds(&input, folds, parameters, progress),
            None => svm::train(&input, parameters, progress),
        };
        trained.map_err(|error| named(error, classes))
    }

    /// A linear SVM on the features of the network as it came.
    pub fn svm(&self) -> Result<Fitted<'a>, TrainingError> {
        self.svm_on(self.model.clone(), Cow::Borrowed(self.features), None)
    }

    /// A linear SVM on `features`, which `model` gave for all images. C is chosen on `folds` of the training part, or
    /// on folds that are drawn.
    pub fn svm_on<'f>(
        &self,
        model: Bytes,
        features: Cow<'f, Features>,
        folds: Option<&Folds>,
    ) -> Result<Fitted<'f>, TrainingError> {
        let start = Instant::now();
        let trained = self.train_svm(&features.normalized_rows(&self.train), folds)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Fitted::of_svm(self, trained, model, features, seconds))
    }
}

/// Checks that `now` has all images that `before` had.
fn check_all_there(before: &Dataset, now: &Dataset) -> Result<(), TrainingError> {
    let here: HashSet<&Path> = now.items.iter().map(|item| item.path.as_path()).collect();
    let paths = before.items.iter().map(|item| item.path.as_path());
    let named: Vec<String> = paths.filter(|path| !here.contains(path)).map(escape).collect();
    if named.is_empty() {
        return Ok(());
    }
    Err(TrainingError::Vanished {
        root: before.root.clone(),
        named,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;

    #[test]
    fn images_that_vanished_are_named() {
        let item = |path: &str| Item {
            path: path.into(),
            class: 0,
        };
        let before = Dataset {
            root: "data".into(),
            classes: vec!["a".to_owned()],
            items: vec![item("a/1.png"), item("a/2.png"), item("a/3.png")],
            skipped: Vec::new(),
        };
        assert!(check_all_there(&before, &before).is_ok());
        let now = before.restricted(vec![item("a/1.png"), item("a/3.png")], Vec::new());
        let error = check_all_there(&before, &now).expect_err("one is gone").to_string();
        assert!(
            error.contains("images of data") && error.contains(": a/2.png;"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_classes() {
        let classes = ["dotted", "striped"].map(str::to_owned);
        let text = |error: SvmError| named(error, &classes).to_string();
        assert!(text(SvmError::EmptyClass(1)).contains("the class striped"));
        let failed = SvmError::Smo {
            class: 0,
            reason: "it panicked".to_owned(),
        };
        assert!(text(failed).contains("the class dotted: it panicked"));
        assert!(text(SvmError::TooFewClasses(1)).contains("two classes"));
    }
}
