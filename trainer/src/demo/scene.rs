//! One photograph: where the garment hangs, how the light falls, what stands in front of it.
//!
//! Coordinates: the picture's centre is the origin, x runs from -1 to 1 across the width, y down in
//! the same unit. Colours are red, green and blue between 0 and 1, as they are displayed.

use super::backdrop::Backdrop;
use super::camera::{Camera, Picture};
use super::garment::{Garment, Point};
use super::noise::{Dice, fractal_noise, mix, sine, smooth_step};
use super::texture::Texture;
use super::{DemoClass, Difficulty, HEIGHT, WIDTH};

/// Red, green and blue, 0 to 1.
pub(super) type Colour = [f64; 3];

/// Width of one pixel.
const PIXEL: f64 = 2.0 / WIDTH as f64;
/// The cloth's colour is sampled at this many places across and down each pixel.
const SAMPLES: i32 = 2;

/// Everything that was drawn by lot for one picture.
pub(super) struct Scene {
    backdrop: Backdrop,
    garment: Garment,
    texture: Texture,
    camera: Camera,
    centre: Point,
    scale: f64,
    /// Cosine and sine by which the garment leans.
    lean: Point,
    /// Cosine and sine by which the print is turned on the cloth.
    print: Point,
    /// Periods of the print per unit.
    frequency: f64,
    folds: Folds,
    /// A trim of one colour along the edge: its width, 0 for none.
    trim: f64,
    trim_colour: Colour,
    light: Light,
    occluders: Vec<Occluder>,
}

struct Folds {
    seed: u64,
    /// How many folds there are to a unit, along and across.
    frequency: Point,
    /// Cosine and sine of the direction across the folds.
    direction: Point,
    /// How strongly they shade the cloth.
    shade: f64,
    /// How far they carry the print along.
    shift: f64,
}

struct Light {
    /// Change of brightness per unit.
    slope: Point,
    /// Where the garment's shadow falls.
    shadow: Point,
    shadow_depth: f64,
}

/// A round bar (an arm, a strap, a bag) between two points, in front of the garment.
struct Occluder {
    ends: [Point; 2],
    radius: f64,
    colour: Colour,
}

impl Scene {
    /// The scene that `dice` gives for `class`.
    pub(super) fn any(class: DemoClass, difficulty: &Difficulty, dice: &mut Dice) -> Self {
        let confusable = dice.chance(difficulty.confusable);
        let texture = Texture::any(class, confusable, difficulty, dice);
        let period = if dice.chance(difficulty.extreme_scale) {
            if dice.chance(0.6) {
                dice.between(difficulty.tiny_period)
            } else {
                dice.between(difficulty.huge_period)
            }
        } else {
            dice.between_scales(difficulty.usual_period)
        };
        let close_up = dice.chance(difficulty.close_up);
        let cropped = dice.chance(difficulty.cropped);
        let shift = if cropped { 0.7 } else { 0.12 };
        let print = match class {
            DemoClass::Striped => dice.direction((0.0, 1.0)),
            _ => dice.direction((-0.12, 0.12)),
        };
        Self {
            backdrop: Backdrop::any(dice),
            garment: if close_up {
                Garment::close_up()
            } else {
                Garment::any(dice)
            },
            texture,
            camera: Camera::any(difficulty, dice),
            centre: [dice.between((-shift, shift)), dice.between((-shift, shift))],
            scale: if cropped {
                dice.between((1.2, 1.9))
            } else {
                dice.between((0.8, 1.15))
            },
            lean: dice.direction((-0.06, 0.06)),
            print,
            frequency: 1.0 / period,
            folds: Folds::any(difficulty, dice),
            trim: if dice.chance(0.3) {
                dice.between((0.015, 0.05))
            } else {
                0.0
            },
            trim_colour: [dice.unit(), dice.unit(), dice.unit()],
            light: Light::any(dice),
            occluders: Occluder::some(difficulty, dice),
        }
    }

    /// Draws the scene as the camera sees it.
    pub(super) fn photograph(&self) -> image::RgbImage {
        let mut picture = Picture::new(WIDTH, HEIGHT);
        for row in 0..HEIGHT {
            for column in 0..WIDTH {
                let point = [
                    (f64::from(column) + 0.5) * PIXEL - 1.0,
                    (f64::from(row) + 0.5 - f64::from(HEIGHT) / 2.0) * PIXEL,
                ];
                picture.set(column, row, self.colour(point));
            }
        }
        self.camera.develop(picture)
    }

    /// JPEG quality of the file, 1 to 100.
    pub(super) fn jpeg_quality(&self) -> u8 {
        self.camera.jpeg_quality
    }

    fn colour(&self, point: Point) -> Colour {
        let place = self.on_garment(point);
        let distance = self.garment.distance(place) * self.scale;
        let cover = coverage(distance);
        let mut colour = if cover < 1.0 {
            let shade = [point[0] - self.light.shadow[0], point[1] - self.light.shadow[1]];
            let shaded = self.garment.distance(self.on_garment(shade)) * self.scale;
            let shadow = self.light.shadow_depth * smooth_step(0.14, -0.1, shaded);
            self.backdrop.colour(point).map(|channel| channel * (1.0 - shadow))
        } else {
            [0.0; 3]
        };
        if cover > 0.0 {
            let cloth = self.cloth(point, place, distance);
            colour = over(colour, cloth, cover);
        }
        for occluder in &self.occluders {
            let depth = occluder.distance(point);
            let round = 1.0 - 0.35 * smooth_step(-occluder.radius, 0.0, depth);
            colour = over(colour, occluder.colour.map(|channel| channel * round), coverage(depth));
        }
        let light = 1.0 + self.light.slope[0] * point[0] + self.light.slope[1] * point[1];
        colour.map(|channel| channel * light)
    }

