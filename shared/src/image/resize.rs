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
