//! What the programs make of their options, and the trainer of its standard streams.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use end_to_end::colours;
use end_to_end::program::{Running, say_within, scorer, trainer};
use end_to_end::web::{Web, answer};
use end_to_end::workshop::{Workshop, picture};

/// A workshop with a bundle and a picture.
fn with_bundle() -> Workshop {
    let workshop = Workshop::new(0);
    let bundle = colours::bundle("all");
    bundle.write(&workshop.path("bundle")).expect("written");
    picture(&workshop.path("photo.png"), 0, 1);
    workshop
}

#[test]
fn a_format_that_is_set_more_firmly_wins_over_json_from_elsewhere() {
    let workshop = with_bundle();
    std::fs::write(workshop.path("ikat.toml"), "json = true").expect("written");
    let printed = |more: &[&str]| {
        let line = [&["score", "--bundle", "bundle", "photo.png"][..], more].concat();
        say_within(60, &workshop.trainer(&line)).ended_with(0).stdout
    };
    assert!(printed(&[]).starts_with('{'));
    assert!(printed(&["--format", "csv"]).starts_with("path,label,"));
    assert!(printed(&["--format", "table"]).starts_with("label "));
    assert!(printed(&["--format", "csv", "--json"]).starts_with('{'));
    let mut score = workshop.trainer(&["score", "--bundle", "bundle", "photo.png"]);
    let said = say_within(60, score.env("IKAT_FORMAT", "table")).ended_with(0);
    assert!(said.stdout.starts_with("label "), "{said:?}");
}

#[test]
fn an_empty_variable_says_nothing_to_the_scorer() {
    let names = [
        "IKAT_LISTEN",
        "IKAT_THREADS",
        "IKAT_REFRESH_SECONDS",
        "IKAT_DEADLINE_SECONDS",
        "IKAT_QUEUE",
    ];
    let said = say_within(60, scorer().envs(names.map(|name| (name, "")))).ended_with(2);
    assert!(said.stderr.contains("start with --listen"), "{said:?}");
}

#[cfg(unix)]
#[test]
fn a_table_for_programs_has_names_as_they_are() {
    let workshop = with_bundle();
    let name = "a\u{1b}[31m.png";
    std::fs::rename(workshop.path("photo.png"), workshop.path(name)).expect("renamed");
    let line = ["score", "--bundle", "bundle", "--format", "csv", name];
    let said = say_within(60, &workshop.trainer(&line)).ended_with(0);
    let row = said.stdout.lines().nth(1).expect("a row");
    assert!(row.starts_with(&format!("{name},")), "{row:?}");
}

#[test]
fn the_best_classes_alone_are_for_json() {
    let workshop = with_bundle();
    let line = [
        "score",
        "--bundle",
        "bundle",
        "photo.png",
        "--top-k",
        "1",
        "--format",
        "csv",
    ];
    let said = say_within(60, &workshop.trainer(&line)).ended_with(0);
    assert!(said.stderr.contains("--top-k is for --format json alone"), "{said:?}");
    assert!(!said.stdout.contains(",,"), "a score in every column: {said:?}");
}

#[test]
fn a_library_that_the_environment_misnames_is_told_with_what_to_do() {
    let workshop = with_bundle();
    let mut score = workshop.trainer(&["score", "--bundle", "bundle", "photo.png"]);
    let said = say_within(60, score.env("ORT_DYLIB_PATH", "nowhere.so")).ended_with(1);
    assert!(
        said.stderr
            .contains("ORT_DYLIB_PATH names nowhere.so, which is no file; correct it, or unset it"),
        "{said:?}"
    );
}

#[test]
fn a_variable_does_not_change_how_a_command_is_used() {
    // The workshop's commands have IKAT_CACHE.
    let said = say_within(60, &Workshop::new(0).trainer(&["publish"])).ended_with(2);
    let usage = "Usage: trainer publish [OPTIONS] --bundle <BUNDLE> --to <STORE>\n";
    assert!(said.stderr.contains(usage), "{said:?}");
}

