//! What users bring that nobody expects: each is refused with a way out, or left out and listed.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use end_to_end::http::Http;
use end_to_end::program::{Said, program, say, say_within};
use end_to_end::workshop::{Workshop, picture};
use end_to_end::{colours, installed, shared_data, tell};
use prost::Message;
use serde_json::Value;
use trainer::onnx::GraphBuilder;
use trainer::onnx::proto::DimensionValue;

/// The paths that a document lists as left out, with the reasons.
fn skipped(document: &Value) -> Vec<(String, String)> {
    let list = document["skipped"].as_array().expect("a list");
    list.iter()
        .map(|item| {
            let text = |key: &str| item[key].as_str().expect("a text").to_owned();
            (text("path"), text("reason"))
        })
        .collect()
}

fn reason<'a>(skipped: &'a [(String, String)], path: &str) -> &'a str {
    skipped.iter().find(|(name, _)| name == path).map_or_else(
        || panic!("{path} is not listed: {skipped:?}"),
        |(_, reason)| reason.as_str(),
    )
}

/// A clear failure: it says what is wrong, in words, and leaves no run behind.
fn refused(workshop: &Workshop, said: Said, words: &[&str]) {
    let said = said.ended_with(1);
    for word in words {
        assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
    }
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    assert!(!workshop.path("run").exists(), "a failure leaves no run");
}

#[cfg(unix)]
#[test]
fn odd_paths_are_read_or_listed_by_every_command() {
    use std::os::unix::ffi::OsStrExt;

    let Some(nasty) = shared_data("nasty") else { return };
    let workshop = Workshop::new(8);
    let data = workshop.path("data");
    let made = say(Command::new("bash")
        .arg(nasty.join("make_odd_paths.sh"))
        .arg(nasty.join("00_good_cat.jpg"))
        .arg(&data));
    made.ended_with(0);
    std::fs::create_dir(data.join(std::ffi::OsStr::from_bytes(b"class\xff"))).expect("a folder");
    std::os::unix::fs::symlink("..", data.join("nested/inner/around")).expect("a link");
    std::os::unix::fs::symlink(&data, data.join("nested/all")).expect("a link");
    // The names are what matters; the pictures must not be copies of each other, which would stay together.
    let mut number = 100;
    for folder in ["class a", "nested/inner"] {
        for entry in std::fs::read_dir(data.join(folder)).expect("a folder").flatten() {
            if entry.file_type().expect("a type").is_file() {
                picture(&entry.path(), 0, number);
                number += 1;
            }
        }
    }
    for number in 200..206 {
        picture(&data.join(format!("nested/{number}.png")), 1, number);
    }

    let expected = |list: &[(String, String)]| {
        for path in ["class a/broken_link.jpg", "class a/loop.jpg"] {
            assert!(!reason(list, path).is_empty());
        }
        assert!(reason(list, "class a/fifo.jpg").contains("not an ordinary file"));
        assert!(reason(list, "empty class").contains("empty class folder"));
        assert!(reason(list, "loose_in_root.jpg").contains("not in a class folder"));
        assert!(reason(list, "class\u{fffd}").contains("Unicode"));
        assert!(reason(list, "nested/inner/around").contains("leads back into itself"));
        for path in ["class a/with space.jpg", "class a/new\nline.jpg", "nested/inner/x.jpg"] {
            assert!(list.iter().all(|(name, _)| name != path), "{path} is readable");
        }
    };
    let document = say_within(120, &workshop.train("data", "run")).ended_with(3).json();
    expected(&skipped(&document));
    assert_eq!(document["metrics"]["classes"].as_array().map(Vec::len), Some(5));
    for file in ["predictions.csv", "split.tsv", "report.html"] {
        assert!(workshop.path("run").join(file).is_file(), "{file}");
    }
    for command in [
        &["data", "split"][..],
        &["data", "audit", "--backbone", "colours.onnx"],
        &["data", "dedupe", "--no-features", "--dry-run"],
    ] {
        let arguments = [command, &["--quiet", "--json", "--data", "data"]].concat();
        let said = say_within(60, &workshop.trainer(&arguments)).ended_with(3);
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
        assert!(
            said.stderr.contains("broken_link.jpg"),
            "the list is what the exit code is for: {said:?}"
        );
    }
    // The split that was written is read again, odd names and all, its own among them.
    let split = workshop.path("run").join(std::ffi::OsStr::from_bytes(b"split\xff.tsv"));
    std::fs::copy(workshop.path("run/split.tsv"), &split).expect("a copy");
    let mut evaluate = workshop.trainer(&["evaluate", "--json", "--bundle", "run", "--data", "data"]);
    evaluate.args(["--out", "again", "--split"]).arg(&split);
    let again = say_within(60, &evaluate).ended_with(3).json();
    let parameters = std::fs::read_to_string(workshop.path("again/parameters.json")).expect("parameters");
    assert!(parameters.contains("split\u{fffd}.tsv"), "{parameters}");
    assert_eq!(again["confusion"], document["metrics"]["confusion"]);
    assert_eq!(again["test_count"], document["metrics"]["test_count"]);
}

