//! From a block's low frequencies to fewer pixels than it has (as in libjpeg's `jidctred`): the inverse of a smaller
//! discrete cosine transform.

use super::entropy::{DROPPED, Slot};

/// Where the coefficients of a JPEG, in their order in the file, lie in a block of 8 x 8 (ITU-T T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// The coefficients that blocks of `width` x `height` pixels need, and their quantization.
pub(super) fn slots((width, height): (usize, usize), quantization: &[u16; 64]) -> [Slot; 64] {
    std::array::from_fn(|index| {
        let (row, column) = (usize::from(ZIGZAG[index] / 8), usize::from(ZIGZAG[index] % 8));
        let kept = row < height && column < width;
        Slot {
            place: if kept { (row * width + column) as u8 } else { DROPPED },
            row: if kept { 1 << row } else { 0 },
            factor: f32::from(quantization[index]),
        }
    })
}

/// Turns blocks of one size into pixels.
pub(super) type Inverse = fn(block: &[f32; 65], rows: u8, pixels: &mut [u8], stride: usize);

/// The one for blocks of `width` x `height` pixels.
pub(super) fn inverse(size: (usize, usize)) -> Option<Inverse> {
    Some(match size {
        (1, 1) => inverse_of::<1, 1>,
        (1, 2) => inverse_of::<1, 2>,
        (2, 1) => inverse_of::<2, 1>,
        (2, 2) => inverse_of::<2, 2>,
        (2, 4) => inverse_of::<2, 4>,
        (4, 2) => inverse_of::<4, 2>,
        (4, 4) => inverse_of::<4, 4>,
        (4, 8) => inverse_of::<4, 8>,
        (8, 4) => inverse_of::<8, 4>,
        (8, 8) => inverse_of::<8, 8>,
        _ => return None,
    })
}

/// `rows` are those with something beside the first coefficient.
// Loops over numbers, as they are a fifth faster here than iterators.
fn inverse_of<const W: usize, const H: usize>(block: &[f32; 65], rows: u8, pixels: &mut [u8], stride: usize) {
    let lines = pixels.chunks_mut(stride).take(H);
    if rows == 0 {
        let flat = pixel(block[0] / 8.0);
        for line in lines {
            line[..W].fill(flat);
        }
        return;
    }
    let (across, down) = (const { basis::<W>() }, const { basis::<H>() });
    let mut sums = [[0.0; W]; H];
    for row in 0..H {
        if (rows | 1) >> row & 1 == 0 {
            continue;
        }
        let mut line = [0.0; W];
        for column in 0..W {
            let coefficient = block[row * W + column];
            for x in 0..W {
                line[x] += coefficient * across[column][x];
            }
        }
        for y in 0..H {
            for x in 0..W {
                sums[y][x] += down[row][y] * line[x];
            }
        }
    }
    for (line, sums) in lines.zip(&sums) {
        for (to, sum) in line.iter_mut().zip(sums) {
            *to = pixel(*sum);
        }
    }
}

/// A value around 0 as the pixel that it stands for.
fn pixel(value: f32) -> u8 {
    // So far up that the steps of floating point are whole numbers, the lowest bits are the number.
    ((value + 128.0).clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8
}

/// The waves of a transform of `N` points, for coefficients of the transform of 8: `[frequency][point]`.
const fn basis<const N: usize>() -> [[f32; N]; N] {
    let mut basis = [[0.0; N]; N];
    let mut frequency = 0;
    while frequency < N {
        let mut point = 0;
        while point < N {
            let wave = if frequency == 0 {
                std::f32::consts::FRAC_1_SQRT_2
            } else {
                cosine((2 * point + 1) * frequency * (8 / N))
            };
            basis[frequency][point] = wave / 2.0;
            point += 1;
        }
        frequency += 1;
    }
    basis
}

/// cos(pi / 16 * step).
const fn cosine(step: usize) -> f32 {
    const QUARTER: [f32; 9] = [
        1.0,
        0.980_785_25,
        0.923_879_5,
        0.831_469_6,
        std::f32::consts::FRAC_1_SQRT_2,
        0.555_570_24,
        0.382_683_43,
        0.195_090_32,
        0.0,
    ];
    match step % 32 {
        step @ 0..=8 => QUARTER[step],
        step @ 9..=16 => -QUARTER[16 - step],
        step @ 17..=24 => -QUARTER[step - 16],
        step => QUARTER[32 - step],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waves_are_those_of_the_definition() {
        let basis = basis::<8>();
        for (frequency, wave) in basis.iter().enumerate() {
            for (point, height) in wave.iter().enumerate() {
                let angle = std::f64::consts::PI / 16.0 * ((2 * point + 1) * frequency) as f64;
                let scale = if frequency == 0 { 0.125_f64.sqrt() } else { 0.5 };
                assert!((f64::from(*height) - scale * angle.cos()).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn the_first_coefficient_is_the_mean_at_any_size() {
        let mut block = [0.0; 65];
        block[0] = 8.0 * 50.0;
        for size in [
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
            (2, 4),
            (4, 2),
            (4, 4),
            (4, 8),
            (8, 4),
            (8, 8),
        ] {
            let inverse = inverse(size).expect("a size");
            for rows in [0, 1, 3] {
                let mut pixels = [0; 64];
                inverse(&block, rows, &mut pixels, 8);
                for (y, line) in pixels.chunks(8).enumerate() {
                    for (x, &pixel) in line.iter().enumerate() {
                        let expected = if x < size.0 && y < size.1 { 178 } else { 0 };
                        assert_eq!(pixel, expected, "{size:?} at {x}, {y}");
                    }
                }
            }
        }
    }
}
