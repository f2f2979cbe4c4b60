//! A convolution with a kernel for each channel. Planes are laid out with their padding, so that a step of the kernel
//! is the same step through memory everywhere: each of its taps is then one long run of products, however narrow the
//! plane.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` is compiled for wide vectors"
)]

use burn_flex::Flex;
use burn_tensor::Tensor;
use rayon::prelude::*;

use super::geometry::Geometry;
use super::{numbers, tensor};

/// Numbers that are added up side by side, on every processor, so that sums do not depend on its vectors.
const LANES: usize = 16;

/// Least products that are worth a thread.
const PRODUCTS: usize = 1 << 17;

/// `map x kernel`.
pub(super) fn forward(geometry: &Geometry, map: &Tensor<Flex, 4>, kernel: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let (map, kernel) = (numbers(map), numbers(kernel));
    let layout = Layout::of(geometry);
    let mut output = vec![0.0; geometry.output_shape().iter().product()];
    let planes = output.par_chunks_exact_mut(geometry.places()).enumerate();
    planes.with_min_len(layout.least_planes()).for_each_init(
        || (layout.plane(), layout.plane()),
        |(padded, sums), (plane, output)| {
            let (image, channel) = (plane / geometry.outputs, plane % geometry.outputs);
            layout.pad(layout.input(&map, image, channel), padded);
            let correlation = Correlation {
                weights: layout.kernel(&kernel, channel),
                offsets: &layout.offsets,
                from: padded,
                end: layout.end,
                sums,
            };
            pulp::Arch::new().dispatch(correlation);
            layout.take(sums, output);
        },
    );
    tensor(output, geometry.output_shape())
}

/// The gradient of the map from that of the output: every place gives to the points under it, which is every point
/// taking from the places over it.
pub(super) fn map_gradient(geometry: &Geometry, kernel: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let (kernel, output) = (numbers(kernel), numbers(output));
    let layout = Layout::of(geometry);
    let last = layout.offsets.last().copied().unwrap_or_default();
    let back: Vec<usize> = layout.offsets.iter().map(|offset| last - offset).collect();
    let everywhere = layout.rows * layout.columns;
    let multiple = geometry.outputs / geometry.channels;
    let mut map = vec![0.0; geometry.map_shape().iter().product()];
    let planes = map.par_chunks_exact_mut(geometry.points()).enumerate();
    planes.with_min_len(layout.least_planes()).for_each_init(
        || (vec![0.0; last + layout.length()], layout.plane()),
        |(spread, sums), (plane, map)| {
            let (image, channel) = (plane / geometry.channels, plane % geometry.channels);
            for channel in channel * multiple..(channel + 1) * multiple {
                layout.spread(layout.output(&output, image, channel), &mut spread[last..]);
                let correlation = Correlation {
                    weights: layout.kernel(&kernel, channel),
                    offsets: &back,
                    from: spread,
                    end: everywhere,
                    sums,
                };
                pulp::Arch::new().dispatch(correlation);
                layout.add_inside(sums, map);
            }
        },
    );
    tensor(map, geometry.map_shape())
}

/// The gradient of the kernel from that of the output.
pub(super) fn kernel_gradient(geometry: &Geometry, map: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let (map, output) = (numbers(map), numbers(output));
    let layout = Layout::of(geometry);
    let mut kernel = vec![0.0; geometry.kernel_shape().iter().product()];
    let channels = kernel.par_chunks_exact_mut(geometry.taps()).enumerate();
    let least = layout.least_planes().div_ceil(geometry.images.max(1));
    channels.with_min_len(least).for_each_init(
        || (layout.plane(), layout.plane()),
        |(padded, spread), (channel, kernel)| {
            let mut sums = vec![[0.0; LANES]; geometry.taps()];
            for image in 0..geometry.images {
                layout.pad(layout.input(&map, image, channel), padded);
                layout.spread(layout.output(&output, image, channel), spread);
                pulp::Arch::new().dispatch(Products {
                    offsets: &layout.offsets,
                    spread,
                    padded,
                    end: layout.end,
                    sums: &mut sums,
                });
            }
            for (weight, sums) in kernel.iter_mut().zip(sums) {
                *weight = sums.iter().sum();
            }
        },
    );
    tensor(kernel, geometry.kernel_shape())
}

/// How a plane lies in memory: row by row with all that the kernel reaches, and the output's places where the kernel's
/// first tap is.
struct Layout<'a> {
    geometry: &'a Geometry,
    rows: usize,
    columns: usize,
    /// From a place to what is under each tap.
    offsets: Vec<usize>,
    /// Numbers up to the last place.
    end: usize,
}

impl<'a> Layout<'a> {
    fn of(geometry: &'a Geometry) -> Self {
        let (height, width) = (geometry.height, geometry.width);
        let columns = width.reach();
        let offset = |tap: usize| {
            let (down, across) = (tap / width.taps, tap % width.taps);
            down * height.dilation * columns + across * width.dilation
        };
        Self {
            geometry,
            rows: height.reach(),
            columns,
            offsets: (0..geometry.taps()).map(offset).collect(),
            end: (height.span() - 1) * columns + width.span(),
        }
    }

