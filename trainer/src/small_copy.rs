//! Small copies of images, as JPEGs for a browser.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageResult};
use shared::image::{ImageError, Limits, decode_to_fit};

/// An image of which no more is decoded than a copy with this longest side, in pixels, needs.
pub(crate) fn decoded(bytes: &[u8], limits: &Limits, side: u32) -> Result<DynamicImage, ImageError> {
    decode_to_fit(bytes, limits, side).map(DynamicImage::from)
}

/// A copy whose longest side has at most `side` pixels, as JPEG of this quality (1 to 100).
///
/// # Errors
/// What the encoder refuses.
pub(crate) fn jpeg(image: &DynamicImage, side: u32, quality: u8) -> ImageResult<Vec<u8>> {
    let resized = |image: &DynamicImage| image.resize(side, side, FilterType::Triangle);
    let (longer, near) = (image.width().max(image.height()), side.saturating_mul(2));
    let mut jpeg = Cursor::new(Vec::new());
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, quality);
    if longer <= side {
        encoder.encode_image(image)?;
    } else if longer <= near.saturating_mul(2) {
        encoder.encode_image(&resized(image))?;
    } else {
        // Coming near first keeps a photo of many megapixels cheap.
        encoder.encode_image(&resized(&image.thumbnail(near, near)))?;
    }
    Ok(jpeg.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_its_proportions_and_grows_not() {
        for (size, side, expected) in [
            ((40, 20), 50, (40, 20)),
            ((60, 30), 50, (50, 25)),
            ((1000, 500), 50, (50, 25)),
            ((500, 1000), 50, (25, 50)),
        ] {
            let image = DynamicImage::new_rgb8(size.0, size.1);
            let copy = decoded(&jpeg(&image, side, 80).expect("encoded"), &Limits::default(), side).expect("a JPEG");
            assert_eq!((copy.width(), copy.height()), expected, "{size:?}");
        }
    }
}