#[test]
fn a_folder_where_images_are_named_is_told_with_what_to_do() {
    let workshop = with_bundle();
    std::fs::create_dir(workshop.path("new photos")).expect("a folder");
    let network = ["--backbone", "colours.onnx", "--mean", "0,0,0", "--std", "255,255,255"];
    for command in [
        &["score", "--bundle", "bundle"][..],
        &["call", "--endpoint", "http://127.0.0.1:9"],
        &[&["featurize"][..], &network].concat()[..],
    ] {
        let said = say_within(60, &workshop.trainer(&[command, &["new photos"]].concat())).ended_with(1);
        let told = "it is a folder: name the images in it, as in 'new photos'/*";
        assert!(said.stdout.contains(told), "{said:?}");
    }
}

/// What was printed must be known by whoever reads the result; what to do with it need not.
#[test]
fn quiet_leaves_out_hints_and_keeps_the_notes_on_results() {
    let workshop = Workshop::new(8);
    let mut train = workshop.trainer(&["train", "-q", "--data", "data", "--out", "run"]);
    train.args(["--backbone", "colours.onnx", "--resolution", "32"]);
    train.args(["--mean", "0,0,0", "--std", "0.5,0.5,0.5"]);
    let said = say_within(60, &train).ended_with(0);
    let of_network = "--std 0.5,0.5,0.5 is below 1";
    assert!(said.stderr.contains(of_network), "{said:?}");
    let record = std::fs::read_to_string(workshop.path("run/run.json")).expect("a record");
    assert!(record.contains(of_network), "{record}");
    let trained = said.stdout;
    assert!(!workshop.path("run/epochs.json").exists(), "nothing was refined");
    assert!(
        trained.contains("Report: ") && !trained.contains("Publish: "),
        "{trained}"
    );

    let evaluate = ["evaluate", "-q", "--bundle", "run", "--data", "data", "--out", "again"];
    let said = say_within(60, &workshop.trainer(&evaluate)).ended_with(0);
    assert!(said.stderr.contains("were trained on"), "{said:?}");
    assert!(!said.stderr.contains("Computing features"), "{said:?}");

    let publish = ["publish", "--bundle", "run", "--to", "store"];
    for (more, has_hint) in [(&[][..], true), (&["-q"][..], false)] {
        let said = say_within(60, &workshop.trainer(&[&publish[..], more].concat())).ended_with(0);
        assert!(said.stdout.contains("is live at"), "{said:?}");
        assert_eq!(said.stdout.contains("Serve it: "), has_hint, "{said:?}");
    }
    let keygen = ["keygen", "-q", "--out", "own.pem"];
    let key = say_within(60, &workshop.trainer(&keygen)).ended_with(0).stdout;
    let key = key.trim_end();
    assert!(
        key.len() == 64 && key.chars().all(|digit| digit.is_ascii_hexdigit()),
        "{key}"
    );
}

#[test]
fn what_a_search_for_a_rate_leaves_out_is_listed() {
    let workshop = Workshop::new(8);
    std::fs::write(workshop.path("data/red/broken.png"), "no picture").expect("written");
    let mut find = workshop.trainer(&[
        "lr-find",
        "--json",
        "--data",
        "data",
        "--backbone",
        "convolutional.onnx",
    ]);
    find.args([
        "--resolution",
        "32",
        "--mean",
        "0,0,0",
        "--std",
        "255,255,255",
        "--steps",
        "10",
    ]);
    let said = say_within(60, &find).ended_with(3);
    assert!(said.stderr.contains("red/broken.png"), "{said:?}");
    assert_eq!(said.json()["skipped"][0]["path"], "red/broken.png");
}

#[test]
fn what_is_to_know_of_a_result_is_told_quietly_too() {
    let workshop = Workshop::new(12);
    let mut train = workshop.train_by("convolutional.onnx", "data", "run");
    train.args(["--classifier", "dnn", "--epochs", "1", "--trained", "1", "--quiet"]);
    let said = say_within(60, &train).ended_with(0);
    assert!(said.stderr.contains("images of the training part"), "{said:?}");
    assert!(!said.stderr.contains("Epoch 1/1"), "{said:?}");
    let epochs = std::fs::read_to_string(workshop.path("run/epochs.json")).expect("a file");
    assert!(
        epochs.contains("\"epoch\": 0") && epochs.contains("\"epoch\": 1"),
        "{epochs}"
    );
}

