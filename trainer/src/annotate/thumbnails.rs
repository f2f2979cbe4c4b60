//! Small and middle-sized copies of images for a browser, the small ones kept.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use image::DynamicImage;
use image::codecs::jpeg::JpegEncoder;
use shared::files::{sha256_hex, write_atomically};
use shared::image::{Limits, decode};

use crate::dataset::read;

/// Longest side of a thumbnail, in pixels.
const SMALL: u32 = 224;
/// Longest side of a picture to look at closely, in pixels.
const LARGE: u32 = 1600;
const QUALITY: u8 = 80;

/// Copies for a browser, always JPEG: what is sent is what was decoded here, never a file as it is.
#[derive(Debug, Clone)]
pub struct Thumbnails {
    folder: PathBuf,
    limits: Limits,
}

impl Thumbnails {
    /// Keeps the small ones in `folder`.
    pub fn new(folder: PathBuf, limits: Limits) -> Self {
        Self { folder, limits }
    }

    /// The thumbnail of an image file.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub fn small(&self, path: &Path) -> Result<Vec<u8>, String> {
        let kept = self.folder.join(format!("{}.jpg", identity(path)?));
        if let Ok(jpeg) = std::fs::read(&kept) {
            return Ok(jpeg);
        }
        let jpeg = self.copy(path, SMALL)?;
        // A thumbnail that cannot be kept is made again.
        let _ = write_atomically(&kept, &jpeg);
        Ok(jpeg)
    }

    /// The image to look at closely.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub fn large(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.copy(path, LARGE)
    }

    fn copy(&self, path: &Path, side: u32) -> Result<Vec<u8>, String> {
        let bytes = read(path, self.limits)?;
        let pixels = decode(&bytes, &self.limits).map_err(|error| error.to_string())?;
        let image = DynamicImage::from(pixels);
        let image = if image.width().max(image.height()) > side {
            image.thumbnail(side, side)
        } else {
            image
        };
        let mut jpeg = Cursor::new(Vec::new());
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode_image(&image)
            .map_err(|error| error.to_string())?;
        Ok(jpeg.into_inner())
    }
}

/// Changes when the file does. Of the name alone nothing follows: another file may have it tomorrow.
fn identity(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let text = format!("{SMALL} {} {modified:?} {}", metadata.len(), path.display());
    Ok(sha256_hex(text.as_bytes())[..32].to_owned())
}
