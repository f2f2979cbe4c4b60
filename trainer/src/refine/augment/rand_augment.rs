//! RandAugment: a few of fourteen operations, drawn at random, all at one magnitude. Cubuk et al. 2020,
//! <https://arxiv.org/abs/1909.13719>; the ranges are those of torchvision.

use image::{Rgb, RgbImage};
use rand::{Rng, RngExt};
use serde::Serialize;

use super::recolour;

/// Largest magnitude.
pub const MOST_MAGNITUDE: u32 = 30;
/// Most operations on one image: as many as there are to draw from.
pub const MOST_OPERATIONS: u32 = OPERATIONS.len() as u32;
/// What comes into the picture from outside it.
const OUTSIDE: Rgb<u8> = Rgb([128; 3]);

/// How much is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RandAugment {
    /// Operations put on each image one after another; 0 for none.
    pub operations: u32,
    /// From 0 to [`MOST_MAGNITUDE`].
    pub magnitude: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

const OPERATIONS: [Operation; 14] = [
    Operation::Identity,
    Operation::ShearX,
    Operation::ShearY,
    Operation::TranslateX,
    Operation::TranslateY,
    Operation::Rotate,
    Operation::Brightness,
    Operation::Colour,
    Operation::Contrast,
    Operation::Sharpness,
    Operation::Posterize,
    Operation::Solarize,
    Operation::AutoContrast,
    Operation::Equalize,
];

impl RandAugment {
    /// Changes `image` as drawn by `generator`.
    pub fn apply(self, image: &mut RgbImage, generator: &mut impl Rng) {
        let strength = self.magnitude.min(MOST_MAGNITUDE) as f32 / MOST_MAGNITUDE as f32;
        for _ in 0..self.operations {
            let operation = OPERATIONS[generator.random_range(0..OPERATIONS.len())];
            let sign = if generator.random::<bool>() { 1.0 } else { -1.0 };
            operation.apply(image, strength, sign);
        }
    }
}

impl Operation {
    /// At `strength` from 0 to 1; `sign` tells which way, where there are two.
    fn apply(self, image: &mut RgbImage, strength: f32, sign: f32) {
        let shift = |length: u32| sign * strength * length as f32 * 150.0 / 331.0;
        let shear = sign * 0.3 * strength;
        let factor = 1.0 + sign * 0.9 * strength;
        match self {
            Self::Identity => {}
            Self::ShearX => transform(image, [1.0, shear, 0.0, 1.0], [0.0; 2]),
            Self::ShearY => transform(image, [1.0, 0.0, shear, 1.0], [0.0; 2]),
            Self::TranslateX => transform(image, [1.0, 0.0, 0.0, 1.0], [shift(image.width()), 0.0]),
            Self::TranslateY => transform(image, [1.0, 0.0, 0.0, 1.0], [0.0, shift(image.height())]),
            Self::Rotate => {
                let (sine, cosine) = (sign * 30.0 * strength).to_radians().sin_cos();
                transform(image, [cosine, sine, -sine, cosine], [0.0; 2]);
            }
            Self::Brightness => recolour(image, factor, 1.0, 1.0),
            Self::Contrast => recolour(image, 1.0, factor, 1.0),
            Self::Colour => recolour(image, 1.0, 1.0, factor),
            Self::Sharpness => sharpen(image, factor),
            Self::Posterize => {
                let mask = u8::MAX << (4.0 * strength).round() as u32;
                image.iter_mut().for_each(|value| *value &= mask);
            }
            Self::Solarize => {
                let threshold = 255.0 * (1.0 - strength);
                let inverted = |value: u8| {
                    if f32::from(value) >= threshold {
                        255 - value
                    } else {
                        value
                    }
                };
                image.iter_mut().for_each(|value| *value = inverted(*value));
            }
            Self::AutoContrast => each_channel(image, stretched),
            Self::Equalize => each_channel(image, equalized),
        }
    }
}

/// Every point takes the colour of the point that `matrix` (row by row) and then `offset` lead to, about the centre.
fn transform(image: &mut RgbImage, matrix: [f32; 4], offset: [f32; 2]) {
    let source = image.clone();
    let centre = [
        (source.width() as f32 - 1.0) / 2.0,
        (source.height() as f32 - 1.0) / 2.0,
    ];
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let from = [x as f32 - centre[0], y as f32 - centre[1]];
        let across = matrix[0] * from[0] + matrix[1] * from[1] + centre[0] + offset[0];
        let down = matrix[2] * from[0] + matrix[3] * from[1] + centre[1] + offset[1];
        *pixel = between(&source, across, down);
    }
}

/// The colour at a point between pixels, bilinear.
fn between(image: &RgbImage, x: f32, y: f32) -> Rgb<u8> {
    let (left, top) = (x.floor(), y.floor());
    let at = |x: f32, y: f32| {
        let inside = x >= 0.0 && y >= 0.0 && x < image.width() as f32 && y < image.height() as f32;
        if inside {
            *image.get_pixel(x as u32, y as u32)
        } else {
            OUTSIDE
        }
    };
    let corners = [
        at(left, top),
        at(left + 1.0, top),
        at(left, top + 1.0),
        at(left + 1.0, top + 1.0),
    ];
    let (across, down) = (x - left, y - top);
    let shares = [
        (1.0 - across) * (1.0 - down),
        across * (1.0 - down),
        (1.0 - across) * down,
        across * down,
    ];
    let channel = |channel: usize| {
        let value: f32 = corners
            .iter()
            .zip(shares)
            .map(|(corner, share)| f32::from(corner[channel]) * share)
            .sum();
        value.round() as u8
    };
    Rgb([channel(0), channel(1), channel(2)])
}