#[test]
fn each_refinement_of_a_sweep_has_events_of_its_own() {
    let workshop = Workshop::new(12);
    let mut sweep = workshop.trainer(&["sweep", "--data", "data", "--out", "sweep", "--repeats", "2"]);
    sweep.args(["--backbone", "convolutional.onnx", "--resolution", "32"]);
    sweep.args(["--mean", "0,0,0", "--std", "255,255,255", "--tensorboard", "events"]);
    sweep.args(["--classifier", "dnn", "--epochs", "1", "--trained", "1"]);
    say_within(120, &sweep).ended_with(0);
    for seed in 1..=2 {
        let events = format!("events/convolutional-32-dnn-seed{seed}/events.out.tfevents.ikat");
        assert!(workshop.path(&events).is_file(), "{events}");
    }
}

#[test]
fn every_command_takes_a_network_that_does_not_tell_its_normalization() {
    let workshop = Workshop::new(8);
    let side = ["--resolution", "32"];
    let normalization = ["--mean", "0,0,0", "--std", "255,255,255"];
    for command in [
        &["data", "audit"][..],
        &["data", "dedupe", "--dry-run"],
        &["sweep", "--repeats", "1", "--out", "sweep"],
    ] {
        let line = [command, &["--data", "data", "--backbone", "convolutional.onnx"], &side].concat();
        let said = say_within(60, &workshop.trainer(&line)).ended_with(1);
        assert!(said.stderr.contains("give --mean and --std"), "{said:?}");
        say_within(60, &workshop.trainer(&[&line[..], &normalization].concat())).ended_with(0);
    }
    let other = ["--mean", "1,1,1", "--std", "255,255,255"];
    let sweep = [
        "sweep",
        "--repeats",
        "1",
        "--out",
        "sweep",
        "--data",
        "data",
        "--backbone",
        "convolutional.onnx",
    ];
    let said = say_within(60, &workshop.trainer(&[&sweep[..], &side, &other].concat())).ended_with(1);
    assert!(
        said.stderr.contains("was made with another --mean or --std"),
        "{said:?}"
    );
}

#[test]
fn a_bundle_that_a_state_machine_would_not_score_with_is_refused() {
    let workshop = Workshop::new(0);
    let machine = "arn:aws:states:eu-central-1:123456789012:stateMachine:ikat-batch";
    let line = [
        "batch",
        "--input",
        "s3://photos/in/",
        "--output",
        "s3://scores/x",
        "--state-machine",
        machine,
    ];
    let said = say_within(60, &workshop.trainer(&[&line[..], &["--bundle", "run"]].concat())).ended_with(2);
    assert!(said.stderr.contains("--bundle is for --local"), "{said:?}");
    assert!(!said.stderr.contains("--max-megapixels is for"), "{said:?}");
    let limited = [&line[..], &["--bundle", "run", "--max-megapixels", "9"]].concat();
    let said = say_within(60, &workshop.trainer(&limited)).ended_with(2);
    assert!(
        said.stderr.contains("--max-megapixels is for --local alone"),
        "{said:?}"
    );
}

#[test]
fn options_are_checked_before_the_images_are_looked_for() {
    let workshop = Workshop::new(0);
    for command in ["train", "refine"] {
        let line = [command, "--data", "nowhere", "--epochs", "0"];
        let said = say_within(60, &workshop.trainer(&line)).ended_with(2);
        assert!(said.stderr.contains("epochs must be from 1"), "{said:?}");
    }
    let unrefined = ["train", "--data", "nowhere", "--fold-batch-norm", "false"];
    let said = say_within(60, &workshop.trainer(&unrefined)).ended_with(1);
    let told = "--fold-batch-norm is for refined networks in floats alone";
    assert!(said.stderr.contains(told), "{said:?}");
    for option in [["--classifier", "dnn"], ["--quantize", "int8"]] {
        let line = [&["train", "--features", "nowhere"][..], &option].concat();
        let said = say_within(60, &workshop.trainer(&line)).ended_with(2);
        assert!(said.stderr.contains("name the images with --data"), "{said:?}");
    }
}

