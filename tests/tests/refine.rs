//! Refining a network on real images: better than chance at once, the same after a kill, served as it was trained.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use end_to_end::bundles::bundle;
use end_to_end::colours::{COLOURS, library, own_cache};
use end_to_end::program::{Running, say, say_within, trainer};
use end_to_end::workshop::Workshop;
use end_to_end::{shared_data, subset, wait_until};
use prost::Message;
use serde_json::Value;
use shared::image::Limits;
use shared::network::Runtime;
use trainer::device::Device;
use trainer::onnx::proto::ModelProto;
use trainer::progress::Progress;
use trainer::refine::head::HeadLayer;
use trainer::refine::{Recipe, RefineError, Task, Trained};

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

#[test]
fn a_killed_refinement_goes_on_to_the_same_network_and_is_scored_as_it_was_trained() {
    let Some(source) = shared_data("clothing_pattern") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    subset(&source, &data, &["checkered", "dotted", "striped"], 16);
    let cache = own_cache(folder.path());

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
    assert_eq!(history.as_array().map(Vec::len), Some(5), "the start and four epochs");
    let manifest = json(&whole.join("bundle/manifest.json"));
    assert_eq!(manifest["classifier"], "dnn");
    assert!(!whole.join("bundle/svm.json").exists());
    let model = std::fs::read(whole.join("bundle/model.onnx")).expect("a network");
    let model = ModelProto::decode(model.as_slice()).expect("ONNX");
    let described = |key: &str| {
        let entry = model.metadata_props.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.clone()).unwrap_or_default()
    };
    assert_eq!(described("ikat.classes"), r#"["checkered","dotted","striped"]"#);
    assert!(described("ikat.preprocessing").contains("\"resolution\":96"));
    assert_eq!(described("ikat.training_data").len(), 64);
    assert!(whole.join("tensorboard/events.out.tfevents.ikat").is_file());

    let again = folder.path().join("again");
    let said = say(&mut refine(&data, &again, &cache, "dnn")).ended_with(0);
    assert!(said.stderr.contains("Going on after epoch 4 of 4"), "{}", said.stderr);
    assert_eq!(said.json()["version"], document["version"]);

    let as_refined = folder.path().join("as-refined");
    let said = say(refine(&data, &as_refined, &cache, "dnn").args(["--fold-batch-norm", "false"])).ended_with(0);
    assert_eq!(said.json()["metrics"]["accuracy"], metrics["accuracy"]);
    let normalizations = |run: &Path| {
        let model = std::fs::read(run.join("bundle/model.onnx")).expect("a network");
        let graph = ModelProto::decode(model.as_slice()).expect("ONNX").graph;
        let nodes = graph.expect("a graph").node;
        nodes.iter().filter(|node| node.op_type == "BatchNormalization").count()
    };
    assert_eq!(normalizations(&whole), 0);
    assert!(normalizations(&as_refined) > 0);

    let resumed = folder.path().join("resumed");
    std::fs::remove_dir_all(cache.join("refinements")).expect("no refinement is known");
    let checkpoints = cache.join("refinements");
    // On a busy machine it may be over before its checkpoint is seen here.
    let killed = (0..3).any(|_| {
        let _ = std::fs::remove_dir_all(&resumed);
        let _ = std::fs::remove_dir_all(&checkpoints);
        let mut running = Running::start(&mut refine(&data, &resumed, &cache, "dnn"));
        wait_until("a checkpoint", || {
            std::fs::read_dir(&checkpoints).is_ok_and(|files| {
                files.flatten().any(|file| {
                    file.path()
                        .extension()
                        .is_some_and(|extension| extension == "safetensors")
                })
            }) || running.exit_code().is_some()
        });
        drop(running);
        !resumed.exists()
    });
    assert!(killed, "it was over before it could be killed");
    let said = say(&mut refine(&data, &resumed, &cache, "dnn")).ended_with(0);
    assert_eq!(said.json()["version"], document["version"]);
    assert_eq!(json(&resumed.join("epochs.json")), history);

    let predictions = std::fs::read_to_string(whole.join("predictions.csv")).expect("predictions");
    let mut lines = predictions.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let classes = lines.next().expect("a header").split_off(3);
    let measured = lines.next().expect("a test image");
    let [bundle, image] = [whole, data.join(measured[0])].map(|path| path.display().to_string());
    let score = ["score", "--json", "--bundle", &bundle, &image];
    let scored = say(&mut trainer(&score)).ended_with(0).json()["results"][0].clone();
    assert_eq!(scored["label"], measured[2]);
    for (class, share) in classes.iter().zip(&measured[3..]) {
        let expected: f64 = share.parse().expect("a number");
        let found = scored["scores"][class].as_f64().expect("the class");
        assert!((found - expected).abs() < 1e-4, "{class}: {scored} and {measured:?}");
    }
}

