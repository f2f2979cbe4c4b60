//! The difference hash: which way the brightness goes, on a square grid.
//!
//! Bit for bit that of `dhash(image, hash_size)` in the Python package `imagehash`: grey as Pillow's mode "L",
//! resized to one column more than rows with Pillow's Lanczos filter, one bit where a pixel is brighter than its left
//! neighbour.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` is compiled for wide vectors"
)]

use shared::image::RgbImage;

use super::lanczos;

/// Rows and columns of a hash, where nothing else is asked for.
pub const HASH_SIZE: u32 = 16;
/// Changes whenever the same pixels may give another hash than before: kept hashes are then stale.
pub const HASH_REVISION: u32 = 3;

/// A difference hash of `size x size` bits, row by row, the first bit highest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DifferenceHash {
    size: u32,
    bytes: Vec<u8>,
}

impl DifferenceHash {
    /// The bits, eight to a byte; the last byte is filled up with zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bits differ between two hashes of one size.
    pub fn distance(&self, other: &Self) -> u32 {
        self.bytes
            .iter()
            .zip(&other.bytes)
            .map(|(left, right)| (left ^ right).count_ones())
            .sum()
    }
}

impl AsRef<[u8]> for DifferenceHash {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// As `imagehash` prints it: all bits as one hexadecimal number.
impl std::fmt::Display for DifferenceHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = (self.size * self.size) as usize;
        let bit = |index: usize| self.bytes[index / 8] >> (7 - index % 8) & 1;
        let mut digit = 0;
        for index in 0..bits {
            digit = digit << 1 | bit(index);
            if (bits - index - 1).is_multiple_of(4) {
                write!(formatter, "{digit:x}")?;
                digit = 0;
            }
        }
        Ok(())
    }
}

/// The difference hash of an image; `size` is 1 or more.
pub fn dhash(image: &RgbImage, size: u32) -> DifferenceHash {
    let (columns, rows) = (size as usize + 1, size as usize);
    // With the widest vectors of the processor: after decoding, this is where hashing takes its time.
    let small = pulp::Arch::new().dispatch(Shrink {
        image,
        to: (columns, rows),
    });
    let mut bytes = vec![0; (rows * rows).div_ceil(8)];
    for (row, pixels) in small.chunks_exact(columns).enumerate() {
        for (column, pair) in pixels.windows(2).enumerate() {
            if pair[1] > pair[0] {
                let bit = row * rows + column;
                bytes[bit / 8] |= 0x80 >> (bit % 8);
            }
        }
    }
    DifferenceHash { size, bytes }
}

/// An image in grey at another size.
struct Shrink<'a> {
    image: &'a RgbImage,
    to: (usize, usize),
}

impl pulp::WithSimd for Shrink<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Vec<u8> {
        let pixels = self.image.as_raw();
        let mut grey = vec![0; pixels.len() / 3];
        for (grey, pixel) in grey.iter_mut().zip(pixels.chunks_exact(3)) {
            *grey = luminance([pixel[0], pixel[1], pixel[2]]);
        }
        let from = (self.image.width() as usize, self.image.height() as usize);
        lanczos::resize(&grey, from, self.to)
    }
}

/// The hash of [`HASH_SIZE`], whose length is known.
pub fn dhash_256(image: &RgbImage) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(dhash(image, HASH_SIZE).as_bytes());
    bytes
}

/// ITU-R 601-2 luma in the fixed point that Pillow uses.
#[inline(always)]
fn luminance([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_imagehash() {
        // str(imagehash.dhash(Image.fromarray(pixels), size)) of the same pixels.
        let image = RgbImage::from_fn(50, 40, |x, y| {
            ::image::Rgb([(x * 7 % 256) as u8, (y * 11 % 256) as u8, (x * y % 256) as u8])
        });
        for (size, expected) in EXPECTED {
            assert_eq!(dhash(&image, *size).to_string(), *expected, "{size}");
        }
    }

    #[test]
    fn a_change_of_quality_moves_few_bits_and_another_picture_many() {
        let picture = |shift: u32| {
            RgbImage::from_fn(120, 90, |x, y| {
                let value = ((x + shift).pow(2) / 40 + y * 3 * shift) % 256;
                ::image::Rgb([value as u8; 3])
            })
        };
        let mut softer = picture(1);
        softer
            .pixels_mut()
            .for_each(|pixel| pixel.0 = pixel.0.map(|value| value / 2 + 40));
        let hash = dhash(&picture(1), HASH_SIZE);
        assert!(hash.distance(&dhash(&softer, HASH_SIZE)) <= 16);
        assert!(hash.distance(&dhash(&picture(9), HASH_SIZE)) > 40);
    }

    const EXPECTED: &[(u32, &str)] = &[
        (2, "a"),
        (3, "1b6"),
        (7, "1f7cfdfbf7efd"),
        (8, "f9f9f9d9f9f9f9f9"),
        (16, "ffe7ffe7ffe5ffa7fe66f9e7fbe6f725e667eee5cda7db24db67d6c6d5a5b567"),
        (
            32,
            "fffffe7ffffffe7ffffffe7ffffffe7ffffffe6ffffffe67fffff27fffffd67ffffe3e7dfff8fe65fff1fe07ffe7fe5fffcff47eff9fe678ff9fce63ff3fbe4ffe7f7e3ffe7e7e7cfefcf879fcf9f267fdf3e65ff9f7ce1ef9e79e78fbefbe73fbcf7c67f3de724ef39ef63cf39ce679f3b9ce77f739de6ee77bb84ee773ba59",
        ),
    ];
}
