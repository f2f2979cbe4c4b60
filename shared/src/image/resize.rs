//! Fitting a picture into the network's input.

use fast_image_resize::images::{TypedCroppedImageMut, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::RgbImage;

/// Scales `image` with antialiasing (bilinear, as Pillow's) so that it just fits into `width` x `height`
/// and centres it on `background`. The shorter side is rounded, at least one pixel; an odd rest goes to
/// the right and below.
///
/// # Panics
/// When `width` or `height` is zero.
pub fn letterbox(image: &RgbImage, width: u32, height: u32, background: [u8; 3]) -> RgbImage {
    assert!(width > 0 && height > 0, "a target of at least one pixel");
    let (fitted_width, fitted_height) = fitted(image.dimensions(), (width, height));
    let left = (width - fitted_width) / 2;
    let top = (height - fitted_height) / 2;

    let mut target = RgbImage::from_pixel(width, height, ::image::Rgb(background));
    // With pixels of a type, so that it is compiled for that one and not for all thirteen, which are five megabytes.
    let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw());
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let done = source.ok().and_then(|source| {
        let canvas = TypedImage::<U8x3>::from_buffer(width, height, &mut target).ok()?;
        let mut window = TypedCroppedImageMut::new(canvas, left, top, fitted_width, fitted_height).ok()?;
        Resizer::new().resize_typed(&source, &mut window, &options).ok()
    });
    debug_assert!(done.is_some(), "sizes and pixel types agree by construction");
    target
}

/// The largest size with the proportions of `from` within `into`.
fn fitted(from: (u32, u32), into: (u32, u32)) -> (u32, u32) {
    let scale = (f64::from(into.0) / f64::from(from.0)).min(f64::from(into.1) / f64::from(from.1));
    let side = |length: u32, most: u32| ((f64::from(length) * scale).round() as u32).clamp(1, most);
    (side(from.0, into.0), side(from.1, into.1))
}

#[cfg(test)]
mod tests {
    use ::image::Rgb;

    use super::*;

    const BACKGROUND: [u8; 3] = [9, 8, 7];
    const COLOUR: [u8; 3] = [200, 30, 120];

    /// Where a picture of one colour lies in its frame: left and top, width and height.
    fn place(picture: (u32, u32), frame: (u32, u32)) -> ((u32, u32), (u32, u32)) {
        let picture = RgbImage::from_pixel(picture.0, picture.1, Rgb(COLOUR));
        let fitted = letterbox(&picture, frame.0, frame.1, BACKGROUND);
        assert_eq!(fitted.dimensions(), frame);
        let covered = fitted.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 == COLOUR);
        let covered: Vec<(u32, u32)> = covered.map(|(x, y, _)| (x, y)).collect();
        let (first, last) = (covered[0], covered[covered.len() - 1]);
        let size = (last.0 - first.0 + 1, last.1 - first.1 + 1);
        assert_eq!(covered.len() as u32, size.0 * size.1);
        let rest = fitted.pixels().filter(|pixel| pixel.0 == BACKGROUND).count();
        assert_eq!(covered.len() + rest, fitted.pixels().count());
        (first, size)
    }

    #[test]
    fn the_whole_picture_is_centred_on_the_background() {
        for (picture, frame, expected) in [
            ((40, 20), (16, 16), ((0, 4), (16, 8))),
            ((20, 40), (16, 16), ((4, 0), (8, 16))),
            ((5, 5), (16, 16), ((0, 0), (16, 16))),
            ((16, 4), (16, 16), ((0, 6), (16, 4))),
            // The shorter side is rounded, and an odd rest goes to the right and below.
            ((30, 10), (16, 16), ((0, 5), (16, 5))),
            ((10, 30), (16, 16), ((5, 0), (5, 16))),
            ((1000, 1), (16, 16), ((0, 7), (16, 1))),
        ] {
            assert_eq!(place(picture, frame), expected, "{picture:?} in {frame:?}");
        }
    }

    /// What Pillow 13 makes of the same pixels with `resize((4, 3), Image.BILINEAR)`.
    #[test]
    fn pixels_are_averaged_as_pillow_does() {
        const PILLOW: [[u8; 3]; 12] = [
            [60, 49, 33],
            [162, 120, 95],
            [102, 131, 158],
            [119, 124, 220],
            [90, 129, 95],
            [173, 158, 75],
            [94, 118, 80],
            [149, 130, 110],
            [120, 201, 151],
            [159, 129, 77],
            [88, 127, 42],
            [179, 120, 48],
        ];
        let picture = RgbImage::from_fn(12, 9, |x, y| {
            Rgb([x * 37 + y * 11, x * x * 5 + y * 29, (x ^ y) * 23].map(|value| value as u8))
        });
        let found = letterbox(&picture, 4, 3, BACKGROUND);
        for (pixel, expected) in found.pixels().zip(PILLOW) {
            let same = pixel.0.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 1);
            assert!(same, "{pixel:?} instead of {expected:?}");
        }
    }
}
