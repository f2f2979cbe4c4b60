//! A bundle measured on a data set, and whether it was trained on some of its images.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use shared::bundle::{self, Bundle};
use shared::image::Limits;

use super::{NetworkFile, Run, TrainingError, Workplace, predict};
use crate::dataset::{Dataset, Side, Split, SplitParameters};
use crate::evaluation::{Evaluation, Metrics, Seconds};
use crate::image_reader::Images;
use crate::runs::{DataSummary, Kind, RunError, SPLIT, TrainedOn};
use crate::shell;

/// What a measurement depends on besides the bundle and the images.
#[derive(Serialize)]
struct Parameters {
    limits: Limits,
    #[serde(serialize_with = "crate::dataset::as_text")]
    split: Option<PathBuf>,
}

/// Measures a bundle on a data set, all of it or the test part of a split file. A note says how many of the images it
/// was trained on, or that its `run`, which would tell, is not known.
pub fn measure(
    bundle: Bundle,
    run: Option<&Path>,
    dataset: &Dataset,
    split: Option<&Path>,
    limits: Limits,
    workplace: &Workplace,
) -> Result<Run, TrainingError> {
    let head = bundle.head()?;
    // What cannot be measured is told before any image is looked at.
    labels(dataset, &head.classes)?;
    if let Some(path) = split {
        Split::load(path, dataset)?;
    }
    let model = bundle.file(bundle::MODEL)?;
    let network = NetworkFile {
        model,
        preprocessing: &bundle.manifest.preprocessing,
        feature_size: bundle.manifest.feature_size,
    };
    let start = Instant::now();
    let distance = SplitParameters::default().distance;
    let (mut dataset, mut features) = workplace.features(dataset, &network, limits, distance)?;
    let featurized = start.elapsed().as_secs_f64();
    features.labels = labels(&dataset, &head.classes)?;
    let parameters = serde_json::to_value(Parameters {
        limits,
        split: split.map(Path::to_owned),
    })
    .map_err(RunError::from)?;
    let split = match split {
        Some(path) => Split::load(path, &dataset)?,
        None => Split::all_for_the_test(&dataset),
    };
    // Only what was to be measured is missed: the images that were trained on need not be there.
    dataset.skipped.extend(split.unknown_in_test());
    let test = split.test_rows();
    let told = match run {
        Some(run) => note(run, &dataset, &features.contents, &test)?,
        None => Some(
            "The bundle lies in no run, so that nothing tells whether it was trained on some of these images: if it \
             was, the figures flatter."
                .to_owned(),
        ),
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
        trained_on: TrainedOn::default(),
        skipped: dataset.skipped,
        notes: told.into_iter().collect(),
        selection: None,
        refinement: None,
        parameters,
        limits,
    })
}

/// The label of each image, counted in the order of the classes that a bundle knows.
fn labels(dataset: &Dataset, known: &[String]) -> Result<Vec<usize>, TrainingError> {
    let place = |class: &String| known.iter().position(|known| known == class);
    let places: Vec<Option<usize>> = dataset.classes.iter().map(place).collect();
    let labels = dataset.items.iter().map(|item| places[item.class]);
    labels.collect::<Option<_>>().ok_or_else(|| {
        let classes = dataset.items.iter().map(|item| item.class);
        let foreign = classes.filter(|class| places[*class].is_none());
        let foreign: BTreeSet<&String> = foreign.map(|class| &dataset.classes[class]).collect();
        TrainingError::ForeignClasses {
            root: dataset.root.clone(),
            foreign: foreign.into_iter().cloned().collect(),
            known: known.to_vec(),
        }
    })
}

