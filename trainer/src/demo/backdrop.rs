//! What stands behind the garment: a plain wall, a wall and a floor, boards, or clutter.

use super::garment::Point;
use super::noise::{Dice, fractal_noise, lattice_pair, mix, smooth_step, value_noise};
use super::scene::{Colour, over, rotated};

/// The background of a picture.
pub(super) struct Backdrop {
    kind: Kind,
    seed: u64,
    base: Colour,
    other: Colour,
    direction: Point,
    clutter: Vec<Shape>,
}

#[derive(Clone, Copy)]
enum Kind {
    Wall,
    Gradient,
    WallAndFloor,
    Boards,
}

/// Something out of focus: a rectangle or an ellipse.
struct Shape {
    centre: Point,
    half: Point,
    round: bool,
    softness: f64,
    colour: Colour,
}

impl Backdrop {
    /// Any background.
    pub(super) fn any(dice: &mut Dice) -> Self {
        let kind = dice.pick(&[Kind::Wall, Kind::Gradient, Kind::WallAndFloor, Kind::Boards]);
        let base = match kind {
            Kind::Boards => {
                let wood = dice.between((0.35, 0.85));
                [
                    wood,
                    wood * dice.between((0.68, 0.85)),
                    wood * dice.between((0.4, 0.62)),
                ]
            }
            _ => pale(dice),
        };
        let count = if dice.chance(0.5) {
            dice.between((2.0, 9.0)) as usize
        } else {
            0
        };
        Self {
            kind,
            seed: dice.bits(),
            base,
            other: pale(dice),
            direction: dice.direction((-0.3, 0.3)),
            clutter: (0..count).map(|_| Shape::any(dice)).collect(),
        }
    }

    /// The colour at a point of the picture.
    pub(super) fn colour(&self, point: Point) -> Colour {
        let [across, along] = rotated(point, self.direction);
        let grain = 0.025 * value_noise(self.seed, point[0] * 60.0, point[1] * 60.0);
        let plain = match self.kind {
            Kind::Wall => self.base.map(|channel| channel + grain),
            Kind::Gradient => over(self.base, self.other, smooth_step(-1.3, 1.3, along)),
            Kind::WallAndFloor => over(self.base, self.other, smooth_step(0.78, 0.82, point[1] + 0.1 * across)),
            Kind::Boards => self.boards(across, along),
        };
        self.clutter.iter().fold(plain, |colour, shape| {
            over(colour, shape.colour, 0.85 * shape.cover(point))
        })
    }

    fn boards(&self, across: f64, along: f64) -> Colour {
        let position = across * 2.6;
        let board = position.floor();
        let [tone, offset] = lattice_pair(self.seed, board as i64, 0);
        let fibre = fractal_noise(self.seed, position * 9.0, along * 1.2 + offset * 40.0, 3);
        let gap = smooth_step(0.0, 0.03, (position - board).min(board + 1.0 - position));
        let brightness = (0.85 + 0.2 * tone + 0.06 * fibre) * mix(0.5, 1.0, gap);
        self.base.map(|channel| channel * brightness)
    }
}

impl Shape {
    fn any(dice: &mut Dice) -> Self {
        Self {
            centre: [dice.between((-1.1, 1.1)), dice.between((-1.4, 1.4))],
            half: [dice.between((0.08, 0.5)), dice.between((0.08, 0.6))],
            round: dice.chance(0.5),
            softness: dice.between((0.02, 0.3)),
            colour: [dice.unit(), dice.unit(), dice.unit()],
        }
    }

    fn cover(&self, point: Point) -> f64 {
        let x = (point[0] - self.centre[0]).abs() / self.half[0];
        let y = (point[1] - self.centre[1]).abs() / self.half[1];
        let reach = if self.round { (x * x + y * y).sqrt() } else { x.max(y) };
        1.0 - smooth_step(1.0 - self.softness, 1.0 + self.softness, reach)
    }
}

/// A muted, mostly light colour.
fn pale(dice: &mut Dice) -> Colour {
    let level = dice.between((0.3, 0.97));
    let mut tint = || (level + dice.between((-0.09, 0.09))).clamp(0.0, 1.0);
    [tint(), tint(), tint()]
}
