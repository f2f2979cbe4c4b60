//! The test images of a report: small copies, and where in them the evidence for the answer is.

use std::path::Path;

use image::DynamicImage;
use shared::bundle::Bundle;
use shared::explain::ActivationMap;
use shared::image::{Limits, probe};
use shared::pipeline::Pipeline;

use super::ReportError;
use crate::dataset::read;
use crate::evaluation::{Predicted, Predictions};
use crate::image_reader::Images;
use crate::progress::stage;
use crate::scoring;
use crate::small_copy::{decoded, jpeg};
use crate::threads::by_workers;
use crate::workbench::Workbench;

/// How many images a report shows unless told otherwise.
pub const DEFAULT_PICTURES: usize = 3000;
/// Bytes that all small copies together may have: a page is to stay below 10 MB, and base64 takes a third more.
const BUDGET: usize = 6_000_000;
/// Longest sides of small copies to choose from, in pixels.
const SIDES: [u32; 5] = [256, 192, 128, 96, 64];
/// So many images tell how large the copies get.
const SAMPLE: usize = 24;
const QUALITY: u8 = 72;

/// Test images to show.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gallery {
    /// In the order of the predictions' rows.
    pub images: Vec<Shown>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Row of the predictions.
    pub row: usize,
    /// JPEG.
    pub thumbnail: Vec<u8>,
    /// Of the picture itself, in pixels.
    pub width: u32,
    /// Of the picture itself, in pixels.
    pub height: u32,
    /// Where the evidence for the answer is, where the network tells.
    pub map: Option<ActivationMap>,
}

/// Draws at most `most` of the test images, which `source` reads: mistakes before right answers, uncertain before
/// certain. An image that can no longer be read is not shown.
///
/// # Errors
/// [`ReportError::Bundle`] where the model cannot be loaded.
pub fn gallery(
    bundle: &Bundle,
    source: &Images,
    predictions: &Predictions,
    most: usize,
    limits: Limits,
    workbench: &Workbench,
) -> Result<Gallery, ReportError> {
    let rows = chosen(predictions, most);
    if rows.is_empty() {
        return Ok(Gallery::default());
    }
    let studio = Studio {
        source,
        predictions,
        limits,
        side: side(source, predictions, &rows, limits),
        resolution: bundle.manifest.preprocessing.resolution,
    };
    let threads = workbench.threads.clamp(1, rows.len());
    let mut pipelines = scoring::pipelines(bundle, workbench.runtime, limits, threads)?;
    let progress = workbench.progress;
    let _stage = stage(progress, "Drawing the report", Some(rows.len() as u64));
    let drawn = by_workers(&mut pipelines, &rows, |pipeline, row| {
        let shown = studio.show(*row, pipeline);
        progress.advance(1);
        shown
    });
    Ok(Gallery {
        images: drawn.into_iter().flatten().collect(),
    })
}

/// The rows to show, ascending.
fn chosen(predictions: &Predictions, most: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..predictions.rows.len()).collect();
    if rows.len() > most {
        let rank = |row: &usize| {
            let row: &Predicted = &predictions.rows[*row];
            (row.is_right(), row.confidence())
        };
        rows.sort_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        rows.truncate(most);
        rows.sort_unstable();
    }
    rows
}

/// The largest side at which copies of all `rows` keep within the budget.
fn side(source: &Images, predictions: &Predictions, rows: &[usize], limits: Limits) -> u32 {
    let step = rows.len().div_ceil(SAMPLE);
    let sample: Vec<DynamicImage> = rows
        .iter()
        .step_by(step)
        .filter_map(|row| source.read(&predictions.rows[*row].path, limits).ok())
        .filter_map(|bytes| decoded(&bytes, &limits, SIDES[0]).ok())
        .map(|image| {
            // A copy of a small picture is no larger than it.
            let side = SIDES[0].min(image.width().max(image.height()));
            image.thumbnail(side, side)
        })
        .collect();
    let fits = |side: &u32| {
        let copies = sample.iter().filter_map(|image| jpeg(image, *side, QUALITY).ok());
        let bytes: usize = copies.map(|copy| copy.len()).sum();
        bytes * rows.len() <= BUDGET * sample.len()
    };
    SIDES.into_iter().find(fits).unwrap_or(SIDES[SIDES.len() - 1])
}

/// A small copy of an image file; `None` where it cannot be read.
pub(super) fn thumbnail(path: &Path, side: u32, limits: Limits) -> Option<Vec<u8>> {
    let image = decoded(&read(path, limits).ok()?, &limits, side).ok()?;
    jpeg(&image, side, QUALITY).ok()
}

/// What every drawn image needs.
struct Studio<'a> {
    source: &'a Images,
    predictions: &'a Predictions,
    limits: Limits,
    side: u32,
    /// Of the network's input, in pixels.
    resolution: u32,
}

impl Studio<'_> {
    fn show(&self, row: usize, pipeline: &mut Pipeline) -> Option<Shown> {
        let predicted = &self.predictions.rows[row];
        let bytes = self.source.read(&predicted.path, self.limits).ok()?;
        let (_, width, height) = probe(&bytes, &self.limits).ok()?;
        let image = decoded(&bytes, &self.limits, self.side.max(self.resolution)).ok()?;
        let thumbnail = jpeg(&image, self.side, QUALITY).ok()?;
        // Of the answer that is shown: at full size a picture can be answered otherwise than as small as it was read.
        let map = pipeline.evidence(&image.into_rgb8(), predicted.best).ok().flatten();
        Some(Shown {
            row,
            thumbnail,
            width,
            height,
            map,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::tests::predictions;

    #[test]
    fn copies_of_small_pictures_are_taken_for_no_larger_than_they() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut predictions = predictions(&[true; DEFAULT_PICTURES]);
        predictions.rows.iter_mut().for_each(|row| row.path = "1.png".into());
        let rows: Vec<usize> = (0..DEFAULT_PICTURES).collect();
        let side = |pixels: u32| {
            let noise = |x: u32, y: u32| image::Rgb([(x * 7919 + y * 104_729) as u8; 3]);
            image::RgbImage::from_fn(pixels, pixels, noise)
                .save(folder.path().join("1.png"))
                .expect("saved");
            side(
                &Images::in_folder(folder.path()),
                &predictions,
                &rows,
                Limits::default(),
            )
        };
        assert_eq!(side(16), SIDES[0]);
        assert!(side(256) < SIDES[0]);
    }
}
