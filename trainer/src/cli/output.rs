//! Results to standard output: a text for people or one JSON document for scripts.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde::Serialize;

use super::failure::Failure;
use crate::dataset::{Skipped, text_of};
use crate::runs::SKIPPED;

/// Most lines about what was left out.
const MOST_LISTED: usize = 100;
/// Where the others are, unless a file has them.
pub const IN_JSON: &str = "--json has them all";

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// JSON documents when `json`, else text; without hints when `quiet`.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether results stand alone, without a word on what to do with them.
    pub fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Whether results are JSON documents.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: `document` as JSON, or `text`, with what else would command the terminal escaped.
    pub fn result(self, document: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json {
            print(&serde_json::to_string_pretty(document)?)
        } else {
            print(&printable_lines(text))
        }
    }

    /// Prints a result, and below its text the `hint`, what to do next, unless quiet.
    pub fn result_with_hint(self, document: &impl Serialize, text: &str, hint: &str) -> Result<(), Failure> {
        let hint = if self.quiet { "" } else { hint };
        self.result(document, &format!("{text}{hint}"))
    }
}

/// Prints a result and a line break: as it is, but where it could command a terminal. A reader that went away is no
/// error.
pub fn print(text: &str) -> Result<(), Failure> {
    let text = text.trim_end_matches('\n');
    let mut output = io::stdout().lock();
    let written = if output.is_terminal() {
        writeln!(output, "{}", printable_lines(text))
    } else {
        writeln!(output, "{text}")
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "the result cannot be printed to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Prints a line to standard error. Where nobody can be told, for a full disk for example, the work goes on: its result
/// is what counts.
pub fn tell(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Lists on standard error what was left out, and why, also where little else is said: it is what the exit code 3 is
/// for.
pub fn list_skipped(skipped: &[Skipped]) {
    list_files(skipped, IN_JSON);
}

/// The same of the run that was written to `folder`, where a file has the whole list.
pub fn list_skipped_of_run(skipped: &[Skipped], folder: &Path) {
    let file = folder.join(SKIPPED);
    list_files(skipped, &format!("{} lists them all", printable_path(&file)));
}

/// The same of the runs in `folder`, each of which has a file of its own.
pub fn list_skipped_of_runs(skipped: &[Skipped], folder: &Path) {
    let files = folder.join("*").join(SKIPPED);
    list_files(skipped, &format!("{} list them all", printable_path(&files)));
}

fn list_files(skipped: &[Skipped], rest: &str) {
    let line = |item: &Skipped| format!("{}: {}", printable_path(&item.path), printable(&item.reason));
    list_left_out("file(s)", rest, skipped.iter().map(line));
}

/// The same of anything else that `what` names, a line for each; `rest` says where those are that are not shown.
pub fn list_left_out(what: &str, rest: &str, lines: impl ExactSizeIterator<Item = String>) {
    let count = lines.len();
    if count > 0 {
        tell(&left_out(what, rest, lines));
    }
}

/// The first lines, and how many more there are.
fn left_out(what: &str, rest: &str, lines: impl ExactSizeIterator<Item = String>) -> String {
    let count = lines.len();
    let mut text = format!("Left out {count} {what}:");
    for line in lines.take(MOST_LISTED) {
        text.push_str("\n  ");
        text.push_str(&line);
    }
    if count > MOST_LISTED {
        let more = format!("\n  and {} more; {rest}", count - MOST_LISTED);
        text.push_str(&more);
    }
    text
}

/// A share in percent, without the digits that are only those of its binary form.
pub fn percent(share: f64) -> String {
    format!("{} %", (share * 1e8).round() / 1e6)
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

/// The same of a path.
pub fn printable_path(path: &Path) -> String {
    printable(&text_of(path))
}

/// The same of a text of several lines, whose breaks stay.
pub fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_text() {
        assert_eq!(printable("a\u{1b}[2J\nb"), r"a\u{1b}[2J\nb");
        assert_eq!(printable_lines("a\u{1b}[2J\nb\n"), "a\\u{1b}[2J\nb\n");
        assert_eq!(printable_path(Path::new("runs/a\u{1b}[2J")), r"runs/a\u{1b}[2J");
    }

    #[test]
    fn shares_have_the_digits_that_they_were_given() {
        for (share, expected) in [(0.07, "7 %"), (0.1, "10 %"), (0.29, "29 %"), (0.005, "0.5 %")] {
            assert_eq!(percent(share), expected);
        }
    }

    #[test]
    fn a_list_of_what_was_left_out_has_an_end() {
        let lines = |count: usize| {
            left_out(
                "file(s)",
                "runs/1/skipped.json lists them all",
                (0..count).map(|number| format!("{number}.jpg: not an image")),
            )
        };
        assert_eq!(
            lines(2),
            "Left out 2 file(s):\n  0.jpg: not an image\n  1.jpg: not an image"
        );
        assert!(!lines(MOST_LISTED).contains("more"));
        let long = lines(MOST_LISTED + 7);
        assert_eq!(long.lines().count(), MOST_LISTED + 2);
        assert!(
            long.ends_with("and 7 more; runs/1/skipped.json lists them all"),
            "{long}"
        );
    }
}