#[test]
fn too_little_to_learn_from_is_said_in_words() {
    let workshop = Workshop::new(0);
    std::fs::create_dir_all(workshop.path("data")).expect("a folder");
    let train = || say_within(60, &workshop.train("data", "run"));
    refused(&workshop, train(), &["holds no class folder with images"]);

    picture(&workshop.path("data/red/1.png"), 0, 1);
    refused(
        &workshop,
        train(),
        &["data has images of the class red alone", "needs two classes"],
    );

    for number in 2..12 {
        picture(&workshop.path(&format!("data/red/{number}.png")), 0, number);
    }
    std::fs::create_dir(workshop.path("data/empty")).expect("a folder");
    std::fs::create_dir(workshop.path("data/text")).expect("a folder");
    std::fs::write(workshop.path("data/text/1.jpg"), "no picture").expect("written");
    refused(
        &workshop,
        train(),
        &[
            "the class red alone",
            "empty (an empty class folder)",
            "text/1.jpg (not an image",
        ],
    );

    // One image of the second class: it is trained on, and that nothing tests it is told.
    picture(&workshop.path("data/blue/1.png"), 2, 1);
    let said = train().ended_with(3);
    let document = said.json();
    let list = skipped(&document);
    assert!(reason(&list, "empty").contains("empty class folder"));
    assert!(reason(&list, "text/1.jpg").contains("not an image"));
    assert!(reason(&list, "text").contains("no readable image"));
    assert_eq!(document["metrics"]["per_class"]["blue"]["support"], 0);
    assert!(
        document["metrics"]["per_class"]["blue"]["recall"].is_null(),
        "{document}"
    );
}

#[test]
fn what_can_be_known_at_once_is_said_before_any_feature_is_computed() {
    let workshop = Workshop::new(4);
    let refuse = |more: &[&str], word: &str| {
        let said = say_within(60, workshop.train("data", "run").args(more));
        refused(&workshop, said, &[word]);
        assert!(!workshop.path("cache/features").exists(), "{more:?}");
    };
    refuse(&["--dedicated", "nowhere.tsv"], "nowhere.tsv");
    std::fs::write(workshop.path("foreign.txt"), "green/none.png\n").expect("written");
    refuse(&["--dedicated", "foreign.txt"], "names no image of this data set");
    let inside_a_file = workshop.train("data", "colours.onnx/run");
    refused(&workshop, say_within(60, &inside_a_file), &["colours.onnx/run"]);
    assert!(!workshop.path("cache/features").exists());
    for class in ["blue", "green"] {
        let folder = workshop.path("data").join(class);
        if folder.exists() {
            std::fs::remove_dir_all(folder).expect("removed");
        }
    }
    refuse(&[], "needs two classes");
    let epochs = say_within(60, workshop.train("data", "run").args(["--epochs", "0"])).ended_with(2);
    assert!(epochs.stderr.contains("epochs must be from 1"), "{epochs:?}");
}

