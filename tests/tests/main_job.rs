//! The main job on real images: train, publish to S3, score through Lambda, compare.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use end_to_end::lambda::Lambda;
use end_to_end::program::{Said, say, trainer};
use end_to_end::seaweedfs::SeaweedFs;
use end_to_end::{shared_data, subset};
use serde_json::Value;

/// Classes of the subset that the tests train on.
const CLASSES: [&str; 3] = ["checkered", "dotted", "striped"];

/// A run on a small part of real data, made once for all tests of this file.
struct Trained {
    folder: tempfile::TempDir,
    said: Said,
}

impl Trained {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// An image of the set.
    fn image(&self) -> PathBuf {
        let mut files: Vec<_> = std::fs::read_dir(self.path("data/dotted"))
            .expect("the class")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files.swap_remove(files.len() / 2)
    }
}

fn trained() -> Option<&'static Trained> {
    static TRAINED: OnceLock<Option<Trained>> = OnceLock::new();
    TRAINED
        .get_or_init(|| {
            let source = shared_data("clothing_pattern")?;
            let folder = tempfile::tempdir().expect("a folder");
            let data = folder.path().join("data");
            subset(&source, &data, &CLASSES, 24);
            let run = folder.path().join("run");
            let said = say(&mut train(&data, &run)).ended_with(0);
            Some(Trained { folder, said })
        })
        .as_ref()
}

fn train(data: &Path, run: &Path) -> std::process::Command {
    trainer(&[
        "train",
        "--json",
        "--data",
        &data.display().to_string(),
        "--out",
        &run.display().to_string(),
    ])
}

#[test]
fn a_run_holds_everything_and_its_figures_agree() {
    let Some(trained) = trained() else { return };
    let document = trained.said.json();
    let metrics: Value =
        serde_json::from_slice(&std::fs::read(trained.path("run/metrics.json")).expect("metrics")).expect("JSON");
    assert_eq!(document["metrics"], metrics);
    assert_eq!(metrics["classes"], serde_json::json!(CLASSES));
    let accuracy = metrics["accuracy"].as_f64().expect("an accuracy");
    assert!(
        accuracy > 0.6,
        "three real textures are told apart better than by chance: {accuracy}"
    );
    assert_eq!(
        metrics["train_count"].as_u64().expect("a count") + metrics["test_count"].as_u64().expect("a count"),
        72
    );
    for file in [
        "split.tsv",
        "bundle/manifest.json",
        "bundle/model.onnx",
        "bundle/svm.json",
        "bundle/golden/golden.json",
    ] {
        assert!(trained.path("run").join(file).is_file(), "{file}");
    }
}

#[test]
fn the_same_training_gives_the_same_version_whatever_the_threads() {
    let Some(trained) = trained() else { return };
    let mut command = train(&trained.path("data"), &trained.path("again"));
    let said = say(command.args(["--threads", "1"]).env("RAYON_NUM_THREADS", "1")).ended_with(0);
    assert_eq!(said.json()["version"], trained.said.json()["version"]);
}

#[test]
fn a_finished_run_is_never_overwritten() {
    let Some(trained) = trained() else { return };
    let said = say(&mut train(&trained.path("data"), &trained.path("run"))).ended_with(1);
    assert!(
        said.stderr.contains("never overwritten") && said.stderr.contains("--out"),
        "{said:?}"
    );
}

#[test]
fn what_was_published_to_s3_is_served_by_lambda_with_the_same_scores() {
    let Some(trained) = trained() else { return };
    let Some(s3) = SeaweedFs::start() else { return };
    s3.create_bucket("models");
    let store = "s3://models/team";
    let run = trained.text("run");
    let environment: Vec<(String, String)> = s3.environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();

    let mut publish = trainer(&[
        "publish", "--json", "--bundle", &run, "--to", store, "--name", "textures",
    ]);
    let published = say(publish.envs(environment.iter().copied())).ended_with(0).json();
    assert_eq!(published["version"], trained.said.json()["version"]);

    let mut lambda = environment.clone();
    lambda.push(("IKAT_MODEL", "s3://models/team/textures"));
    let Some(lambda) = Lambda::start(&lambda) else { return };
    let image = trained.image().display().to_string();
    let local = say(&mut trainer(&["score", "--json", "--bundle", &run, &image]))
        .ended_with(0)
        .json();
    let local = &local["results"][0];
    for endpoint in [lambda.invocations(), lambda.url()] {
        let called = say(&mut trainer(&["call", "--json", "--endpoint", &endpoint, &image]))
            .ended_with(0)
            .json();
        let called = &called["results"][0];
        assert_eq!(called["label"], local["label"]);
        assert_eq!(called["decision"], local["decision"]);
        for (class, score) in local["scores"].as_object().expect("scores") {
            let difference = called["scores"][class].as_f64().expect("the class") - score.as_f64().expect("a number");
            assert!(difference.abs() < 1e-6, "{class}: {called} and {local}");
        }
    }
}
