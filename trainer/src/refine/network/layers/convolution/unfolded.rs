//! A convolution as a matrix product: what the kernel has under it, one column for each of its places, times the
//! kernel. Chellapilla, Puri and Simard 2006, <https://inria.hal.science/inria-00112631>.

use std::ops::Range;

use burn_flex::Flex;
use burn_tensor::Tensor;
use rayon::prelude::*;

use super::geometry::{Axis, Geometry};
use super::{NUMBERS_A_THREAD, numbers, tensor};

/// Numbers that are unfolded at once, 2 MiB: what the caches of a core hold.
const NUMBERS: usize = 1 << 19;

/// Least columns that are unfolded at once, so that a product is worth the way of its kernel through memory.
const COLUMNS: usize = 256;

/// `map x kernel`.
pub(super) fn forward(geometry: &Geometry, map: &Tensor<Flex, 4>, kernel: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let map = numbers(map);
    let mut output = vec![0.0; geometry.output_shape().iter().product()];
    for group in Group::all(geometry) {
        let kernel = group.kernel(kernel);
        for lines in group.tiles() {
            let product = kernel.clone().matmul(group.unfold(&map, lines.clone()));
            group.scatter(&numbers(&product), &mut output, lines);
        }
    }
    tensor(output, geometry.output_shape())
}

/// The gradient of the map from that of the output.
pub(super) fn map_gradient(geometry: &Geometry, kernel: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let output = numbers(output);
    let mut map = vec![0.0; geometry.map_shape().iter().product()];
    for group in Group::all(geometry) {
        let kernel = group.kernel(kernel).transpose();
        for lines in group.tiles() {
            let product = kernel.clone().matmul(group.gather(&output, lines.clone()));
            group.fold(&numbers(&product), &mut map, lines);
        }
    }
    tensor(map, geometry.map_shape())
}

/// The gradient of the kernel from that of the output.
pub(super) fn kernel_gradient(geometry: &Geometry, map: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let (map, output) = (numbers(map), numbers(output));
    let shape = geometry.kernel_shape();
    let gradients = Group::all(geometry).map(|group| {
        let parts = group.tiles().map(|lines| {
            let unfolded = group.unfold(&map, lines.clone());
            group.gather(&output, lines).matmul(unfolded.transpose())
        });
        let size = [group.outputs.len(), geometry.depth()];
        parts
            .reduce(|sum, part| sum + part)
            .unwrap_or_else(|| tensor(vec![0.0; size[0] * size[1]], size))
    });
    Tensor::cat(gradients.collect(), 0).reshape(shape)
}

/// Channels that only some outputs are made from. Its lines are the rows of all images' outputs, counted through.
struct Group<'a> {
    geometry: &'a Geometry,
    channels: Range<usize>,
    outputs: Range<usize>,
    height: Axis,
    width: Axis,
}

impl<'a> Group<'a> {
    fn all(geometry: &'a Geometry) -> impl Iterator<Item = Self> {
        let channels = geometry.channels / geometry.groups;
        let outputs = geometry.outputs / geometry.groups;
        // Rows that are like their map's are one long row.
        let (height, width) = if geometry.is_pointwise() {
            let long = |axis: Axis, size: usize| Axis {
                size,
                places: size,
                ..axis
            };
            (long(geometry.height, 1), long(geometry.width, geometry.points()))
        } else {
            (geometry.height, geometry.width)
        };
        (0..geometry.groups).map(move |group| Self {
            geometry,
            channels: group * channels..(group + 1) * channels,
            outputs: group * outputs..(group + 1) * outputs,
            height,
            width,
        })
    }

    /// Its part of the kernel, `[outputs, depth]`.
    fn kernel(&self, kernel: &Tensor<Flex, 4>) -> Tensor<Flex, 2> {
        kernel
            .clone()
            .reshape([self.geometry.outputs, self.geometry.depth()])
            .slice([self.outputs.clone(), 0..self.geometry.depth()])
    }

