//! Chance and smooth noise that give the same bits everywhere.
//!
//! Only additions, multiplications, divisions and square roots are used, which IEEE 754 rounds
//! exactly; sines come from a polynomial instead of the platform's library. Numbers are drawn from
//! the raw output of `ChaCha8`, so that they do not change with the distributions of a crate.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The stream of random numbers of one image.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream that belongs to image `index` of class number `class` under `seed`.
    pub(super) fn new(seed: u64, class: u32, index: u32) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..12].copy_from_slice(&class.to_le_bytes());
        key[12..16].copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Any 64 bits: the seed of a noise field.
    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        fraction(self.0.next_u64())
    }

    /// Uniform in `[low, high)`.
    pub(super) fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Between `low` and `high` (both above 0), small values as likely as large ones in proportion.
    pub(super) fn between_scales(&mut self, (low, high): (f64, f64)) -> f64 {
        // A squared ramp between square roots is close to logarithmic over the factors used here.
        let root = self.between((low.sqrt(), high.sqrt()));
        root * root
    }

    /// True with probability `share`.
    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// One of `choices`, which is not empty.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = (self.unit() * choices.len() as f64) as usize;
        choices[place.min(choices.len() - 1)]
    }

    /// A unit vector at an angle between `low` and `high`, in turns.
    pub(super) fn direction(&mut self, range: (f64, f64)) -> [f64; 2] {
        let turns = self.between(range);
        [sine(turns + 0.25), sine(turns)]
    }
}

/// The top 53 bits as a number in `[0, 1)`.
fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The sine of an angle in turns (1 is the full circle), to about 0.001.
pub(super) fn sine(turns: f64) -> f64 {
    let phase = turns - turns.floor();
    let (half, sign) = if phase < 0.5 { (phase, 1.0) } else { (phase - 0.5, -1.0) };
    // Bhaskara's approximation over the half circle.
    let product = half * (0.5 - half);
    sign * 16.0 * product / (1.25 - 4.0 * product)
}

/// 0 below `low`, 1 above `high`, a smooth cubic between.
pub(super) fn smooth_step(low: f64, high: f64, value: f64) -> f64 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// `from` at 0, `to` at 1.
pub(super) fn mix(from: f64, to: f64, share: f64) -> f64 {
    from + (to - from) * share
}

/// A hash of a lattice point (the finalizer of `SplitMix64`).
pub(super) fn lattice(seed: u64, x: i64, y: i64) -> u64 {
    let mut bits =
        seed ^ (x as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (y as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Two independent numbers in `[0, 1)` for a lattice point.
pub(super) fn lattice_pair(seed: u64, x: i64, y: i64) -> [f64; 2] {
    let bits = lattice(seed, x, y);
    let scale = f64::from(1_u32 << 31) * 2.0;
    [f64::from(bits as u32) / scale, f64::from((bits >> 32) as u32) / scale]
}

/// Value noise: random numbers at the integer points, smooth between, in `[-1, 1]`.
pub(super) fn value_noise(seed: u64, x: f64, y: f64) -> f64 {
    let (left, top) = (x.floor(), y.floor());
    let (column, row) = (left as i64, top as i64);
    let across = smooth_step(0.0, 1.0, x - left);
    let down = smooth_step(0.0, 1.0, y - top);
    let corner = |dx, dy| fraction(lattice(seed, column + dx, row + dy));
    let above = mix(corner(0, 0), corner(1, 0), across);
    let below = mix(corner(0, 1), corner(1, 1), across);
    2.0 * mix(above, below, down) - 1.0
}

/// Sum of `octaves` value noises, each twice as fine and half as strong; within `[-2, 2]`.
pub(super) fn fractal_noise(seed: u64, x: f64, y: f64, octaves: u32) -> f64 {
    let mut sum = 0.0;
    let (mut frequency, mut strength) = (1.0, 1.0);
    for octave in 0..u64::from(octaves) {
        sum += strength * value_noise(seed.wrapping_add(octave), x * frequency, y * frequency);
        frequency *= 2.0;
        strength *= 0.5;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sine_is_close_to_the_real_one() {
        for step in -40..40 {
            let turns = f64::from(step) / 16.0 + 0.01;
            let real = (turns * std::f64::consts::TAU).sin();
            assert!((sine(turns) - real).abs() < 2e-3, "at {turns}");
        }
    }

    #[test]
    fn noise_is_continuous_and_bounded() {
        let mut last = value_noise(7, -3.0, 0.4);
        for step in 1..600 {
            let value = value_noise(7, -3.0 + f64::from(step) / 100.0, 0.4);
            assert!(value.abs() <= 1.0);
            assert!((value - last).abs() < 0.05, "a jump at step {step}");
            last = value;
        }
    }

    #[test]
    fn streams_of_different_images_differ() {
        let first = |seed, class, index| Dice::new(seed, class, index).bits();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        assert_ne!(first(1, 2, 3), first(1, 3, 2));
        assert_ne!(first(1, 2, 3), first(2, 2, 3));
    }
}
