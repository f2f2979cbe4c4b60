//! Lays a table of parameters and the environment under a tree of commands.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::Path;

use clap::builder::{Arg, ArgAction, BoolishValueParser, TypedValueParser, ValueParser};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Id};
use toml::{Table, Value};

use super::ConfigurationError;
use super::origin::discreet;
use crate::password::without_password;

/// Options that say how to run at all or what to do this once, and so come from the command line alone.
const NEVER: [&str; 3] = ["help", "version", "config"];
/// Options whose values help texts do not repeat.
const SECRET: [&str; 4] = ["key", "token", "secret", "password"];

/// A value and the name under which it stands in the file.
#[derive(Clone)]
struct Setting<'a> {
    name: String,
    value: &'a Value,
    /// Of its section to the command: larger where it is nearer.
    nearness: usize,
}

/// How firmly an option is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Firmness {
    Unset,
    /// By the file, in a section of this nearness.
    File(usize),
    Environment,
    Typed,
}

/// Settings by the option's long name.
type Section<'a> = BTreeMap<String, Setting<'a>>;

/// The file and the command line.
struct Layers<'a> {
    path: &'a Path,
    /// Long names of the options that every command has, which stand above all sections.
    shared: Vec<String>,
    /// The names of the command that is run, joined by `-`, where one is.
    running: Option<String>,
    /// What was typed for it, words without an option's name included.
    typed: Vec<Id>,
    /// By the command's names below the root, joined by `-`; the root's is empty.
    sections: BTreeMap<String, Section<'a>>,
}

pub(super) fn apply(
    table: &Table,
    path: &Path,
    command: Command,
    arguments: &[OsString],
) -> Result<Command, ConfigurationError> {
    let (running, typed) = running(&command, arguments).unzip();
    let mut layers = Layers {
        path,
        shared: command
            .get_arguments()
            .filter_map(settable)
            .map(str::to_owned)
            .collect(),
        running,
        typed: typed.unwrap_or_default(),
        sections: BTreeMap::new(),
    };
    layers.collect(table, &command, "", "")?;
    layers.lay(command, "", &Section::new())
}

impl<'a> Layers<'a> {
    /// Takes in `table`, the section of `command`, refusing what no command knows. `joined` is the
    /// command's name among the sections, `written` how the section is called in the file.
    fn collect(
        &mut self,
        table: &'a Table,
        command: &Command,
        joined: &str,
        written: &str,
    ) -> Result<(), ConfigurationError> {
        for (key, value) in table {
            let canonical = key.replace('_', "-");
            let name = join(written, key, '.');
            if let Value::Table(inner) = value {
                let commands = descendants(command);
                let Some((below, found)) = commands.iter().find(|(below, _)| *below == canonical) else {
                    let known = commands.iter().map(|(below, _)| below.as_str());
                    return Err(self.unknown("section", name, written, &canonical, known));
                };
                self.collect(inner, found, &join(joined, below, '-'), &name)?;
                continue;
            }
            let known = option_names(command);
            let canonical = current_name(command, &canonical).map_or(canonical, str::to_owned);
            if !known.contains(&canonical) {
                // As in `[[train]]`, or `train = true`.
                if descendants(command).iter().any(|(below, _)| *below == canonical) {
                    return Err(ConfigurationError::Unknown {
                        path: self.path.to_owned(),
                        what: "key",
                        nearest: Some(format!("[{name}]")),
                        name,
                    });
                }
                let known = known.iter().map(String::as_str);
                return Err(self.unknown("key", name, written, &canonical, known));
            }
            let section = self.sections.entry(joined.to_owned()).or_default();
            let setting = Setting {
                name: name.clone(),
                value,
                nearness: joined.len(),
            };
            if section.insert(canonical, setting).is_some() {
                return Err(ConfigurationError::Twice {
                    path: self.path.to_owned(),
                    name,
                });
            }
        }
        Ok(())
    }

