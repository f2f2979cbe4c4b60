//! Features as lines of JSON, for data sets that more than one machine works on: any number of processes write rows
//! ([`write()`]), each for the images that it is given, and a training reads them all ([`read()`]).
//!
//! A row is `{"item", "label", "network", "sha256", "dhash", "features"}`, or `{"item", "label", "error", "passing"}`
//! for an image without features; `label` is left out where none was given. Numbers are written so that reading gives
//! the same bits.

mod read;
mod write;

pub use read::{Rows, read};
pub use write::{Counts, Featurization, Line, lines, write};

use crate::dataset::DatasetError;
use crate::features::FeatureError;
use crate::fetch::TransferError;
use shared::files::FileError;
use shared::store::StoreError;

/// Why rows could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The network cannot be loaded or run.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The classes cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Input or output broke off.
    #[error(transparent)]
    Stream(#[from] std::io::Error),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is not one row.
    #[error("{0} holds no rows of features; `trainer featurize` writes them")]
    Nothing(String),
    /// What writes the rows has not finished.
    #[error("{0} is not finished: what writes it has left _temporary there. Wait for it, or run it again")]
    Unfinished(String),
    /// A line is no row.
    #[error("{place}, line {line}: {reason}")]
    Line {
        /// Which file.
        place: String,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Rows of another network.
    #[error(
        "{place}, line {line}: these features come from another network, resolution, normalization or version of the \
         trainer: give the --backbone, --resolution, --mean and --std that they were computed with, or compute them \
         anew"
    )]
    Foreign {
        /// Which file.
        place: String,
        /// Which line, from 1.
        line: u64,
    },
    /// No image has features.
    #[error("none of the {0} images has features; the first reason: {1}")]
    NothingReadable(usize, String),
    /// Nothing says what the images show.
    #[error(
        "the rows in {0} name no classes: featurize lines of an address, a tab and a label, or images that lie in class \
         folders"
    )]
    NoLabels(String),
}
