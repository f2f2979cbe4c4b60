//! The main job on real images: train, publish to S3, score through Lambda, compare.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine;
use end_to_end::colours::own_cache;
use end_to_end::http::Http;
use end_to_end::lambda::Lambda;
use end_to_end::program::{Running, Said, say, trainer};
use end_to_end::seaweedfs::SeaweedFs;
use end_to_end::{lasting_folder, shared_data, subset, wait_until};
use serde_json::{Value, json};

/// Classes of the subset that the tests train on.
const CLASSES: [&str; 3] = ["checkered", "dotted", "striped"];

/// A run on a small part of real data, made once for all tests of this file.
struct Trained {
    folder: PathBuf,
    said: Said,
}

impl Trained {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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
            let folder = lasting_folder(&std::env::temp_dir());
            let data = folder.join("data");
            subset(&source, &data, &CLASSES, 24);
            let run = folder.join("run");
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
    let manifest = std::fs::read(trained.path("run/bundle/manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(metrics["calibration"]["method"], "temperature");
    assert_eq!(metrics["calibration"]["method"], manifest["calibration"]["method"]);
    for file in [
        "split.tsv",
        "trained_on.txt",
        "bundle/manifest.json",
        "bundle/model.onnx",
        "bundle/svm.json",
        "bundle/golden/golden.json",
    ] {
        assert!(trained.path("run").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_network_of_ones_own_is_used_like_one_of_the_catalogue() {
    let Some(trained) = trained() else { return };
    let setup = say(&mut trainer(&["setup", "--json"])).ended_with(0).json();
    let onnx = trained.path("my-network.onnx");
    std::fs::copy(setup["backbones"][0]["path"].as_str().expect("a path"), &onnx).expect("a copy");
    let said = say(train(&trained.path("data"), &trained.path("own"))
        .arg("--backbone")
        .arg(&onnx))
    .ended_with(0);
    assert_eq!(
        said.json()["metrics"]["confusion"],
        trained.said.json()["metrics"]["confusion"]
    );

    let manifest = std::fs::read(trained.path("own/bundle/manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["backbone"]["name"], "my-network");

    std::fs::write(&onnx, b"no network").expect("written");
    let said = say(train(&trained.path("data"), &trained.path("none"))
        .arg("--backbone")
        .arg(&onnx))
    .ended_with(1);
    assert!(
        said.stderr.contains("my-network.onnx cannot be used as a featurizer"),
        "{said:?}"
    );
}

#[test]
fn evaluating_the_test_part_again_gives_the_same_figures() {
    let Some(trained) = trained() else { return };
    let (run, data, split) = (trained.text("run"), trained.text("data"), trained.text("run/split.tsv"));
    let mut evaluate = trainer(&[
        "evaluate", "--json", "--bundle", &run, "--data", &data, "--split", &split,
    ]);
    // It writes a run of its own below the working folder.
    let metrics = say(evaluate.current_dir(&trained.folder)).ended_with(0).json();
    let expected = &trained.said.json()["metrics"];
    for key in [
        "accuracy",
        "confusion",
        "per_class",
        "auc_macro",
        "accuracy_interval",
        "test_count",
        "calibration",
    ] {
        assert_eq!(metrics[key], expected[key], "{key}");
    }
}

#[test]
fn the_test_images_alone_are_measured_and_only_they_are_missed() {
    let Some(trained) = trained() else { return };
    let split = std::fs::read_to_string(trained.path("run/split.tsv")).expect("a split");
    let lines = split.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let tested: Vec<String> = lines
        .filter(|columns| columns[2] == "test")
        .map(|columns| columns[0].to_owned())
        .collect();
    for path in &tested {
        let copy = trained.path("tested").join(path);
        std::fs::create_dir_all(copy.parent().expect("a class")).expect("a folder");
        std::fs::copy(trained.path("data").join(path), copy).expect("a copy");
    }
    let (run, data, split) = (
        trained.text("run"),
        trained.text("tested"),
        trained.text("run/split.tsv"),
    );
    let measure = || {
        let mut evaluate = trainer(&[
            "evaluate", "--json", "--bundle", &run, "--data", &data, "--split", &split,
        ]);
        say(evaluate.current_dir(&trained.folder))
    };
    let metrics = measure().ended_with(0).json();
    assert_eq!(metrics["confusion"], trained.said.json()["metrics"]["confusion"]);
    assert_eq!(metrics["skipped"], json!([]));

    std::fs::remove_file(trained.path("tested").join(&tested[0])).expect("removed");
    let skipped = measure().ended_with(3).json()["skipped"].clone();
    assert_eq!(skipped.as_array().map(Vec::len), Some(1), "{skipped}");
    assert_eq!(skipped[0]["path"], json!(tested[0]));
}

#[test]
fn one_image_per_class_says_what_could_not_be_done() {
    let Some(trained) = trained() else { return };
    let data = trained.path("single");
    subset(&trained.path("data"), &data, &CLASSES[..2], 1);
    let (data, run) = (data.display().to_string(), trained.text("single-run"));
    let said = say(&mut trainer(&["train", "--data", &data, "--out", &run])).ended_with(0);
    for part in ["C 1, as nothing could be held out", "There are no test images"] {
        assert!(said.stdout.contains(part), "{said:?}");
    }
    assert!(!said.stdout.contains("cross-validation"), "{said:?}");
}

#[test]
fn evaluating_on_images_that_were_trained_on_is_told() {
    let Some(trained) = trained() else { return };
    let (run, data) = (trained.text("run"), trained.text("data"));
    let images = trained.said.json()["metrics"]["train_count"].clone();
    let expected = format!("{images} of these 72 images were trained on");
    for bundle in [run.clone(), trained.text("run/bundle")] {
        let mut evaluate = trainer(&["evaluate", "--json", "--bundle", &bundle, "--data", &data]);
        let said = say(evaluate.current_dir(&trained.folder)).ended_with(0);
        let document = said.json();
        let note = document["notes"][0].as_str().expect("a note");
        assert!(note.starts_with(&expected) && note.contains("split.tsv"), "{note}");
        assert!(said.stderr.contains(&expected), "{said:?}");
        let report = trained.path(document["report"].as_str().expect("a path"));
        let report = std::fs::read_to_string(report).expect("a report");
        assert!(report.contains(&expected));
    }
    // Copies under other names are the same images, and the split names none of them.
    for class in CLASSES {
        let copies = trained.path("copies").join(class);
        std::fs::create_dir_all(&copies).expect("a folder");
        for entry in std::fs::read_dir(trained.path("data").join(class))
            .expect("a class")
            .flatten()
        {
            let name = format!("copy-of-{}", entry.file_name().display());
            std::fs::copy(entry.path(), copies.join(name)).expect("a copy");
        }
    }
    let mut evaluate = trainer(&[
        "evaluate",
        "--json",
        "--bundle",
        &run,
        "--data",
        &trained.text("copies"),
    ]);
    let document = say(evaluate.current_dir(&trained.folder)).ended_with(0).json();
    let note = document["notes"][0].as_str().expect("a note");
    assert!(note.starts_with(&expected) && note.contains("other images"), "{note}");
    let split = trained.text("run/split.tsv");
    let mut evaluate = trainer(&[
        "evaluate", "--json", "--bundle", &run, "--data", &data, "--split", &split,
    ]);
    let said = say(evaluate.current_dir(&trained.folder)).ended_with(0);
    assert_eq!(said.json()["notes"], json!([]));
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
    block_on(s3.create_bucket("models"));
    let mut environment = s3.environment();
    let run = trained.text("run");
    let mut publish = trainer(&[
        "publish",
        "--json",
        "--bundle",
        &run,
        "--to",
        "s3://models/team",
        "--name",
        "textures",
    ]);
    let published = say(publish.envs(environment.iter().copied())).ended_with(0).json();
    assert_eq!(published["version"], trained.said.json()["version"]);

    environment.push(("IKAT_MODEL", "s3://models/team/textures"));
    let Some(lambda) = Lambda::start(&environment) else {
        return;
    };
    let image = trained.image().display().to_string();
    let local = say(&mut trainer(&["score", "--json", "--bundle", &run, &image]))
        .ended_with(0)
        .json();
    for endpoint in [lambda.invocations(), lambda.url()] {
        let called = say(&mut trainer(&["call", "--json", "--endpoint", &endpoint, &image]))
            .ended_with(0)
            .json();
        assert_same_scores(&called["results"][0], &local["results"][0]);
    }
}

#[test]
fn bad_input_gets_the_documented_codes() {
    let Some(trained) = trained() else { return };
    let scorer = serve(trained, "run/bundle");
    let image = std::fs::read(trained.image()).expect("an image");
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let json = |value: Value| ("application/json", value.to_string().into_bytes());
    for (name, (content_type, body), status, code) in [
        ("no JSON", ("application/json", b"{".to_vec()), 400, "bad_request"),
        ("no image", json(json!({})), 400, "bad_request"),
        ("no base64", json(json!({ "image": "!!!" })), 400, "bad_request"),
        ("empty", json(json!({ "image": "" })), 400, "bad_request"),
        (
            "no image format",
            json(json!({ "image": encode(b"<html></html>") })),
            415,
            "unsupported_format",
        ),
        (
            "cut short",
            json(json!({ "image": encode(&image[..600]) })),
            422,
            "undecodable_image",
        ),
        (
            "too many bytes",
            ("image/jpeg", vec![0; (32 << 20) + 1]),
            413,
            "too_large",
        ),
    ] {
        let (found, answer) = scorer.post("/", content_type, &body);
        assert_eq!(found, status, "{name}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{name}: {answer}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{name}"
        );
    }

    let run = trained.text("run");
    let path = trained.image().display().to_string();
    let local = say(&mut trainer(&["score", "--json", "--bundle", &run, &path]))
        .ended_with(0)
        .json();
    let row = json!({ "image base64 string": encode(&image) });
    for body in [json!({ "image": encode(&image) }), json!({ "input_df": [row] })] {
        let (status, answer) = scorer.post("/", "application/json", body.to_string().as_bytes());
        assert_eq!(status, 200, "{answer}");
        assert_same_scores(&answer, &local["results"][0]);
    }
    let (status, answer) = scorer.post("/score", "image/jpeg", &image);
    assert_eq!(status, 200, "{answer}");
    assert_same_scores(&answer, &local["results"][0]);
    let several = json!({ "images": [encode(&image), "!!!"], "top_k": 1 });
    let (status, answer) = scorer.post("/", "application/json", several.to_string().as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["results"][0]["label"], local["results"][0]["label"]);
    assert_eq!(
        answer["results"][0]["scores"].as_object().map(serde_json::Map::len),
        Some(1)
    );
    assert_eq!(answer["results"][1]["error"]["code"], "bad_request");
}

#[test]
fn a_damaged_or_half_published_version_is_never_served() {
    let Some(trained) = trained() else { return };
    let store = trained.text("store");
    let run = trained.text("run");
    say(&mut trainer(&[
        "publish", "--bundle", &run, "--to", &store, "--name", "textures",
    ]))
    .ended_with(0);
    let first = trained.said.json()["version"].as_str().expect("a version").to_owned();
    let model = trained.path("store/textures");

    // A publish that was killed: files, but no manifest.
    let half = model.join("versions/0123456789abcdef");
    std::fs::create_dir_all(&half).expect("a folder");
    std::fs::write(half.join("model.onnx"), b"half").expect("a file");
    say(&mut trainer(&[
        "rollback",
        "--to",
        &store,
        "--name",
        "textures",
        "0123456789abcdef",
    ]))
    .ended_with(1);
    let versions = say(&mut trainer(&[
        "versions", "--json", "--to", &store, "--name", "textures",
    ]))
    .ended_with(0);
    let versions = versions.json();
    let listed = |version: &str| {
        let list = versions.as_array().expect("a list");
        list.iter()
            .find(|entry| entry["version"] == version)
            .expect("listed")
            .clone()
    };
    assert_eq!(
        (listed(&first)["live"].clone(), listed(&first)["complete"].clone()),
        (json!(true), json!(true))
    );
    assert_eq!(listed("0123456789abcdef")["complete"], json!(false));
    let image = std::fs::read(trained.image()).expect("an image");
    let scorer = serve(trained, "store/textures");
    let (status, answer) = scorer.post("/", "image/jpeg", &image);
    assert_eq!(
        (status, answer["model"]["version"].as_str()),
        (200, Some(first.as_str())),
        "{answer}"
    );

    // One bit of the weights.
    let weights = model.join("versions").join(&first).join("svm.json");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).expect("damaged");
    let scorer = serve(trained, "store/textures");
    let (status, answer) = scorer.post("/", "image/jpeg", &image);
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (503, Some("model_unavailable")),
        "{answer}"
    );
    assert!(
        answer["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("svm.json")),
        "{answer}"
    );
    assert_eq!(scorer.get("/health/live").0, 200);
    assert_eq!(scorer.get("/health/ready").0, 503);
}

#[test]
fn a_killed_training_goes_on_where_it_was() {
    let Some(trained) = trained() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let cache = own_cache(folder.path());
    let start = |out: &str| {
        let mut command = train(&trained.path("data"), &trained.path(out));
        command.arg("--cache").arg(&cache).args(["--threads", "1"]);
        command
    };
    let features = cache.join("features");
    let size = || {
        let files = std::fs::read_dir(&features).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum::<u64>()
    };
    let running = Running::start(
        start("killed")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null()),
    );
    wait_until("the first features", || size() > 10_000);
    drop(running);
    assert!(
        !trained.path("killed").exists(),
        "a killed run leaves nothing under its name"
    );
    let kept = size();
    let said = say(&mut start("killed")).ended_with(0);
    assert_eq!(said.json()["version"], trained.said.json()["version"]);
    assert!(size() > kept, "the rest was added to what was there");
}

#[test]
fn a_folder_of_nasty_files_trains_and_lists_what_it_left_out() {
    let (Some(trained), Some(nasty)) = (trained(), shared_data("nasty")) else {
        return;
    };
    let data = trained.path("nasty-data");
    subset(&trained.path("data"), &data, &CLASSES, 12);
    let mut expected = Vec::new();
    let manifest = std::fs::read_to_string(nasty.join("MANIFEST.tsv")).expect("the manifest");
    for line in manifest.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        std::fs::copy(nasty.join(columns[0]), data.join("dotted").join(columns[0])).expect("a copy");
        expected.push((columns[0].to_owned(), columns[2].to_owned()));
    }
    let said = say(&mut train(&data, &trained.path("nasty-run"))).ended_with(3);
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    let document = said.json();
    let skipped: Vec<&str> = document["skipped"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|item| item["path"].as_str())
        .collect();
    for (file, expected) in expected {
        let left_out = skipped.contains(&format!("dotted/{file}").as_str());
        match expected.as_str() {
            "ok" => assert!(!left_out, "{file} is readable"),
            "reject" => assert!(left_out, "{file} is not readable"),
            _ => {}
        }
    }
}

/// The scorer in plain HTTP mode.
fn serve(trained: &Trained, model: &str) -> Http {
    Http::start(&[("IKAT_MODEL", &trained.text(model))])
}

fn assert_same_scores(found: &Value, expected: &Value) {
    assert_eq!(found["label"], expected["label"]);
    assert_eq!(found["decision"], expected["decision"]);
    let scores = expected["scores"].as_object().expect("scores");
    assert_eq!(
        found["scores"].as_object().map(serde_json::Map::len),
        Some(scores.len())
    );
    for (class, score) in scores {
        let difference = found["scores"][class].as_f64().expect("the class") - score.as_f64().expect("a number");
        assert!(difference.abs() < 1e-6, "{class}: {found} and {expected}");
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}
