//! Pillow's Lanczos resize of 8-bit grey pixels, to the last bit.
//!
//! Resizers that follow the same algorithm differ in how they round the weights (Pillow keeps 22 bits, vectorized
//! ones often 15), which now and then moves a pixel by one. A difference hash compares neighbours that are often
//! nearly equal, so such a step flips its bits. After `src/libImaging/Resample.c` of Pillow.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into the caller is compiled for its wide vectors"
)]

/// Bits after the point of a weight: 32, less 8 for the pixel and 2 for the sum.
const PRECISION: u32 = 32 - 8 - 2;
/// Half width of the filter, in output pixels.
const SUPPORT: f64 = 3.0;

/// The input pixels that make one output pixel: the first of them, and their weights.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// `pixels` (`width x height`, row by row) at another size, which is at least 1 x 1.
#[inline(always)]
pub(super) fn resize(pixels: &[u8], (width, height): (usize, usize), (to_width, to_height): (usize, usize)) -> Vec<u8> {
    // Each pass rounds, so that their order shows. Pillow 13 begins with the rows of tall pictures; the rule was found
    // by comparing sizes (earlier versions begin with the columns, whatever the size).
    if height > to_height && (height - to_height) as i64 > 2 * (width as i64 - to_width as i64) {
        let narrowed = down(pixels, width, height, to_height);
        return across(&narrowed, width, to_width);
    }
    let narrowed = across(pixels, width, to_width);
    down(&narrowed, to_width, height, to_height)
}

/// The same rows with `to` instead of `width` columns.
#[inline(always)]
fn across(pixels: &[u8], width: usize, to: usize) -> Vec<u8> {
    if width == to {
        return pixels.to_vec();
    }
    let windows = windows(width, to);
    let mut resized = Vec::with_capacity(pixels.len() / width * to);
    for row in pixels.chunks_exact(width) {
        for window in &windows {
            resized.push(weigh(window, row));
        }
    }
    resized
}

/// The same columns with `to` instead of `height` rows.
#[inline(always)]
fn down(pixels: &[u8], width: usize, height: usize, to: usize) -> Vec<u8> {
    if height == to {
        return pixels.to_vec();
    }
    let mut resized = Vec::with_capacity(width * to);
    let mut sums = vec![0; width];
    for window in windows(height, to) {
        sums.fill(1 << (PRECISION - 1));
        let rows = pixels[window.first * width..].chunks_exact(width);
        for (row, weight) in rows.zip(&window.weights) {
            for (sum, pixel) in sums.iter_mut().zip(row) {
                *sum = add(*sum, *pixel, *weight);
            }
        }
        resized.extend(sums.iter().map(|sum| clipped(*sum)));
    }
    resized
}

#[inline(always)]
fn weigh(window: &Window, row: &[u8]) -> u8 {
    let pixels = row[window.first..].iter().zip(&window.weights);
    clipped(pixels.fold(1 << (PRECISION - 1), |sum, (pixel, weight)| add(sum, *pixel, *weight)))
}

/// [`PRECISION`] leaves room for every sum; a check for overflow would keep debug builds from using vectors.
#[inline(always)]
fn add(sum: i32, pixel: u8, weight: i32) -> i32 {
    sum.wrapping_add(i32::from(pixel).wrapping_mul(weight))
}

