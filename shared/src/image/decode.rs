//! Decoding within limits.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::error::{ImageError as CodecError, LimitErrorKind};
use ::image::metadata::Orientation;
use ::image::{ColorType, DynamicImage, ImageDecoder, ImageReader, Limits as CodecLimits};

use super::cut_short::jpeg_is_cut_short;
use super::heic::HeicDecoder;
use super::reduced::reduced_jpeg;
use super::{Format, ImageError, Limits, RgbImage};

/// Tells the format and the size (width, height in pixels, upright) from the header alone.
///
/// # Errors
/// As [`decode`], but only what the header shows.
pub fn probe(bytes: &[u8], limits: &Limits) -> Result<(Format, u32, u32), ImageError> {
    guarded(|| {
        let (format, mut decoder) = open(bytes, limits)?;
        let (width, height) = decoder.dimensions();
        let orientation = orientation(bytes, &mut decoder);
        Ok(if on_its_side(orientation) {
            (format, height, width)
        } else {
            (format, width, height)
        })
    })
}

/// Decodes `bytes` to upright 8-bit RGB. Transparency is laid over white; of an animation, the first
/// frame is taken.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    decode_with(bytes, limits, |_| None)
}

/// As [`decode`], for a picture that is to be fitted into a square of `side` pixels: where the file lets it be read
/// at a half, a quarter or an eighth of its size, this is done as long as the picture stays at least 1.4 times as large
/// as it will be.
pub fn decode_to_fit(bytes: &[u8], limits: &Limits, side: u32) -> Result<RgbImage, ImageError> {
    decode_with(bytes, limits, |dimensions| {
        reduced_jpeg(bytes, limits, dimensions, side.saturating_mul(7).div_ceil(5))
    })
}

/// Decodes by `shortcut` where it is a JPEG and the shortcut succeeds, else at full size.
fn decode_with(
    bytes: &[u8],
    limits: &Limits,
    shortcut: impl FnOnce((u32, u32)) -> Option<DynamicImage>,
) -> Result<RgbImage, ImageError> {
    guarded(|| {
        let (format, mut decoder) = open(bytes, limits)?;
        let orientation = orientation(bytes, &mut decoder);
        let is_jpeg = format == Format::Jpeg;
        let reduced = is_jpeg.then(|| shortcut(decoder.dimensions())).flatten();
        let image = match reduced {
            Some(image) => image,
            None if turning(decoder.dimensions(), orientation) > limits.max_allocation => {
                return Err(too_much_memory());
            }
            None => DynamicImage::from_decoder(decoder).map_err(undecodable)?,
        };
        if is_jpeg && jpeg_is_cut_short(bytes, &image) {
            return Err(ImageError::Undecodable {
                reason: "the file is cut short".to_owned(),
            });
        }
        // The smallest form is what is turned.
        let mut image = DynamicImage::from(opaque(image));
        image.apply_orientation(orientation);
        Ok(image.into_rgb8())
    })
}

/// A decoder that has read the header and accepted the limits.
fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Format, Box<dyn ImageDecoder + 'a>), ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Undecodable {
            reason: "the file is empty".to_owned(),
        });
    }
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::TooManyBytes {
            bytes: bytes.len(),
            limit: limits.max_bytes,
        });
    }
    if png_is_damaged(bytes) {
        return Err(ImageError::Undecodable {
            reason: "a checksum in the file is wrong".to_owned(),
        });
    }
    let format = Format::of(bytes).ok_or(ImageError::UnsupportedFormat)?;
    let decoder: Box<dyn ImageDecoder> = match format.codec() {
        Some(codec) => {
            let mut reader = ImageReader::with_format(Cursor::new(bytes), codec);
            let mut codec_limits = CodecLimits::no_limits();
            codec_limits.max_alloc = Some(limits.max_allocation);
            reader.limits(codec_limits);
            Box::new(reader.into_decoder().map_err(undecodable)?)
        }
        None => Box::new(HeicDecoder::new(bytes, limits).map_err(undecodable)?),
    };
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::Empty { width, height });
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels {
        return Err(ImageError::TooManyPixels {
            width,
            height,
            limit: limits.max_pixels,
        });
    }
    if memory(&decoder, pixels) > limits.max_allocation {
        return Err(too_much_memory());
    }
    Ok((format, decoder))
}