/// What the user should know where some of the `measured` rows of `dataset` are images that the model of `run` was
/// trained on. They have the content of such an image, whatever they are called; of a run that keeps no contents only
/// the paths are known, and other images may have the same ones.
fn note(
    run: &Path,
    dataset: &Dataset,
    contents: &[[u8; 32]],
    measured: &[usize],
) -> Result<Option<String>, TrainingError> {
    let trained_on = TrainedOn::load(run)?;
    let path = run.join(SPLIT);
    // A split that is not there, or names none of these images, has nothing to say of them.
    let sides: Vec<Option<Side>> = match Split::load(&path, dataset) {
        Ok(split) => split.sides().collect(),
        Err(_) => vec![None; dataset.items.len()],
    };
    let is_named = |row: usize| sides[row] == Some(Side::Train);
    let is_known = |row: usize| match &trained_on {
        Some(trained_on) => trained_on.contains(&contents[row]),
        None => is_named(row),
    };
    let known: Vec<usize> = measured.iter().copied().filter(|row| is_known(*row)).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let found = format!("{} of these {} images", known.len(), measured.len());
    // By another split, fewer of them may have been measured now.
    let held_out = sides.iter().filter(|side| **side == Some(Side::Test)).count();
    let way = if held_out > 0 && known.iter().all(|row| is_named(*row)) {
        let split = shell::quote(&path);
        format!("--split {split} measures on the {held_out} held out of the training")
    } else {
        "measure on other images".to_owned()
    };
    Ok(Some(if trained_on.is_some() {
        format!("{found} were trained on, so that the figures flatter: {way}.")
    } else {
        format!(
            "{found} have the paths of images that were trained on; if they are the same images, the figures flatter: \
             {way}."
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;
    use crate::runs::TRAINED_ON;

    #[test]
    fn all_classes_that_a_bundle_does_not_know_are_told_and_not_all_that_it_knows() {
        let dataset = |classes: &[usize]| Dataset {
            root: "data".into(),
            classes: ["a", "b", "c"].map(str::to_owned).into(),
            items: classes
                .iter()
                .map(|class| Item {
                    path: "1.jpg".into(),
                    class: *class,
                })
                .collect(),
            skipped: Vec::new(),
        };
        let mut known: Vec<String> = (0..1000).map(|class| format!("k{class}")).collect();
        known.push("a".to_owned());
        assert_eq!(labels(&dataset(&[0, 0]), &known).expect("known classes"), [1000; 2]);
        let told = |classes: &[usize]| labels(&dataset(classes), &known).expect_err("an error").to_string();
        let both = told(&[2, 0, 1, 2]);
        assert!(both.contains(" the classes b, c of data; it knows k0, "), "{both}");
        assert!(both.contains(" and 991 more: "), "{both}");
        let one = told(&[0, 1]);
        assert!(one.contains(" the class b of data; "), "{one}");
    }

    #[test]
    fn images_that_were_trained_on_are_known_by_content_and_without_contents_perhaps_by_path() {
        let dataset = |paths: &[&str]| Dataset {
            root: "data".into(),
            classes: vec!["a".to_owned()],
            items: paths
                .iter()
                .map(|path| Item {
                    path: path.into(),
                    class: 0,
                })
                .collect(),
            skipped: Vec::new(),
        };
        let trained = dataset(&["a/1.jpg", "a/2.jpg", "a/3.jpg", "a/added.jpg"]);
        let contents = [[1; 32], [2; 32], [3; 32], [4; 32]];
        let of_other_images = [[5; 32], [6; 32], [7; 32], [8; 32]];
        let all = [0, 1, 2, 3];
        let run = tempfile::tempdir().expect("a folder");
        let said = |dataset: &Dataset, contents: &[[u8; 32]], measured: &[usize]| {
            note(run.path(), dataset, contents, measured).expect("readable")
        };
        assert_eq!(said(&trained, &contents, &all), None);

        // A run that keeps paths alone.
        let lines = "path\tclass\tside\tgroup\na/1.jpg\ta\ttrain\t0\na/2.jpg\ta\ttrain\t1\na/3.jpg\ta\ttest\t2\n";
        std::fs::write(run.path().join(SPLIT), lines).expect("a split");
        let paths = said(&trained, &contents, &all).expect("a note");
        assert!(paths.starts_with("2 of these 4 images have the paths"), "{paths}");
        assert!(paths.contains("; if they are the same images, "), "{paths}");
        assert!(paths.contains("--split ") && paths.contains(SPLIT), "{paths}");
        // Of four, two were trained on, and the run held one out; it says nothing of the one that was added since.
        assert!(
            paths.ends_with(" measures on the 1 held out of the training."),
            "{paths}"
        );

        let text = TrainedOn::new(&contents[..2]).to_text();
        std::fs::write(run.path().join(TRAINED_ON), text).expect("contents");
        let same = said(&trained, &contents, &all).expect("a note");
        assert!(same.starts_with("2 of these 4 images were trained on,"), "{same}");
        assert!(same.contains("--split ") && same.contains(SPLIT), "{same}");
        assert_eq!(said(&trained, &of_other_images, &all), None, "paths alone say nothing");
        assert_eq!(said(&trained, &contents, &[2, 3]), None);
        let by_another_split = said(&trained, &contents, &[0, 3]).expect("a note");
        assert!(
            by_another_split.ends_with(" the 1 held out of the training."),
            "{by_another_split}"
        );
        let untested = dataset(&["a/1.jpg", "a/added.jpg"]);
        let untested = said(&untested, &[[1; 32], [4; 32]], &[0, 1]).expect("a note");
        assert!(untested.ends_with(": measure on other images."), "{untested}");

        // The split of the run is of no use where images have other names.
        let renamed = dataset(&["a/x1.jpg", "a/x2.jpg", "a/x3.jpg", "a/x4.jpg"]);
        let renamed = said(&renamed, &contents, &all).expect("a note");
        assert!(renamed.starts_with("2 of these 4 images were trained on,"), "{renamed}");
        assert!(
            !renamed.contains("--split") && renamed.contains("other images"),
            "{renamed}"
        );
    }
}
