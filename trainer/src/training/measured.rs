//! A bundle measured on a data set, and whether it was trained on some of its images.

use std::path::Path;
use std::time::Instant;

use serde_json::json;
use shared::bundle::{self, Bundle};
use shared::files;
use shared::image::Limits;

use super::{NetworkFile, Run, TrainingError, Workplace, predict};
use crate::dataset::{Dataset, Side, Split, SplitParameters};
use crate::evaluation::{Evaluation, Metrics, Seconds};
use crate::image_reader::Images;
use crate::runs::{DataSummary, Kind, Record, SPLIT};
use crate::shell;

/// Measures a bundle on a data set, all of it or the test part of a split file. Where the bundle's `run` is known, a note
/// says how many of the images it was trained on.
///
/// # Errors
/// See [`TrainingError`].
pub fn measure(
    (bundle, run): (Bundle, Option<&Path>),
    dataset: &Dataset,
    split: Option<&Path>,
    limits: Limits,
    workplace: &Workplace,
) -> Result<Run, TrainingError> {
    let head = bundle.head()?;
    let model = bundle.file(bundle::MODEL)?;
    let network = NetworkFile {
        model,
        sha256: &files::sha256_hex(model),
        preprocessing: &bundle.manifest.preprocessing,
        feature_size: bundle.manifest.feature_size,
    };
    let start = Instant::now();
    let distance = SplitParameters::default().distance;
    let (mut dataset, mut features) = workplace.features(dataset, &network, limits, distance)?;
    let featurized = start.elapsed().as_secs_f64();
    for label in &mut features.labels {
        let class = &dataset.classes[*label];
        *label = head
            .classes
            .iter()
            .position(|known| known == class)
            .ok_or_else(|| TrainingError::ForeignClass {
                class: class.clone(),
                known: head.classes.join(", "),
            })?;
    }
    let parameters = json!({ "limits": limits, "split": split });
    let split = match split {
        Some(path) => Split::load(path, &dataset)?,
        None => Split::all_for_the_test(&dataset),
    };
    dataset.skipped.extend_from_slice(split.unknown());
    let test = split.test_rows();
    let told = match run {
        Some(run) => note(run, &dataset, &features.contents, &test)?,
        None => None,
    };
    let start = Instant::now();
    let predictions = predict(&head, &dataset, &features, &test);
    let seconds = Seconds {
        featurize: Some(featurized),
        evaluate: Some(start.elapsed().as_secs_f64()),
        ..Seconds::default()
    };
    Ok(Run {
        kind: Kind::Evaluate,
        metrics: Metrics {
            seconds,
            ..Metrics::from(Evaluation::new(&predictions).calibrated_by(&bundle.manifest.calibration))
        },
        bundle,
        predictions,
        data: DataSummary::new(&dataset, &features.contents, &split),
        images: Images::in_folder(&dataset.root),
        split,
        skipped: dataset.skipped,
        folds: 0,
        notes: told.into_iter().collect(),
        history: Vec::new(),
        parameters,
        limits,
    })
}

/// What the user should know where some of the `measured` rows of `dataset` are images that the model of `run` was trained
/// on. A run keeps the paths of its images and one hash of them all: where those that it names are the same to the last
/// byte, that is said; otherwise only that their paths are the same.
fn note(
    run: &Path,
    dataset: &Dataset,
    contents: &[[u8; 32]],
    measured: &[usize],
) -> Result<Option<String>, TrainingError> {
    let path = run.join(SPLIT);
    if !path.is_file() {
        return Ok(None);
    }
    // A split that names none of these images has nothing to say of them.
    let Ok(split) = Split::load(&path, dataset) else {
        return Ok(None);
    };
    let sides: Vec<Option<Side>> = split.sides().collect();
    let count = measured.iter().filter(|row| sides[**row] == Some(Side::Train)).count();
    if count == 0 {
        return Ok(None);
    }
    let named = (0..sides.len()).filter(|row| sides[*row].is_some());
    let known = DataSummary::fingerprint(dataset, contents, named) == Record::load(run)?.data.fingerprint;
    let how = if known {
        "were trained on"
    } else {
        "have the paths of images that were trained on"
    };
    Ok(Some(format!(
        "{count} of these {} images {how}, so that the figures flatter; use --split {} to measure on the others.",
        measured.len(),
        shell::quote(&path.to_string_lossy())
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;
    use crate::runs::{RECORD, tests::record};

    #[test]
    fn images_of_the_training_part_are_counted_and_known_by_content() {
        let item = |name: &str| Item {
            path: name.into(),
            class: 0,
        };
        let dataset = Dataset {
            root: "data".into(),
            classes: vec!["a".to_owned()],
            items: ["a/1.jpg", "a/2.jpg", "a/3.jpg", "a/added.jpg"].map(item).to_vec(),
            skipped: Vec::new(),
        };
        let contents = [[1; 32], [2; 32], [3; 32], [4; 32]];
        let run = tempfile::tempdir().expect("a folder");
        let all = [0, 1, 2, 3];
        assert_eq!(note(run.path(), &dataset, &contents, &all).expect("no split"), None);

        let lines = "path\tclass\tside\tgroup\na/1.jpg\ta\ttrain\t0\na/2.jpg\ta\ttrain\t1\na/3.jpg\ta\ttest\t2\n";
        std::fs::write(run.path().join(SPLIT), lines).expect("a split");
        let mut record = record("1", "2026-01-01T00:00:00Z");
        record.data.fingerprint = DataSummary::fingerprint(&dataset, &contents, 0..3);
        let json = serde_json::to_vec(&record).expect("JSON");
        std::fs::write(run.path().join(RECORD), json).expect("a record");
        let said = |contents: &[[u8; 32]], measured: &[usize]| {
            note(run.path(), &dataset, contents, measured).expect("readable")
        };
        let same = said(&contents, &all).expect("a note");
        assert!(same.starts_with("2 of these 4 images were trained on"), "{same}");
        assert!(same.contains("--split ") && same.contains(SPLIT), "{same}");
        let other = said(&[[9; 32], [2; 32], [3; 32], [4; 32]], &all).expect("a note");
        assert!(other.starts_with("2 of these 4 images have the paths"), "{other}");
        assert_eq!(said(&contents, &[2, 3]), None);
    }
}
