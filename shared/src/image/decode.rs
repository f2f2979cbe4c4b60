//! Decoding within limits.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::error::{ImageError as CodecError, LimitErrorKind};
use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageReader, Limits as CodecLimits};

use super::{ImageError, Limits, RgbImage};

/// An image format that is read here.
pub type Format = ::image::ImageFormat;

/// Tells the format and the stored size (width, height in pixels, before turning upright) from the header alone.
///
/// # Errors
/// As [`decode`], but only what the header shows.
pub fn probe(bytes: &[u8], limits: &Limits) -> Result<(Format, u32, u32), ImageError> {
    guarded(|| {
        let (format, decoder) = open(bytes, limits)?;
        let (width, height) = decoder.dimensions();
        Ok((format, width, height))
    })
}

/// Decodes `bytes` to upright 8-bit RGB. Transparency is laid over white; of an animation, the first
/// frame is taken.
///
/// # Errors
/// See [`ImageError`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    guarded(|| {
        let (format, mut decoder) = open(bytes, limits)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
        if format == Format::Jpeg && jpeg_is_cut_short(bytes, &image) {
            return Err(ImageError::Undecodable { reason: "the file is cut short".to_owned() });
        }
        image.apply_orientation(orientation);
        Ok(opaque(image))
    })
}

/// A decoder that has read the header and accepted the limits.
fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Format, impl ImageDecoder + 'a), ImageError> {
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::TooManyBytes {
            bytes: bytes.len(),
            limit: limits.max_bytes,
        });
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|_| ImageError::UnsupportedFormat)?;
    let format = reader.format().ok_or(ImageError::UnsupportedFormat)?;
    let mut codec_limits = CodecLimits::no_limits();
    codec_limits.max_alloc = Some(limits.max_allocation);
    reader.limits(codec_limits);
    let decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::Empty { width, height });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(ImageError::TooManyPixels {
            width,
            height,
            limit: limits.max_pixels,
        });
    }
    Ok((format, decoder))
}

/// Whether a good part of a JPEG is missing. The decoder fills what did not come with one colour, which would be
/// a silently wrong picture; a file that lacks little more than its end marker is let pass.
fn jpeg_is_cut_short(bytes: &[u8], image: &DynamicImage) -> bool {
    const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    // A thumbnail within the metadata may have an end of its own, but no picture follows it.
    let scan = bytes.windows(2).rposition(|pair| pair == START_OF_SCAN).unwrap_or(0);
    if bytes[scan..].windows(2).any(|pair| pair == END_OF_IMAGE) {
        return false;
    }
    let row = image.width() as usize * usize::from(image.color().bytes_per_pixel());
    let pixels = image.as_bytes();
    let Some(last) = pixels.get(pixels.len().saturating_sub(usize::from(image.color().bytes_per_pixel()))..) else {
        return false;
    };
    let flat = |row: &[u8]| row.chunks_exact(last.len()).all(|pixel| pixel == last);
    let flat_rows = pixels.chunks_exact(row).rev().take_while(|row| flat(row)).count();
    flat_rows as u32 > image.height() / MISSING_SHARE
}

/// A JPEG without an end is refused when more than one row in so many is missing.
const MISSING_SHARE: u32 = 16;

/// Composites over white where there is transparency, and narrows to 8-bit RGB.
fn opaque(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
        let over_white = |value: u8| {
            let (value, alpha) = (u16::from(value), u16::from(alpha));
            ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        ::image::Rgb([over_white(red), over_white(green), over_white(blue)])
    })
}

/// A decoder's panic on damaged data is damage like any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(ImageError::Undecodable {
            reason: "the decoder gave up".to_owned(),
        })
    })
}

fn undecodable(error: CodecError) -> ImageError {
    match error {
        CodecError::Unsupported(error) if matches!(error.kind(), ::image::error::UnsupportedErrorKind::Format(_)) => {
            ImageError::UnsupportedFormat
        }
        CodecError::Limits(error) if matches!(error.kind(), LimitErrorKind::InsufficientMemory) => {
            ImageError::Undecodable {
                reason: "it would need more memory than allowed".to_owned(),
            }
        }
        error => ImageError::Undecodable {
            reason: error.to_string(),
        },
    }
}
