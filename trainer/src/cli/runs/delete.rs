use std::collections::HashSet;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::Place;
use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::{printable, printable_path, tell};
use crate::runs::{Entry, RunError};

/// Delete runs, after asking.
///
/// Deletes the files that a run consists of; what else is in its folder stays.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ids of runs or beginnings of them, names of their folders, or the folders
    #[arg(value_name = "ID", required = true, value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    deleted: Vec<String>,
    #[serde(serialize_with = "crate::dataset::as_text")]
    left: Vec<PathBuf>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let mut entries = arguments.place.find_exactly(&arguments.ids, session)?;
    let mut named = HashSet::new();
    entries.retain(|entry| named.insert(entry.folder.canonicalize().unwrap_or_else(|_| entry.folder.clone())));
    if !arguments.yes && !agreed(&entries)? {
        return Err(Failure::failed("nothing was deleted"));
    }
    let mut document = Document {
        deleted: Vec::new(),
        left: Vec::new(),
    };
    let all = entries.iter().try_for_each(|entry| {
        document.left.extend(entry.delete()?);
        document.deleted.push(entry.record.id.clone());
        Ok::<_, RunError>(())
    });
    let mut text = String::new();
    for id in &document.deleted {
        let _ = writeln!(text, "Deleted {id}");
    }
    for path in &document.left {
        let _ = writeln!(text, "Left {}", printable_path(path));
    }
    // What is gone is told also where the next one cannot be deleted.
    if !document.deleted.is_empty() {
        session.output.result(&document, &text)?;
    }
    all?;
    Ok(Done::Complete)
}

/// Asks on the terminal. Where nobody can answer, that is an error rather than a yes.
fn agreed(entries: &[Entry]) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "deleting asks first, and here is nobody to ask: give --yes",
        ));
    }
    for entry in entries {
        tell(&format!(
            "{}  {}  {}",
            entry.record.id,
            printable(&entry.record.name),
            printable_path(&entry.folder)
        ));
    }
    io::Write::write_all(&mut io::stderr(), b"Delete for good? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
