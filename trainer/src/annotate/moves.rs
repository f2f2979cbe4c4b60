//! Moves of files as the journal names them: never over another file, and never out of the data set.

use std::io;
use std::path::{Path, PathBuf};

use super::journal::Move;
use crate::dataset::{inside, relocate_exactly, unescape};

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
pub(super) fn ends(root: &Path, planned: &Move) -> io::Result<(PathBuf, PathBuf)> {
    // What was not escaped by us is no path.
    let at = |path: &str| inside(root, &unescape(path).unwrap_or_default());
    Ok((at(&planned.from)?, at(&planned.to)?))
}
