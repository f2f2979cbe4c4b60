//! The common kind of JPEG: baseline or extended sequential, of bytes, in one scan, with the colours of JFIF.

use ::image::{DynamicImage, GrayImage};

use super::super::RgbImage;
use super::entropy::{Bits, Slot, Table, read_block};
use super::markers::{self, Component, Header};
use super::transform::{self, Inverse};

/// A component on its way to pixels.
struct Plane<'a> {
    /// Blocks of a unit, across and down.
    blocks: (usize, usize),
    /// Pixels of a block, across and down.
    block: (usize, usize),
    codes: (&'a Table, &'a Table),
    slots: [Slot; 64],
    inverse: Inverse,
    last_dc: i32,
    /// A row of units, as pixels; of all planes as wide and high.
    pixels: Vec<u8>,
}

/// The picture, not turned upright, with blocks of 8 x 8 pixels at 4 x 4, 2 x 2 or 1 x 1 (`points` is 4, 2 or 1).
/// `None` where the file is of another kind, damaged, of another size than `size`, or would take more than `memory`, in
/// bytes.
pub(super) fn read(bytes: &[u8], size: (u32, u32), points: usize, memory: u64) -> Option<DynamicImage> {
    let header = markers::read(bytes)?;
    if size != (header.width as u32, header.height as u32) {
        return None;
    }
    let (across, down) = header.components.first()?.blocks;
    let channels = header.components.len();
    let units = header.width.div_ceil(8 * across);
    let (width, height) = (
        (header.width * points).div_ceil(8),
        (header.height * points).div_ceil(8),
    );
    let (stride, lines) = (units * across * points, down * points);
    if (channels * (width * height + stride * lines)) as u64 > memory {
        return None;
    }
    let mut planes = planes(&header, points, stride * lines)?;
    let mut image = vec![0; channels * width * height];
    let mut bits = Bits::new(bytes, header.data);
    let mut done = 0;
    for rows in image.chunks_mut(width * channels * lines) {
        for unit in 0..units {
            if header.restart > 0 && done > 0 && done % header.restart == 0 {
                bits.restart((done / header.restart - 1) as u8 % 8)?;
                for plane in &mut planes {
                    plane.last_dc = 0;
                }
            }
            for plane in &mut planes {
                plane.read(&mut bits, unit, stride)?;
            }
            done += 1;
        }
        if !bits.is_whole() {
            return None;
        }
        for (line, row) in rows.chunks_exact_mut(width * channels).enumerate() {
            let line = line * stride..line * stride + width;
            match planes.as_slice() {
                [y, blue, red] => colour(
                    &y.pixels[line.clone()],
                    &blue.pixels[line.clone()],
                    &red.pixels[line],
                    row,
                ),
                planes => row.copy_from_slice(&planes.first()?.pixels[line]),
            }
        }
    }
    let (width, height) = (width as u32, height as u32);
    if channels == 1 {
        GrayImage::from_raw(width, height, image).map(DynamicImage::from)
    } else {
        RgbImage::from_raw(width, height, image).map(DynamicImage::from)
    }
}

fn planes(header: &Header, points: usize, size: usize) -> Option<Vec<Plane<'_>>> {
    let (across, down) = header.components.first()?.blocks;
    let plane = |component: &Component| {
        let block = (points * across / component.blocks.0, points * down / component.blocks.1);
        let quantization = header.tables.quantization.get(component.quantization)?.as_ref()?;
        let dc = header.tables.dc.get(component.codes.0)?.as_ref()?;
        let ac = header.tables.ac.get(component.codes.1)?.as_ref()?;
        Some(Plane {
            blocks: component.blocks,
            block,
            codes: (dc, ac),
            slots: transform::slots(block, quantization),
            inverse: transform::inverse(block)?,
            last_dc: 0,
            pixels: vec![0; size],
        })
    };
    header.components.iter().map(plane).collect()
}

