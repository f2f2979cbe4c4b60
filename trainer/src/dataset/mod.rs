//! Labelled images on disk and how they are divided.

mod copy;
mod difference_hash;
mod examine;
mod folder_lock;
mod label;
mod lanczos;
mod list;
mod near_duplicates;
mod notes;
mod path_text;
mod read;
mod relocate;
mod scan;
mod split;
mod split_file;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use shared::files::FileError;

use crate::destination::DestinationError;

pub use copy::copy_to_folders;
pub use difference_hash::{DifferenceHash, HASH_REVISION, HASH_SIZE, dhash, dhash_256};
pub use examine::{Picture, examine, readable};
pub use folder_lock::FolderLock;
pub use label::CaseClash;
pub(crate) use label::{case_clash, check_case, check_labels, is_label};
pub use list::{ListFormat, list_of};
pub(crate) use list::{check_folders, list_in};
pub(crate) use near_duplicates::Groups;
pub use near_duplicates::{DEFAULT_DISTANCE, near_duplicate_groups};
pub(crate) use path_text::{as_text, escape, text_of, unescape};
pub(crate) use read::{ReadError, read};
pub(crate) use relocate::{below, inside, named_inside, relocate_exactly, vacant};
pub use relocate::{relocate, same_file};
pub(crate) use scan::{hidden_below, walk};
pub use split::{By, Side, Split, SplitParameters};

/// Folder within a data set for what is no image of it; the scanner passes it over.
pub const OWN_FOLDER: &str = ".ikat";
/// Folder in that one for images that are excluded.
pub(crate) const EXCLUDED: &str = "excluded";

/// Labelled images, as found on disk: a folder of class folders, or a list beside the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The folder that holds the class folders, or the list.
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
    /// Path below the root; in a folder of class folders, it begins with the class folder.
    pub path: PathBuf,
    /// Index into [`Dataset::classes`].
    pub class: usize,
}

/// One file or folder that was left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Path below the root.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Why, for people to read.
    pub reason: String,
}

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Copies cannot be written to their place.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// It is no folder, and no list either.
    #[error(
        "{0} is no folder; a data set is a folder that holds one folder of images per class, or a list (.csv, .tsv, \
         .jsonl) of paths and labels"
    )]
    NoFolder(PathBuf),
    /// Its labels are no folders.
    #[error(
        "{0} lists the labels, and class folders beside it would be read in its place or not at all: make class \
         folders of all that it names with `trainer data export --format folder`"
    )]
    Listed(PathBuf),
    /// It holds no class folder with a file in it.
    #[error(
        "{0} holds no class folder with images; a data set looks like {0}/striped/1.jpg, {0}/dotted/2.jpg: one folder \
         of images per class"
    )]
    NoClasses(PathBuf),
    /// Two classes differ in upper and lower case alone.
    #[error(transparent)]
    CaseClash(#[from] CaseClash),
    /// A label cannot name a folder.
    #[error("the label {0:?} cannot be the name of a folder; export a list instead")]
    FolderName(String),
    /// Another program is changing the data set.
    #[error("another trainer is changing {0}: wait until it has ended, then run this again")]
    Busy(PathBuf),
    /// A parameter of the split is out of range.
    #[error("the ratio is {0}; give the share of the images to train on, above 0 and below 1")]
    Ratio(f64),
    /// A line of a split file or of a list of images is wrong.
    #[error("{path}, line {line}: {reason}")]
    SplitFile {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Dataset {
    /// The same data set without the images whose files are not there, or cannot be reached.
    #[must_use]
    pub fn existing(&self) -> Self {
        let mut skipped = self.skipped.clone();
        let mut there = Vec::with_capacity(self.items.len());
        for item in &self.items {
            match fs::metadata(self.root.join(&item.path)) {
                Ok(_) => there.push(item.clone()),
                Err(error) => skipped.push(Skipped {
                    path: item.path.clone(),
                    reason: match error.kind() {
                        ErrorKind::NotFound => "there is no such file".to_owned(),
                        _ => error.to_string(),
                    },
                }),
            }
        }
        self.restricted(there, skipped)
    }

    /// The same data set with these items only. Classes without one are dropped and listed.
    #[must_use]
    pub fn restricted(&self, items: Vec<Item>, mut skipped: Vec<Skipped>) -> Self {
        let mut numbers = vec![None; self.classes.len()];
        for item in &items {
            numbers[item.class] = Some(0);
        }
        let mut classes = Vec::new();
        for (class, number) in self.classes.iter().zip(&mut numbers) {
            if let Some(number) = number {
                *number = classes.len();
                classes.push(class.clone());
            } else {
                skipped.push(Skipped {
                    path: class.into(),
                    reason: "the class has no readable image".to_owned(),
                });
            }
        }
        let items = items
            .into_iter()
            .filter_map(|item| {
                Some(Item {
                    class: numbers[item.class]?,
                    path: item.path,
                })
            })
            .collect();
        Self {
            root: self.root.clone(),
            classes,
            items,
            skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn an_image_that_cannot_be_reached_is_not_said_to_be_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("1.jpg"), "").expect("written");
        let item = |path: &str| Item {
            path: path.into(),
            class: 0,
        };
        let dataset = Dataset {
            root: folder.path().to_path_buf(),
            classes: vec!["hat".to_owned()],
            items: ["1.jpg", "1.jpg/2.jpg", "3.jpg"].map(item).to_vec(),
            skipped: Vec::new(),
        };
        let existing = dataset.existing();
        assert_eq!(existing.items, dataset.items[..1]);
        let reasons: Vec<&str> = existing.skipped.iter().map(|skipped| &*skipped.reason).collect();
        let [unreachable, missing] = reasons[..] else {
            panic!("{reasons:?}")
        };
        assert!(unreachable.starts_with("Not a directory"), "{unreachable}");
        assert_eq!(missing, "there is no such file");
    }
}
