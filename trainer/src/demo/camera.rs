//! What a cheap camera does to a picture: blur, exposure, colour cast, sensor noise, JPEG.

use image::{Rgb, RgbImage};

use super::Difficulty;
use super::noise::{Dice, lattice_pair};
use super::scene::Colour;

/// The picture before it is developed: unbounded colours.
pub(super) struct Picture {
    width: u32,
    height: u32,
    colours: Vec<Colour>,
}

impl Picture {
    /// A black picture.
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            colours: vec![[0.0; 3]; width as usize * height as usize],
        }
    }

    /// Sets one pixel, which lies inside the picture.
    pub(super) fn set(&mut self, column: u32, row: u32, colour: Colour) {
        let place = row as usize * self.width as usize + column as usize;
        self.colours[place] = colour;
    }

    /// Averages each pixel with its neighbours at distance `step` of the flat buffer: the middle
    /// counts 1, each side `weight`. Pixels without two neighbours in their line stay as they are.
    fn smear(&mut self, step: usize, line: impl Fn(usize) -> bool, weight: f64) {
        let before = self.colours.clone();
        let total = 1.0 + 2.0 * weight;
        for place in (step..before.len() - step).filter(|&place| line(place)) {
            self.colours[place] = std::array::from_fn(|channel| {
                let sides = before[place - step][channel] + before[place + step][channel];
                (before[place][channel] + weight * sides) / total
            });
        }
    }
}

/// The lot of one camera.
pub(super) struct Camera {
    /// How often the picture is smeared by one pixel to each side.
    blur_passes: u32,
    /// Weight of the neighbours in each pass, at most 0.5 (a binomial kernel).
    blur_weight: f64,
    /// One direction is smeared more: the camera moved sideways.
    shaken: bool,
    gain: Colour,
    contrast: f64,
    noise: f64,
    seed: u64,
    /// Quality of the JPEG file, 1 to 100.
    pub(super) jpeg_quality: u8,
}

impl Camera {
    /// Any camera.
    pub(super) fn any(difficulty: &Difficulty, dice: &mut Dice) -> Self {
        let exposure = dice.between((0.72, 1.12));
        let blurred = dice.chance(difficulty.blurred);
        let (low, high) = difficulty.jpeg_quality;
        Self {
            blur_passes: if blurred {
                dice.between((2.0, difficulty.blur_passes)) as u32
            } else {
                1
            },
            blur_weight: if blurred { 0.5 } else { dice.between((0.05, 0.4)) },
            shaken: blurred && dice.chance(0.3),
            gain: std::array::from_fn(|_| exposure * dice.between((0.92, 1.08))),
            contrast: dice.between((0.65, 1.15)),
            noise: dice.between_scales((0.004, difficulty.sensor_noise)),
            seed: dice.bits(),
            jpeg_quality: dice.between((f64::from(low), f64::from(high))) as u8,
        }
    }

    /// The finished picture.
    pub(super) fn develop(&self, mut picture: Picture) -> RgbImage {
        let width = picture.width as usize;
        for _ in 0..self.blur_passes {
            let inner = |place: usize| !matches!(place % width, 0) && place % width + 1 < width;
            picture.smear(1, inner, self.blur_weight);
            if !self.shaken {
                picture.smear(width, |_| true, self.blur_weight);
            }
        }
        RgbImage::from_fn(picture.width, picture.height, |column, row| {
            let colour = picture.colours[row as usize * width + column as usize];
            Rgb(std::array::from_fn(|channel| {
                let exposed = 0.5 + (colour[channel] * self.gain[channel] - 0.5) * self.contrast;
                let noisy = exposed + self.noise * self.grain(column, row, channel);
                (noisy.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
            }))
        })
    }

    /// Noise of unit variance: sums of uniform numbers, half shared by the three channels.
    fn grain(&self, column: u32, row: u32, channel: usize) -> f64 {
        let [a, b] = lattice_pair(self.seed, i64::from(column), i64::from(row));
        let own = self.seed.wrapping_add(1 + channel as u64);
        let [c, d] = lattice_pair(own, i64::from(column), i64::from(row));
        (a + b + c + d - 2.0) * 1.732
    }
}
