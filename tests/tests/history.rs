//! Run history, comparison, sweep, and MLflow, through the trainer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use end_to_end::program::{Running, Said, say, trainer};
use end_to_end::webdriver::Browser;
use end_to_end::{free_port, lasting_folder, on_free_port, shared_data, subset, tool};
use serde_json::Value;

const CLASSES: [&str; 3] = ["checkered", "dotted", "striped"];

/// A working folder with a small data set and two runs, at 224 and at 448 pixels.
struct Work {
    folder: PathBuf,
}

impl Work {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn trainer(&self, arguments: &[&str]) -> Said {
        say(trainer(arguments).current_dir(&self.folder))
    }
}

/// Sweeps twice, and gives what both say: the second finds all done, and leaves out `missing` as the first did.
fn swept_twice(work: &Work, sweep: &[&str], missing: &str) -> Value {
    let first = work.trainer(sweep).ended_with(3).json();
    assert_eq!(first["skipped"][0]["path"], missing);
    let again = work.trainer(sweep).ended_with(3);
    assert!(again.stderr.contains("was done already"), "{again:?}");
    assert_eq!(again.json(), first);
    first
}

fn work() -> Option<&'static Work> {
    static WORK: OnceLock<Option<Work>> = OnceLock::new();
    WORK.get_or_init(|| {
        let source = shared_data("clothing_pattern")?;
        let work = Work {
            folder: lasting_folder(&std::env::temp_dir()),
        };
        subset(&source, &work.path("data"), &CLASSES, 20);
        work.trainer(&["train", "--data", "data", "--out", "runs/small"])
            .ended_with(0);
        work.trainer(&["train", "--data", "data", "--out", "large", "--resolution", "448"])
            .ended_with(0);
        Some(work)
    })
    .as_ref()
}