    /// Lines that are worked on together.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let lines = self.geometry.images * self.height.places;
        let columns = (NUMBERS / self.geometry.depth().max(1)).max(COLUMNS);
        let step = (columns / self.width.places.max(1)).max(1);
        (0..lines)
            .step_by(step)
            .map(move |first| first..(first + step).min(lines))
    }

    /// The rows of output of each image among `lines`.
    fn images(&self, lines: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let rows = self.height.places;
        let (begin, end) = (lines.start, lines.end);
        (begin / rows..end.div_ceil(rows)).map(move |image| {
            let first = image * rows;
            (image, begin.max(first) - first..end.min(first + rows) - first)
        })
    }

    /// What is under each tap of the kernel, `[depth, columns]`.
    fn unfold(&self, map: &[f32], lines: Range<usize>) -> Tensor<Flex, 2> {
        let (depth, places) = (self.geometry.depth(), self.width.places);
        let columns = lines.len() * places;
        let mut unfolded = vec![0.0; depth * columns];
        let rows = unfolded
            .par_chunks_exact_mut(columns)
            .with_min_len(NUMBERS_A_THREAD.div_ceil(columns));
        rows.enumerate().for_each(|(row, unfolded)| {
            let (channel, [down, across]) = self.tap(row);
            let inside = self.width.inside(across);
            let Some(first) = self.width.under(inside.start, across) else {
                return;
            };
            let mut unfolded = unfolded.chunks_exact_mut(places);
            for (image, rows) in self.images(&lines) {
                let plane = self.plane(image, channel);
                for (row, unfolded) in rows.zip(&mut unfolded) {
                    let Some(row) = self.height.under(row, down) else {
                        continue;
                    };
                    let from = &map[plane + row * self.width.size..][first..self.width.size];
                    let to = &mut unfolded[inside.clone()];
                    if self.width.stride == 1 {
                        to.copy_from_slice(&from[..to.len()]);
                    } else {
                        let from = from.iter().step_by(self.width.stride);
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        });
        tensor(unfolded, [depth, columns])
    }

    /// Adds what stands for each tap of the kernel to the map.
    fn fold(&self, unfolded: &[f32], map: &mut [f32], lines: Range<usize>) {
        let (points, places, taps) = (self.geometry.points(), self.width.places, self.geometry.taps());
        let columns = lines.len() * places;
        let least = NUMBERS_A_THREAD.div_ceil(points * taps);
        let planes = self.planes(map, [self.geometry.channels, points], &self.channels, lines, least);
        planes.for_each(|plane| {
            let Plane {
                channel,
                numbers,
                rows,
                skipped,
            } = plane;
            for tap in 0..taps {
                let row = channel * taps + tap;
                let (_, [down, across]) = self.tap(row);
                let inside = self.width.inside(across);
                let Some(first) = self.width.under(inside.start, across) else {
                    continue;
                };
                let unfolded = unfolded[row * columns..][..columns].chunks_exact(places).skip(skipped);
                for (row, unfolded) in rows.clone().zip(unfolded) {
                    let Some(row) = self.height.under(row, down) else {
                        continue;
                    };
                    let to = &mut numbers[row * self.width.size..][first..self.width.size];
                    let from = &unfolded[inside.clone()];
                    if self.width.stride == 1 {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                    } else {
                        let to = to.iter_mut().step_by(self.width.stride);
                        to.zip(from).for_each(|(to, from)| *to += from);
                    }
                }
            }
        });
    }

    /// The output at some lines, `[outputs, columns]`.
    fn gather(&self, output: &[f32], lines: Range<usize>) -> Tensor<Flex, 2> {
        let places = self.width.places;
        let columns = lines.len() * places;
        let mut gathered = vec![0.0; self.outputs.len() * columns];
        let rows = gathered.par_chunks_exact_mut(columns).zip(self.outputs.clone());
        rows.with_min_len(NUMBERS_A_THREAD.div_ceil(columns))
            .for_each(|(mut to, channel)| {
                for (image, rows) in self.images(&lines) {
                    let plane = (image * self.geometry.outputs + channel) * self.geometry.places();
                    let (part, rest) = to.split_at_mut(rows.len() * places);
                    part.copy_from_slice(&output[plane + rows.start * places..plane + rows.end * places]);
                    to = rest;
                }
            });
        tensor(gathered, [self.outputs.len(), columns])
    }

    /// Puts `[outputs, columns]` to its lines of the output.
    fn scatter(&self, gathered: &[f32], output: &mut [f32], lines: Range<usize>) {
        let places = self.width.places;
        let columns = lines.len() * places;
        let sizes = [self.geometry.outputs, self.geometry.places()];
        let least = NUMBERS_A_THREAD.div_ceil(sizes[1]);
        let planes = self.planes(output, sizes, &self.outputs, lines, least);
        planes.for_each(|plane| {
            let Plane {
                channel,
                numbers,
                rows,
                skipped,
            } = plane;
            let from = &gathered[channel * columns + skipped * places..][..rows.len() * places];
            numbers[rows.start * places..rows.end * places].copy_from_slice(from);
        });
    }

    /// The group's `own` planes of a map or an output, which has `all` channels of `size` numbers, in the images of
    /// `lines`; a thread takes `least` planes, of whatever group.
    fn planes<'b>(
        &self,
        numbers: &'b mut [f32],
        [all, size]: [usize; 2],
        own: &'b Range<usize>,
        lines: Range<usize>,
        least: usize,
    ) -> impl ParallelIterator<Item = Plane<'b>> + use<'b> {
        let images: Vec<_> = self.images(&lines).collect();
        let (down, first) = (self.height.places, images.first().map_or(0, |(image, _)| *image));
        let planes = numbers[first * all * size..].par_chunks_exact_mut(size);
        let planes = planes.take(images.len() * all).enumerate().with_min_len(least);
        planes.filter_map(move |(plane, numbers)| {
            let channel = own.contains(&(plane % all)).then(|| plane % all - own.start)?;
            let (image, rows) = images[plane / all].clone();
            Some(Plane {
                channel,
                numbers,
                skipped: image * down + rows.start - lines.start,
                rows,
            })
        })
    }

    /// Channel and place in the kernel of a row of what is unfolded.
    fn tap(&self, row: usize) -> (usize, [usize; 2]) {
        let (taps, across) = (self.geometry.taps(), self.width.taps);
        let tap = row % taps;
        (self.channels.start + row / taps, [tap / across, tap % across])
    }

    /// Where a channel of an image begins in the map.
    fn plane(&self, image: usize, channel: usize) -> usize {
        (image * self.geometry.channels + channel) * self.geometry.points()
    }
}

/// One channel of one image.
struct Plane<'a> {
    /// Counted within the group.
    channel: usize,
    numbers: &'a mut [f32],
    /// The rows of output that are worked on.
    rows: Range<usize>,
    /// Lines that are worked on before these rows.
    skipped: usize,
}