#[test]
fn what_cannot_be_measured_is_said_before_any_feature_is_computed() {
    let workshop = Workshop::new(8);
    say_within(60, &workshop.train("data", "trained")).ended_with(0);
    let refuse = |more: &[&str], word: &str| {
        let evaluate = ["evaluate", "--bundle", "trained", "--data", "data", "--out", "run"];
        let mut evaluate = workshop.trainer(&[&evaluate[..], more].concat());
        let said = say_within(60, evaluate.env("IKAT_CACHE", workshop.path("empty")));
        refused(&workshop, said, &[word]);
        assert!(!workshop.path("empty/features").exists(), "{more:?}");
    };
    refuse(&["--split", "nowhere.tsv"], "nowhere.tsv");
    std::fs::write(workshop.path("foreign.txt"), "green/none.png\n").expect("written");
    refuse(&["--split", "foreign.txt"], "names no image of this data set");
    picture(&workshop.path("data/violet/1.png"), 0, 100);
    refuse(&[], "does not know the class violet");
}

#[test]
fn variables_are_switches_too_and_named_where_they_are_wrong() {
    let workshop = Workshop::new(0);
    let with = |variable: &str, value: &str, arguments: &[&str]| {
        say_within(60, workshop.trainer(arguments).env(variable, value))
    };
    for value in ["1", "yes", "true"] {
        with("IKAT_JSON", value, &["setup", "--list"]).ended_with(0).json();
    }
    for value in ["0", "no", "false", ""] {
        let said = with("IKAT_JSON", value, &["setup", "--list"]).ended_with(0);
        assert!(!said.stdout.starts_with(['{', '[']), "{said:?}");
    }
    // What is switched off excludes nothing.
    let dedupe = ["data", "dedupe", "--data", "data", "--restore"];
    let restore = with("IKAT_DRY_RUN", "0", &dedupe).ended_with(1);
    assert!(!restore.stderr.contains("cannot be used with"), "{restore:?}");
    let wrong = with("IKAT_JSON", "perhaps", &["setup", "--list"]).ended_with(2);
    assert!(wrong.stderr.contains("IKAT_JSON"), "{wrong:?}");
    let wrong = with("IKAT_RATIO", "75", &["train", "--data", "data"]).ended_with(2);
    assert!(wrong.stderr.contains("IKAT_RATIO"), "{wrong:?}");
    let typed = with("IKAT_RATIO", "0.5", &["train", "--data", "data", "--ratio", "75"]).ended_with(2);
    assert!(!typed.stderr.contains("IKAT_RATIO"), "{typed:?}");
}

#[test]
fn a_model_that_nobody_published_has_no_versions() {
    let workshop = Workshop::new(0);
    let versions = workshop.trainer(&["versions", "--to", "store", "--name", "nobody"]);
    let said = say_within(60, &versions).ended_with(1);
    assert!(
        said.stderr.contains("no version of nobody is published there"),
        "{said:?}"
    );
    assert_eq!(said.stdout, "");
}

#[test]
fn class_folders_that_differ_by_case_are_refused() {
    let workshop = Workshop::new(2);
    picture(&workshop.path("data/RED/1.png"), 0, 9);
    if workshop.path("data/red/1.png").exists() && !workshop.path("data/red/001.png").exists() {
        return; // This file system does not tell them apart.
    }
    let said = say_within(60, &workshop.train("data", "run"));
    refused(&workshop, said, &["RED", "red", "upper and lower case", "rename one"]);
}