    fn unknown<'k>(
        &self,
        what: &'static str,
        name: String,
        written: &str,
        canonical: &str,
        known: impl Iterator<Item = &'k str>,
    ) -> ConfigurationError {
        ConfigurationError::Unknown {
            path: self.path.to_owned(),
            what,
            name,
            nearest: if what == "key" && self.shared.iter().any(|option| option == canonical) {
                Some(canonical.to_owned())
            } else {
                nearest(canonical, known).map(|known| join(written, known, '.'))
            },
        }
    }

    /// `command` and all below it, with the settings of its section over the `inherited` ones.
    fn lay(&self, command: Command, joined: &str, inherited: &Section<'a>) -> Result<Command, ConfigurationError> {
        let mut settings = inherited.clone();
        if let Some(own) = self.sections.get(joined) {
            settings.extend(own.iter().map(|(key, setting)| (key.clone(), setting.clone())));
        }
        let outdone = self.outdone(&command, joined, &settings)?;
        // The closures cannot fail, so the first failure is kept beside them.
        let mut failure = None;
        let command = command.mut_args(|argument| {
            if outdone.contains(argument.get_id()) {
                return argument;
            }
            self.lay_under(argument.clone(), joined, &settings)
                .unwrap_or_else(|error| {
                    failure.get_or_insert(error);
                    argument
                })
        });
        let command = command.mut_subcommands(|below| {
            let joined = join(joined, below.get_name(), '-');
            self.lay(below.clone(), &joined, &settings).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                below
            })
        });
        failure.map_or(Ok(command), Err)
    }

    /// The options of `command` that exclude one that is set more firmly: nothing is laid under them.
    fn outdone(&self, command: &Command, joined: &str, settings: &Section<'a>) -> Result<Vec<Id>, ConfigurationError> {
        let mut outdone = Vec::new();
        for one in command.get_arguments() {
            for other in command.get_arg_conflicts_with(one) {
                let (first, second) = (self.firmness(one, settings), self.firmness(other, settings));
                match first.cmp(&second) {
                    _ if first.min(second) == Firmness::Unset => {}
                    Ordering::Less => outdone.push(one.get_id().clone()),
                    Ordering::Greater => outdone.push(other.get_id().clone()),
                    // Of the environment and the command line the parser itself tells.
                    Ordering::Equal if matches!(first, Firmness::File(nearness) if self.must_suit(nearness, joined)) => {
                        let name = |argument: &Arg| settings[settable(argument).unwrap_or_default()].name.clone();
                        return Err(ConfigurationError::Contradiction {
                            path: self.path.to_owned(),
                            one: name(one),
                            other: name(other),
                        });
                    }
                    Ordering::Equal => {}
                }
            }
        }
        Ok(outdone)
    }

    fn firmness(&self, argument: &Arg, settings: &Section<'a>) -> Firmness {
        if self.typed.contains(argument.get_id()) {
            return Firmness::Typed;
        }
        let Some(long) = settable(argument) else {
            return Firmness::Unset;
        };
        if let Some(value) = environment(long) {
            return if is_switch(argument) && is_off(&value) {
                Firmness::Unset
            } else {
                Firmness::Environment
            };
        }
        match settings.get(long) {
            Some(Setting {
                value: Value::Boolean(false),
                ..
            }) if is_switch(argument) => Firmness::Unset,
            Some(setting) if setting.value.as_array().is_none_or(|items| !items.is_empty()) => {
                Firmness::File(setting.nearness)
            }
            _ => Firmness::Unset,
        }
    }

    /// Whether a setting of this nearness is wrong in any case where the command with these names does not take it: it
    /// stands in the command's own section, or the command is the one that runs. Else it may be meant for others with
    /// such an option.
    fn must_suit(&self, nearness: usize, joined: &str) -> bool {
        nearness == joined.len() || self.running.as_deref() == Some(joined)
    }

    fn lay_under(&self, argument: Arg, joined: &str, settings: &Section<'a>) -> Result<Arg, ConfigurationError> {
        let Some(long) = settable(&argument).map(str::to_owned) else {
            return Ok(argument);
        };
        // Off is how a switch is by itself; with a value, even this one, it would exclude other options.
        if is_switch(&argument) && environment(&long).is_some_and(|value| is_off(&value)) {
            return Ok(argument);
        }
        let variable = variable(&long);
        let secret = SECRET.iter().any(|word| long.ends_with(word));
        let mut argument = if is_boolean(&argument) {
            // Variables are customarily switched by 1 and 0, too.
            argument.value_parser(BoolishValueParser::new())
        } else {
            argument
        };
        if argument.get_env().is_none() && std::env::var_os(&variable).is_none_or(|value| !value.is_empty()) {
            argument = argument.env(variable).hide_env_values(secret);
        }
        let Some(setting) = settings.get(&long) else {
            return Ok(argument);
        };
        let values = match values(&argument, setting.value) {
            Ok(values) => values,
            Err(_) if !self.must_suit(setting.nearness, joined) => return Ok(argument),
            Err(mut reason) => {
                if setting.nearness < joined.len() {
                    let _ = write!(reason, "; set another for this command in [{joined}]");
                }
                return Err(ConfigurationError::Value {
                    path: self.path.to_owned(),
                    name: setting.name.clone(),
                    value: without_password(&setting.value.to_string()),
                    reason,
                });
            }
        };
        Ok(argument
            .default_values(values)
            .hide_default_value(secret)
            .required(false))
    }
}

