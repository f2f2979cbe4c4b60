//! The result for people to look at: one HTML file that needs nothing else, and the plots beside it.
//!
//! A report is drawn from values that a run holds; nothing is computed here that `metrics.json` or `predictions.csv`
//! would not give again. Labels and file names are data: they reach a page as text only.

mod audit;
mod chart;
mod comparison;
mod gallery;
mod page;
mod plots;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

pub use audit::audit_page;
pub use comparison::{Figures, Group, comparison};
pub use gallery::{DEFAULT_PICTURES, Gallery, Shown, gallery};
pub use plots::rates as rate_plot;

use crate::dataset::Skipped;
use crate::evaluation::{Metrics, Predictions};
use crate::refine::Epoch;
use crate::runs::Record;

/// Name of the page.
pub const PAGE: &str = "report.html";

/// The look of every page.
const STYLE: &str = include_str!("../../templates/style.css");
/// What the images of a page are browsed with.
const SCRIPT: &str = include_str!("../../templates/browser.js");

/// What a report tells of.
pub struct Report<'a> {
    /// What the run is.
    pub record: &'a Record,
    /// How good it is.
    pub metrics: &'a Metrics,
    /// What was answered for each test image.
    pub predictions: &'a Predictions,
    /// Epoch by epoch, where the network was refined.
    pub history: &'a [Epoch],
    /// As they were given.
    pub parameters: &'a Value,
    /// What was left out.
    pub skipped: &'a [Skipped],
    /// The test images to show.
    pub gallery: &'a Gallery,
}

/// Why a report cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A plot.
    #[error("drawing the plot {title}: {reason}")]
    Plot {
        /// Its title.
        title: String,
        /// What the drawing library said.
        reason: String,
    },
    /// The page.
    #[error("writing the page: {0}")]
    Page(String),
    /// The model whose evidence is shown.
    #[error(transparent)]
    Bundle(#[from] shared::bundle::BundleError),
}

/// A plot on a page.
struct Plot {
    title: String,
    svg: String,
    caption: String,
}

impl Report<'_> {
    /// `report.html`, `roc.svg` and `confusion.svg`.
    pub fn files(&self) -> Result<BTreeMap<String, Bytes>, ReportError> {
        let roc = plots::roc(self.predictions, &self.metrics.evaluation)?;
        let confusion = plots::confusion(&self.metrics.evaluation)?;
        let files = [
            ("roc.svg", chart::standalone(&roc.svg)),
            ("confusion.svg", chart::standalone(&confusion)),
            (PAGE, page::render(self, roc)?),
        ];
        Ok(files.map(|(name, text)| (name.to_owned(), Bytes::from(text))).into())
    }
}

/// A share as people read it, e.g. `88.9 %`.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}

/// An interval of shares as people read it.
fn interval(bounds: Option<[f64; 2]>) -> String {
    bounds.map_or_else(String::new, |[low, high]| {
        format!("95 % interval {:.1} to {:.1} %", 100.0 * low, 100.0 * high)
    })
}

/// A figure with three decimals.
fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests;
