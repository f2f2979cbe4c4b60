//! Says of what the parser refuses where it came from and where it belongs, since clap names a flag that the user may
//! never have typed, and takes what the environment sets for a part of the usage.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::layers::{descendants, environment, variable};
use crate::password::without_password;

/// An option that more commands have says nothing of which one was meant.
const FEW: usize = 3;

/// `error` of the parsed `command`, with the usage as in its help, the few commands that have an option which this one
/// has not, and the variable of each option in the error that comes from the environment rather than from `arguments`,
/// the raw command line.
pub fn explained(error: clap::Error, command: &mut Command, arguments: &[OsString]) -> clap::Error {
    let mut error = discreet(error);
    let mut tips = match error.get(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips.clone(),
        _ => Vec::new(),
    };
    let before = tips.len();
    if let Some(tip) = elsewhere(&error, command) {
        // What merely sounds alike is not what was meant.
        error.remove(ContextKind::SuggestedArg);
        tips.push(tip.into());
    }
    if let Some(usage) = usage(&error, command) {
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    }
    for long in options(&error) {
        if environment(&long).is_some() && !is_typed_anywhere(&long, command, arguments) {
            let variable = variable(&long);
            tips.push(format!("--{long} is set by the environment variable {variable}").into());
        }
    }
    if tips.len() > before {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// `error` without the password in the value that it is about, if that was to be an address.
pub(super) fn discreet(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let shown = without_password(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    }
    error
}

/// How the command that the error is about is used, whatever is set in the environment.
fn usage(error: &clap::Error, mut command: &mut Command) -> Option<StyledStr> {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else {
        return None;
    };
    // As `Usage: trainer data split --data <DIR>`.
    let text = usage.to_string();
    for word in text.split_whitespace().skip(2) {
        if command.find_subcommand(word).is_none() {
            break;
        }
        command = command.find_subcommand_mut(word)?;
    }
    Some(command.render_usage())
}

/// Which other commands have an option that is not known where it was given.
fn elsewhere(error: &clap::Error, command: &Command) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let long = options(error).pop()?;
    let mut owners = Vec::new();
    find_owners(&long, command, command.get_name(), &mut owners);
    let is_told = (1..=FEW).contains(&owners.len());
    is_told.then(|| format!("--{long} is an option of {}", owners.join(" and ")))
}

/// Adds the commands below the one of this `name` that have the option `long`.
fn find_owners(long: &str, command: &Command, name: &str, found: &mut Vec<String>) {
    for below in command.get_subcommands() {
        let name = format!("{name} {}", below.get_name());
        find_owners(long, below, &name, found);
        if below.get_arguments().any(|argument| argument.get_long() == Some(long)) {
            found.push(name);
        }
    }
}

/// Long names of the options that the error is about.
fn options(error: &clap::Error) -> Vec<String> {
    let shown = [ContextKind::InvalidArg, ContextKind::PriorArg]
        .into_iter()
        .filter_map(|kind| error.get(kind))
        .flat_map(|value| match value {
            ContextValue::String(text) => vec![text.as_str()],
            ContextValue::Strings(texts) => texts.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        });
    // As `--name <VALUE>`.
    let long = |text: &str| {
        let word = text.split_whitespace().next()?;
        Some(word.strip_prefix("--")?.to_owned())
    };
    shown.filter_map(long).collect()
}

/// Whether an option with this long name, of whichever command, stands among `arguments`.
fn is_typed_anywhere(long: &str, command: &Command, arguments: &[OsString]) -> bool {
    let commands = descendants(command).into_iter().map(|(_, below)| below);
    let mut options = std::iter::once(command)
        .chain(commands)
        .flat_map(Command::get_arguments);
    options.any(|option| option.get_long() == Some(long) && is_typed(option, arguments))
}

/// Whether the option stands among `arguments`, the raw command line, by its long name or one that it had before.
fn is_typed(option: &Arg, arguments: &[OsString]) -> bool {
    let names: Vec<&str> = option
        .get_long()
        .into_iter()
        .chain(option.get_all_aliases().into_iter().flatten())
        .collect();
    let words = arguments.iter().take_while(|argument| *argument != "--");
    words.filter_map(|word| word.to_str()?.strip_prefix("--")).any(|word| {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        names.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_typed_by_a_former_name_too() {
        let signed = Arg::new("sign-requests").long("sign-requests").alias("sign");
        let command = Command::new("trainer").subcommand(Command::new("call").arg(signed));
        let is_typed = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            is_typed_anywhere("sign-requests", &command, &words)
        };
        assert!(is_typed("trainer call --sign") && is_typed("trainer call --sign-requests=1"));
        assert!(!is_typed("trainer call --signs") && !is_typed("trainer call -- --sign"));
    }
}
