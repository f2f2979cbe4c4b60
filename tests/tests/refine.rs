//! Refining a network on real images: better than chance at once, the same after a kill, served as it was trained.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use end_to_end::program::{Running, say, trainer};
use end_to_end::{shared_data, subset, wait_until};
use serde_json::Value;

/// Three textures, few images and few epochs: quick, and enough to learn something.
fn refine(data: &Path, run: &Path, cache: &Path, classifier: &str) -> Command {
    let path = |path: &Path| path.display().to_string();
    let (data, run, cache) = (path(data), path(run), path(cache));
    trainer(&[
        "train",
        "--json",
        "--classifier",
        classifier,
        "--data",
        &data,
        "--out",
        &run,
        "--cache",
        &cache,
        "--epochs",
        "4",
        "--views",
        "2",
        "--resolution",
        "96",
    ])
}

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).expect("a file");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A cache of its own for checkpoints, with the downloads of the user's.
fn cache_beside(folder: &Path) -> std::path::PathBuf {
    let cache = folder.join("cache");
    let said = say(&mut trainer(&["setup", "--cache", &cache.display().to_string()])).ended_with(0);
    drop(said);
    cache
}

#[test]
fn a_killed_refinement_goes_on_to_the_same_network_and_is_scored_as_it_was_trained() {
    let Some(source) = shared_data("clothing_pattern") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    subset(&source, &data, &["checkered", "dotted", "striped"], 16);
    let cache = cache_beside(folder.path());

    let whole = folder.path().join("whole");
    let said = say(&mut refine(&data, &whole, &cache, "dnn")).ended_with(0);
    let document = said.json();
    let metrics = &document["metrics"];
    assert!(
        metrics["accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.6),
        "{metrics}"
    );
    assert!(metrics["seconds"]["refine"].as_f64().is_some());
    assert!(metrics["chosen_c"].is_null());
    let history = json(&whole.join("epochs.json"));
    assert_eq!(history.as_array().map(Vec::len), Some(4));
    let manifest = json(&whole.join("bundle/manifest.json"));
    assert_eq!(manifest["classifier"], "dnn");
    assert!(!whole.join("bundle/svm.json").exists());

    let resumed = folder.path().join("resumed");
    let mut running = Running::start(&mut refine(&data, &resumed, &cache, "dnn"));
    let checkpoints = cache.join("refinements");
    wait_until("a checkpoint", || {
        std::thread::sleep(Duration::from_millis(20));
        std::fs::read_dir(&checkpoints).is_ok_and(|files| {
            files.flatten().any(|file| {
                file.path()
                    .extension()
                    .is_some_and(|extension| extension == "safetensors")
            })
        }) || running.exit_code().is_some()
    });
    assert_eq!(running.exit_code(), None, "it was over before it could be killed");
    drop(running);
    assert!(!resumed.exists());
    let said = say(&mut refine(&data, &resumed, &cache, "dnn")).ended_with(0);
    assert_eq!(said.json()["version"], document["version"]);
    assert_eq!(json(&resumed.join("epochs.json")), history);

    let image = data.join("dotted");
    let image = std::fs::read_dir(image)
        .expect("a class")
        .next()
        .expect("an image")
        .expect("an entry");
    let bundle = whole.display().to_string();
    let scored = say(&mut trainer(&[
        "score",
        "--json",
        "--bundle",
        &bundle,
        &image.path().display().to_string(),
    ]));
    assert!(scored.ended_with(0).json().to_string().contains("dotted"));
}

#[test]
fn an_svm_can_stand_on_a_refined_network() {
    let Some(source) = shared_data("clothing_pattern") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    subset(&source, &data, &["dotted", "striped"], 16);
    let cache = cache_beside(folder.path());
    let run = folder.path().join("run");
    let document = say(&mut refine(&data, &run, &cache, "svm-refined"))
        .ended_with(0)
        .json();
    assert!(document["metrics"]["chosen_c"].as_f64().is_some(), "{document}");
    let manifest = json(&run.join("bundle/manifest.json"));
    assert_eq!(manifest["classifier"], "svm-refined");
    assert!(run.join("bundle/svm.json").is_file());
}

#[test]
fn wrong_options_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    for class in ["a", "b"] {
        std::fs::create_dir(folder.path().join(class)).expect("a class");
    }
    let data = folder.path().display().to_string();
    let out = folder.path().join("run").display().to_string();
    for (option, value, hint) in [("--device", "tpu", "cuda"), ("--trained", "half", "last-stage")] {
        let said = say(&mut trainer(&["refine", "--data", &data, "--out", &out, option, value])).ended_with(2);
        assert!(said.stderr.contains(hint), "{}", said.stderr);
    }
}
