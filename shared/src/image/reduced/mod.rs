//! Reading a JPEG at a fraction of its size.
//!
//! A JPEG stores blocks of 8 x 8 pixels as frequencies; leaving the higher ones out gives the block at 4 x 4, 2 x 2 or
//! 1 x 1 pixels for a fraction of the work (as libjpeg's `scale_denom`). Most of a photograph's pixels are on their way
//! to be averaged away, so this is where most of its decoding time can be saved. The common kind of JPEG is read here
//! ([`sequential`]), with the colours, which are mostly stored at half the size, at the size of the brightness; others,
//! such as progressive ones, by a library.

mod entropy;
mod markers;
mod sequential;
mod transform;

use ::image::{DynamicImage, GrayImage};
use jpeg_decoder::{Decoder, PixelFormat};

use super::{Limits, RgbImage};

/// The picture, not yet turned upright, with a longer side of at least `longest` pixels; `None` where that is not worth
/// it or not possible, which the ordinary decoder then has to judge.
pub(super) fn reduced_jpeg(bytes: &[u8], limits: &Limits, size: (u32, u32), longest: u32) -> Option<DynamicImage> {
    let longer = u64::from(size.0.max(size.1));
    let points = [1, 2, 4]
        .into_iter()
        .find(|&points| (longer * points).div_ceil(8) >= u64::from(longest))?;
    sequential::read(bytes, size, points as usize, limits.max_allocation)
        .or_else(|| by_library(bytes, limits, size, points))
}

/// As [`reduced_jpeg`], with blocks at `points` x `points` pixels.
fn by_library(bytes: &[u8], limits: &Limits, size: (u32, u32), points: u64) -> Option<DynamicImage> {
    let side = |length: u32| u16::try_from((u64::from(length) * points).div_ceil(8)).ok();
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(usize::try_from(limits.max_allocation).unwrap_or(usize::MAX));
    let (width, height) = decoder.scale(side(size.0)?, side(size.1)?).ok()?;
    let format = decoder.info()?.pixel_format;
    // Ink and deep pixels are rare; they go the long way. So do other colours, which readers tell by different signs.
    let is_grey = format == PixelFormat::L8;
    let is_coloured = format == PixelFormat::RGB24 && !markers::has_other_colours(bytes);
    if !is_grey && !is_coloured {
        return None;
    }
    let pixels = decoder.decode().ok()?;
    let (width, height) = (u32::from(width), u32::from(height));
    if is_grey {
        GrayImage::from_raw(width, height, pixels).map(DynamicImage::from)
    } else {
        RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
    }
}

#[cfg(test)]
mod tests {
    use ::image::ImageFormat;

    use super::super::decode::tests::{mean_difference, nasty};
    use super::super::{decode, decode_to_fit, letterbox};
    use super::*;

    const WHITE: [u8; 3] = [255; 3];

    /// A picture with edges, colours and fine texture.
    fn photograph(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let texture = ((x * 7919 + y * 104_729) % 31) as u8;
            let disc = (i64::from(x) - i64::from(width / 3)).pow(2) + (i64::from(y) - i64::from(height / 2)).pow(2);
            let red = if disc < i64::from(height / 4).pow(2) { 200 } else { 40 };
            ::image::Rgb([
                red + texture,
                (x * 200 / width) as u8 + texture,
                (y * 200 / height) as u8 + texture,
            ])
        })
    }

    #[test]
    fn it_reads_no_more_than_is_needed() {
        let mut jpeg = std::io::Cursor::new(Vec::new());
        photograph(2000, 1500)
            .write_to(&mut jpeg, ImageFormat::Jpeg)
            .expect("written");
        for (side, expected) in [
            (800, (2000, 1500)),
            (700, (1000, 750)),
            (400, (1000, 750)),
            (350, (500, 375)),
            (250, (500, 375)),
            (100, (250, 188)),
        ] {
            let image = decode_to_fit(jpeg.get_ref(), &Limits::default(), side).expect("decoded");
            assert_eq!(image.dimensions(), expected, "for {side}");
        }
    }

    #[test]
    fn what_reaches_the_network_stays_the_same() {
        let mut jpeg = std::io::Cursor::new(Vec::new());
        photograph(1999, 1203)
            .write_to(&mut jpeg, ImageFormat::Jpeg)
            .expect("written");
        for side in [700, 400, 224, 96] {
            let full = decode(jpeg.get_ref(), &Limits::default()).expect("decoded");
            let reduced = decode_to_fit(jpeg.get_ref(), &Limits::default(), side).expect("decoded");
            assert!(reduced.width() < full.width());
            let difference = mean_difference(
                &letterbox(&full, side, side, WHITE),
                &letterbox(&reduced, side, side, WHITE),
            );
            assert!(difference < 1.0, "{difference} steps at {side}");
        }
    }

    #[test]
    fn colours_of_another_form_are_those_at_full_size() {
        // As a picture of JFIF has it, and with Adobe's word that it is red, green and blue.
        let picture = include_bytes!("fixtures/444.jpg");
        let adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0";
        let told = [&picture[..2], adobe, &picture[20..]].concat();
        let [usual, other] = [&picture[..], &told].map(|file| {
            let reduced = decode_to_fit(file, &Limits::default(), 20).expect("decoded");
            (
                reduced.width() < 101,
                decode(file, &Limits::default()).expect("decoded"),
                reduced,
            )
        });
        assert!(usual.0 && !other.0);
        assert!(other.1 == other.2 && usual.1 != other.1);
    }

    #[test]
    fn odd_files_are_judged_as_at_full_size() {
        let Some(folder) = nasty() else { return };
        for file in std::fs::read_dir(folder).expect("a folder") {
            let path = file.expect("an entry").path();
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let full = decode(&bytes, &Limits::default());
            let longer = full.as_ref().map_or(8, |image| image.width().max(image.height()));
            for side in [longer / 12, longer / 6, longer / 3].map(|side| side.max(1)) {
                let reduced = decode_to_fit(&bytes, &Limits::default(), side);
                assert_eq!(
                    full.is_ok(),
                    reduced.is_ok(),
                    "{}: {full:?} {reduced:?}",
                    path.display()
                );
                // The last block of a row or column may reach beyond the picture, which shows where there are few.
                if let (Ok(full), Ok(reduced)) = (&full, reduced)
                    && full.width().min(full.height()) >= 256
                {
                    let difference = mean_difference(
                        &letterbox(full, side, side, WHITE),
                        &letterbox(&reduced, side, side, WHITE),
                    );
                    assert!(difference < 3.0, "{}: {difference} steps at {side}", path.display());
                }
            }
        }
    }
}