    /// Planes that are worth a thread.
    fn least_planes(&self) -> usize {
        PRODUCTS.div_ceil(self.rows * self.columns * self.offsets.len())
    }

    /// Numbers of a plane, with room for lanes that go over its end.
    fn length(&self) -> usize {
        self.rows * self.columns + LANES
    }

    fn plane(&self) -> Vec<f32> {
        vec![0.0; self.length()]
    }

    /// What of the map an output is made from.
    fn input<'b>(&self, map: &'b [f32], image: usize, output: usize) -> &'b [f32] {
        let channel = output * self.geometry.channels / self.geometry.outputs;
        let plane = image * self.geometry.channels + channel;
        &map[plane * self.geometry.points()..][..self.geometry.points()]
    }

    fn output<'b>(&self, output: &'b [f32], image: usize, channel: usize) -> &'b [f32] {
        let plane = image * self.geometry.outputs + channel;
        &output[plane * self.geometry.places()..][..self.geometry.places()]
    }

    fn kernel<'b>(&self, kernel: &'b [f32], channel: usize) -> &'b [f32] {
        &kernel[channel * self.offsets.len()..][..self.offsets.len()]
    }

    /// Lays out the input; what is not of the map stays as it is.
    fn pad(&self, input: &[f32], padded: &mut [f32]) {
        let (height, width) = (self.geometry.height, self.geometry.width);
        for (row, input) in input.chunks_exact(width.size).enumerate() {
            let row = row + height.padding;
            if row < self.rows {
                let to = &mut padded[row * self.columns..][width.padding.min(self.columns)..self.columns];
                let length = to.len().min(width.size);
                to[..length].copy_from_slice(&input[..length]);
            }
        }
    }

    /// The reverse of [`Layout::pad`], added to the input.
    fn add_inside(&self, padded: &[f32], input: &mut [f32]) {
        let (height, width) = (self.geometry.height, self.geometry.width);
        for (row, input) in input.chunks_exact_mut(width.size).enumerate() {
            let row = row + height.padding;
            if row < self.rows {
                let from = &padded[row * self.columns..][width.padding.min(self.columns)..self.columns];
                input.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
    }

    /// Lays out the output; what holds no place stays as it is.
    fn spread(&self, output: &[f32], spread: &mut [f32]) {
        let (height, width) = (self.geometry.height, self.geometry.width);
        for (row, output) in output.chunks_exact(width.places).enumerate() {
            let to = spread[row * height.stride * self.columns..]
                .iter_mut()
                .step_by(width.stride);
            to.zip(output).for_each(|(to, from)| *to = *from);
        }
    }

    /// The reverse of [`Layout::spread`].
    fn take(&self, spread: &[f32], output: &mut [f32]) {
        let (height, width) = (self.geometry.height, self.geometry.width);
        for (row, output) in output.chunks_exact_mut(width.places).enumerate() {
            let from = spread[row * height.stride * self.columns..]
                .iter()
                .step_by(width.stride);
            output.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// To each of the first numbers, up to `end`, the sum of `weights` times what stands at their offsets from it.
struct Correlation<'a> {
    weights: &'a [f32],
    offsets: &'a [usize],
    from: &'a [f32],
    end: usize,
    sums: &'a mut [f32],
}

impl pulp::WithSimd for Correlation<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let (sums, _) = S::as_mut_simd_f32s(&mut self.sums[..self.end.next_multiple_of(LANES)]);
        for (vector, total) in sums.iter_mut().enumerate() {
            let place = vector * S::F32_LANES;
            *total = simd.splat_f32s(0.0);
            for (weight, offset) in self.weights.iter().zip(self.offsets) {
                let (from, _) = S::as_simd_f32s(&self.from[place + offset..][..S::F32_LANES]);
                *total = simd.mul_add_f32s(simd.splat_f32s(*weight), from[0], *total);
            }
        }
    }
}

/// Adds to the sums of each offset the products of the first numbers, up to `end`, with what stands at that offset from
/// them.
struct Products<'a> {
    offsets: &'a [usize],
    spread: &'a [f32],
    padded: &'a [f32],
    end: usize,
    sums: &'a mut [[f32; LANES]],
}

impl pulp::WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let end = self.end.next_multiple_of(LANES);
        let spread = &self.spread[..end];
        for (sums, offset) in self.sums.iter_mut().zip(self.offsets) {
            let padded = &self.padded[*offset..][..end];
            let (sums, _) = S::as_mut_simd_f32s(sums);
            for (spread, padded) in spread.chunks_exact(LANES).zip(padded.chunks_exact(LANES)) {
                let (spread, _) = S::as_simd_f32s(spread);
                let (padded, _) = S::as_simd_f32s(padded);
                for ((sum, spread), padded) in sums.iter_mut().zip(spread).zip(padded) {
                    *sum = simd.mul_add_f32s(*spread, *padded, *sum);
                }
            }
        }
    }
}
