//! The three printed textures, as functions of a place on the cloth.
//!
//! A place is measured in lengths of the pattern's period; `softness` is the width of a sample in
//! the same unit, over which edges are smoothed. What a pattern answers is how much of each ink lies
//! there, so that colours stay free of the class.

use super::DemoClass;
use super::Difficulty;
use super::noise::{Dice, lattice, lattice_pair, mix, sine, smooth_step, value_noise};
use super::scene::{Colour, over};

/// A printed cloth.
pub(super) struct Texture {
    class: DemoClass,
    seed: u64,
    ground: Colour,
    ink: Colour,
    second: Colour,
    /// How far places wander, in periods.
    warp: f64,
    /// How uneven shapes are, 0 to 1.
    roughness: f64,
    /// Share of the shapes left out or broken, 0 to 1.
    gaps: f64,
    /// Radius of a dot or rosette, or share of a stripe's period that is inked.
    size: f64,
    /// Among the dots, stripes or spots, the share that is printed in the second ink.
    mixed: f64,
    /// Dots on a square lattice turned by half a cell in every other row.
    staggered: bool,
}

impl Texture {
    /// A cloth of `class`; with `confusable`, drawn towards the neighbouring classes.
    pub(super) fn any(class: DemoClass, confusable: bool, difficulty: &Difficulty, dice: &mut Dice) -> Self {
        let (ground, ink, second) = colours(class, difficulty, dice);
        let mut texture = Self {
            class,
            seed: dice.bits(),
            ground,
            ink,
            second,
            warp: dice.between((0.0, 0.06)),
            roughness: dice.between((0.0, 0.12)),
            gaps: 0.0,
            size: dice.between((0.18, 0.38)),
            mixed: if dice.chance(0.25) { 0.4 } else { 0.0 },
            staggered: dice.chance(0.6),
        };
        let strength = difficulty.confusion;
        match class {
            DemoClass::Dotted => {
                if confusable {
                    texture.warp = strength * dice.between((0.2, 0.5));
                    texture.roughness = strength * dice.between((0.4, 0.9));
                    texture.gaps = strength * dice.between((0.0, 0.35));
                    texture.size = dice.between((0.28, 0.42));
                }
            }
            DemoClass::Striped => {
                texture.size = dice.between((0.25, 0.7));
                if confusable {
                    texture.warp = strength * dice.between((0.15, 0.6));
                    texture.roughness = strength * dice.between((0.3, 0.8));
                    texture.gaps = strength * dice.between((0.2, 0.6));
                }
            }
            DemoClass::Leopard => {
                texture.warp = dice.between((0.15, 0.35));
                texture.roughness = dice.between((0.45, 0.8));
                texture.gaps = dice.between((0.25, 0.5));
                texture.size = dice.between((0.3, 0.38));
                texture.mixed = dice.between((0.6, 1.0));
                if confusable {
                    texture.mixed = dice.between((0.0, 0.35));
                    texture.gaps *= 1.0 - 0.7 * strength;
                    texture.roughness *= 1.0 - 0.5 * strength;
                }
            }
        }
        texture
    }

    /// The colour at (`u`, `v`), in periods.
    pub(super) fn colour(&self, u: f64, v: f64, softness: f64) -> Colour {
        let wander = |salt: u64, u: f64, v: f64| value_noise(self.seed.wrapping_add(salt), u, v);
        let (du, dv) = (wander(1, u * 0.6, v * 0.6), wander(2, u * 0.6, v * 0.6));
        let place = [u + self.warp * du, v + self.warp * dv];
        let (ink, second) = match self.class {
            DemoClass::Dotted => self.dots(place, softness),
            DemoClass::Striped => self.stripes(place, softness),
            DemoClass::Leopard => self.rosettes(place, softness),
        };
        over(over(self.ground, self.second, second), self.ink, ink)
    }

    fn dots(&self, [u, v]: [f64; 2], softness: f64) -> (f64, f64) {
        let row = v.floor() as i64;
        let uneven = self.roughness * 0.3 * value_noise(self.seed.wrapping_add(3), u * 3.0, v * 3.0);
        let mut cover = (0.0_f64, 0.0_f64);
        for cell_row in row - 1..=row + 1 {
            let stagger = if self.staggered && cell_row.rem_euclid(2) == 1 {
                0.5
            } else {
                0.0
            };
            let column = (u - stagger).floor() as i64;
            for cell_column in column - 1..=column + 1 {
                let chances = lattice_pair(self.seed, cell_column, cell_row);
                if chances[0] < self.gaps {
                    continue;
                }
                let jitter = lattice_pair(self.seed ^ 0xD07, cell_column, cell_row);
                let dx = u - stagger - (cell_column as f64 + 0.5) - self.roughness * 0.35 * (jitter[0] - 0.5);
                let dy = v - (cell_row as f64 + 0.5) - self.roughness * 0.35 * (jitter[1] - 0.5);
                let radius = self.size * (1.0 + 0.5 * self.roughness * (chances[1] - 0.5) + uneven);
                let disc = inked(radius - (dx * dx + dy * dy).sqrt(), softness);
                let last_bits = lattice(self.seed ^ 0x2D, cell_column, cell_row) & 0xFF;
                if (last_bits as f64) < 256.0 * self.mixed {
                    cover.1 = cover.1.max(disc);
                } else {
                    cover.0 = cover.0.max(disc);
                }
            }
        }
        cover
    }

