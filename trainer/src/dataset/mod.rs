//! Labelled images on disk and how they are divided.

use std::path::PathBuf;

/// A folder of class folders, as found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The folder that holds the class folders.
    pub root: PathBuf,
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// The images, sorted by path.
    pub items: Vec<Item>,
    /// What was found and left out.
    pub skipped: Vec<Skipped>,
}

/// One labelled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Path below the root, beginning with the class folder.
    pub path: PathBuf,
    /// Index into [`Dataset::classes`].
    pub class: usize,
}

/// One file that was left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Path below the root.
    pub path: PathBuf,
    /// Why, for people to read.
    pub reason: String,
}
