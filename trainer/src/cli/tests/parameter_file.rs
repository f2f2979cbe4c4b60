//! What the parameter file and the command line make of each other.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgAction, FromArgMatches};

use crate::cli::{Arguments, Parsing, command, parse};
use crate::configuration::{Configuration, TEMPLATE, typed};

/// The parameter file with every parameter taken out of its comment.
fn everything_set() -> String {
    let uncommented = TEMPLATE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
        _ => line,
    });
    uncommented.collect::<Vec<_>>().join("\n")
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
fn a_file_can_stand_for_what_is_required() {
    let export = ["data", "export", "--data", "images", "--format", "folder"];
    for (file, words) in [
        (
            "data = \"images\"\n[train]\nout = \"runs/first\"\nseed = 7\n",
            &["train"][..],
        ),
        ("[data-export]\nout = \"copies\"\n", &export),
        (
            "data = \"images\"\n[train]\nstd = [255, 255, 255]\n",
            &["train", "--mean", "0,0,0"],
        ),
    ] {
        let configuration = Configuration::parse(file, Path::new("ikat.toml")).expect("a parameter file");
        let command = configuration.apply(command(), &[]).expect("known options");
        let words = [&["trainer"][..], words].concat();
        let matches = command.try_get_matches_from(words).expect("complete");
        Arguments::from_arg_matches(&matches).expect("valid");
    }
}

#[test]
fn images_that_are_typed_go_before_standard_input_in_a_file() {
    let configuration =
        Configuration::parse("[featurize]\nstdin = true\n", Path::new("ikat.toml")).expect("a parameter file");
    for (words, expected) in [
        (&["trainer", "featurize"][..], true),
        (&["trainer", "featurize", "photo.jpg"], false),
    ] {
        let typed: Vec<OsString> = words.iter().map(OsString::from).collect();
        let command = configuration.apply(command(), &typed).expect("known options");
        let mut matches = command.try_get_matches_from(words).expect("complete");
        let (_, matches) = matches.remove_subcommand().expect("a command");
        assert_eq!(matches.get_flag("stdin"), expected, "{words:?}");
    }
}

#[test]
fn a_password_in_an_address_that_is_refused_is_not_repeated() {
    let text = "[call]\nendpoint = 'http://user:secret@host:99999'\n";
    let configuration = Configuration::parse(text, Path::new("ikat.toml")).expect("a parameter file");
    let error = configuration.apply(command(), &[]).expect_err("no address").to_string();
    assert!(error.contains("...@host") && !error.contains("secret"), "{error}");
}

#[test]
fn help_is_given_whatever_is_wrong_with_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ikat.toml");
    for text in ["[train", "[train]\nsede = 2\n"] {
        std::fs::write(&file, text).expect("written");
        let parsed = |last: &str| {
            let config = format!("--config={}", file.display());
            parse(&["trainer", &config, "train", last].map(OsString::from))
        };
        let helped = parsed("--help");
        assert!(matches!(helped, Err(Parsing::Clap(help)) if help.kind() == ErrorKind::DisplayHelp));
        assert!(matches!(parsed("--data=images"), Err(Parsing::Configuration(_))));
    }
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