/// Away from a smoothed copy (above 1), or towards it (below); the edge stays.
fn sharpen(image: &mut RgbImage, factor: f32) {
    let source = image.clone();
    let (width, height) = source.dimensions();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            for channel in 0..3 {
                let own = f32::from(source.get_pixel(x, y)[channel]);
                let mut sum = 4.0 * own;
                for (across, down) in (0..9).map(|place| (place % 3, place / 3)) {
                    sum += f32::from(source.get_pixel(x + across - 1, y + down - 1)[channel]);
                }
                let smooth = sum / 13.0;
                image.get_pixel_mut(x, y)[channel] = (smooth + (own - smooth) * factor).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// Changes each channel by a table made of its histogram.
fn each_channel(image: &mut RgbImage, table: impl Fn(&[u32; 256]) -> [u8; 256]) {
    for channel in 0..3 {
        let mut histogram = [0_u32; 256];
        for pixel in image.pixels() {
            histogram[usize::from(pixel[channel])] += 1;
        }
        let table = table(&histogram);
        for pixel in image.pixels_mut() {
            pixel[channel] = table[usize::from(pixel[channel])];
        }
    }
}

/// The darkest value becomes 0, the brightest 255.
fn stretched(histogram: &[u32; 256]) -> [u8; 256] {
    let darkest = histogram.iter().position(|count| *count > 0).unwrap_or(0);
    let brightest = histogram.iter().rposition(|count| *count > 0).unwrap_or(0);
    let range = (brightest - darkest) as f32;
    std::array::from_fn(|value| {
        if range == 0.0 {
            value as u8
        } else {
            (255.0 * (value as f32 - darkest as f32) / range).clamp(0.0, 255.0) as u8
        }
    })
}

/// Every value becomes about equally frequent.
fn equalized(histogram: &[u32; 256]) -> [u8; 256] {
    let total: u32 = histogram.iter().sum();
    let last = histogram.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
    let step = (total - last) / 255;
    let mut below = 0;
    std::array::from_fn(|value| {
        let new = (below + step / 2).checked_div(step).unwrap_or(value as u32).min(255);
        below += histogram[value];
        new as u8
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::grey;
    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(40, 30, |x, y| {
            Rgb([(40 + x * 4) as u8, (20 + y * 6 + x % 2 * 20) as u8, 90])
        })
    }

    fn changed(operation: Operation, strength: f32) -> RgbImage {
        let mut image = picture();
        operation.apply(&mut image, strength, 1.0);
        image
    }

    #[test]
    fn without_strength_nothing_that_has_one_changes() {
        let by_itself = [
            Operation::AutoContrast,
            Operation::Equalize,
            Operation::Identity,
            Operation::Solarize,
        ];
        for operation in OPERATIONS {
            if !by_itself.contains(&operation) {
                assert!(changed(operation, 0.0) == picture(), "{operation:?}");
                assert!(changed(operation, 1.0) != picture(), "{operation:?}");
            }
        }
    }

    #[test]
    fn operations_do_what_they_are_called() {
        let moved = changed(Operation::TranslateX, 331.0 / 150.0 / 40.0);
        assert_eq!(moved.get_pixel(5, 7), picture().get_pixel(6, 7));
        let turned = changed(Operation::Rotate, 1.0);
        assert_eq!(turned.get_pixel(0, 0), &OUTSIDE);
        let stretched = changed(Operation::AutoContrast, 0.0);
        let red = |end: fn(std::vec::IntoIter<u8>) -> Option<u8>| {
            end(stretched.pixels().map(|pixel| pixel[0]).collect::<Vec<_>>().into_iter())
        };
        assert_eq!((red(Iterator::min), red(Iterator::max)), (Some(0), Some(255)));
        let negative = changed(Operation::Solarize, 1.0);
        assert_eq!(negative.get_pixel(0, 0)[2], 255 - 90);
        let coarse = changed(Operation::Posterize, 1.0);
        assert!(coarse.iter().all(|value| value % 16 == 0));
        let even = changed(Operation::Equalize, 0.0);
        assert_eq!(even.pixels().map(|pixel| pixel[0]).max(), Some(255));
        let grey_only = {
            let mut image = picture();
            Operation::Colour.apply(&mut image, 1.0 / 0.9, -1.0);
            image
        };
        assert!(
            grey_only
                .pixels()
                .all(|pixel| pixel[0].abs_diff(grey(&pixel.0).round() as u8) <= 1)
        );
    }

    #[test]
    fn every_draw_is_survived_by_every_size() {
        let all = RandAugment {
            operations: 6,
            magnitude: MOST_MAGNITUDE,
        };
        for (width, height) in [(1, 1), (2, 1), (1, 3), (2, 2), (17, 5)] {
            for seed in 0..20 {
                let mut image = RgbImage::from_pixel(width, height, Rgb([7, 70, 200]));
                all.apply(&mut image, &mut ChaCha8Rng::seed_from_u64(seed));
                assert_eq!(image.dimensions(), (width, height));
            }
        }
    }
}