    fn cloth(&self, point: Point, place: Point, distance: f64) -> Colour {
        let (height, slope) = self.folds.at(place);
        // Cloth turns away from the viewer near its edge.
        let rim = 1.0 - 0.3 * smooth_step(-0.09, 0.0, distance);
        let shade = rim * (1.0 + self.folds.shade * slope).clamp(0.45, 1.35);
        if distance > -self.trim {
            return self.trim_colour.map(|channel| channel * shade);
        }
        let softness = 0.6 * PIXEL / f64::from(SAMPLES) * self.frequency;
        let mut sum = [0.0; 3];
        for sample in 0..SAMPLES * SAMPLES {
            let inside = |step: i32| (f64::from(step) + 0.5) / f64::from(SAMPLES) - 0.5;
            let place = self.on_garment([
                point[0] + PIXEL * inside(sample % SAMPLES),
                point[1] + PIXEL * inside(sample / SAMPLES),
            ]);
            let shift = self.folds.shift * height;
            let x = place[0] * (1.0 + 0.12 * place[0] * place[0]) + shift * self.folds.direction[0];
            let y = place[1] + shift * self.folds.direction[1];
            let [u, v] = rotated([x * self.scale, y * self.scale], self.print);
            let colour = self.texture.colour(u * self.frequency, v * self.frequency, softness);
            for channel in 0..3 {
                sum[channel] += colour[channel];
            }
        }
        sum.map(|channel| channel * shade / f64::from(SAMPLES * SAMPLES))
    }

    /// A point of the picture in the garment's own coordinates.
    fn on_garment(&self, point: Point) -> Point {
        let [x, y] = rotated([point[0] - self.centre[0], point[1] - self.centre[1]], self.lean);
        [x / self.scale, y / self.scale]
    }
}

impl Folds {
    fn any(difficulty: &Difficulty, dice: &mut Dice) -> Self {
        let strength = dice.between((0.15, 1.0)) * difficulty.folds;
        Self {
            seed: dice.bits(),
            frequency: [dice.between((1.5, 4.5)), dice.between((0.3, 1.2))],
            direction: dice.direction((-0.12, 0.12)),
            shade: 0.16 * strength,
            shift: 0.035 * strength,
        }
    }

    /// Height of the cloth and its slope across the folds.
    fn at(&self, place: Point) -> (f64, f64) {
        let [across, along] = rotated(place, self.direction);
        let height = |across: f64| {
            let bend = 0.15 * sine(along * 0.31 + 0.2);
            fractal_noise(
                self.seed,
                (across + bend) * self.frequency[0],
                along * self.frequency[1],
                2,
            )
        };
        let (step, here) = (0.03, height(across));
        (here, (height(across + step) - here) / (step * self.frequency[0]))
    }
}

impl Light {
    fn any(dice: &mut Dice) -> Self {
        Self {
            slope: [dice.between((-0.22, 0.22)), dice.between((-0.22, 0.15))],
            shadow: [dice.between((-0.1, 0.1)), dice.between((0.0, 0.1))],
            shadow_depth: dice.between((0.0, 0.5)),
        }
    }
}

impl Occluder {
    fn some(difficulty: &Difficulty, dice: &mut Dice) -> Vec<Self> {
        let count = if dice.chance(difficulty.occluded) {
            1 + usize::from(dice.chance(0.35))
        } else {
            0
        };
        (0..count)
            .map(|_| {
                let side = dice.pick(&[-1.0, 1.0]);
                let skin = dice.between((0.35, 0.95));
                let colour = if dice.chance(0.6) {
                    [skin, skin * 0.76, skin * 0.63]
                } else {
                    [dice.unit() * 0.8, dice.unit() * 0.8, dice.unit() * 0.8]
                };
                Self {
                    ends: [
                        [side * dice.between((0.5, 1.1)), dice.between((-1.3, 0.4))],
                        [side * dice.between((-0.3, 0.7)), dice.between((-0.2, 1.3))],
                    ],
                    radius: dice.between((0.05, 0.22)),
                    colour,
                }
            })
            .collect()
    }

    fn distance(&self, point: Point) -> f64 {
        let [from, to] = self.ends;
        let axis = [to[0] - from[0], to[1] - from[1]];
        let offset = [point[0] - from[0], point[1] - from[1]];
        let length = axis[0] * axis[0] + axis[1] * axis[1] + 1e-9;
        let along = ((offset[0] * axis[0] + offset[1] * axis[1]) / length).clamp(0.0, 1.0);
        let gap = [offset[0] - along * axis[0], offset[1] - along * axis[1]];
        (gap[0] * gap[0] + gap[1] * gap[1]).sqrt() - self.radius
    }
}

/// `point` turned by the angle with cosine and sine `by`.
pub(super) fn rotated(point: Point, by: Point) -> Point {
    // The polynomial sine leaves directions a thousandth off the unit circle, far below a pixel.
    [point[0] * by[0] + point[1] * by[1], point[1] * by[0] - point[0] * by[1]]
}

/// Share of a pixel inside an edge at `distance` from its centre.
pub(super) fn coverage(distance: f64) -> f64 {
    (0.5 - distance / PIXEL).clamp(0.0, 1.0)
}

/// `front` laid over `back`.
pub(super) fn over(back: Colour, front: Colour, cover: f64) -> Colour {
    std::array::from_fn(|channel| mix(back[channel], front[channel], cover))
}
