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
        let said = say_within(60, &workshop.trainer(command)).ended_with(2);
        assert!(
            said.stderr.contains("mine.txt exists already: choose another"),
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
