use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use shared::bundle::ClassifierKind;

use super::Session;
use super::failure::{Done, Failure};
use super::finish::finish;
use super::interruption;
use super::location::block_on;
use super::network::NetworkArguments;
use super::output::printable_path;
use super::resources::{Resources, claim};
use super::training::{Classifier, TrainingArguments};
use crate::counted::counted;
use crate::dataset::{Dataset, Skipped};
use crate::evaluation::{self, Metrics};
use crate::feature_rows;
use crate::features::CacheKey;
use crate::runs::BUNDLE;
use crate::shell;
use crate::training::{self, Choice, Run, Saved};

/// Train a classifier on a folder of class folders.
///
/// Computes features with a pre-trained network, chooses C by cross-validation on the training part,
/// fits a linear SVM, measures it on the test part, and writes the run: bundle, metrics, report.
/// Interrupted, it goes on where it was when the same command is run again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders, or a list of paths and labels (.csv, .tsv or metadata.jsonl)
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "features")]
    data: Option<PathBuf>,
    /// Features that `trainer featurize` wrote, instead of --data: a file, a folder of them, or s3://bucket/prefix.
    /// With the --backbone and --resolution that they were computed with, for the classifier svm alone
    #[arg(long, value_name = "ROWS")]
    features: Option<String>,
    /// Also ask addresses in private networks for the images that these features come from
    #[arg(long)]
    allow_private: bool,
    /// What is trained
    #[arg(long, value_enum, default_value_t = Classifier::Svm)]
    classifier: Classifier,
    /// Minutes that --classifier auto may take
    #[arg(long, value_name = "MINUTES", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    time_limit: u64,
    #[command(flatten)]
    job: Job,
}

/// One training, whatever is trained.
#[derive(Debug, clap::Args)]
pub struct Job {
    /// Folder for the run; must not hold one already [default: runs/ID]
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    training: TrainingArguments,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    #[serde(serialize_with = "crate::dataset::as_text")]
    run: &'a Path,
    #[serde(serialize_with = "crate::dataset::as_text")]
    bundle: PathBuf,
    #[serde(serialize_with = "crate::dataset::as_text")]
    report: PathBuf,
    version: &'a str,
    skipped: &'a [Skipped],
    notes: &'a [String],
    advice: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<Choice>,
    metrics: &'a Metrics,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let source = || match (&arguments.features, &arguments.data) {
        (Some(place), _) => Ok(Source::Features {
            place,
            allow_private: arguments.allow_private,
        }),
        (None, Some(data)) => Source::scan(data),
        (None, None) => Err(Failure::usage(
            "say what to train on: --data DIR, a folder of class folders, or --features ROWS",
        )),
    };
    // Nothing but an SVM can be trained on rows, so that there is nothing to choose.
    let classifier = match arguments.classifier {
        Classifier::Auto if arguments.features.is_some() => Classifier::Svm,
        named => named,
    };
    session.warn_of_idle(&[
        ("allow_private", arguments.features.is_some(), "--features"),
        (
            "time_limit",
            classifier == Classifier::Auto,
            "--classifier auto on images",
        ),
    ]);
    let limit = Duration::from_secs(60 * arguments.time_limit);
    arguments.job.run(source, classifier, limit, session)
}

/// What is trained on.
pub enum Source<'a> {
    /// A data set, as it was named.
    Images(Dataset, &'a Path),
    /// Rows of features.
    Features {
        /// Where they are.
        place: &'a str,
        /// Whether their images may lie in private networks.
        allow_private: bool,
    },
}

impl<'a> Source<'a> {
    /// The data set at `data`.
    pub fn scan(data: &'a Path) -> Result<Self, Failure> {
        Ok(Self::Images(Dataset::scan(data)?, data))
    }
}

