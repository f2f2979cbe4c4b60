//! What a training or a measurement gives, and its way into a run folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use shared::bundle::{Bundle, MANIFEST};
use shared::image::Limits;

use super::{Refinement, Selection, TrainingError, Workplace};
use crate::dataset::{Skipped, Split};
use crate::destination;
use crate::evaluation::{Metrics, Predictions};
use crate::image_reader::Images;
use crate::refine::{History, tensorboard};
use crate::report::{self, Report};
use crate::runs::{self, DataSummary, Kind, Record, RunError, TrainedOn};

/// What a training or a measurement gives.
#[derive(Debug)]
pub struct Run {
    /// Which of them.
    pub kind: Kind,
    /// The model.
    pub bundle: Bundle,
    /// How good it is.
    pub metrics: Metrics,
    /// What it answered for each test image.
    pub predictions: Predictions,
    /// Reads the images.
    pub images: Images,
    /// What the images are.
    pub data: DataSummary,
    /// Which images were trained on, and which were kept for the test.
    pub split: Split,
    /// The contents that were trained on, where this is a training.
    pub trained_on: TrainedOn,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// How C was chosen, where an SVM was trained.
    pub selection: Option<Selection>,
    /// How the network was refined, where it was.
    pub refinement: Option<Refinement>,
    /// As given.
    pub parameters: Value,
    /// What an image may cost.
    pub limits: Limits,
}

/// A run on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Where it is.
    pub folder: PathBuf,
    /// What it is.
    pub record: Record,
}

impl Saved {
    /// The page that shows the result.
    pub fn report(&self) -> PathBuf {
        self.folder.join(report::PAGE)
    }
}

impl Run {
    /// Writes the run to `out`, or to a folder of its own among the runs of the working folder: `metrics.json`,
    /// `predictions.csv`, `split.tsv`, `parameters.json`, `skipped.json`, `epochs.json` and `tensorboard/` where there
    /// are epochs, the report with at most `pictures` test images, and after a training `trained_on.txt` and `bundle/`.
    ///
    /// # Errors
    /// [`destination::DestinationError::Occupied`] where the folder holds something, what the file system says, and
    /// what hinders the report.
    pub fn save(&self, out: Option<&Path>, pictures: usize, workplace: &Workplace) -> Result<Saved, TrainingError> {
        let record = Record::new(self.kind, &self.bundle.manifest, self.data.clone(), &self.notes);
        let folder = out.map_or_else(|| Path::new(runs::FOLDER).join(&record.id), Path::to_path_buf);
        destination::check_vacant(&folder).map_err(RunError::from)?;
        let gallery = report::gallery(
            &self.bundle,
            &self.images,
            &self.predictions,
            pictures,
            self.limits,
            &workplace.workbench(),
        )?;
        let report = Report {
            record: &record,
            metrics: &self.metrics,
            predictions: &self.predictions,
            history: self.history().map_or(&[][..], |history| &history.epochs[..]),
            parameters: &self.parameters,
            skipped: &self.skipped,
            gallery: &gallery,
        };
        let mut files = report.files()?;
        files.extend(self.files(&folder)?);
        let record = runs::write(&folder, record, &files)?;
        Ok(Saved { folder, record })
    }

    fn history(&self) -> Option<&History> {
        self.refinement.as_ref().map(|refinement| &refinement.history)
    }

    fn files(&self, folder: &Path) -> Result<BTreeMap<String, Bytes>, TrainingError> {
        let mut files = BTreeMap::from([
            (runs::PREDICTIONS.to_owned(), self.predictions.to_csv().into()),
            (runs::SPLIT.to_owned(), self.split.to_text().into()),
            runs::json(&self.metrics, folder, runs::METRICS)?,
            runs::json(&self.parameters, folder, runs::PARAMETERS)?,
            runs::json(&self.skipped, folder, runs::SKIPPED)?,
        ]);
        if let Some(history) = self.history() {
            files.extend([runs::json(history, folder, runs::EPOCHS)?]);
            let test_error = self.metrics.evaluation.accuracy.map(|accuracy| (1.0 - accuracy) as f32);
            let events = tensorboard::encode(history, test_error);
            files.insert(format!("tensorboard/{}", tensorboard::FILE), events.into());
        }
        if self.kind == Kind::Train {
            files.insert(runs::TRAINED_ON.to_owned(), self.trained_on.to_text().into());
            let inside = |name: &str| format!("{}/{name}", runs::BUNDLE);
            let contents = self.bundle.files.iter();
            files.extend(contents.map(|(name, contents)| (inside(name), contents.clone())));
            files.insert(inside(MANIFEST), self.bundle.manifest.to_json().into());
        }
        Ok(files)
    }
}
