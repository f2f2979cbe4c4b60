use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::*;

fn command() -> Command {
    let seed = || {
        Arg::new("seed")
            .long("seed")
            .value_parser(value_parser!(u64))
            .default_value("1")
    };
    let data = || Arg::new("data").long("data").required(true);
    Command::new("trainer")
        .arg(Arg::new("config").long("config").global(true))
        .arg(Arg::new("json").long("json").global(true).action(ArgAction::SetTrue))
        .subcommand(
            Command::new("train")
                .arg(data())
                .arg(seed())
                .arg(Arg::new("no-group").long("no-group").action(ArgAction::SetTrue))
                .arg(Arg::new("to-rate").long("to-rate").alias("to"))
                .arg(Arg::new("classifier").long("classifier").value_parser(["svm", "dnn"]))
                .arg(
                    Arg::new("layers")
                        .long("layers")
                        .value_delimiter(',')
                        .action(ArgAction::Append),
                )
                .arg(
                    Arg::new("c-grid")
                        .long("c-grid")
                        .value_delimiter(',')
                        .action(ArgAction::Append)
                        .value_parser(value_parser!(f64))
                        .default_values(["1", "10"]),
                ),
        )
        .subcommand(
            Command::new("batch")
                .arg(
                    Arg::new("local")
                        .long("local")
                        .action(ArgAction::SetTrue)
                        .conflicts_with_all(["state-machine", "images"]),
                )
                .arg(Arg::new("state-machine").long("state-machine").alias("machine"))
                .arg(Arg::new("format").long("format").value_parser(["table", "json"]))
                .arg(Arg::new("images")),
        )
        .subcommand(
            Command::new("data").subcommand(
                Command::new("split")
                    .arg(data())
                    .arg(seed())
                    .arg(Arg::new("format").long("format").value_parser(["csv", "tsv"]))
                    .arg(Arg::new("api-key").long("api-key")),
            ),
        )
}

fn configuration(text: &str) -> Configuration {
    Configuration::parse(text, Path::new("some/ikat.toml")).expect("valid TOML")
}

/// The matches of the subcommand that `line` ends in.
fn matches(text: &str, line: &str) -> ArgMatches {
    let words = std::iter::once("trainer").chain(line.split_whitespace());
    let words: Vec<OsString> = words.map(OsString::from).collect();
    let command = configuration(text).apply(command(), &words).expect("a valid file");
    let mut matches = command.try_get_matches_from(&words).expect("a valid line");
    while let Some((_, below)) = matches.remove_subcommand() {
        matches = below;
    }
    matches
}

fn error(text: &str) -> String {
    error_of(text, "")
}

/// What is wrong with the file where `line` is run.
fn error_of(text: &str, line: &str) -> String {
    let words = std::iter::once("trainer").chain(line.split_whitespace());
    let words: Vec<OsString> = words.map(OsString::from).collect();
    configuration(text)
        .apply(command(), &words)
        .expect_err("a wrong file")
        .to_string()
}

fn seed(matches: &ArgMatches) -> u64 {
    *matches.get_one("seed").expect("has a default")
}

/// Whether it is local, and by which state machine, after `line`.
fn scoring(text: &str, line: &str) -> (bool, Option<String>) {
    let matches = matches(text, line);
    (matches.get_flag("local"), matches.get_one("state-machine").cloned())
}

fn data(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("data").expect("is required")
}

#[test]
fn without_a_file_the_default_holds_and_a_flag_beats_it() {
    assert_eq!(seed(&matches("", "train --data d")), 1);
    assert_eq!(seed(&matches("", "train --data d --seed 4")), 4);
}

#[test]
fn the_file_beats_the_default_and_a_flag_beats_the_file() {
    let file = "[train]\nseed = 2";
    assert_eq!(seed(&matches(file, "train --data d")), 2);
    assert_eq!(seed(&matches(file, "train --data d --seed 4")), 4);
    assert_eq!(
        seed(&matches(file, "data split --data d")),
        1,
        "another command's section"
    );
}

