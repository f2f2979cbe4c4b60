//! Moves of files as the journal names them: never over another file, and never out of the data set.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::journal::Move;
use crate::dataset::{inside, named_inside, relocate_exactly, same_file, unescape};

/// Whether a move is one within the data set, by its names alone.
pub(super) fn is_named_inside(planned: &Move) -> bool {
    [&planned.from, &planned.to]
        .into_iter()
        .all(|path| named_inside(&plain(path)))
}

/// Sees that a move stays in the data set in `root`, also by the links that are there now.
pub(super) fn check(root: &Path, planned: &Move) -> io::Result<()> {
    ends(root, planned).map(drop)
}

/// Moves a file, and only if its new name is free.
pub(super) fn carry_out(root: &Path, planned: &Move) -> io::Result<()> {
    let (from, to) = ends(root, planned)?;
    relocate_exactly(&from, &to)
}

/// Both places of a move on disk.
fn ends(root: &Path, planned: &Move) -> io::Result<(PathBuf, PathBuf)> {
    Ok((inside(root, &plain(&planned.from))?, inside(root, &plain(&planned.to))?))
}

/// The path that an escaped one stands for. What was not escaped by us leads nowhere.
pub(super) fn plain(path: &str) -> PathBuf {
    unescape(path).unwrap_or_default()
}

/// Carries out what a killed program left of the `open` moves of its last step, and gives those.
pub(super) fn complete(root: &Path, open: &[Move]) -> Vec<Move> {
    let completes = |(from, to): (PathBuf, PathBuf)| {
        if same_file(&from, &to) {
            return fs::remove_file(&from).is_ok();
        }
        fs::symlink_metadata(&from).is_ok() && relocate_exactly(&from, &to).is_ok()
    };
    open.iter()
        .filter(|left| ends(root, left).is_ok_and(completes))
        .cloned()
        .collect()
}
