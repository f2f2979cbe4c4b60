//! The difference hash: which way the brightness goes, on a grid of 16 x 16.
//!
//! Bit for bit that of `dhash(image, hash_size=16)` in the Python package `imagehash`: grey as Pillow's mode
//! "L", resized to 17 x 16 with Pillow's Lanczos filter, one bit where a pixel is brighter than its left
//! neighbour.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use shared::image::RgbImage;

/// Rows and columns of the hash.
const SIZE: u32 = 16;

/// A difference hash of 256 bits, row by row, the first bit highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DifferenceHash([u8; 32]);

impl DifferenceHash {
    /// The bits, eight to a byte.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// The difference hash of an image.
pub fn dhash(image: &RgbImage) -> DifferenceHash {
    let grey: Vec<u8> = image.pixels().map(|pixel| luminance(pixel.0)).collect();
    let mut small = Image::new(SIZE + 1, SIZE, PixelType::U8);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    let done = ImageRef::new(image.width(), image.height(), &grey, PixelType::U8)
        .ok()
        .and_then(|source| Resizer::new().resize(&source, &mut small, &options).ok());
    debug_assert!(done.is_some(), "sizes and pixel types agree by construction");

    let mut bits = [0; 32];
    for (row, pixels) in small.buffer().chunks_exact(SIZE as usize + 1).enumerate() {
        for (column, pair) in pixels.windows(2).enumerate() {
            if pair[1] > pair[0] {
                let bit = row * SIZE as usize + column;
                bits[bit / 8] |= 0x80 >> (bit % 8);
            }
        }
    }
    DifferenceHash(bits)
}

/// ITU-R 601-2 luma in the fixed point that Pillow uses.
fn luminance([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}