impl Job {
    /// Trains on what `source` gives, which is asked once the options are known to be right, writes the run and prints
    /// what came out; finding out which classifier is best takes up to `limit`.
    pub fn run<'a>(
        &self,
        source: impl FnOnce() -> Result<Source<'a>, Failure>,
        classifier: Classifier,
        limit: Duration,
        session: &Session,
    ) -> Result<Done, Failure> {
        let training = &self.training;
        training.check(classifier != Classifier::Svm, session)?;
        let source = source()?;
        match &source {
            Source::Images(dataset, data) => {
                training.check_places(self.out.as_deref(), data)?;
                training.warn_of(dataset, session);
            }
            Source::Features { .. } => training.check_for_rows(classifier)?,
        }
        interruption::goes_on(session);
        let cache = session.cache()?;
        let _claim = claim(self.out.as_deref(), &cache)?;
        let runtime = Resources::runtime_for(&training.recipe.device, &cache, session)?;
        let backbone = self.network.obtain(&runtime, &cache, session)?;
        let workplace = training.workplace(&runtime, &cache, session);
        let seed = training.split.seed();
        let mut choice: Option<Choice> = None;
        let run = match source {
            Source::Images(dataset, data) => {
                let kind = if let Some(kind) = classifier.kind() {
                    kind
                } else {
                    let parameters = training.parameters(data, ClassifierKind::Dnn, seed);
                    let best = training::choose(&dataset, &backbone, &parameters, limit, &workplace)?;
                    choice.insert(best).classifier
                };
                let parameters = training.parameters(data, kind, seed);
                let mut run = training::train(&dataset, &backbone, &parameters, &workplace)?;
                run.notes.extend(choice.iter().map(|choice| choice.reason.clone()));
                run
            }
            Source::Features { place, allow_private } => {
                let key = CacheKey::new(&backbone.sha256, &backbone.preprocessing);
                let rows = block_on(feature_rows::read(place, &key, backbone.feature_size))??;
                let parameters = training.parameters(&rows.dataset.root, ClassifierKind::Svm, seed);
                training::train_on_rows(rows, &backbone, &parameters, &workplace, allow_private)?
            }
        };
        let (out, pictures) = (self.out.as_deref(), training.report_images);
        let (saved, advice) = finish(&run, out, pictures, &workplace, &training.tracking, session)?;
        let document = Document {
            id: &saved.record.id,
            run: &saved.folder,
            bundle: saved.folder.join(BUNDLE),
            report: saved.report(),
            version: &run.bundle.manifest.version,
            skipped: &run.skipped,
            notes: &run.notes,
            advice: &advice,
            choice,
            metrics: &run.metrics,
        };
        let (text, hint) = (text(&run, &saved), hint(&run, &saved));
        session.output.result_with_hint(&document, &text, &hint)?;
        Ok(Done::unless_left_out(&run.skipped))
    }
}

fn text(run: &Run, saved: &Saved) -> String {
    let mut text = evaluation::table(&run.metrics.evaluation);
    let folder = printable_path(&saved.folder);
    let report = printable_path(&saved.report());
    let images = run.metrics.train_count.unwrap_or_default();
    let refined = run.refinement.as_ref();
    let refined = refined.map(|refinement| (refinement.fold.train.len(), refinement.history.is_unchanged()));
    let chosen = run.selection.as_ref();
    let chosen = chosen.map(|selection| (selection.chosen_c, selection.folds));
    let how = how(images, refined, chosen);
    let version = &run.bundle.manifest.version;
    let _ = write!(
        text,
        "\n{how}; version {version}\n\nRun:      {folder}\nReport:   {report}"
    );
    text
}

/// What to do with the run.
fn hint(run: &Run, saved: &Saved) -> String {
    format!(
        "\nPublish:  trainer publish --bundle {} --to STORE --name {}",
        shell::quote(&saved.folder),
        shell::quote(&run.bundle.manifest.name)
    )
}

/// What was trained on how many of the `images` of the training part, and what chose C. A network was `refined` on a
/// number of them, and perhaps is unchanged all the same; C is `chosen` by a number of folds.
fn how(images: usize, refined: Option<(usize, bool)>, chosen: Option<(f64, usize)>) -> String {
    let trained = match refined {
        Some((part, true)) => {
            format!("Network as it was, for no epoch of its refinement on {part} of {images} images was better")
        }
        Some((part, false)) if part < images => format!("Network refined on {part} of {images} images"),
        Some(_) => format!("Network refined on {}", counted(images, "image", "images")),
        None => format!("Trained on {}", counted(images, "image", "images")),
    };
    match chosen {
        None => trained,
        Some((c, 0)) => format!("{trained}, C {c}, as nothing could be held out"),
        Some((c, _)) if refined.is_some() => format!("{trained}, C {c} by those held out"),
        Some((c, folds)) => format!("C {c} by {folds}-fold cross-validation on {images} images"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_were_held_out_are_not_told_as_refined_on() {
        for (refined, chosen, expected) in [
            (Some((36, false)), None, "Network refined on 36 of 43 images"),
            (
                Some((36, true)),
                None,
                "Network as it was, for no epoch of its refinement on 36 of 43 images was better",
            ),
            (
                Some((36, false)),
                Some((1.0, 1)),
                "Network refined on 36 of 43 images, C 1 by those held out",
            ),
            (
                Some((43, false)),
                Some((1.0, 0)),
                "Network refined on 43 images, C 1, as nothing could be held out",
            ),
            (
                None,
                Some((0.1, 0)),
                "Trained on 43 images, C 0.1, as nothing could be held out",
            ),
            (None, Some((0.1, 5)), "C 0.1 by 5-fold cross-validation on 43 images"),
        ] {
            assert_eq!(how(43, refined, chosen), expected);
        }
    }
}
