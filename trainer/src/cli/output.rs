//! Results to standard output: a text for people or one JSON document for scripts.

use std::io::{self, Write};

use serde::Serialize;

use super::failure::Failure;
use crate::dataset::Skipped;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON documents when `json`, else text.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON documents.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: `document` as JSON, or `text`.
    pub fn result(self, document: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json {
            self.text(&serde_json::to_string_pretty(document)?)
        } else {
            self.text(text)
        }
    }

    /// Prints `text` and a line break. A reader that went away is no error.
    #[allow(clippy::unused_self)] // Whoever prints results has an output.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        match writeln!(anstream::stdout().lock(), "{}", text.trim_end_matches('\n')) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Lists on standard error what was left out, and why.
pub fn list_skipped(skipped: &[Skipped], quiet: bool) {
    if skipped.is_empty() || quiet {
        return;
    }
    anstream::eprintln!("Left out {} file(s):", skipped.len());
    for item in skipped {
        anstream::eprintln!("  {}: {}", printable(&item.path.to_string_lossy()), item.reason);
    }
}

/// Text from outside (file names, labels) with control characters escaped, so that it can neither break
/// a line nor command the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = (!character.is_control()).then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}
