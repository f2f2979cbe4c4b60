//! Options of every training, whichever network and classifier.

use std::path::Path;

use clap::{ArgAction, ValueEnum};
use shared::bundle::ClassifierKind;
use shared::network::Runtime;

use super::Session;
use super::data::split::SplitArguments;
use super::failure::Failure;
use super::recipe::RecipeArguments;
use super::resources::{Resources, check_outside};
use super::svm::SvmArguments;
use super::tracking::Tracking;
use super::values;
use crate::dataset::Dataset;
use crate::report;
use crate::setup::Cache;
use crate::svm::ClassWeights;
use crate::training::{Parameters, Quantization, TrainingError, Workplace};

/// Heading of the options about what comes out.
const EXPORT: &str = "Bundle and report";

/// What a training needs to know besides the network.
#[derive(Debug, clap::Args)]
pub struct TrainingArguments {
    #[command(flatten)]
    pub split: SplitArguments,
    #[command(flatten)]
    svm: SvmArguments,
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Name of the model [default: the name of the folder of the images or the list]
    #[arg(long, help_heading = EXPORT)]
    name: Option<String>,
    /// Whether batch normalization becomes part of the convolutions before it where a refined network is exported: the
    /// same scores from half of the nodes, loaded in less time. `false` keeps the form that was refined, to go on with
    /// elsewhere
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true",
          action = ArgAction::Set, help_heading = EXPORT)]
    fold_batch_norm: bool,
    /// Whether the network that is served computes with 8-bit integers, calibrated on training images
    #[arg(long, value_enum, default_value_t = Quantize::None, help_heading = EXPORT)]
    quantize: Quantize,
    /// How many small copies of test images the bundle carries, to prove parity where it is loaded
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = EXPORT, value_parser = values::count::<usize>)]
    golden_images: usize,
    /// How many test images the report shows at most
    #[arg(long, value_name = "N", default_value_t = report::DEFAULT_PICTURES, help_heading = EXPORT)]
    pub report_images: usize,
    #[command(flatten)]
    pub tracking: Tracking,
    #[command(flatten)]
    pub resources: Resources,
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
    /// Whichever of them does best on held-out parts of the training images
    Auto,
}

/// Whether the network that is served computes with 8-bit integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantize {
    /// No, with 32-bit floats
    None,
    /// Yes
    Int8,
    /// Where it then recognizes held-out training images as well, within half a point, and is faster on this machine
    Auto,
}

impl Classifier {
    /// As a bundle names it; `None` where it is still to be found out.
    pub fn kind(self) -> Option<ClassifierKind> {
        match self {
            Self::Svm => Some(ClassifierKind::Svm),
            Self::Dnn => Some(ClassifierKind::Dnn),
            Self::SvmRefined => Some(ClassifierKind::SvmRefined),
            Self::Auto => None,
        }
    }
}

impl TrainingArguments {
    /// What the library's training takes, with everything random drawn from `seed`, for images in `data`.
    pub fn parameters(&self, data: &Path, kind: ClassifierKind, seed: u64) -> Parameters {
        let svm = self.svm.parameters(seed);
        let balanced = svm.class_weights == ClassWeights::Balanced;
        Parameters {
            name: self.model_name(data),
            limits: self.resources.limits(),
            split: self.split.parameters(seed),
            classifier: kind,
            svm,
            recipe: (kind != ClassifierKind::Svm).then(|| self.recipe.recipe(seed, balanced)),
            fold_batch_norm: self.fold_batch_norm,
            quantization: match self.quantize {
                Quantize::None => Quantization::None,
                Quantize::Int8 => Quantization::Int8,
                Quantize::Auto => Quantization::Auto,
            },
            golden_images: self.golden_images,
        }
    }

