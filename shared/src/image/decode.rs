//! Decoding within limits.

use super::{ImageError, Limits, RgbImage};

/// An image format that is read here.
pub type Format = ::image::ImageFormat;

/// Tells the format and the stored size (width, height in pixels, before turning upright) from the header alone.
///
/// # Errors
/// As [`decode`], but only what the header shows.
pub fn probe(_bytes: &[u8], _limits: &Limits) -> Result<(Format, u32, u32), ImageError> {
    Err(ImageError::UnsupportedFormat)
}

/// Decodes `bytes` to upright 8-bit RGB.
///
/// # Errors
/// See [`ImageError`].
pub fn decode(_bytes: &[u8], _limits: &Limits) -> Result<RgbImage, ImageError> {
    Err(ImageError::UnsupportedFormat)
}