    fn stripes(&self, [u, v]: [f64; 2], softness: f64) -> (f64, f64) {
        let wave = self.warp * 0.6 * sine(v * 0.23 + 0.3 * value_noise(self.seed, u * 0.1, v * 0.2));
        let across = u + wave;
        let band = across.floor();
        let ragged = self.roughness * 0.16 * value_noise(self.seed.wrapping_add(4), across * 2.0, v * 2.5);
        let half = self.size * 0.5 * (1.0 + ragged * 2.0);
        let mut stripe = inked(half - (across - band - 0.5).abs(), softness);
        if self.gaps > 0.0 {
            // Each stripe is broken at places of its own.
            let offset = lattice_pair(self.seed, band as i64, 7)[0] * 50.0;
            let along = value_noise(self.seed ^ lattice(self.seed, band as i64, 9), v * 0.7 + offset, 0.5);
            stripe *= smooth_step(self.gaps - 1.05, self.gaps - 0.95, along);
        }
        if (band as i64).rem_euclid(3) == 1 && self.mixed > 0.0 {
            (0.0, stripe)
        } else {
            (stripe, 0.0)
        }
    }

    /// Broken dark rings around a tinted heart, with small solid spots between them.
    fn rosettes(&self, [u, v]: [f64; 2], softness: f64) -> (f64, f64) {
        let (column, row) = (u.floor() as i64, v.floor() as i64);
        let mut cover = (0.0_f64, 0.0_f64);
        let bumps = self.roughness * 0.13 * value_noise(self.seed.wrapping_add(5), u * 3.2, v * 3.2);
        for cell_row in row - 1..=row + 1 {
            for cell_column in column - 1..=column + 1 {
                let jitter = lattice_pair(self.seed ^ 0x1E0, cell_column, cell_row);
                let [kind, tilt] = lattice_pair(self.seed ^ 0xAB, cell_column, cell_row);
                let stagger = if cell_row.rem_euclid(2) == 1 { 0.5 } else { 0.0 };
                let dx = u - (cell_column as f64 + stagger + 0.25 + 0.5 * (jitter[0] - 0.5));
                let dy = v - (cell_row as f64 + 0.5 + 0.5 * (jitter[1] - 0.5));
                let stretch = 1.0 + 0.35 * (tilt - 0.5);
                let (dx, dy) = (dx * stretch, dy / stretch);
                let distance = (dx * dx + dy * dy).sqrt() + bumps;
                if kind > self.mixed {
                    let radius = self.size * mix(0.4, 0.75, tilt);
                    cover.0 = cover.0.max(inked(radius - distance, softness));
                    continue;
                }
                let radius = self.size * mix(0.8, 1.15, tilt);
                if distance > radius * 1.2 + softness {
                    continue;
                }
                // The ring is open where a slow noise around it falls low.
                let around = value_noise(
                    lattice(self.seed, cell_column, cell_row),
                    1.3 * dx / (distance.abs() + 0.05) + 9.0,
                    1.3 * dy / (distance.abs() + 0.05) + 9.0,
                );
                let closed = smooth_step(self.gaps - 0.75, self.gaps - 0.45, around);
                let thickness = radius * mix(0.16, 0.36, closed);
                let ring = inked(thickness - (distance - radius * 0.78).abs(), softness) * closed;
                let heart = inked(radius * 0.72 - distance, softness + 0.05);
                cover.0 = cover.0.max(ring);
                cover.1 = cover.1.max(heart);
            }
        }
        cover
    }
}

/// How much ink lies where the edge is `depth` away (positive inside).
fn inked(depth: f64, softness: f64) -> f64 {
    smooth_step(-softness, softness, depth)
}

/// Ground, ink and second ink. Any class may come in any colours, but leopards are mostly brown,
/// as they are in shops, and so are some dots and stripes.
fn colours(class: DemoClass, difficulty: &Difficulty, dice: &mut Dice) -> (Colour, Colour, Colour) {
    let animal = match class {
        DemoClass::Leopard => 0.65,
        DemoClass::Dotted => difficulty.animal_colours,
        DemoClass::Striped => difficulty.animal_colours * 0.7,
    };
    let (ground, ink, second) = if dice.chance(animal) {
        let tan = dice.between((0.5, 0.82));
        let dark = dice.between((0.04, 0.2));
        (
            [tan, tan * 0.78, tan * 0.52],
            [dark, dark * 0.75, dark * 0.6],
            [tan * 0.78, tan * 0.5, tan * 0.26],
        )
    } else {
        let mut any = || [dice.unit(), dice.unit(), dice.unit()];
        let (mut ground, mut ink) = (any(), any());
        // Cloth is seldom fully saturated; ground and ink lie on either side of a middle grey.
        let light_ground = any()[0] < 0.6;
        for channel in 0..3 {
            let (high, low) = (0.55 + 0.42 * ground[channel], 0.03 + 0.4 * ink[channel]);
            (ground[channel], ink[channel]) = if light_ground { (high, low) } else { (low, high) };
        }
        let share = 0.35 + 0.4 * any()[0];
        let hue = any();
        let mut second = ground;
        for channel in 0..3 {
            second[channel] = mix(mix(ground[channel], ink[channel], share), hue[channel], 0.25);
        }
        (ground, ink, second)
    };
    let fade = if dice.chance(difficulty.low_contrast) {
        1.0 - dice.between((0.2, 0.35))
    } else {
        dice.between((0.0, 0.25))
    };
    let faded = |colour: Colour| std::array::from_fn(|channel| mix(colour[channel], ground[channel], fade));
    (ground, faded(ink), faded(second))
}
