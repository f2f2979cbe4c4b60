//! Silhouettes of clothes as signed distances.
//!
//! Coordinates: x to the right and y down, the garment about within `[-1, 1]` on both axes. A
//! distance is negative inside the cloth. Outlines are closed polygons, symmetric ones given by
//! their right half, rounded at the corners; Inigo Quilez' exact polygon distance measures them.

use super::noise::Dice;

/// A point of the garment's plane.
pub(super) type Point = [f64; 2];

/// A piece of cloth.
pub(super) struct Garment {
    outline: Vec<Point>,
    /// The polygon is grown by this much, which rounds its corners.
    rounding: f64,
}

#[derive(Clone, Copy)]
enum Cut {
    TShirt,
    Sweater,
    Dress,
    Skirt,
    Trousers,
    Shorts,
    Scarf,
    Top,
}

impl Garment {
    /// Any garment, its proportions drawn anew.
    pub(super) fn any(dice: &mut Dice) -> Self {
        use Cut::{Dress, Scarf, Shorts, Skirt, Sweater, TShirt, Top, Trousers};
        let cut = dice.pick(&[
            TShirt, TShirt, Sweater, Dress, Dress, Skirt, Trousers, Shorts, Scarf, Top,
        ]);
        let outline = outline(cut, dice);
        Self {
            outline,
            rounding: dice.between((0.01, 0.04)),
        }
    }

    /// Cloth that fills any frame: a close-up.
    pub(super) fn close_up() -> Self {
        Self {
            outline: vec![[-9.0, -9.0], [9.0, -9.0], [9.0, 9.0], [-9.0, 9.0]],
            rounding: 0.0,
        }
    }

    /// Signed distance from `point` to the edge of the cloth, negative inside.
    pub(super) fn distance(&self, point: Point) -> f64 {
        polygon_distance(&self.outline, point) - self.rounding
    }
}

/// The outline of a garment of this cut. The symmetric ones give their right half, from the neck down
/// to the crotch or hem, and `vary` the lengths near the usual ones.
fn outline(cut: Cut, dice: &mut Dice) -> Vec<Point> {
    let mut vary = |middle: f64| middle * dice.between((0.88, 1.12));
    let right_half = match cut {
        Cut::TShirt => t_shirt(&mut vary),
        Cut::Sweater => sweater(&mut vary),
        Cut::Dress => dress(&mut vary),
        Cut::Skirt => skirt(&mut vary),
        Cut::Trousers => trousers(&mut vary),
        Cut::Shorts => shorts(&mut vary),
        Cut::Top => top(&mut vary),
        Cut::Scarf => return scarf(dice),
    };
    mirrored(&right_half)
}

fn t_shirt(vary: &mut impl FnMut(f64) -> f64) -> Vec<Point> {
    let (neck, depth, chest, sleeve) = (vary(0.2), vary(0.16), vary(0.46), vary(0.84));
    vec![
        [0.0, depth - 0.85],
        [neck * 0.7, depth - 0.91],
        [neck, -0.88],
        [chest, -0.78],
        [sleeve, -0.35],
        [sleeve - 0.2, -0.18],
        [chest, -0.4],
        [chest * 0.96, 0.2],
        [vary(0.5), 0.88],
        [0.0, 0.91],
    ]
}

fn sweater(vary: &mut impl FnMut(f64) -> f64) -> Vec<Point> {
    let (chest, wrist, cuff) = (vary(0.44), vary(0.8), vary(0.45));
    vec![
        [0.0, -0.82],
        [0.2, -0.9],
        [chest, -0.8],
        [wrist * 0.85, -0.2],
        [wrist, cuff],
        [wrist - 0.17, cuff + 0.06],
        [wrist * 0.66, -0.05],
        [chest, -0.38],
        [chest, 0.8],
        [chest - 0.04, 0.88],
        [0.0, 0.88],
    ]
}

fn dress(vary: &mut impl FnMut(f64) -> f64) -> Vec<Point> {
    let (waist, hem, bottom) = (vary(0.27), vary(0.62), vary(0.9));
    vec![
        [0.0, vary(-0.66)],
        [0.18, -0.92],
        [0.28, -0.94],
        [0.3, -0.62],
        [0.36, -0.48],
        [waist, -0.12],
        [waist + 0.07, 0.1],
        [hem, bottom],
        [hem * 0.5, bottom + 0.05],
        [0.0, bottom + 0.07],
    ]
}

fn skirt(vary: &mut impl FnMut(f64) -> f64) -> Vec<Point> {
    let (waist, hem) = (vary(0.36), vary(0.78));
    vec![
        [0.0, -0.66],
        [waist, -0.7],
        [waist + 0.02, -0.58],
        [mean(waist, hem) + 0.05, 0.0],
        [hem, 0.72],
        [hem * 0.5, 0.78],
        [0.0, 0.8],
    ]
}