/// How the picture is to be turned.
fn orientation(bytes: &[u8], decoder: &mut impl ImageDecoder) -> Orientation {
    let exif = decoder.exif_metadata().ok().flatten();
    // In a PNG it may come after the pixels, where its decoder has not been yet.
    let late = || png_chunks(bytes).find_map(|(chunk, _)| Some(chunk.strip_prefix(b"eXIf")?.to_vec()));
    let told = match exif.or_else(late) {
        // Some writers of WebP leave before it the name that it has in a JPEG.
        Some(exif) => Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif)),
        None => decoder.orientation().ok(),
    };
    told.unwrap_or(Orientation::NoTransforms)
}

/// The bytes that the pixels take as the file has them, and those of the 8-bit pixels that are made of them. What
/// decoders need beside that, only some of them count.
fn memory(decoder: &impl ImageDecoder, pixels: u64) -> u64 {
    let converted = match decoder.color_type() {
        ColorType::Rgb8 | ColorType::Rgba8 => 0,
        color if color.has_alpha() => 4,
        _ => 3,
    };
    decoder.total_bytes().saturating_add(pixels.saturating_mul(converted))
}

/// The bytes that the 8-bit pixels take while they are turned upright: a picture on its side is turned into another
/// one.
fn turning((width, height): (u32, u32), orientation: Orientation) -> u64 {
    let pictures = if on_its_side(orientation) { 2 } else { 1 };
    (u64::from(width) * u64::from(height)).saturating_mul(3 * pictures)
}

/// Whether width and height change places when the picture is turned upright.
fn on_its_side(orientation: Orientation) -> bool {
    use Orientation::{FlipHorizontal, FlipVertical, NoTransforms, Rotate180};
    !matches!(orientation, NoTransforms | Rotate180 | FlipHorizontal | FlipVertical)
}

/// Whether a chunk of a PNG differs from its checksum. The decoder passes over that in chunks that it can do without,
/// but what damaged them may have damaged more.
fn png_is_damaged(bytes: &[u8]) -> bool {
    png_chunks(bytes).any(|(chunk, checksum)| crc32fast::hash(chunk) != checksum)
}

/// The chunks of a PNG, each with its type before its contents, and their checksums; none of another format.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    let mut rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (chunk, after) = after.split_at_checked(4 + u32::from_be_bytes(*length) as usize)?;
        let (checksum, after) = after.split_first_chunk::<4>()?;
        // What follows the end belongs to somebody else.
        rest = if chunk.starts_with(b"IEND") { &[] } else { after };
        Some((chunk, u32::from_be_bytes(*checksum)))
    })
}