#[test]
fn labels_are_text_and_never_markup() {
    let workshop = Workshop::new(8);
    let label = "<img src=x onerror=alert(1)>&\"'";
    std::fs::rename(workshop.path("data/red"), workshop.path("data").join(label)).expect("renamed");
    let document = say_within(60, &workshop.train("data", "run")).ended_with(0).json();
    assert_eq!(document["metrics"]["classes"][0], label);
    for page in ["report.html", "confusion.svg", "roc.svg"] {
        let page = std::fs::read_to_string(workshop.path("run").join(page)).expect("a page");
        assert!(!page.contains("<img src=x"), "the label is markup in the page");
    }
    let scored = workshop.trainer(&["score", "--json", "--bundle", "run", &format!("data/{label}/000.png")]);
    assert_eq!(
        say_within(60, &scored).ended_with(0).json()["results"][0]["label"],
        label
    );
}

#[test]
fn a_network_that_gives_no_numbers_is_named() {
    let workshop = Workshop::new(8);
    // log(mean - threshold): not a number for dark channels, minus infinity where it is met exactly.
    let network = |threshold: f32| {
        let mut graph = GraphBuilder::new("log");
        let pooled = graph.node("pooled", "GlobalAveragePool", &["image"], &[]);
        let threshold = graph.initializer("threshold", &[1], &[threshold]);
        let shifted = graph.node("shifted", "Sub", &[&pooled, &threshold], &[]);
        let logarithm = graph.node("logarithm", "Log", &[&shifted], &[]);
        let features = graph.node("features", "Flatten", &[&logarithm], &[]);
        let vector = [DimensionValue::Named("N".to_owned()), DimensionValue::Fixed(3)];
        graph.finish("image", &[(&features, &vector)], &[]).encode_to_vec()
    };
    std::fs::write(workshop.path("nan.onnx"), network(2.0)).expect("written");
    let said = say_within(60, &workshop.train_by("nan.onnx", "data", "run"));
    refused(&workshop, said, &["not finite", "blue/000.png"]);

    // Where only some images get no number, they are listed and the others are trained on.
    for number in 0..3 {
        let black = image::RgbImage::new(24, 24);
        black
            .save(workshop.path(&format!("data/blue/black-{number}.png")))
            .expect("saved");
    }
    std::fs::write(workshop.path("some.onnx"), network(0.05)).expect("written");
    let said = say_within(60, &workshop.train_by("some.onnx", "data", "run")).ended_with(3);
    let document = said.json();
    let list = skipped(&document);
    assert_eq!(list.len(), 3, "{list:?}");
    assert!(reason(&list, "blue/black-0.png").contains("not finite"));
}

#[test]
fn many_classes_are_only_many() {
    // `IKAT_CLASSES` says how many.
    let classes = std::env::var("IKAT_CLASSES").map_or(200, |text| text.parse().expect("a number"));
    let workshop = Workshop::new(0);
    for class in 0..classes {
        for number in 0..2 {
            let path = workshop.path(&format!("data/class-{class:04}/{number}.png"));
            picture(&path, class as usize % 3, 2 * class + number);
        }
    }
    let begun = Instant::now();
    let document = say_within(300, workshop.train("data", "run").args(["--report-images", "20"]))
        .ended_with(0)
        .json();
    tell(&format!("{classes} classes took {:?}", begun.elapsed()));
    assert_eq!(
        document["metrics"]["classes"].as_array().map(Vec::len),
        Some(classes as usize)
    );
    let report = std::fs::metadata(workshop.path("run/report.html"))
        .expect("a page")
        .len();
    assert!(report < 64 << 20, "a report of {report} bytes opens nowhere");
}

/// Runs a command as a user who owns nothing here; `None` where this test cannot.
#[cfg(unix)]
fn as_nobody(command: &Command) -> Option<Command> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let mut user = if root {
        // Nothing is unreadable for root.
        let mut user = Command::new(installed("setpriv")?);
        user.args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(command.get_program());
        user
    } else {
        Command::new(command.get_program())
    };
    user.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => user.env(name, value),
            None => user.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        user.current_dir(folder);
    }
    Some(user)
}