#[test]
fn an_svm_can_stand_on_a_refined_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(data) = little(folder.path()) else {
        return;
    };
    let cache = own_cache(folder.path());
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
fn the_recipe_of_the_original_trains_the_last_layer_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(data) = little(folder.path()) else {
        return;
    };
    let cache = own_cache(folder.path());
    let run = folder.path().join("run");
    let mut command = refine(&data, &run, &cache, "dnn");
    let document = say(command.args(["--recipe", "original"])).ended_with(0).json();
    let accuracy = document["metrics"]["accuracy"].as_f64();
    assert!(accuracy.is_some_and(|accuracy| accuracy > 0.6), "{document}");
    let history = json(&run.join("epochs.json"));
    assert_eq!(history.as_array().map(Vec::len), Some(5), "the start and four epochs");
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

/// Two textures, small.
fn little(folder: &Path) -> Option<std::path::PathBuf> {
    let source = shared_data("clothing_pattern")?;
    let data = folder.join("data");
    subset(&source, &data, &["dotted", "striped"], 16);
    Some(data)
}

#[test]
fn a_learning_rate_is_suggested_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(data) = little(folder.path()) else {
        return;
    };
    let cache = own_cache(folder.path());
    let plot = folder.path().join("rates.svg");
    let [data, cache, plot_name] = [&data, &cache, &plot].map(|path| path.display().to_string());
    let find = || {
        trainer(&[
            "lr-find",
            "--json",
            "--data",
            &data,
            "--cache",
            &cache,
            "--out",
            &plot_name,
            "--resolution",
            "64",
            "--steps",
            "20",
            "--to-rate",
            "100",
        ])
    };
    let document = say(&mut find()).ended_with(0).json();
    let points = document["points"].as_array().expect("points");
    assert!((2..=20).contains(&points.len()), "{document}");
    let suggestion = &document["suggestion"];
    let is_tried = |point: &Value| point["rate"] == *suggestion;
    assert!(suggestion.is_null() || points.iter().any(is_tried), "{document}");
    assert!(std::fs::read_to_string(&plot).is_ok_and(|svg| svg.contains("</svg>")));
    let said = say(&mut find()).ended_with(1);
    assert!(said.stderr.contains("exists already"), "{}", said.stderr);
}

#[test]
fn the_best_classifier_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(data) = little(folder.path()) else {
        return;
    };
    let cache = own_cache(folder.path());
    let run = folder.path().join("run");
    let mut command = refine(&data, &run, &cache, "auto");
    let events = folder.path().join("events");
    command.arg("--tensorboard").arg(&events);
    let document = say(command.args(["--folds", "2", "--time-limit", "30"]))
        .ended_with(0)
        .json();
    for fold in ["fold-1", "fold-2"] {
        assert!(events.join(fold).join("events.out.tfevents.ikat").is_file(), "{fold}");
    }
    let candidates = document["choice"]["candidates"].as_array().expect("candidates");
    assert_eq!(candidates.len(), 3, "{document}");
    let chosen = &document["choice"]["classifier"];
    assert_eq!(&json(&run.join("bundle/manifest.json"))["classifier"], chosen);
    let reason = document["choice"]["reason"].as_str().expect("a reason");
    assert!(document["notes"].to_string().contains(&reason[..20]), "{document}");
}