/// The names of the command that `arguments` run, joined by `-`, and what was typed for it, whatever is wrong with the
/// rest.
fn running(command: &Command, arguments: &[OsString]) -> Option<(String, Vec<Id>)> {
    let command = command.clone().ignore_errors(true);
    let read = command.try_get_matches_from(arguments).ok()?;
    let (mut matches, mut names) = (&read, Vec::new());
    while let Some((name, below)) = matches.subcommand() {
        names.push(name);
        matches = below;
    }
    Some((names.join("-"), typed(matches)))
}

/// What was typed for the command that is run, and comes neither from the environment nor from a file.
pub fn typed(mut matches: &ArgMatches) -> Vec<Id> {
    while let Some((_, below)) = matches.subcommand() {
        matches = below;
    }
    let is_typed = |id: &&Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(is_typed).cloned().collect()
}

/// The environment variable of the option with this long name.
pub(super) fn variable(long: &str) -> String {
    format!("IKAT_{}", long.replace('-', "_").to_uppercase())
}

/// What the environment says of the option with this long name.
pub fn environment(long: &str) -> Option<OsString> {
    std::env::var_os(variable(long)).filter(|value| !value.is_empty())
}

fn is_switch(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::SetTrue)
}

/// Whether a variable of this value switches something off.
fn is_off(value: &OsStr) -> bool {
    let read = |text: &str| BoolishValueParser::new().parse_ref(&Command::new("probe"), None, OsStr::new(text));
    value.to_str().is_some_and(|text| read(text).is_ok_and(|on| !on))
}

fn is_boolean(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
        || argument.get_value_parser().type_id() == ValueParser::bool().type_id()
}

/// The long name of an option that may come from the environment or the file.
fn settable(argument: &Arg) -> Option<&str> {
    let shows = matches!(
        argument.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    );
    argument.get_long().filter(|long| !shows && !NEVER.contains(long))
}

