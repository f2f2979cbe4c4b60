//! What works on this machine in one command, as the documentation promises.

use std::process::Command;

use end_to_end::colours::{COLOURS, bundle, library, png};
use end_to_end::program::{program, say, trainer};
use end_to_end::tool;
use serde_json::Value;

#[test]
fn one_command_publishes_a_model_and_calls_the_function() {
    if tool("weed").is_none() || tool("cargo-lambda").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("bundle");
    bundle("local").write(&run).expect("written");
    let image = folder.path().join("blue.png");
    std::fs::write(&image, png(COLOURS[2].1)).expect("written");
    let said = say(Command::new(program("examples/local"))
        .arg("--once")
        .args([&run, &image])
        .env("NO_COLOR", "1"));
    let said = said.ended_with(0);
    for part in [
        "local-blue",
        "score",
        "server ms",
        "round trip ms",
        "5 of 5 calls answered",
    ] {
        assert!(said.stdout.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn files_are_scored_side_by_side_in_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    bundle("local").write(at("bundle").as_ref()).expect("written");
    let paths: Vec<String> = (0..20).map(|number| at(&format!("{number}.png"))).collect();
    for (number, path) in paths.iter().enumerate() {
        std::fs::write(path, png(COLOURS[number % 3].1)).expect("written");
    }
    for threads in ["1", "3"] {
        let mut score = trainer(&["score", "--json", "--bundle", &at("bundle"), "--threads", threads]);
        score.args(&paths).env("ORT_DYLIB_PATH", library());
        let said = say(&mut score).ended_with(0).json();
        let results = said["results"].as_array().expect("a list");
        assert_eq!(results.len(), paths.len());
        for (number, (result, path)) in results.iter().zip(&paths).enumerate() {
            assert_eq!(result["path"], path.as_str());
            assert_eq!(result["label"], format!("local-{}", COLOURS[number % 3].0));
        }
    }
}

#[test]
fn the_demo_goes_the_whole_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = trainer(&["demo", "--per-class", "8", "--json", "--quiet", "--dir", "demo"]);
    let said = say(demo.current_dir(folder.path())).ended_with(0).json();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let at = |key: &str| folder.path().join(text(&said[key]));
    let (label, version) = (text(&said["answer"]["label"]), text(&said["version"]));
    assert!(["dotted", "leopard", "striped"].contains(&&*label), "{label}");
    assert_eq!(said["answer"]["model"]["version"], version.as_str());
    let live = std::fs::read(at("model").join("live.json")).expect("a published version");
    let live: Value = serde_json::from_slice(&live).expect("JSON");
    assert_eq!(live["version"], version.as_str());
    let manifest = at("model").join("versions").join(version).join("manifest.json");
    for file in [manifest, at("report"), at("run").join("run.json"), at("image")] {
        assert!(file.is_file(), "{}", file.display());
    }
    let drawn = std::fs::read_dir(at("data").join("striped")).expect("a class");
    assert_eq!(drawn.count(), 8);
}