    /// Refuses options of the refinement that no recipe can have, before anything is computed, and warns of those that
    /// were typed where no network `is_refined`. Files and the environment speak to trainings of every kind at once.
    pub fn check(&self, is_refined: bool, session: &Session) -> Result<(), Failure> {
        let unused = RecipeArguments::among(&session.typed);
        if !is_refined && !unused.is_empty() {
            session.warn(&format!(
                "only the classifiers dnn and svm-refined refine a network: svm has no use for {}",
                unused.join(" and ")
            ));
        }
        let recipe = self.recipe.recipe(self.split.seed(), true);
        recipe.check().map_err(Failure::usage)?;
        self.recipe.device.check(is_refined)?;
        if is_refined {
            session.warn_of_idle(&self.recipe.uses(&recipe));
        }
        // Integers take the place of convolutions into which it was folded.
        let is_folded_by_choice = is_refined && self.quantize != Quantize::Int8;
        session.warn_of_idle(&[("fold_batch_norm", is_folded_by_choice, "refined networks in floats")]);
        self.split.warn_of_idle(session);
        self.tracking.warn_of_idle(session);
        Ok(())
    }

    /// Refuses a run at `out` and events within the folder of the images, `data`, where they would be taken for classes.
    pub fn check_places(&self, out: Option<&Path>, data: &Path) -> Result<(), Failure> {
        let places = [(out, "--out"), (self.recipe.tensorboard.as_deref(), "--tensorboard")];
        for (folder, option) in places {
            if let Some(folder) = folder {
                check_outside(folder, data, option)?;
            }
        }
        Ok(())
    }

    /// Refuses what needs the images themselves where there are rows of features alone, before any of them is read.
    pub fn check_for_rows(&self, classifier: Classifier) -> Result<(), Failure> {
        if matches!(classifier, Classifier::Dnn | Classifier::SvmRefined) {
            return Err(Failure::usage(TrainingError::NoImages.to_string()));
        }
        if self.quantize != Quantize::None {
            return Err(Failure::usage(TrainingError::NoImagesToQuantizeBy.to_string()));
        }
        Ok(())
    }

    /// Warns, before anything is computed, of what `dataset` may be meant to be instead.
    pub fn warn_of(&self, dataset: &Dataset, session: &Session) {
        for note in self.split.parameters(self.split.seed()).notes(dataset) {
            session.warn(&note);
        }
    }

    /// Where the training finds what it needs on this machine.
    pub fn workplace<'a>(&self, runtime: &'a Runtime, cache: &Cache, session: &'a Session) -> Workplace<'a> {
        Workplace {
            device: self.recipe.device.clone(),
            events: self.recipe.tensorboard.clone(),
            ..self.resources.workplace(runtime, cache, session)
        }
    }

    /// The name that was given, or one made of the data folder's that can stand in an address.
    fn model_name(&self, data: &Path) -> String {
        allowed_name(&self.name.clone().unwrap_or_else(|| name_of(data)))
    }
}

/// The name of a folder, or of the one that a list is in: lists are called `labels.csv` and the like everywhere.
fn name_of(data: &Path) -> String {
    let path = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
    let folder = if path.is_file() {
        path.parent().unwrap_or(&path)
    } else {
        &path
    };
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `name` with nothing in it that cannot stand in an address.
fn allowed_name(name: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_for_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let named = |name: &str| name_of(&folder.path().join(name));
        std::fs::create_dir(folder.path().join("photos.v2")).expect("a folder");
        std::fs::write(folder.path().join("photos.v2/labels.csv"), "").expect("written");
        assert_eq!(named("photos.v2"), "photos.v2");
        assert_eq!(named("photos.v2/."), "photos.v2");
        assert_eq!(named("photos.v2/labels.csv"), "photos.v2");
        assert_eq!(name_of(Path::new("s3://bucket/photos.v2")), "photos.v2");
    }

    #[test]
    fn what_cannot_stand_in_an_address_is_replaced() {
        for (name, expected) in [("my photos", "my-photos"), ("-é-", "model"), ("..", "model")] {
            assert_eq!(allowed_name(name), expected);
        }
    }
}