#[cfg(unix)]
#[test]
fn what_may_not_be_read_or_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };

    let workshop = Workshop::new(8);
    // Another user must reach the library and the folder, and write into the cache.
    std::fs::copy(colours::library(), workshop.path("libonnxruntime.so")).expect("a copy");
    std::fs::create_dir(workshop.path("cache")).expect("a folder");
    std::fs::create_dir(workshop.path("runs")).expect("a folder");
    mode(&workshop.path("."), 0o755);
    mode(&workshop.path("cache"), 0o777);
    mode(&workshop.path("runs"), 0o777);
    mode(&workshop.path("libonnxruntime.so"), 0o644);
    let as_other = |mut command: Command| {
        command.env("ORT_DYLIB_PATH", workshop.path("libonnxruntime.so"));
        as_nobody(&command)
    };

    let secret = workshop.path("data/red/000.png");
    mode(&secret, 0);
    let Some(train) = as_other(workshop.train("data", "runs/one")) else {
        return;
    };
    let document = say_within(60, &train).ended_with(3).json();
    let list = skipped(&document);
    assert!(
        reason(&list, "red/000.png")
            .to_lowercase()
            .contains("permission denied"),
        "{list:?}"
    );
    assert_eq!(list.len(), 1);

    mode(&workshop.path("data/red"), 0);
    let train = as_other(workshop.train("data", "runs/two")).expect("as before");
    let document = say_within(60, &train).ended_with(3).json();
    let list = skipped(&document);
    assert!(
        reason(&list, "red").to_lowercase().contains("permission denied"),
        "{list:?}"
    );
    mode(&workshop.path("data/red"), 0o755);

    mode(&workshop.path("runs"), 0o555);
    let train = as_other(workshop.train("data", "runs/three")).expect("as before");
    let said = say_within(60, &train).ended_with(1);
    assert!(
        said.stderr.contains("runs") && said.stderr.to_lowercase().contains("permission denied"),
        "{said:?}"
    );

    // Commands that would change a data set say so where they may not; the others do not need to.
    mode(&workshop.path("data"), 0o555);
    let dedupe = ["data", "dedupe", "--no-features", "--data", "data"];
    let dedupe = as_other(workshop.trainer(&dedupe)).expect("as before");
    let said = say_within(60, &dedupe).ended_with(1);
    assert!(
        said.stderr.contains("data/.ikat") && said.stderr.to_lowercase().contains("permission denied"),
        "{said:?}"
    );
    let audit = [
        "data",
        "audit",
        "--json",
        "--data",
        "data",
        "--backbone",
        "colours.onnx",
    ];
    let audit = as_other(workshop.trainer(&audit)).expect("as before");
    say_within(60, &audit).ended_with(3);
    let publish = ["publish", "--bundle", "runs/one", "--to", "runs/store"];
    let publish = as_other(workshop.trainer(&publish)).expect("as before");
    let said = say_within(60, &publish).ended_with(1);
    assert!(
        said.stderr.contains("runs/store") && said.stderr.to_lowercase().contains("permission denied"),
        "{said:?}"
    );
}