#[test]
fn options_without_effect_beside_another_are_told_of() {
    let workshop = Workshop::new(2);
    std::fs::write(workshop.path("test.txt"), "red/000.png\n").expect("written");
    for (line, told) in [
        (
            "split --dedicated test.txt --ratio 0.5",
            "--ratio is for divisions without --dedicated alone",
        ),
        (
            "dedupe --no-features --similarity 0.9",
            "--similarity is for a comparison of features alone",
        ),
    ] {
        let words: Vec<&str> = ["data"].into_iter().chain(line.split(' ')).collect();
        let said = say_within(60, workshop.trainer(&words).args(["--data", "data"])).ended_with(0);
        assert!(said.stderr.contains(told), "{said:?}");
    }
}

#[test]
fn a_password_in_the_address_of_a_list_is_not_repeated() {
    let workshop = Workshop::new(0);
    let list = "http://user:secret@127.0.0.1:9/list.tsv";
    let line = ["data", "fetch", "--attempts", "1", "--data", "data", "--urls", list];
    let said = say_within(60, &workshop.trainer(&line)).ended_with(1);
    assert!(
        said.stderr.contains("http://127.0.0.1:9/list.tsv: ") && !said.stderr.contains("secret"),
        "{said:?}"
    );
}

#[test]
fn a_distance_that_every_two_pictures_have_is_refused() {
    let workshop = Workshop::new(2);
    let line = ["data", "dedupe", "--no-features", "--data", "data", "--distance"];
    let said = say_within(60, &workshop.trainer(&[&line[..], &["256"]].concat())).ended_with(2);
    assert!(said.stderr.contains("below 256"), "{said:?}");
    say_within(60, &workshop.trainer(&[&line[..], &["0"]].concat())).ended_with(0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_is_full_hinders_no_work_and_changes_no_exit_code() {
    let workshop = Workshop::new(8);
    let mut train = workshop.train("data", "run");
    let mut score = workshop.trainer(&["score", "--bundle", "nowhere", "photo.png"]);
    for (command, code) in [(&mut train, 0), (&mut score, 1)] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let status = command
            .stdout(std::process::Stdio::null())
            .stderr(full.expect("a device that is full"))
            .status()
            .expect("starts");
        assert_eq!(status.code(), Some(code), "{command:?}");
    }
    assert!(workshop.path("run/run.json").is_file());
}

#[test]
fn a_training_that_is_interrupted_says_that_it_goes_on() {
    let workshop = Workshop::new(12);
    let mut train = workshop.train_by("convolutional.onnx", "data", "run");
    // More than anybody waits for.
    train.args(["--classifier", "dnn", "--trained", "all", "--epochs", "10000"]);
    let mut running = Running::start(train.stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut lines = BufReader::new(running.take_stderr()).lines();
    lines.next().expect("a stage").expect("text");
    running.signal("-INT");
    let said: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert!(
        said.iter().any(|line| line.contains("the same command goes on")),
        "{said:?}"
    );
}

#[test]
fn a_profile_may_name_another_server_for_one_service_alone() {
    let server = Web::start(|path, _, stream| {
        // The bucket is in the path, and not in the name of the server.
        let (status, body) = match path.split(['/', '?']).nth(1) {
            Some("models") => ("200 OK", "<ListBucketResult></ListBucketResult>"),
            _ => ("400 Bad Request", ""),
        };
        answer(stream, status, &[], body.as_bytes());
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    let endpoint = server.url("").replace("127.0.0.1", "localhost");
    let profile = format!("[default]\nservices = own\n\n[services own]\ns3 =\n  endpoint_url = {endpoint}\n");
    std::fs::write(&file, profile).expect("written");
    let mut versions = trainer(&["versions", "--to", "s3://models"]);
    versions
        .env("AWS_CONFIG_FILE", &file)
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let said = say_within(60, &versions).ended_with(1);
    assert!(said.stderr.contains("no model is published in s3://models"), "{said:?}");
}
