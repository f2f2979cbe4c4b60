//! Brings back what was set aside as a copy.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::{printable, printable_path};
use crate::counted::counted;
use crate::dataset::{DatasetError, FolderLock, Skipped};
use crate::duplicates::quarantine;

#[derive(Serialize)]
struct Document {
    /// Name of what was put back.
    quarantine: String,
    restored: usize,
    #[serde(serialize_with = "crate::dataset::as_text")]
    renamed: Vec<PathBuf>,
    /// Class folders that were not there any more.
    #[serde(serialize_with = "crate::dataset::as_text")]
    remade: Vec<PathBuf>,
    #[serde(serialize_with = "crate::dataset::as_text")]
    missing: Vec<PathBuf>,
    left: Vec<Skipped>,
}

/// Puts back what is in the quarantine `name`, or in the latest one.
pub fn restore(data: &Path, name: Option<&str>, session: &Session) -> Result<Done, Failure> {
    if !data.is_dir() {
        return Err(DatasetError::NoFolder(data.to_path_buf()).into());
    }
    let lock = FolderLock::acquire(data)?;
    let restored = quarantine::restore(data, name, &lock)?;
    let place = quarantine::place(&restored.quarantine);
    let place = printable_path(&place);
    let document = Document {
        restored: restored.files.len() + restored.renamed.len(),
        renamed: restored.renamed,
        remade: restored.remade,
        missing: restored.missing,
        quarantine: restored.quarantine,
        left: restored.left,
    };
    // What stays in the folder would be deleted with it.
    let or_forget = if document.left.is_empty() {
        ", or delete that folder"
    } else {
        ""
    };
    let missing = document.missing.iter().map(|path| {
        format!(
            "{} is missing from {place}: put it there and run --restore {}{or_forget}",
            printable_path(path),
            printable(&document.quarantine)
        )
    });
    let left = document.left.iter().map(|left| {
        let (path, reason) = (printable_path(&left.path), printable(&left.reason));
        format!("{path} stays in {place}: {reason}")
    });
    let not_back: Vec<String> = missing.chain(left).collect();
    let mut text = counted(document.restored, "file is back", "files are back");
    for path in &document.renamed {
        let _ = write!(text, "\n  {} (its name was taken)", printable_path(path));
    }
    for class in &document.remade {
        let class = printable_path(class);
        let _ = write!(
            text,
            "\n  the folder {class} was gone and is there again: if it has another name now, move these files there"
        );
    }
    for line in &not_back {
        let _ = write!(text, "\n  {line}");
    }
    session.output.result(&document, &text)?;
    Ok(Done::unless_left_out(&not_back))
}