/// A file system of a few hundred kilobytes that goes away with the test.
#[cfg(target_os = "linux")]
struct SmallDisk(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(path: std::path::PathBuf, kilobytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a folder");
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        tell("SKIPPED: mounting a small file system is not allowed here");
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes all the room that is left.
#[cfg(target_os = "linux")]
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    while file.write_all(&[0; 512]).is_ok() {}
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_nothing_is_half_there() {
    let workshop = Workshop::new(8);
    let full = |said: &Said, place: &str| {
        assert!(
            said.stderr.contains(place) && said.stderr.contains("No space left"),
            "{}",
            said.stderr
        );
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    };
    say_within(60, &workshop.train("data", "whole")).ended_with(0);
    let Some(disk) = SmallDisk::mount(workshop.path("disk"), 40) else {
        return;
    };
    let said = say_within(60, &workshop.train("data", "disk/run")).ended_with(1);
    full(&said, "disk");
    let left: Vec<_> = std::fs::read_dir(workshop.path("disk"))
        .expect("a folder")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");

    // A store that is full keeps what is live.
    fill(&workshop.path("disk/ballast"));
    let publish = ["publish", "--bundle", "whole", "--to", "disk/store", "--name", "model"];
    full(&say_within(60, &workshop.trainer(&publish)).ended_with(1), "disk/store");
    assert!(!workshop.path("disk/store/model/live.json").exists());
    std::fs::remove_file(workshop.path("disk/ballast")).expect("removed");

    // A cache that is full.
    let mut train = workshop.train("data", "run");
    fill(&workshop.path("disk/ballast"));
    full(
        &say_within(60, train.env("IKAT_CACHE", workshop.path("disk/cache"))).ended_with(1),
        "disk/cache",
    );
    assert!(!workshop.path("run").exists());
    std::fs::remove_file(workshop.path("disk/ballast")).expect("removed");

    // With room, everything goes on.
    drop(disk);
    say_within(60, &workshop.train("data", "disk/run")).ended_with(0);
    say_within(60, &workshop.trainer(&publish)).ended_with(0);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_printed_is_a_failure() {
    let workshop = Workshop::new(2);
    let mut command = Command::new("bash");
    let program = program("trainer").display().to_string();
    command.args([
        "-c",
        &format!("'{program}' data dedupe --no-features --dry-run --json --data data > /dev/full"),
    ]);
    command.current_dir(workshop.path("."));
    let said = say(&mut command).ended_with(1);
    assert!(said.stderr.contains("No space left"), "{said:?}");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

#[test]
fn every_nasty_file_gets_the_status_that_its_manifest_expects() {
    let Some(nasty) = shared_data("nasty") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    colours::bundle("a").write(folder.path()).expect("written");
    let model = folder.path().display().to_string();
    let library = colours::library().display().to_string();
    let scorer = Http::start(&[("IKAT_MODEL", &model), ("ORT_DYLIB_PATH", &library)]);
    let manifest = std::fs::read_to_string(nasty.join("MANIFEST.tsv")).expect("the manifest");
    let mut count = 0;
    for line in manifest.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (file, expected) = (columns[0], columns[2]);
        let bytes = std::fs::read(nasty.join(file)).expect("a file");
        let begun = Instant::now();
        let (status, answer) = scorer.post("/", "image/jpeg", &bytes);
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{file} took {:?}",
            begun.elapsed()
        );
        let code = answer["error"]["code"].as_str();
        let refused = matches!(
            (status, code),
            (400, Some("bad_request"))
                | (413, Some("too_large"))
                | (415, Some("unsupported_format"))
                | (422, Some("undecodable_image"))
        );
        let scored = status == 200 && answer["label"].is_string();
        match expected {
            "ok" => assert!(scored, "{file}: {status} {answer}"),
            "reject" | "skip" => assert!(refused, "{file}: {status} {answer}"),
            _ => assert!(scored || refused, "{file}: {status} {answer}"),
        }
        count += 1;
    }
    tell(&format!(
        "{count} files, each with the status that its manifest expects"
    ));
    let (status, answer) = scorer.post("/", "image/png", &colours::png([250, 10, 10]));
    assert_eq!((status, answer["label"].as_str()), (200, Some("a-red")));
}

#[test]
fn a_run_fills_an_empty_folder_however_it_is_named() {
    let workshop = Workshop::new(8);
    for folder in ["here", "disk"] {
        std::fs::create_dir(workshop.path(folder)).expect("a folder");
    }
    std::os::unix::fs::symlink(workshop.path("disk"), workshop.path("link")).expect("a link");
    let text = |name: &str| workshop.path(name).display().to_string();
    let mut here = workshop.train_by(&text("colours.onnx"), &text("data"), ".");
    say_within(60, here.current_dir(workshop.path("here"))).ended_with(0);
    say_within(60, &workshop.train("data", "link")).ended_with(0);
    for folder in ["here", "disk"] {
        assert!(workshop.path(folder).join("run.json").is_file(), "{folder}");
    }
}
