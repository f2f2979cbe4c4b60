//! What users bring that nobody expects: each is refused with a way out, or left out and listed.

use std::time::{Duration, Instant};

use end_to_end::http::Http;
use end_to_end::program::{Said, reason, say_within, skipped};
use end_to_end::workshop::{Workshop, picture};
use end_to_end::{colours, shared_data, tell};
use prost::Message;
use trainer::onnx::GraphBuilder;
use trainer::onnx::proto::DimensionValue;

/// A clear failure: it says what is wrong, in words, and leaves no run behind.
fn refused(workshop: &Workshop, said: Said, words: &[&str]) {
    let said = said.ended_with(1);
    for word in words {
        assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
    }
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    assert!(!workshop.path("run").exists(), "a failure leaves no run");
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
        let vector = [DimensionValue::named("N"), DimensionValue::Fixed(3)];
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
fn a_network_that_cannot_be_run_is_named_before_others_are_trained() {
    let workshop = Workshop::new(8);
    let network = |first: &dyn Fn(&mut GraphBuilder) -> String| {
        let mut graph = GraphBuilder::new("odd");
        let value = first(&mut graph);
        let pooled = graph.node("pooled", "GlobalAveragePool", &[&value], &[]);
        let features = graph.node("features", "Flatten", &[&pooled], &[]);
        let vector = [DimensionValue::named("N"), DimensionValue::Fixed(3)];
        graph.finish("image", &[(&features, &vector)], &[]).encode_to_vec()
    };
    let unknown = network(&|graph: &mut GraphBuilder| graph.node("unknown", "Unknown", &["image"], &[]));
    let of_one_side = network(&|graph: &mut GraphBuilder| {
        let weights = graph.initializer("weights", &[1, 64, 1], &[1.0; 64]);
        graph.node("weighted", "Mul", &["image", &weights], &[])
    });
    for (name, network, reason) in [
        ("unknown.onnx", unknown, "cannot be loaded"),
        ("side.onnx", of_one_side, "on an image of 32 x 32 pixels"),
    ] {
        std::fs::write(workshop.path(name), network).expect("written");
        let both = format!("colours.onnx,{name}");
        let mut sweep = workshop.trainer(&["sweep", "--data", "data", "--out", "run", "--backbone", &both]);
        sweep.args(["--resolution", "32", "--mean", "0,0,0", "--std", "255,255,255"]);
        let named = format!("{name} cannot be used as a featurizer: ");
        for command in [workshop.train_by(name, "data", "run"), sweep] {
            refused(&workshop, say_within(60, &command), &[&named, reason]);
        }
    }
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

#[test]
fn every_nasty_file_gets_the_status_that_its_manifest_expects() {
    let Some(nasty) = shared_data("nasty") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    colours::bundle("a").write(folder.path()).expect("written");
    let model = folder.path().display().to_string();
    let scorer = Http::start(&[("IKAT_MODEL", &model)]);
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