/// `value` as the option's raw values, or why the option does not take it.
fn values(argument: &Arg, value: &Value) -> Result<Vec<String>, String> {
    match (argument.get_action(), value) {
        (ArgAction::SetTrue | ArgAction::SetFalse, Value::Boolean(set)) => return Ok(vec![set.to_string()]),
        (ArgAction::SetTrue | ArgAction::SetFalse, _) => return Err("it is switched by true or false".to_owned()),
        _ => {}
    }
    let values = match value {
        Value::Array(items) if takes_many(argument) => items.iter().map(scalar).collect::<Result<Vec<_>, _>>()?,
        Value::Array(_) => return Err("it takes one value, not a list".to_owned()),
        single => vec![scalar(single)?],
    };
    if let (Value::Array(_), Some(delimiter)) = (value, argument.get_value_delimiter())
        && let Some(item) = values.iter().find(|item| item.contains(delimiter))
    {
        return Err(format!("{item:?} holds a {delimiter:?}, which parts values"));
    }
    if values.is_empty() && needs_value(argument) {
        return Err("give at least one value, or leave the line out".to_owned());
    }
    match values.iter().find_map(|value| refusal(argument, value)) {
        Some(reason) => Err(reason),
        // As one text, so that help shows a list as the command line takes it.
        None => Ok(match argument.get_value_delimiter() {
            Some(delimiter) if !values.is_empty() => vec![values.join(&delimiter.to_string())],
            _ => values,
        }),
    }
}

fn takes_many(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Append)
        || argument.get_value_delimiter().is_some()
        || argument.get_num_args().is_some_and(|range| range.max_values() > 1)
}

/// Whether an option without a value would leave its command without what it works with.
fn needs_value(argument: &Arg) -> bool {
    argument.is_required_set() || !argument.get_default_values().is_empty()
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err("a value is a text, a number, true or false, or a list of these".to_owned())
        }
    }
}

/// Why the option's own parser refuses `value`, in clap's words. Asked here, because clap itself would
/// blame a flag that the user never typed.
fn refusal(argument: &Arg, value: &str) -> Option<String> {
    let long = argument.get_long()?.to_owned();
    let mut probe = Arg::new("value")
        .long(long.clone())
        .action(ArgAction::Append)
        .value_parser(argument.get_value_parser().clone());
    if let Some(delimiter) = argument.get_value_delimiter() {
        probe = probe.value_delimiter(delimiter);
    }
    let error = Command::new("probe")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(probe)
        .try_get_matches_from([format!("--{long}={value}")])
        .err()?;
    let text = discreet(error).to_string();
    let first = text
        .trim_start_matches("error: ")
        .split("\n\n")
        .next()
        .unwrap_or_default();
    Some(first.lines().map(str::trim).collect::<Vec<_>>().join(" "))
}

/// All commands below `command`, each with its names joined by `-`.
pub(super) fn descendants(command: &Command) -> Vec<(String, &Command)> {
    let mut found = Vec::new();
    for below in command.get_subcommands() {
        found.push((below.get_name().to_owned(), below));
        let deeper = descendants(below).into_iter();
        found.extend(deeper.map(|(name, command)| (join(below.get_name(), &name, '-'), command)));
    }
    found
}

/// Long names of the settable options of `command` and all below it.
fn option_names(command: &Command) -> Vec<String> {
    let below = descendants(command).into_iter().map(|(_, below)| below);
    std::iter::once(command)
        .chain(below)
        .flat_map(Command::get_arguments)
        .filter_map(settable)
        .map(str::to_owned)
        .collect()
}

/// The long name of the option of `command` that was called `former` before. Commands below have no say: to them, the
/// same word may mean different options.
fn current_name<'c>(command: &'c Command, former: &str) -> Option<&'c str> {
    let was_called = |argument: &&Arg| {
        let aliases = argument.get_all_aliases();
        aliases.is_some_and(|aliases| aliases.contains(&former))
    };
    command.get_arguments().find(was_called).and_then(settable)
}

/// The known name with the fewest slips of the keyboard from `name`, if there are few.
fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let most = (name.chars().count() / 3).max(2);
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(slips, _)| *slips <= most)
        .min()
        .map(|(_, known)| known)
}

fn join(left: &str, right: &str, between: char) -> String {
    if left.is_empty() {
        right.to_owned()
    } else {
        format!("{left}{between}{right}")
    }
}
