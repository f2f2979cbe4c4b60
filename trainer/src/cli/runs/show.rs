use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::Place;
use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::printable;
use crate::counted::counted;
use crate::evaluation::{self, Metrics};
use crate::report;
use crate::runs::{Entry, Record};

/// Show one run: what it was made from, how good it is, and whether its files are as they were written.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Id of a run or the beginning of it, name of its folder, the folder, or the bundle in it
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    folder: &'a Path,
    #[serde(flatten)]
    record: &'a Record,
    metrics: &'a Metrics,
    #[serde(serialize_with = "crate::dataset::as_text")]
    changed_files: &'a [PathBuf],
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let [entry] = &arguments.place.find(std::slice::from_ref(&arguments.id), session)?[..] else {
        return Err(Failure::failed("one name means one run"));
    };
    let changed = entry.record.changed_files(&entry.folder);
    let document = Document {
        folder: &entry.folder,
        record: &entry.record,
        metrics: &entry.metrics,
        changed_files: &changed,
    };
    session.output.result(&document, &text(entry, &changed))?;
    Ok(Done::Complete)
}

fn text(entry: &Entry, changed: &[PathBuf]) -> String {
    let record = &entry.record;
    let mut lines = vec![
        ("Run", record.id.clone()),
        ("Ended", record.created.clone()),
        ("Kind", record.kind.name().to_owned()),
        ("Model", format!("{}, version {}", record.name, record.version)),
        (
            "Network",
            format!("{} at {} pixels", record.backbone.name, record.resolution),
        ),
        (
            "Data",
            format!(
                "{}: {}, {} left out",
                record.data.root,
                counted(record.data.images, "image", "images"),
                record.data.left_out
            ),
        ),
        ("Program", record.program.clone()),
        ("Folder", entry.folder.display().to_string()),
        ("Report", entry.folder.join(report::PAGE).display().to_string()),
    ];
    lines.extend(record.notes.iter().map(|note| ("Note", note.clone())));
    lines.extend(
        changed
            .iter()
            .map(|file| ("Changed", format!("{} is not as it was written", file.display()))),
    );
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{:<9} {}", format!("{name}:"), printable(&value));
    }
    text.push('\n');
    text.push_str(&evaluation::table(&entry.metrics.evaluation));
    text
}