fn clipped(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The window of each of `to` output pixels over `from` input pixels.
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    // When pixels are added, the filter keeps its width in input pixels.
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    (0..to)
        .map(|pixel| {
            let centre = (pixel as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let values: Vec<f64> = (first..end)
                .map(|input| lanczos((input as f64 - centre + 0.5) * (1.0 / filter_scale)))
                .collect();
            let total: f64 = values.iter().sum();
            let fixed = |value: &f64| {
                let scaled = value / total * f64::from(1 << PRECISION);
                (scaled + 0.5_f64.copysign(scaled)) as i32
            };
            Window {
                first,
                weights: values.iter().map(fixed).collect(),
            }
        })
        .collect()
}

fn lanczos(x: f64) -> f64 {
    if (-SUPPORT..SUPPORT).contains(&x) {
        sinc(x) * sinc(x / SUPPORT)
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_pillow() {
        // PIL.Image.fromarray(numpy.arange(70, dtype="uint8").reshape(7, 10) * 37 % 256).resize(size, LANCZOS)
        let pixels: Vec<u8> = (0..70_u32).map(|index| (index * 37 % 256) as u8).collect();
        for (size, expected) in EXPECTED {
            assert_eq!(resize(&pixels, (10, 7), *size), *expected, "{size:?}");
        }
    }

    #[test]
    fn a_tall_picture_begins_with_its_rows() {
        // As above, of 60 rows of 3 columns.
        let pixels: Vec<u8> = (0..180_u32).map(|index| (index * 37 % 256) as u8).collect();
        assert_eq!(
            resize(&pixels, (3, 60), (4, 3)),
            [123, 123, 123, 124, 125, 126, 131, 134, 131, 136, 132, 125]
        );
        assert_eq!(
            resize(&pixels, (3, 60), (2, 5)),
            [114, 113, 135, 136, 122, 131, 125, 126, 142, 135]
        );
    }

    #[test]
    fn an_even_area_stays_even() {
        for value in [0, 1, 127, 254, 255] {
            assert_eq!(resize(&[value; 1000 * 3], (1000, 3), (17, 16)), vec![value; 17 * 16]);
        }
    }

    const EXPECTED: &[((usize, usize), &[u8])] = &[
        ((3, 2), &[107, 124, 109, 140, 125, 142]),
        (
            (4, 7),
            &[
                25, 131, 158, 39, 162, 132, 53, 168, 92, 75, 195, 78, 118, 190, 59, 131, 171, 54, 174, 157, 81, 196,
                117, 87, 210, 91, 118, 224,
            ],
        ),
        (
            (10, 3),
            &[
                92, 69, 123, 156, 80, 117, 159, 95, 72, 126, 161, 123, 85, 137, 159, 90, 112, 164, 126, 88, 123, 177,
                154, 90, 132, 169, 93, 126, 180, 157,
            ],
        ),
        (
            (17, 16),
            &[
                0, 0, 14, 38, 55, 75, 113, 167, 189, 218, 255, 190, 20, 0, 21, 48, 58, 7, 20, 54, 78, 98, 124, 129,
                128, 138, 173, 217, 159, 31, 14, 61, 89, 97, 42, 68, 117, 142, 166, 202, 155, 67, 55, 97, 131, 108, 56,
                72, 124, 154, 161, 118, 127, 149, 165, 201, 242, 161, 17, 0, 50, 71, 91, 118, 135, 154, 181, 193, 216,
                164, 93, 86, 136, 169, 117, 30, 44, 101, 117, 158, 207, 160, 91, 104, 131, 255, 161, 22, 5, 61, 82, 90,
                99, 127, 160, 175, 219, 248, 145, 17, 24, 63, 203, 123, 17, 26, 85, 99, 141, 186, 159, 119, 131, 180,
                197, 109, 15, 44, 90, 106, 89, 79, 114, 156, 170, 219, 245, 141, 30, 39, 89, 106, 90, 83, 127, 159, 89,
                122, 166, 159, 143, 160, 210, 219, 109, 4, 30, 79, 93, 135, 170, 160, 144, 159, 205, 234, 140, 52, 69,
                118, 130, 91, 63, 108, 150, 164, 223, 232, 126, 50, 186, 225, 232, 104, 1, 30, 74, 89, 123, 150, 159,
                167, 188, 244, 227, 88, 0, 118, 145, 158, 88, 42, 91, 132, 148, 208, 219, 132, 80, 113, 163, 156, 85,
                35, 56, 68, 95, 114, 131, 158, 178, 199, 254, 232, 88, 7, 48, 84, 100, 122, 131, 88, 95, 125, 180, 193,
                141, 118, 152, 196, 182, 94, 47, 83, 107, 132, 181, 207, 152, 160, 188, 240, 218, 90, 32, 76, 112, 121,
                120, 125, 151, 171, 195, 229, 245, 191, 201, 228, 255, 229, 59, 0, 31, 60, 82, 136, 174, 194, 211, 235,
                255, 255,
            ],
        ),
        ((1, 1), &[124]),
    ];
}
