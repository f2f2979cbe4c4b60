use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use shared::files::at;

use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::interruption;
use crate::cli::output::{list_skipped, printable_path};
use crate::cli::resources::{check_new, check_outside, claim_folder, save};
use crate::counted::counted;
use crate::dataset::{self, Dataset, DatasetError, ListFormat, Skipped};

/// Write a data set in another form: a list of paths and labels, or a folder of class folders.
///
/// Reads class folders, CSV, TSV and metadata.jsonl alike. A list names the images where they are, so it stands in the
/// data folder or above it; a folder gets copies. Nothing is overwritten.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders, or a list
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Where [default: labels.csv, labels.tsv or metadata.jsonl in the data folder]
    #[arg(long, value_name = "FILE|DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns path and label, parted by commas
    Csv,
    /// Columns path and label, parted by tabs
    Tsv,
    /// A JSON object with file_name and label per line, as Hugging Face reads it
    Metadata,
    /// A folder of class folders, with copies of the images
    Folder,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    out: &'a Path,
    images: usize,
    skipped: &'a [Skipped],
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    // A list may name images that are gone by now.
    let dataset = Dataset::scan(&arguments.data)?.existing();
    if dataset.items.is_empty() {
        list_skipped(&dataset.skipped);
        let data = printable_path(&arguments.data);
        return Err(Failure::failed(format!("{data} names no image that is there")));
    }
    let (format, name) = match arguments.format {
        Format::Csv => (ListFormat::Csv, "labels.csv"),
        Format::Tsv => (ListFormat::Tsv, "labels.tsv"),
        Format::Metadata => (ListFormat::MetadataJsonl, "metadata.jsonl"),
        Format::Folder => return copy(arguments, &dataset, session),
    };
    let out = arguments.out.clone().unwrap_or_else(|| dataset.root.join(name));
    if ListFormat::of(&out) != Some(format) {
        return Err(Failure::usage(format!(
            "lists are read by their endings, and {} would not be read as what it is: give it that of {name}, or \
             choose another --format",
            out.display()
        )));
    }
    check_new(&out, "--out")?;
    let below = below(&dataset.root, &out)?;
    let (list, unnamed) = dataset.to_list(format, &below);
    save(&out, &list, "--out")?;
    let images = dataset.items.len() - unnamed.len();
    finish(&out, images, &[&dataset.skipped[..], &unnamed].concat(), session)
}

/// The way from the list's folder to the data.
fn below(root: &Path, out: &Path) -> Result<PathBuf, Failure> {
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let root = root.canonicalize().map_err(at(root))?;
    let folder = parent.canonicalize().map_err(at(parent))?;
    root.strip_prefix(&folder).map(Path::to_path_buf).map_err(|_| {
        Failure::failed(format!(
            "{} is not above the images, and a list names images below its own folder: put it into {} or above",
            folder.display(),
            root.display()
        ))
    })
}

fn copy(arguments: &Arguments, dataset: &Dataset, session: &Session) -> Result<Done, Failure> {
    // The parser, which could ask for it too, does not see what a parameter file sets.
    let Some(out) = &arguments.out else {
        return Err(Failure::usage("a folder of copies needs a place: name it with --out"));
    };
    check_outside(out, &arguments.data, "--out")?;
    let hint = "choose another folder with --out";
    let _claim = claim_folder(out, &session.cache()?, hint)?;
    interruption::begins_anew(session);
    let (copied, unreadable) =
        dataset::copy_to_folders(dataset, out, &session.progress).map_err(|error| match error {
            DatasetError::File(_) | DatasetError::Destination(_) => Failure::hinted(&error, hint),
            error => Failure::from(error),
        })?;
    finish(out, copied, &[&dataset.skipped[..], &unreadable].concat(), session)
}

fn finish(out: &Path, images: usize, skipped: &[Skipped], session: &Session) -> Result<Done, Failure> {
    list_skipped(skipped);
    let document = Document { out, images, skipped };
    let text = format!("{} in {}", counted(images, "image", "images"), printable_path(out));
    session.output.result(&document, &text)?;
    Ok(Done::unless_left_out(skipped))
}
