//! Golden images: small copies of test images with the scores of this machine, put into the bundle.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::ImageFormat;
use image::imageops::FilterType;
use shared::bundle::{Bundle, GOLDEN, Golden, GoldenImage};
use shared::image::{Limits, decode};
use shared::network::Runtime;

use super::TrainingError;
use crate::dataset::Dataset;
use crate::image_reader::Images;

/// Longest side of a golden image, in pixels.
const SIDE: u32 = 192;

/// At most `count` images among `rows` that between them show as many classes as they can.
pub(super) fn choose(dataset: &Dataset, rows: &[usize], count: usize) -> Vec<PathBuf> {
    let of_class = |class: usize| rows.iter().filter(move |row| dataset.items[**row].class == class);
    let mut columns: Vec<_> = (0..dataset.classes.len()).map(of_class).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let round: Vec<_> = columns.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            break;
        }
        chosen.extend(round.iter().map(|row| dataset.items[**row].path.clone()));
    }
    chosen.truncate(count);
    chosen
}

/// The bundle with a small copy of each image in `paths`, which `source` reads, and its scores.
pub(super) fn add(
    bundle: &Bundle,
    source: &Images,
    paths: &[PathBuf],
    limits: Limits,
    runtime: &Runtime,
) -> Result<Bundle, TrainingError> {
    let mut pipeline = bundle.pipeline(runtime, limits, 1)?;
    let mut files = bundle.files.clone();
    let mut golden = Golden {
        tolerance: Golden::TOLERANCE,
        images: Vec::new(),
    };
    for (number, path) in paths.iter().enumerate() {
        let png = small_copy(source, path, limits)?;
        let (prediction, _) = pipeline.predict(&png).map_err(|error| TrainingError::Golden {
            path: source.place(path),
            source: error,
        })?;
        let image = GoldenImage {
            file: format!("{}.png", number + 1),
            label: bundle.manifest.classes[prediction.best].clone(),
            scores: prediction.probabilities,
        };
        files.insert(image.path(), png.into());
        golden.images.push(image);
    }
    let json = serde_json::to_vec_pretty(&golden).map_err(shared::bundle::BundleError::Golden)?;
    files.insert(GOLDEN.to_owned(), json.into());
    Ok(Bundle::new(bundle.manifest.clone(), files))
}

/// The image as a PNG of at most [`SIDE`] pixels: lossless, so that every decoder sees the same pixels.
fn small_copy(source: &Images, path: &Path, limits: Limits) -> Result<Vec<u8>, TrainingError> {
    let failed = |error| TrainingError::GoldenImage {
        path: source.place(path),
        source: error,
    };
    let bytes = source.read(path, limits).map_err(|reason| TrainingError::Gone {
        path: source.place(path),
        reason,
    })?;
    let pixels = decode(&bytes, &limits).map_err(failed)?;
    let image = image::DynamicImage::from(pixels);
    let small = if image.width().max(image.height()) > SIDE {
        image.resize(SIDE, SIDE, FilterType::Triangle)
    } else {
        image
    };
    let mut png = Cursor::new(Vec::new());
    small.write_to(&mut png, ImageFormat::Png).map_err(|error| {
        failed(shared::image::ImageError::Undecodable {
            reason: error.to_string(),
        })
    })?;
    Ok(png.into_inner())
}
