//! Says of what the parser refuses where it came from, since clap names a flag that the user may never have typed.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};

use super::layers::variable;

/// `error`, with the variable of each option in it that comes from the environment rather than from `arguments`, the raw
/// command line.
pub fn with_variables(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let mut tips = match error.get(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips.clone(),
        _ => Vec::new(),
    };
    let before = tips.len();
    for long in options(&error) {
        let variable = variable(&long);
        let set = std::env::var_os(&variable).is_some_and(|value| !value.is_empty());
        if set && !is_typed(&long, arguments) {
            tips.push(format!("--{long} is set by the environment variable {variable}").into());
        }
    }
    if tips.len() > before {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
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

/// Whether the option with this long name stands among `arguments`, the raw command line.
pub(super) fn is_typed(long: &str, arguments: &[OsString]) -> bool {
    let words = arguments.iter().take_while(|argument| *argument != "--");
    words.filter_map(|word| word.to_str()?.strip_prefix("--")).any(|word| {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        name == long
    })
}