/// Runs itself again with the variables set, since a test may not change its own environment.
#[test]
fn the_environment_stands_between_the_file_and_the_flag() {
    if std::env::var_os("IKAT_API_KEY").is_none() {
        let name = "configuration::tests::the_environment_stands_between_the_file_and_the_flag";
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", name])
            .env("IKAT_SEED", "3")
            .env("IKAT_DATA", "")
            .env("IKAT_C_GRID", "5,6")
            .env("IKAT_NO_GROUP", "true")
            .env("IKAT_LOCAL", "0")
            .env("IKAT_CONFIG", "not-an-option.toml")
            .env("IKAT_API_KEY", "hush")
            .output()
            .expect("starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let file = "data = 'd'\n[train]\nseed = 2\nno-group = false\nc-grid = [7]";
    let found = matches(file, "train");
    assert_eq!(seed(&found), 3, "environment over file");
    assert_eq!(seed(&matches(file, "train --seed 4")), 4, "flag over environment");
    assert_eq!(seed(&matches("data = 'd'", "train")), 3, "environment over default");
    assert_eq!(data(&found), "d", "an empty variable counts as unset");
    assert!(found.get_flag("no-group"));
    let grid: Vec<f64> = found.get_many("c-grid").expect("set").copied().collect();
    assert_eq!(grid, [5.0, 6.0]);
    assert!(!found.contains_id("config") || found.get_one::<String>("config").is_none());
    assert!(
        !matches("[batch]\nlocal = true", "batch").get_flag("local"),
        "off is off"
    );
    for line in ["batch image.jpg", "batch --state-machine arn"] {
        assert!(!matches("", line).get_flag("local"), "what is off excludes nothing");
    }
    assert_eq!(scoring("[batch]\nstate-machine = 'arn'", "batch --local"), (true, None));
    let mut command = configuration("").apply(command(), &[]).expect("valid");
    let split = command
        .find_subcommand_mut("data")
        .and_then(|data| data.find_subcommand_mut("split"))
        .expect("exists");
    let help = split.render_long_help().to_string();
    assert!(help.contains("IKAT_API_KEY") && !help.contains("hush"), "{help}");
}

#[test]
fn a_required_option_is_satisfied_by_the_file() {
    assert_eq!(data(&matches("[train]\ndata = 'images'", "train")), "images");
    let bare = configuration("").apply(command(), &[]).expect("valid");
    assert!(bare.try_get_matches_from(["trainer", "train"]).is_err());
}

#[test]
fn keys_above_the_sections_are_shared_and_the_nearest_section_wins() {
    let file = "data = 'images'\nseed = 5\n[train]\nseed = 6";
    assert_eq!(seed(&matches(file, "train")), 6);
    assert_eq!(seed(&matches(file, "data split")), 5);
    assert_eq!(data(&matches(file, "data split")), "images");
}

#[test]
fn nested_sections_are_written_with_a_dot_or_a_hyphen() {
    for file in [
        "[data.split]\nseed = 8\ndata = 'x'",
        "data = 'x'\n[data-split]\nseed = 8",
        "data = 'x'\n[data_split]\nseed = 8",
        "[data]\nseed = 8\ndata = 'x'",
        "[data]\nseed = 7\ndata = 'x'\n[data.split]\nseed = 8",
    ] {
        let found = matches(file, "data split");
        assert_eq!((seed(&found), data(&found)), (8, "x"), "{file}");
    }
}

#[test]
fn lists_switches_and_both_spellings_work() {
    let file = "json = true\n[train]\ndata = 'd'\nc_grid = [1e-4, 0.5, 100]\nno_group = true";
    let found = matches(file, "train");
    let grid: Vec<f64> = found.get_many("c-grid").expect("set").copied().collect();
    assert_eq!(grid, [1e-4, 0.5, 100.0]);
    assert!(found.get_flag("no-group"));
    assert!(found.get_flag("json"), "a global switch reaches subcommands");
    let found = matches(file, "train --c-grid 3");
    let grid: Vec<f64> = found.get_many("c-grid").expect("set").copied().collect();
    assert_eq!(grid, [3.0], "a flag replaces the whole list");
}

#[test]
fn a_former_name_stands_for_the_option_in_its_command_s_section() {
    let found = matches("[train]\ndata = 'd'\nto = 0.5", "train");
    assert_eq!(found.get_one::<String>("to-rate").map(String::as_str), Some("0.5"));
    assert!(error("[train]\nto = 1\nto-rate = 2").contains("set twice"));
    assert!(
        error("to = 1").contains("unknown key `to`"),
        "another command's `to` may be another option"
    );
}

#[test]
fn of_options_that_exclude_each_other_the_one_that_is_set_more_firmly_holds() {
    let machine = |name: &str| (false, Some(name.to_owned()));
    for (file, line, expected) in [
        ("[batch]\nlocal = true", "batch --state-machine typed", machine("typed")),
        ("[batch]\nlocal = true", "batch --state-machine=typed", machine("typed")),
        ("[batch]\nstate-machine = 'filed'", "batch --local", (true, None)),
        (
            "[batch]\nstate-machine = 'filed'\nlocal = false",
            "batch",
            machine("filed"),
        ),
        (
            "local = true\n[batch]\nstate-machine = 'nearer'",
            "batch",
            machine("nearer"),
        ),
        ("state-machine = 'filed'\n[batch]\nlocal = true", "batch", (true, None)),
        ("[batch]\nlocal = true", "batch --machine formerly", machine("formerly")),
        ("[batch]\nlocal = true", "batch image.jpg", (false, None)),
        ("[batch]\nlocal = true", "batch", (true, None)),
    ] {
        assert_eq!(scoring(file, line), expected, "{file} and {line}");
    }
    assert_eq!(
        error("[batch]\nlocal = true\nstate-machine = 'filed'"),
        "some/ikat.toml: `batch.local` and `batch.state-machine` exclude each other; keep one of them"
    );
}

#[test]
fn what_one_command_does_not_take_of_the_shared_keys_hinders_no_other() {
    let shared = "data = 'd'\nformat = 'json'\n";
    let format = |found: &ArgMatches| found.get_one::<String>("format").cloned();
    assert_eq!(format(&matches(shared, "batch")).as_deref(), Some("json"));
    assert_eq!(data(&matches(shared, "train")), "d");
    assert_eq!(
        error_of(shared, "--json data split --seed 2"),
        "some/ikat.toml: `format = \"json\"`: invalid value 'json' for '--format <value>' [possible values: csv, tsv]; \
         set another for this command in [data-split]"
    );
    let own = "[data-split]\nformat = 'tsv'\n";
    assert_eq!(
        format(&matches(&[shared, own].concat(), "data split")).as_deref(),
        Some("tsv")
    );
    let wrong = error_of("[data-split]\nformat = 'json'", "train --data d");
    assert!(
        wrong.contains("`data-split.format = ") && !wrong.contains("another"),
        "{wrong}"
    );

    let both = "data = 'd'\nlocal = true\nstate-machine = 'filed'";
    assert_eq!(data(&matches(both, "train")), "d");
    assert!(error_of(both, "batch").contains("exclude each other"));
}

#[test]
fn an_empty_list_is_no_value_where_the_option_needs_none() {
    let found = matches("[train]\ndata = 'd'\nlayers = []", "train");
    assert_eq!(found.get_many::<String>("layers").map(Iterator::count), None);
    let found = matches("layers = ['a']\n[train]\ndata = 'd'\nlayers = []", "train");
    assert_eq!(found.get_many::<String>("layers").map(Iterator::count), None);
}

#[test]
fn unknown_names_are_named_with_the_file_and_the_nearest_known_name() {
    let text = error("[train]\nclasifier = 'svm'");
    assert_eq!(
        text,
        "some/ikat.toml: unknown key `train.clasifier`; did you mean `train.classifier`?"
    );
    let text = error("[trian]\nseed = 1");
    assert_eq!(text, "some/ikat.toml: unknown section `trian`; did you mean `train`?");
    let text = error("[data.split]\nno-group = true");
    assert_eq!(text, "some/ikat.toml: unknown key `data.split.no-group`");
    let text = error("[train]\njson = true");
    assert_eq!(text, "some/ikat.toml: unknown key `train.json`; did you mean `json`?");
    let text = error("[[train]]\nseed = 1");
    assert_eq!(text, "some/ikat.toml: unknown key `train`; did you mean `[train]`?");
    let text = error("[data]\nsplit = 1");
    assert_eq!(
        text,
        "some/ikat.toml: unknown key `data.split`; did you mean `[data.split]`?"
    );
    assert_eq!(error("[json]\nx = 1"), "some/ikat.toml: unknown section `json`");
    assert!(error("config = 'other.toml'").contains("unknown key `config`"));
}

#[test]
fn wrong_values_are_shown_with_the_file_and_the_reason() {
    for (file, expected) in [
        (
            "[train]\nseed = -1",
            "some/ikat.toml: `train.seed = -1`: invalid value '-1'",
        ),
        ("[train]\nseed = [1, 2]", "`train.seed = [1, 2]`: it takes one value"),
        ("[train]\nno-group = 'yes'", "it is switched by true or false"),
        ("[train]\nclassifier = 'tree'", "[possible values: svm, dnn]"),
        ("[train]\nc-grid = [1, 'x']", "invalid value 'x'"),
        ("[train]\nc-grid = [[1]]", "a value is a text"),
        (
            "[train]\nc-grid = []",
            "`train.c-grid = []`: give at least one value, or leave the line out",
        ),
        ("[train]\nc_grid = [1]\nc-grid = [1]", "set twice"),
        ("[train]\nlayers = ['a,b']", "\"a,b\" holds a ',', which parts values"),
    ] {
        let text = error(file);
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn help_shows_the_files_value_as_the_default() {
    let mut command = configuration("[train]\nseed = 77")
        .apply(command(), &[])
        .expect("valid");
    let train = command.find_subcommand_mut("train").expect("exists");
    let help = train.render_long_help().to_string();
    assert!(help.contains("[default: 77]") && help.contains("IKAT_SEED"), "{help}");
    let mut command = configuration("[train]\nc-grid = [0.5, 2]")
        .apply(self::command(), &[])
        .expect("valid");
    let train = command.find_subcommand_mut("train").expect("exists");
    let help = train.render_long_help().to_string();
    assert!(
        help.contains("[default: 0.5,2]"),
        "as the command line takes it: {help}"
    );
}

#[test]
fn the_flag_names_the_file_before_the_variable_and_the_variable_before_the_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let words = |words: &[&Path]| words.iter().map(|word| word.as_os_str().to_owned()).collect::<Vec<_>>();
    for name in ["a.toml", "b.toml", FILE_NAME] {
        std::fs::write(at(name), format!("name = '{name}'")).expect("written");
    }
    let a = at("a.toml");
    let line = words(&[Path::new("train"), Path::new("--config"), &a]);
    let variable = || Some(at("b.toml").into_os_string());
    let path = |found: Result<Configuration, ConfigurationError>| found.expect("found").path;
    assert_eq!(
        path(Configuration::find(line, variable(), folder.path())),
        Some(a.clone())
    );
    let equals = vec![OsString::from(format!("--config={}", a.display()))];
    assert_eq!(
        path(Configuration::find(equals, variable(), folder.path())),
        Some(a.clone())
    );
    let after = words(&[Path::new("--"), Path::new("--config"), &a]);
    assert_eq!(
        path(Configuration::find(after, variable(), folder.path())),
        Some(at("b.toml"))
    );
    assert_eq!(path(Configuration::find([], None, folder.path())), Some(at(FILE_NAME)));
    assert_eq!(path(Configuration::find([], None, &at("nowhere"))), None);
    let missing = Configuration::find([], Some("missing.toml".into()), folder.path());
    assert!(
        missing
            .expect_err("named and missing")
            .to_string()
            .contains("missing.toml")
    );
    let unnamed = Configuration::find(["--config=".into()], variable(), folder.path());
    assert!(matches!(unnamed, Err(ConfigurationError::Unnamed)), "{unnamed:?}");
}

#[cfg(unix)]
#[test]
fn a_file_that_is_there_and_cannot_be_read_is_told_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(FILE_NAME);
    let find = || Configuration::find([], None, folder.path());
    std::os::unix::fs::symlink("nowhere", &path).expect("a link");
    assert!(
        matches!(find(), Err(ConfigurationError::Read { .. })),
        "a link to nothing"
    );
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("a folder");
    assert!(matches!(find(), Err(ConfigurationError::Read { .. })), "a folder");
}

#[test]
fn broken_toml_is_blamed_on_its_file_and_line() {
    let error = Configuration::parse("[train]\nseed = ", Path::new("x/ikat.toml")).expect_err("broken");
    let text = error.to_string();
    assert!(text.contains("x/ikat.toml") && text.contains("line 2"), "{text}");
}

/// Every parameter in the template is commented out, and taking the comments off leaves valid TOML.
#[test]
fn the_template_sets_nothing_and_is_valid_with_its_parameters_uncommented() {
    let as_is: Table = TEMPLATE.parse().expect("valid TOML");
    assert!(
        as_is
            .values()
            .all(|value| value.as_table().is_some_and(Table::is_empty))
    );
    let uncommented: Vec<&str> = TEMPLATE
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .collect();
    let table: Table = uncommented.join("\n").parse().expect("valid TOML without the comments");
    assert_eq!(table["train"]["folds"].as_integer(), Some(5));
    assert_eq!(table["data-split"]["ratio"].as_float(), Some(0.75));
}
