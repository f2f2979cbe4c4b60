//! What can be told of a data set's pictures without a network: whether they are readable, their hash, size, format.

use shared::image::{self, Format, ImageError, Limits};

use super::{Dataset, DifferenceHash, Skipped, dhash, read};
use crate::progress::{Progress, stage};
use crate::threads::in_order;

/// A picture that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Difference hash of the upright pixels.
    pub hash: DifferenceHash,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// The format of the content, whatever the file is called.
    pub format: Format,
}

/// Decodes each image, in the data set's order, or tells why it cannot be read. `hash_size` is at least 1.
pub fn examine(
    dataset: &Dataset,
    hash_size: u32,
    limits: Limits,
    threads: usize,
    progress: &dyn Progress,
) -> Vec<Result<Picture, String>> {
    let _stage = stage(progress, "Reading images", Some(dataset.items.len() as u64));
    in_order(&dataset.items, threads, |item| {
        let picture = read(&dataset.root.join(&item.path), limits)
            .map_err(|error| error.to_string())
            .and_then(|bytes| picture(&bytes, hash_size, limits).map_err(|error| error.to_string()));
        progress.advance(1);
        picture
    })
}

fn picture(bytes: &[u8], hash_size: u32, limits: Limits) -> Result<Picture, ImageError> {
    let (format, _, _) = image::probe(bytes, &limits)?;
    let pixels = image::decode(bytes, &limits)?;
    Ok(Picture {
        hash: dhash(&pixels, hash_size),
        width: pixels.width(),
        height: pixels.height(),
        bytes: bytes.len() as u64,
        format,
    })
}

/// The readable part of a data set, and the picture of each of its images. The others are listed as skipped.
pub fn readable(dataset: &Dataset, examined: Vec<Result<Picture, String>>) -> (Dataset, Vec<Picture>) {
    let mut items = Vec::with_capacity(examined.len());
    let mut pictures = Vec::with_capacity(examined.len());
    let mut skipped = dataset.skipped.clone();
    for (item, picture) in dataset.items.iter().zip(examined) {
        match picture {
            Ok(picture) => {
                items.push(item.clone());
                pictures.push(picture);
            }
            Err(reason) => skipped.push(Skipped {
                path: item.path.clone(),
                reason,
            }),
        }
    }
    (dataset.restricted(items, skipped), pictures)
}