/// What is absurd ends in a clear message or in a sound result, never in a run that lies.
#[test]
fn absurd_parameters_are_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(data) = little(folder.path()) else {
        return;
    };
    let cache = own_cache(folder.path());
    let attempt = |name: &str, options: &[&str]| {
        let run = folder.path().join(name);
        let mut command = refine(&data, &run, &cache, "dnn");
        say(command.args(options))
    };
    let said = attempt(
        "rate",
        &["--learning-rate", "1e30", "--clip-norm", "0", "--optimizer", "sgd"],
    )
    .ended_with(1);
    assert!(said.stderr.contains("--learning-rate"), "{}", said.stderr);
    let said = attempt("share", &["--dropout", "1"]).ended_with(2);
    assert!(said.stderr.contains("dropout must be"), "{}", said.stderr);
    let said = attempt("single", &["--minibatch", "1", "--batch-norm", "batch"]).ended_with(0);
    assert!(said.json()["metrics"]["accuracy"].as_f64().is_some());
}

#[test]
fn where_a_refinement_diverges_the_classifier_that_does_not_is_found() {
    let workshop = Workshop::new(12);
    let mut train = workshop.train_by("convolutional.onnx", "data", "run");
    train.args([
        "--classifier",
        "auto",
        "--folds",
        "2",
        "--views",
        "1",
        "--trained",
        "all",
        "--device",
        "cpu",
    ]);
    train.args(["--learning-rate", "1e30", "--clip-norm", "0", "--optimizer", "sgd"]);
    let document = say_within(120, &train).ended_with(0).json();
    let choice = &document["choice"];
    assert_eq!(choice["classifier"], "svm", "{document}");
    assert_eq!(choice["candidates"][0]["classifier"], "svm", "{document}");
    assert!(document["notes"].to_string().contains("--learning-rate"), "{document}");
}

/// Counts steps.
#[derive(Default)]
struct Steps(AtomicU64);

impl Progress for Steps {
    fn begin(&self, _: &str, _: Option<u64>) {}

    fn advance(&self, steps: u64) {
        self.0.fetch_add(steps, Ordering::Relaxed);
    }

    fn end(&self) {}
    fn note(&self, _: &str) {}
}

#[test]
fn a_deadline_is_kept_within_an_epoch() {
    let workshop = Workshop::new(6);
    let file = std::fs::read(workshop.path("convolutional.onnx")).expect("a network");
    let picture = |row: usize| {
        let class = workshop.path("data").join(COLOURS[row / 6].0);
        class.join(format!("{:03}.png", row % 6))
    };
    let recipe = Recipe {
        trained: Trained::All,
        ..Recipe::standard(1)
    };
    let steps = Steps::default();
    let task = Task {
        backbone: &ModelProto::decode(file.as_slice()).expect("ONNX"),
        preprocessing: &bundle(1, 10).manifest.preprocessing,
        limits: Limits::default(),
        paths: (0..18).map(picture).collect(),
        labels: (0..18).map(|row| row / 6).collect(),
        classes: COLOURS.len(),
        validation: vec![0, 6, 12],
        head: HeadLayer::random(COLOURS.len(), 8, 1),
        recipe: &recipe,
        device: Device::Cpu,
        runtime: &Runtime::load(std::slice::from_ref(library())).expect("the library"),
        checkpoint: workshop.path("refinement.safetensors"),
        events: None,
        deadline: Some(Instant::now()),
        progress: &steps,
    };
    assert!(matches!(trainer::refine::refine(&task), Err(RefineError::OutOfTime)));
    assert_eq!(steps.0.load(Ordering::Relaxed), 0);
}

