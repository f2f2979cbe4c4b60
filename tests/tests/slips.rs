//! Slips of the hand: a wrong folder, a wrong list, a name that is taken. Nothing is lost by them, and each is told.

use end_to_end::program::say_within;
use end_to_end::workshop::Workshop;

#[test]
fn pages_are_never_written_over_a_file() {
    let workshop = Workshop::new(8);
    for run in ["one", "two"] {
        say_within(120, &workshop.train("data", run)).ended_with(0);
    }
    let mine = workshop.path("mine.txt");
    std::fs::write(&mine, "mine").expect("a file");
    let audit = ["data", "audit", "--data", "data", "--backbone", "colours.onnx"];
    for command in [
        &["runs", "compare", "one", "two", "--out", "mine.txt"][..],
        &[&audit[..], &["--html", "mine.txt"]].concat()[..],
        &["data", "split", "--data", "data", "--out", "mine.txt"],
    ] {
        let said = say_within(60, &workshop.trainer(command)).ended_with(1);
        assert!(
            said.stderr.contains("mine.txt exists already") && said.stderr.contains("choose another file with --"),
            "{said:?}"
        );
        assert!(!said.stderr.contains("images ("), "nothing is done before: {said:?}");
        assert_eq!(std::fs::read_to_string(&mine).expect("still there"), "mine");
    }
    // The page whose name is made of the runs is theirs.
    for _ in 0..2 {
        say_within(60, &workshop.trainer(&["runs", "compare", "one", "two"])).ended_with(0);
    }
    let unsplit = workshop.trainer(&[&audit[..], &["--split", "none.tsv"]].concat());
    let said = say_within(60, &unsplit).ended_with(1);
    assert!(said.stderr.contains("none.tsv: "), "{said:?}");
    assert!(
        !said.stderr.contains("Reading images"),
        "nothing is done before: {said:?}"
    );
}

#[test]
fn runs_do_not_get_among_the_images() {
    let workshop = Workshop::new(8);
    let data = workshop.path("data");
    let train = |more: &[&str]| {
        let line = [
            "train",
            "--data",
            ".",
            "--backbone",
            "../colours.onnx",
            "--resolution",
            "32",
        ];
        let mut command = workshop.trainer(&[&line[..], more].concat());
        command.current_dir(&data);
        say_within(120, &command)
    };
    for out in ["run", "red/run", "../data/deep/er"] {
        let said = train(&["--out", out]).ended_with(2);
        assert!(said.stderr.contains("lies in the folder of the images"), "{said:?}");
    }
    let said = train(&["--classifier", "dnn", "--tensorboard", "events"]).ended_with(2);
    let told = "events lies in the folder of the images: choose another folder with --tensorboard";
    assert!(said.stderr.contains(told), "{said:?}");
    let sweep = workshop.trainer(&["sweep", "--data", "data", "--out", "data/sweep"]);
    say_within(60, &sweep).ended_with(2);
    // The place of runs that are given no other may be there.
    for _ in 0..2 {
        train(&[]).ended_with(0);
    }
    assert!(data.join("runs").is_dir());
    let split = workshop.trainer(&["data", "split", "--data", "data"]);
    say_within(60, &split).ended_with(0);
}

#[test]
fn a_picture_in_two_classes_and_a_folder_one_level_too_high_are_told() {
    let workshop = Workshop::new(8);
    std::fs::copy(workshop.path("data/red/000.png"), workshop.path("data/blue/zz.png")).expect("a copy");
    let said = say_within(120, &workshop.train("data", "run")).ended_with(0);
    let note = said.json()["notes"].to_string();
    assert!(
        note.contains("1 image stands in more than one class") && note.contains("blue/zz.png, red/000.png"),
        "{note}"
    );
    let audit = ["data", "audit", "--data", "data", "--backbone", "colours.onnx"];
    let page = ["--html", "audit.html"];
    let said = say_within(60, &workshop.trainer(&[&audit[..], &page].concat())).ended_with(0);
    let title = "Images that stand in more than one class (1)";
    assert!(said.stdout.contains(title), "{said:?}");
    assert!(
        said.stdout.contains("blue/zz.png (blue), red/000.png (red)"),
        "{said:?}"
    );
    let page = std::fs::read_to_string(workshop.path("audit.html")).expect("a page");
    assert!(page.contains(title) && page.contains("blue/zz.png, red/000.png"));
    let document = say_within(60, &workshop.trainer(&[&audit[..], &["--json"]].concat())).json();
    assert_eq!(document["conflicts"][0][1]["label"], "red", "{document}");

    for (part, class) in [("one", "red"), ("one", "green"), ("two", "blue")] {
        std::fs::create_dir_all(workshop.path("above").join(part)).expect("a folder");
        let there = workshop.path("above").join(part).join(class);
        std::fs::rename(workshop.path("data").join(class), there).expect("moved");
    }
    let said = say_within(120, &workshop.train("above", "high")).ended_with(0);
    let (warning, features) = (said.stderr.find("warning"), said.stderr.find("Computing features"));
    assert!(warning.is_some() && warning < features, "{said:?}");
    assert!(said.stderr.contains("give --data above/one."), "{said:?}");
}

#[test]
fn a_wrong_list_or_document_is_told_for_what_it_is() {
    let workshop = Workshop::new(2);
    std::fs::write(workshop.path("labels.csv"), "path;label\nnone.png;hat\n").expect("a list");
    let said = say_within(60, &workshop.train("labels.csv", "run")).ended_with(1);
    assert!(said.stderr.contains("none.png (there is no such file)"), "{said:?}");

    let network = ["--backbone", "colours.onnx"];
    let featurize = ["featurize", "--json", "data/red/000.png", "data/blue/000.png"];
    let rows = say_within(60, &workshop.trainer(&[&featurize[..], &network].concat())).ended_with(0);
    std::fs::write(workshop.path("rows.json"), rows.stdout).expect("rows");
    let train = ["train", "--features", "rows.json", "--out", "run"];
    let said = say_within(60, &workshop.trainer(&[&train[..], &network].concat())).ended_with(1);
    assert!(
        said.stderr.contains("rows.json, line 1: this is one JSON document"),
        "{said:?}"
    );
    assert!(said.stderr.contains("without --json"), "{said:?}");
}