#[test]
fn runs_are_listed_shown_and_compared_with_a_paired_test() {
    let Some(work) = work() else { return };
    let listed = work
        .trainer(&["runs", "list", "--json", "--filter", "data"])
        .ended_with(0)
        .json();
    let listed = listed.as_array().expect("a list");
    let folders: Vec<_> = listed.iter().filter_map(|run| run["folder"].as_str()).collect();
    assert!(
        folders.contains(&"./runs/small") && folders.contains(&"./large"),
        "{folders:?}"
    );
    let none = work.trainer(&["runs", "list", "--filter", "no such run"]).ended_with(0);
    assert!(none.stdout.contains("fits --filter"), "{none:?}");

    let shown = work.trainer(&["runs", "show", "--json", "small"]).ended_with(0).json();
    assert_eq!(shown["resolution"], 224);
    assert_eq!(shown["changed_files"], serde_json::json!([]));
    let id = shown["id"].as_str().expect("an id");
    assert_eq!(
        work.trainer(&["runs", "show", "--json", id]).ended_with(0).json(),
        shown
    );

    let by_bundle = work.trainer(&["runs", "show", "--json", "large/bundle"]).ended_with(0);
    assert_eq!(by_bundle.json()["folder"], "large");

    let compared = work
        .trainer(&["runs", "compare", "--json", "--out", "page.html", "small", "large"])
        .ended_with(0)
        .json();
    let parameters: Vec<_> = compared["differences"]
        .as_array()
        .expect("differences")
        .iter()
        .filter_map(|difference| difference["parameter"].as_str())
        .collect();
    assert_eq!(parameters, ["resolution"]);
    assert_eq!(compared["paired"][0]["images"], shown["metrics"]["test_count"]);
    let text = work
        .trainer(&["runs", "compare", "small", "large"])
        .ended_with(0)
        .stdout;
    assert!(
        text.contains("McNemar") && !text.contains("Holm") && text.contains("resolution"),
        "{text}"
    );

    let Some(browser) = Browser::start(400, 900) else {
        return;
    };
    browser.open(&work.path("page.html"));
    assert_eq!(browser.run("return document.querySelectorAll('.chart svg').length"), 5);
    assert!(browser.run("return document.documentElement.scrollWidth").as_u64() <= Some(400));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_is_no_run_and_what_is_changed_is_told() {
    let Some(work) = work() else { return };
    let unknown = work.trainer(&["runs", "show", "nothing"]).ended_with(1);
    assert!(
        unknown.stderr.contains("no run nothing") && unknown.stderr.contains("runs list"),
        "{unknown:?}"
    );
    work.trainer(&["runs", "compare", "small"]).ended_with(2);
    let itself = work
        .trainer(&["runs", "compare", "large", "small", "./large"])
        .ended_with(2);
    assert!(
        itself.stderr.contains("large and ./large are the same run"),
        "{itself:?}"
    );
    // There can be no file below another one.
    let page = "large/run.json/page.html";
    let unwritten = work
        .trainer(&["runs", "compare", "--out", page, "small", "large"])
        .ended_with(1);
    assert!(
        unwritten.stderr.contains(&format!("{page}: ")) && unwritten.stderr.contains("--out"),
        "{unwritten:?}"
    );

    work.trainer(&["evaluate", "--bundle", "large", "--data", "data", "--out", "changed"])
        .ended_with(0);
    std::fs::write(work.path("changed/predictions.csv"), "path,truth,label\n").expect("a change");
    let shown = work
        .trainer(&["runs", "show", "--json", "changed"])
        .ended_with(0)
        .json();
    assert_eq!(shown["changed_files"], serde_json::json!(["predictions.csv"]));

    let refused = work.trainer(&["runs", "delete", "changed"]).ended_with(2);
    assert!(refused.stderr.contains("--yes") && work.path("changed/run.json").exists());
    let twice = work.trainer(&["runs", "delete", "--yes", "changed", "./changed"]);
    assert_eq!(twice.ended_with(0).stdout.matches("Deleted").count(), 1);
    assert!(!work.path("changed").exists() && work.path("large/run.json").exists());
}

#[test]
fn the_predictions_give_the_metrics_again() {
    let Some(work) = work() else { return };
    let text = std::fs::read_to_string(work.path("large/predictions.csv")).expect("predictions");
    let metrics: Value =
        serde_json::from_slice(&std::fs::read(work.path("large/metrics.json")).expect("metrics")).expect("JSON");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("path,truth,label,checkered,dotted,striped"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let right = rows.iter().filter(|row| row[1] == row[2]).count();
    assert_eq!(metrics["test_count"], rows.len());
    assert_eq!(metrics["accuracy"], right as f64 / rows.len() as f64);
    for row in rows {
        assert!(row[0].starts_with(row[1]), "{row:?}");
        let scores: Vec<f64> = row[3..].iter().map(|score| score.parse().expect("a number")).collect();
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_sweep_goes_on_where_it_was_and_ends_in_one_page() {
    let Some(work) = work() else { return };
    let sweep = [
        "sweep",
        "--json",
        "--data",
        "data",
        "--out",
        "sweep",
        "--resolution",
        "128,224",
        "--repeats",
        "2",
    ];
    let first = work.trainer(&sweep).ended_with(0).json();
    assert_eq!(first["runs"].as_array().map(Vec::len), Some(4));
    assert_eq!(first["groups"].as_array().map(Vec::len), Some(2));
    let kept = work.path("sweep/efficientnet-lite0-128-svm-seed1/run.json");
    let before = std::fs::read(&kept).expect("a run");
    let delete = ["runs", "delete", "--json", "--yes"];
    let deleted = work.trainer(&[&delete[..], &["sweep/efficientnet-lite0-224-svm-seed2"]].concat());
    let deleted = deleted.ended_with(0).json()["deleted"].clone();
    assert_eq!(deleted.as_array().map(Vec::len), Some(1));
    let again = work.trainer(&sweep).ended_with(0);
    assert!(again.stderr.contains("was done already"), "{again:?}");
    assert_eq!(again.json()["groups"], first["groups"]);
    assert_eq!(std::fs::read(&kept).expect("a run"), before);
    let page = std::fs::read_to_string(work.path("sweep/comparison.html")).expect("a page");
    assert!(page.contains("Mean and spread") && page.contains("±"));

    // Another sweep there adds its runs to the page, and names those that it cannot be compared with.
    let beside = |more: &[&str]| {
        let line = ["sweep", "--json", "--data", "data", "--out", "sweep", "--repeats", "1"];
        work.trainer(&[&line[..], more].concat()).ended_with(0)
    };
    let added = beside(&["--resolution", "96"]).json();
    assert_eq!(added["runs"].as_array().map(Vec::len), Some(5), "{added}");
    assert_eq!(added["groups"].as_array().map(Vec::len), Some(3), "{added}");
    let other = beside(&["--resolution", "64", "--folds", "3"]);
    assert!(
        other.stderr.contains("Not compared: efficientnet-lite0-96"),
        "{other:?}"
    );
    let page = std::fs::read_to_string(work.path("sweep/comparison.html")).expect("a page");
    assert!(page.contains("1 run compared") && page.contains("efficientnet-lite0-96-svm-seed1 (other parameters)"));

    let other = work.trainer(&[&sweep[..], &["--folds", "3"]].concat()).ended_with(1);
    assert!(other.stderr.contains("other parameters"), "{other:?}");
    let line = ["sweep", "--data", "data", "--out"];
    for taken in ["large", "large/bundle"] {
        let refused = work.trainer(&[&line[..], &[taken]].concat()).ended_with(2);
        assert!(refused.stderr.contains("a run or a bundle"), "{refused:?}");
        assert!(!work.path(taken).join("comparison.html").exists());
    }

    std::fs::write(kept.with_file_name("parameters.json"), "{").expect("a change");
    let damaged = work.trainer(&sweep).ended_with(1);
    assert!(
        damaged.stderr.contains("parameters.json: ") && damaged.stderr.contains("or delete that run"),
        "{damaged:?}"
    );
}

#[test]
fn a_sweep_on_other_images_is_not_done_already_and_what_was_left_out_counts_again() {
    let (Some(source), Some(work)) = (shared_data("clothing_pattern"), work()) else {
        return;
    };
    subset(&source, &work.path("grown"), &CLASSES, 12);
    let broken = (0..101).map(|number| format!("grown/dotted/z{number}.jpg"));
    for name in std::iter::once("grown/dotted/broken.jpg".to_owned()).chain(broken) {
        std::fs::write(work.path(&name), b"no image").expect("a file");
    }
    let sweep = [
        "sweep",
        "--json",
        "--data",
        "grown",
        "--out",
        "grown-sweep",
        "--repeats",
        "1",
    ];
    let first = swept_twice(work, &sweep, "dotted/broken.jpg");
    let accuracy = &first["groups"][0]["figures"]["accuracy"];
    assert!(
        accuracy["mean"].is_f64() && accuracy["standard_deviation"].is_null(),
        "{first}"
    );
    let listed = work.trainer(&sweep).ended_with(3).stderr;
    assert!(
        listed.contains("and 2 more; grown-sweep/*/skipped.json list them all"),
        "{listed}"
    );

    let added = work.path("grown/dotted/added.jpg");
    let image = std::fs::read_dir(work.path("data/striped")).expect("a class").next();
    std::fs::copy(image.expect("an image").expect("an entry").path(), added).expect("a copy");
    let other = work.trainer(&sweep).ended_with(1);
    assert!(other.stderr.contains("other images"), "{other:?}");
}

#[test]
fn a_sweep_whose_runs_have_no_place_trains_nothing() {
    let Some(work) = work() else { return };
    let line = ["sweep", "--data", "data", "--repeats", "1", "--out"];
    std::fs::write(work.path("no-folder"), "x").expect("a file");
    let said = work.trainer(&[&line[..], &["no-folder"]].concat()).ended_with(1);
    assert!(!said.stderr.contains("1 of 1"), "{said:?}");
    let occupied = work.path("occupied-sweep/efficientnet-lite0-svm-seed1");
    std::fs::create_dir_all(&occupied).expect("a folder");
    std::fs::write(occupied.join("mine.txt"), "x").expect("a file");
    let said = work.trainer(&[&line[..], &["occupied-sweep"]].concat()).ended_with(1);
    assert!(
        said.stderr.contains("hint") && !said.stderr.contains("Choosing C"),
        "{said:?}"
    );
    assert!(!said.stderr.contains("or none"), "{said:?}");
}

#[test]
fn a_sweep_by_another_list_of_test_images_is_not_done_already() {
    let Some(work) = work() else { return };
    let mut names = Vec::new();
    for class in CLASSES {
        for entry in std::fs::read_dir(work.path("data").join(class)).expect("a class") {
            let name = entry.expect("an entry").file_name();
            names.push(format!("{class}/{}", name.display()));
        }
    }
    names.sort();
    let keep_for_the_test = |first: usize| {
        let mut list: Vec<&str> = names.iter().skip(first).step_by(4).map(String::as_str).collect();
        list.push("striped/none.jpg");
        std::fs::write(work.path("kept.txt"), list.join("\n")).expect("a list");
    };
    keep_for_the_test(0);
    let sweep = [
        "sweep",
        "--json",
        "--data",
        "data",
        "--out",
        "kept-sweep",
        "--repeats",
        "1",
        "--dedicated",
        "kept.txt",
    ];
    swept_twice(work, &sweep, "striped/none.jpg");

    keep_for_the_test(1);
    let other = work.trainer(&sweep).ended_with(1);
    assert!(other.stderr.contains("another division"), "{other:?}");
}

/// A real MLflow server, stopped with the test.
fn mlflow(folder: &Path) -> Option<(Running, String)> {
    let program = tool("mlflow")?;
    let address = |port: u16| format!("http://127.0.0.1:{port}");
    let start = |port: u16| {
        // It starts others.
        Running::start_group(
            Command::new(&program)
                .args(["server", "--host", "127.0.0.1", "--workers", "1"])
                .args(["--port", &port.to_string()])
                .arg("--backend-store-uri")
                .arg(format!("sqlite:///{}", folder.join("mlflow.db").display()))
                .arg("--artifacts-destination")
                .arg(folder.join("artifacts"))
                .current_dir(folder)
                .env("TMPDIR", folder),
        )
    };
    let is_ready = |port: u16| get(&format!("{}/health", address(port))).is_some();
    let (server, port) = on_free_port("the MLflow server", start, is_ready);
    Some((server, address(port)))
}

fn get(url: &str) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
    let client = client.build().ok()?;
    runtime
        .block_on(async { client.get(url).send().await?.error_for_status()?.text().await })
        .ok()
}

#[test]
fn a_run_is_logged_to_mlflow_and_a_server_that_is_down_costs_a_warning() {
    let Some(work) = work() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let Some((_server, uri)) = mlflow(folder.path()) else {
        return;
    };
    let said = work
        .trainer(&["train", "--json", "--data", "data", "--out", "logged", "--mlflow", &uri])
        .ended_with(0);
    let address = said
        .stderr
        .lines()
        .find_map(|line| line.split_once("Logged to MLflow: "))
        .unwrap_or_else(|| panic!("{said:?}"))
        .1;
    let run = address.rsplit('/').next().expect("an id");
    let found = get(&format!("{uri}/api/2.0/mlflow/runs/get?run_id={run}")).expect("the run");
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let data = &found["run"]["data"];
    let value = |list: &str, key: &str| {
        let entries = data[list].as_array().cloned().unwrap_or_default();
        let entry = entries.iter().find(|entry| entry["key"] == key);
        entry.map(|entry| entry["value"].clone())
    };
    assert_eq!(found["run"]["info"]["status"], "FINISHED");
    assert_eq!(value("params", "svm.folds"), Some("5".into()));
    assert_eq!(
        value("metrics", "accuracy"),
        Some(said.json()["metrics"]["accuracy"].clone())
    );
    assert!(value("metrics", "recall/dotted").is_some());
    assert_eq!(value("tags", "ikat.id"), Some(said.json()["id"].clone()));
    let files = get(&format!("{uri}/api/2.0/mlflow/artifacts/list?run_id={run}")).expect("a list");
    assert!(files.contains("report.html") && files.contains("\"bundle\""), "{files}");

    let dead = format!("http://127.0.0.1:{}", free_port());
    let said = work
        .trainer(&["evaluate", "--bundle", "logged", "--data", "data", "--mlflow", &dead])
        .ended_with(0);
    assert_eq!(said.stderr.matches("warning").count(), 1, "{said:?}");
    assert!(said.stderr.contains("everything is kept in"), "{said:?}");
}