/// Composites over white where there is transparency, and narrows to 8-bit RGB.
fn opaque(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    let (width, height) = rgba.dimensions();
    let mut samples = rgba.into_raw();
    // In place: a large picture is not held twice.
    let pixels = samples.len() / 4;
    for pixel in 0..pixels {
        let alpha = u16::from(samples[4 * pixel + 3]);
        for channel in 0..3 {
            let value = u16::from(samples[4 * pixel + channel]);
            samples[3 * pixel + channel] = ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    samples.truncate(3 * pixels);
    // The rest is given back before the picture is turned.
    samples.shrink_to_fit();
    RgbImage::from_raw(width, height, samples).expect("three bytes a pixel")
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
        CodecError::Limits(error) if matches!(error.kind(), LimitErrorKind::InsufficientMemory) => too_much_memory(),
        error => ImageError::Undecodable {
            reason: error.to_string(),
        },
    }
}

fn too_much_memory() -> ImageError {
    ImageError::Undecodable {
        reason: "it would need more memory than allowed".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use ::image::codecs::jpeg::JpegEncoder;
    use ::image::codecs::png::PngEncoder;
    use ::image::codecs::webp::WebPEncoder;
    use ::image::{ImageEncoder, ImageFormat};

    use super::*;

    /// Real and made files that have troubled image readers, where this machine has them.
    pub(in crate::image) fn nasty() -> Option<PathBuf> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/nasty"));
        if !folder.is_dir() {
            assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
            // Past the harness, which keeps what passing tests print to itself.
            let _ = writeln!(std::io::stderr().lock(), "SKIPPED: {} is missing", folder.display());
            return None;
        }
        Some(folder)
    }

    /// Mean difference of two pictures in 8-bit steps.
    pub(in crate::image) fn mean_difference(one: &RgbImage, other: &RgbImage) -> f64 {
        assert_eq!(one.dimensions(), other.dimensions());
        let sum: u64 = one
            .as_raw()
            .iter()
            .zip(other.as_raw())
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum();
        sum as f64 / one.as_raw().len() as f64
    }

    fn read(name: &str) -> Option<Result<RgbImage, ImageError>> {
        let bytes = std::fs::read(nasty()?.join(name)).expect(name);
        Some(decode(&bytes, &Limits::default()))
    }

    #[test]
    fn every_nasty_file_is_read_or_refused_as_expected() {
        let Some(folder) = nasty() else { return };
        let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).expect("the manifest");
        for line in manifest.lines().skip(1) {
            let columns: Vec<&str> = line.split('\t').collect();
            let result = read(columns[0]).expect("the folder is there");
            match columns[2] {
                "ok" => assert!(result.is_ok(), "{}: {result:?}", columns[0]),
                "reject" | "skip" => assert!(result.is_err(), "{} was read", columns[0]),
                _ => {}
            }
        }
    }

    #[test]
    fn an_empty_file_is_called_empty() {
        for error in [
            decode(&[], &Limits::default()).expect_err("no picture"),
            probe(&[], &Limits::default()).expect_err("no header"),
        ] {
            assert!(error.to_string().ends_with("the file is empty"), "{error}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        for name in [
            "bomb_png_rgb_20000x20000.png",
            "bomb_png_hdr_2g.png",
            "bomb_jpeg_65535.jpg",
            "bomb_gif_65535.gif",
        ] {
            let Some(result) = read(name) else { return };
            assert!(
                matches!(
                    result,
                    Err(ImageError::TooManyPixels { .. } | ImageError::Undecodable { .. })
                ),
                "{name}: {result:?}"
            );
        }
    }

    #[test]
    fn orientation_is_honoured() {
        let upright = |name: &str| read(name).map(|result| result.expect(name));
        let Some(expected) = upright("exif_orient_1.jpg") else {
            return;
        };
        let mut names: Vec<String> = (2..=8).map(|number| format!("exif_orient_{number}.jpg")).collect();
        names.extend(
            [
                "exif_orient_3.png",
                "exif_orient_6.png",
                "exif_orient_3.webp",
                "exif_orient_6.webp",
            ]
            .map(String::from),
        );
        for name in names {
            let Some(image) = upright(&name) else { return };
            assert_eq!(image.dimensions(), expected.dimensions(), "{name}");
            let bytes = std::fs::read(nasty().expect("the folder is there").join(&name)).expect("read");
            let (_, width, height) = probe(&bytes, &Limits::default()).expect("a header");
            assert_eq!((width, height), expected.dimensions(), "{name}");
            let mean = mean_difference(&image, &expected);
            assert!(mean < 6.0, "{name}: {mean}");
        }
    }

    #[test]
    fn a_jpeg_that_is_cut_short_is_refused_and_one_that_lacks_its_end_marker_is_not() {
        for (name, readable) in [
            ("trunc_baseline_30.jpg", false),
            ("trunc_baseline_90.jpg", false),
            ("trunc_baseline_99.jpg", true),
            ("missing_eoi.jpg", true),
            ("progressive.jpg", true),
            ("trunc_progressive_50.jpg", false),
        ] {
            let Some(result) = read(name) else { return };
            assert_eq!(result.is_ok(), readable, "{name}");
        }
    }

    #[test]
    fn transparency_is_laid_over_white() {
        let mut image = ::image::RgbaImage::new(2, 1);
        image.put_pixel(0, 0, ::image::Rgba([10, 20, 30, 0]));
        image.put_pixel(1, 0, ::image::Rgba([10, 20, 30, 255]));
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).expect("encoded");
        let decoded = decode(png.get_ref(), &Limits::default()).expect("decoded");
        assert_eq!(decoded.as_raw(), &[255, 255, 255, 10, 20, 30]);
    }

    #[test]
    fn what_would_take_more_memory_than_allowed_is_refused_by_its_header() {
        let limits = Limits {
            max_allocation: 50_000,
            ..Limits::default()
        };
        let png = |image: DynamicImage| {
            let mut png = Cursor::new(Vec::new());
            image.write_to(&mut png, ImageFormat::Png).expect("encoded");
            png.into_inner()
        };
        for image in [
            DynamicImage::new_luma8(100, 100),
            DynamicImage::new_rgb8(100, 100),
            DynamicImage::new_rgba8(100, 100),
        ] {
            let color = image.color();
            assert!(decode(&png(image), &limits).is_ok(), "{color:?}");
        }
        for image in [DynamicImage::new_rgb16(100, 100), DynamicImage::new_rgba16(100, 100)] {
            let error = probe(&png(image), &limits).expect_err("too large").to_string();
            assert!(error.contains("more memory than allowed"), "{error}");
        }
    }

    /// Exif that says that a picture lies as `orientation` tells.
    fn exif(orientation: u8) -> Vec<u8> {
        let header = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0";
        [&header[..], &[orientation, 0, 0, 0, 0, 0, 0, 0]].concat()
    }

    /// Writes a picture of this size and with this Exif.
    fn write_lying(mut encoder: impl ImageEncoder, (width, height): (u32, u32), exif: Vec<u8>) {
        encoder.set_exif_metadata(exif).expect("a file with Exif");
        DynamicImage::new_rgb8(width, height)
            .write_with_encoder(encoder)
            .expect("encoded");
    }

    #[test]
    fn exif_is_found_behind_the_name_that_it_has_in_a_jpeg() {
        let named = [&b"Exif\0\0"[..], &exif(6)].concat();
        let (mut webp, mut jpeg) = (Vec::new(), Vec::new());
        write_lying(WebPEncoder::new_lossless(&mut webp), (2, 1), named.clone());
        write_lying(JpegEncoder::new(&mut jpeg), (2, 1), named);
        for file in [webp, jpeg] {
            let upright = decode(&file, &Limits::default()).expect("decoded");
            assert_eq!(upright.dimensions(), (1, 2));
        }
    }

    #[test]
    fn exif_is_found_after_the_pixels_of_a_png() {
        let mut png = Vec::new();
        DynamicImage::new_rgb8(2, 1)
            .write_with_encoder(PngEncoder::new(&mut png))
            .expect("encoded");
        let chunk = [&b"eXIf"[..], &exif(6)].concat();
        let length = (chunk.len() as u32 - 4).to_be_bytes();
        let checksum = crc32fast::hash(&chunk).to_be_bytes();
        let end = png.len() - 12;
        png.splice(end..end, [&length[..], &chunk, &checksum].concat());
        let upright = decode(&png, &Limits::default()).expect("decoded");
        assert_eq!(upright.dimensions(), (1, 2));
    }

    #[test]
    fn a_picture_on_its_side_counts_twice_unless_it_is_read_at_a_part_of_its_size() {
        let limits = Limits {
            max_allocation: 50_000,
            ..Limits::default()
        };
        for (orientation, fits) in [(1, true), (3, true), (4, true), (6, false), (7, false)] {
            let (mut png, mut jpeg) = (Vec::new(), Vec::new());
            write_lying(PngEncoder::new(&mut png), (100, 100), exif(orientation));
            write_lying(JpegEncoder::new(&mut jpeg), (100, 100), exif(orientation));
            assert_eq!(decode(&png, &limits).is_ok(), fits, "{orientation}");
            assert_eq!(decode(&jpeg, &limits).is_ok(), fits, "{orientation}");
            assert!(decode_to_fit(&jpeg, &limits, 20).is_ok(), "{orientation}");
            assert!(decode(&png, &Limits::default()).is_ok(), "{orientation}");
        }
    }

    #[test]
    fn what_transparency_took_is_given_back() {
        let samples = opaque(DynamicImage::new_rgba8(100, 100)).into_raw();
        assert!(samples.capacity() < 40_000, "{}", samples.capacity());
    }
}