fn trousers(vary: &mut impl FnMut(f64) -> f64) -> Vec<Point> {
    let (hip, foot, knee) = (vary(0.44), vary(0.46), vary(0.22));
    vec![
        [0.0, -0.93],
        [0.34, -0.95],
        [hip, -0.5],
        [foot + 0.01, 0.3],
        [foot, 0.95],
        [foot - knee, 0.96],
        [0.16, 0.3],
        [0.03, -0.28],
        [0.0, -0.3],
    ]
}

fn shorts(vary: &mut impl FnMut(f64) -> f64) -> Vec<Point> {
    let (hip, leg) = (vary(0.6), vary(0.72));
    vec![
        [0.0, -0.6],
        [0.5, -0.62],
        [hip, -0.2],
        [leg, 0.55],
        [0.12, 0.62],
        [0.04, 0.0],
        [0.0, -0.03],
    ]
}

fn top(vary: &mut impl FnMut(f64) -> f64) -> Vec<Point> {
    let (chest, hem) = (vary(0.48), vary(0.54));
    vec![
        [0.0, vary(-0.4)],
        [0.22, -0.62],
        [0.26, -0.9],
        [0.36, -0.9],
        [0.38, -0.5],
        [chest, -0.34],
        [chest * 0.92, 0.2],
        [hem, 0.8],
        [0.0, 0.83],
    ]
}

/// A band of cloth that bends as it hangs.
fn scarf(dice: &mut Dice) -> Vec<Point> {
    let width = dice.between((0.24, 0.4));
    let bend = dice.between((-0.35, 0.35));
    let lean = dice.between((-0.4, 0.4));
    let steps = 6;
    let middle = |step: i32| {
        let y = f64::from(step) / f64::from(steps) * 1.9 - 0.95;
        [lean * y + bend * (1.0 - y * y) - bend * 0.5, y]
    };
    let right = (0..=steps).map(|step| [middle(step)[0] + width, middle(step)[1]]);
    let left = (0..=steps)
        .rev()
        .map(|step| [middle(step)[0] - width, middle(step)[1] + 0.04]);
    right.chain(left).collect()
}

fn mean(a: f64, b: f64) -> f64 {
    f64::midpoint(a, b)
}

/// The whole outline of a symmetric garment; points on the axis stay single.
fn mirrored(right: &[Point]) -> Vec<Point> {
    let left = right.iter().rev().filter(|point| point[0] > 0.0).map(|&[x, y]| [-x, y]);
    right.iter().copied().chain(left).collect()
}

/// Signed distance to a closed polygon, negative inside
/// (<https://iquilezles.org/articles/distfunctions2d/>).
fn polygon_distance(polygon: &[Point], [x, y]: Point) -> f64 {
    let mut nearest = f64::INFINITY;
    let mut inside = false;
    let mut previous = polygon[polygon.len() - 1];
    for &current in polygon {
        let edge = [previous[0] - current[0], previous[1] - current[1]];
        let offset = [x - current[0], y - current[1]];
        let along =
            ((offset[0] * edge[0] + offset[1] * edge[1]) / (edge[0] * edge[0] + edge[1] * edge[1])).clamp(0.0, 1.0);
        let gap = [offset[0] - edge[0] * along, offset[1] - edge[1] * along];
        nearest = nearest.min(gap[0] * gap[0] + gap[1] * gap[1]);
        let crosses = (current[1] > y) != (previous[1] > y);
        if crosses && x < current[0] + edge[0] * (y - current[1]) / edge[1] {
            inside = !inside;
        }
        previous = current;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_to_a_square_is_exact() {
        let square = [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]];
        let at = |x, y| polygon_distance(&square, [x, y]);
        assert!((at(0.0, 0.0) + 1.0).abs() < 1e-12);
        assert!((at(3.0, 0.5) - 2.0).abs() < 1e-12);
        assert!((at(4.0, 5.0) - 5.0).abs() < 1e-12);
        assert!((at(0.75, -0.5) + 0.25).abs() < 1e-12);
    }

    #[test]
    fn every_garment_covers_a_good_part_of_its_frame_and_not_all_of_it() {
        for index in 0..60 {
            let garment = Garment::any(&mut Dice::new(5, 0, index));
            let mut covered = 0;
            for row in 0..40 {
                for column in 0..40 {
                    let point = [f64::from(column) / 20.0 - 1.0, f64::from(row) / 20.0 - 1.0];
                    covered += u32::from(garment.distance(point) < 0.0);
                }
            }
            let share = f64::from(covered) / 1600.0;
            assert!((0.12..0.8).contains(&share), "garment {index} covers {share}");
        }
    }
}
