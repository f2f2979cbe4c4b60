//! Varying training images: a crop, a mirror image, other colours, and what RandAugment draws.

mod rand_augment;

use image::imageops;
use rand::{Rng, RngExt};
use serde::Serialize;
use shared::image::RgbImage;

pub use rand_augment::{MOST_MAGNITUDE, MOST_OPERATIONS, RandAugment};

/// How much training images are varied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Augmentation {
    /// Longest side of an image before it is cropped, in units of the network's input, at least 1; smaller images stay
    /// as they are.
    pub scale: f32,
    /// Smallest share of each side that a crop keeps, above 0, at most 1.
    pub smallest_crop: f32,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
    /// Largest relative change of brightness, contrast and saturation.
    pub jitter: f32,
    /// What is drawn besides.
    pub rand_augment: RandAugment,
}

impl Augmentation {
    /// A variation of `image`, drawn by `generator`.
    pub fn apply(&self, image: &RgbImage, generator: &mut impl Rng) -> RgbImage {
        let mut length = |whole: u32| {
            let share = self.smallest_crop + (1.0 - self.smallest_crop) * generator.random::<f32>();
            let length = ((whole as f32 * share).round() as u32).clamp(1, whole);
            (generator.random_range(0..=whole - length), length)
        };
        let (left, width) = length(image.width());
        let (top, height) = length(image.height());
        let mut varied = imageops::crop_imm(image, left, top, width, height).to_image();
        if self.flip && generator.random::<bool>() {
            imageops::flip_horizontal_in_place(&mut varied);
        }
        let mut factor = || 1.0 + self.jitter * (2.0 * generator.random::<f32>() - 1.0);
        let (brightness, contrast, saturation) = (factor(), factor(), factor());
        if self.jitter > 0.0 {
            recolour(&mut varied, brightness, contrast, saturation);
        }
        self.rand_augment.apply(&mut varied, generator);
        varied
    }
}

/// Scales brightness, then the distance from the mean grey, then the distance of each pixel from its own grey.
fn recolour(image: &mut RgbImage, brightness: f32, contrast: f32, saturation: f32) {
    let pixels = image.as_raw().chunks_exact(3);
    let count = pixels.len().max(1);
    let mean = brightness * (pixels.map(|pixel| f64::from(grey(pixel))).sum::<f64>() / count as f64) as f32;
    for pixel in image.chunks_exact_mut(3) {
        let own = (grey(pixel) * brightness - mean) * contrast + mean;
        for value in pixel {
            let lit = (f32::from(*value) * brightness - mean) * contrast + mean;
            *value = ((lit - own) * saturation + own).round().clamp(0.0, 255.0) as u8;
        }
    }
}

/// Luma of ITU-R BT.601.
fn grey(pixel: &[u8]) -> f32 {
    0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, 90]))
    }

    #[test]
    fn the_same_draw_gives_the_same_variation() {
        let augmentation = Augmentation {
            scale: 1.5,
            smallest_crop: 0.5,
            flip: true,
            jitter: 0.3,
            rand_augment: RandAugment {
                operations: 0,
                magnitude: 9,
            },
        };
        let vary = |seed| augmentation.apply(&picture(), &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(vary(3), vary(3));
        assert_ne!(vary(3), vary(4));
        assert!(vary(3).width() >= 20 && vary(3).height() >= 15);
    }

    #[test]
    fn nothing_to_vary_leaves_the_image() {
        let augmentation = Augmentation {
            scale: 1.5,
            smallest_crop: 1.0,
            flip: false,
            jitter: 0.0,
            rand_augment: RandAugment {
                operations: 0,
                magnitude: 9,
            },
        };
        let varied = augmentation.apply(&picture(), &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(varied, picture());
    }

    #[test]
    fn recolouring_by_one_changes_nothing() {
        let mut image = picture();
        recolour(&mut image, 1.0, 1.0, 1.0);
        assert_eq!(image, picture());
    }
}