impl Plane<'_> {
    /// Reads the blocks of the unit of this number in its row.
    #[inline]
    fn read(&mut self, bits: &mut Bits, unit: usize, stride: usize) -> Option<()> {
        let (width, height) = self.block;
        for y in 0..self.blocks.1 {
            for x in 0..self.blocks.0 {
                let mut block = [0.0; 65];
                let rows = read_block(bits, self.codes, &mut self.last_dc, &self.slots, &mut block)?;
                let begin = y * height * stride + (unit * self.blocks.0 + x) * width;
                (self.inverse)(&block, rows, self.pixels.get_mut(begin..)?, stride);
            }
        }
        Some(())
    }
}

/// Brightness and differences to red, green and blue (JFIF, ITU-T T.871, section 7).
fn colour(brightness: &[u8], blue: &[u8], red: &[u8], pixels: &mut [u8]) {
    let differences = blue.iter().zip(red);
    for ((pixel, &y), (&blue, &red)) in pixels.chunks_exact_mut(3).zip(brightness).zip(differences) {
        let (y, blue, red) = (i32::from(y) << 16 | 0x8000, i32::from(blue) - 128, i32::from(red) - 128);
        let byte = |value: i32| (value >> 16).clamp(0, 255) as u8;
        pixel[0] = byte(y + 91_881 * red);
        pixel[1] = byte(y - 22_554 * blue - 46_802 * red);
        pixel[2] = byte(y + 116_130 * blue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth picture of 101 x 75 pixels in the usual forms.
    const FILES: [(&str, &[u8]); 5] = [
        ("4:2:0", include_bytes!("fixtures/420.jpg")),
        ("4:2:2", include_bytes!("fixtures/422.jpg")),
        ("4:4:4", include_bytes!("fixtures/444.jpg")),
        ("grey", include_bytes!("fixtures/grey.jpg")),
        ("with restart markers", include_bytes!("fixtures/restart.jpg")),
    ];
    const SIZE: (u32, u32) = (101, 75);
    const MEMORY: u64 = 1 << 20;

    /// Mean difference in 8-bit steps to the means of squares of `side` pixels of `full`, less the last row and column.
    fn difference(small: &RgbImage, full: &RgbImage, side: u32) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for y in 0..small.height() - 1 {
            for x in 0..small.width() - 1 {
                for channel in 0..3 {
                    let pixels = (0..side * side)
                        .map(|index| full.get_pixel(side * x + index % side, side * y + index / side).0[channel]);
                    let mean = pixels.map(f64::from).sum::<f64>() / f64::from(side * side);
                    sum += (mean - f64::from(small.get_pixel(x, y).0[channel])).abs();
                    count += 1.0;
                }
            }
        }
        sum / count
    }

    #[test]
    fn a_smaller_picture_is_the_larger_one_averaged() {
        for (name, file) in FILES {
            let full = ::image::load_from_memory(file).expect(name).into_rgb8();
            for points in [4, 2, 1] {
                let small = read(file, SIZE, points, MEMORY).expect(name).into_rgb8();
                let length = |length: u32| (length * points as u32).div_ceil(8);
                assert_eq!(small.dimensions(), (length(SIZE.0), length(SIZE.1)), "{name}");
                let difference = difference(&small, &full, 8 / points as u32);
                assert!(difference < 2.5, "{name} at {points}: {difference} steps");
            }
        }
    }

    #[test]
    fn what_is_damaged_or_too_large_is_left_to_others() {
        for (name, file) in FILES {
            assert!(read(file, SIZE, 4, 1000).is_none(), "{name} in too little memory");
            assert!(
                read(file, (SIZE.1, SIZE.0), 4, MEMORY).is_none(),
                "{name} of another size"
            );
            for end in 0..file.len() - 4 {
                assert!(read(&file[..end], SIZE, 4, MEMORY).is_none(), "{name} cut at {end}");
            }
            // Whatever else is wrong, there is an answer.
            for place in 0..file.len() {
                let mut damaged = file.to_vec();
                damaged[place] ^= 0x10;
                read(&damaged, SIZE, 4, MEMORY);
            }
        }
    }
}