#[test]
fn one_image_of_each_class_is_enough_to_train_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(source) = shared_data("clothing_pattern") else {
        return;
    };
    let data = folder.path().join("data");
    subset(&source, &data, &["dotted", "striped"], 2);
    let cache = own_cache(folder.path());
    let run = folder.path().join("run");
    let mut command = refine(&data, &run, &cache, "dnn");
    let said = say(command.args(["--ratio", "0.5", "--no-group"]));
    let document = said.ended_with(0).json();
    assert!(
        document["notes"].to_string().contains("Nothing was held out"),
        "{document}"
    );
}

#[test]
fn the_step_alone_makes_what_a_training_with_it_makes() {
    let workshop = Workshop::new(12);
    let recipe = ["--epochs", "2", "--trained", "all", "--device", "cpu"];
    let mut refine = workshop.trainer(&["refine", "--json", "--data", "data", "--out", "alone"]);
    refine.args(["--backbone", "convolutional.onnx", "--resolution", "32"]);
    refine.args(["--mean", "0,0,0", "--std", "255,255,255"]).args(recipe);
    let alone = say_within(120, &refine).ended_with(0).json();
    let mut train = workshop.train_by("convolutional.onnx", "data", "trained");
    train.args(["--classifier", "dnn"]).args(recipe);
    let trained = say_within(120, &train).ended_with(0).json();
    assert_eq!(alone["version"], trained["version"]);
    assert_eq!(json(&workshop.path("alone/bundle/manifest.json"))["classifier"], "dnn");
}

/// What a refinement makes is a network like any other, whatever names the first one gave its parts.
#[test]
fn a_refined_network_can_be_refined_again() {
    let workshop = Workshop::new(12);
    for (network, classifier, run) in [
        ("convolutional.onnx", "dnn", "first"),
        ("first/bundle/model.onnx", "svm-refined", "second"),
        ("second/bundle/model.onnx", "dnn", "third"),
    ] {
        let mut train = workshop.train_by(network, "data", run);
        train.args(["--classifier", classifier, "--epochs", "2", "--views", "2"]);
        train.args(["--trained", "all", "--device", "cpu"]);
        let document = say_within(300, &train).ended_with(0).json();
        assert!(document["metrics"]["accuracy"].as_f64().is_some(), "{run}: {document}");
    }
}

#[test]
fn a_network_that_cannot_be_refined_is_told_of_before_anything_is_computed() {
    let workshop = Workshop::new(8);
    let file = std::fs::read(workshop.path("convolutional.onnx")).expect("a network");
    let mut model = ModelProto::decode(file.as_slice()).expect("ONNX");
    let nodes = model.graph.iter_mut().flat_map(|graph| &mut graph.node);
    for node in nodes.filter(|node| node.op_type == "Relu") {
        node.op_type = "Softsign".to_owned();
    }
    std::fs::write(workshop.path("odd.onnx"), model.encode_to_vec()).expect("written");
    let train = |classifier| {
        let mut train = workshop.train_by("odd.onnx", "data", "run");
        train.args(["--classifier", classifier, "--trained", "all", "--device", "cpu"]);
        say_within(60, &train)
    };
    let said = train("dnn").ended_with(1);
    assert!(said.stderr.contains("Softsign"), "{said:?}");
    assert!(!said.stderr.contains("Computing features"), "{said:?}");

    // Where the classifier is to be found out, one is left.
    let document = train("auto").ended_with(0).json();
    assert_eq!(document["choice"]["classifier"], "svm", "{document}");
    let run = workshop.path("run");
    assert_eq!(json(&run.join("bundle/manifest.json"))["classifier"], "svm");
    let notes = json(&run.join("run.json"))["notes"].to_string();
    assert!(
        notes.contains("svm is trained") && notes.contains("Softsign"),
        "{notes}"
    );
}
