//! Convolutions of 3 x 3 points with less than half of the multiplications, by Winograd's minimal filtering, F(2x2, 3x3)
//! of Lavin and Gray 2015, <https://arxiv.org/abs/1509.09308>. A tile `d` of the map and a kernel `g` give the output
//! `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. Summed over the channels, what is in brackets is a matrix product for each point of a
//! tile. Gradients go the same way back: each transformation is followed by its transpose.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `dispatch` is compiled for wide vectors"
)]

use burn_flex::Flex;
use burn_tensor::Tensor;
use rayon::prelude::*;

use super::geometry::{Axis, Geometry};
use super::{numbers, tensor};

/// Points of a kernel, on a side.
const TAPS: usize = 3;
/// Points of the output that a tile gives, on a side.
const STEP: usize = 2;
/// Points of the map that these are made of, on a side.
const TILE: usize = STEP + TAPS - 1;
/// Points of a tile.
const POINTS: usize = TILE * TILE;

/// `Bᵀ`.
const OF_MAP: [[f32; TILE]; TILE] = [
    [1.0, 0.0, -1.0, 0.0],
    [0.0, 1.0, 1.0, 0.0],
    [0.0, -1.0, 1.0, 0.0],
    [0.0, 1.0, 0.0, -1.0],
];
/// `G`.
const OF_KERNEL: [[f32; TAPS]; TILE] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
/// `A`.
const OF_OUTPUT: [[f32; STEP]; TILE] = [[1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [0.0, -1.0]];

/// Least channels, in and out, that pay for the way of their planes into tiles and back.
const CHANNELS: usize = 16;

/// Least tiles of an image that pay for the way of the kernel.
const TILES: usize = 32;

/// Least tiles that are worked on at once, so that a product is worth the way of its kernel through memory.
const COLUMNS: usize = 128;

/// Whether a convolution is one of these, and is faster as such.
pub(super) fn fits(geometry: &Geometry) -> bool {
    let fits = |axis: Axis| axis.taps == TAPS && axis.stride == 1 && axis.dilation == 1;
    let fits = geometry.groups == 1 && fits(geometry.height) && fits(geometry.width);
    let tiles: usize = tiles(geometry).iter().product();
    fits && tiles >= TILES && geometry.channels.min(geometry.outputs) >= CHANNELS
}

/// `map x kernel`.
pub(super) fn forward(geometry: &Geometry, map: &Tensor<Flex, 4>, kernel: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let (from, to) = (Planes::of_map(geometry), Planes::of_output(geometry));
    let output = multiplied(&numbers(map), &in_tiles(geometry, kernel), geometry, (&from, &to));
    tensor(output, geometry.output_shape())
}

/// The gradient of the map from that of the output.
pub(super) fn map_gradient(geometry: &Geometry, kernel: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let (from, to) = (Planes::of_output(geometry), Planes::of_map(geometry));
    let kernel = in_tiles(geometry, kernel).transpose();
    let map = multiplied(&numbers(output), &kernel, geometry, (&from, &to));
    tensor(map, geometry.map_shape())
}

/// The gradient of the kernel from that of the output.
pub(super) fn kernel_gradient(geometry: &Geometry, map: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let (inputs, outputs) = (Planes::of_map(geometry), Planes::of_output(geometry));
    let (map, output) = (numbers(map), numbers(output));
    let step = images_at_once(geometry);
    let parts = map
        .par_chunks(step * inputs.image())
        .zip(output.par_chunks(step * outputs.image()));
    let parts: Vec<Tensor<Flex, 3>> = parts
        .map(|(map, output)| outputs.spread(output).matmul(inputs.spread(map).transpose()))
        .collect();
    let shape = [POINTS, geometry.outputs, geometry.channels];
    let gradient = parts
        .into_iter()
        .reduce(|sum, part| sum + part)
        .unwrap_or_else(|| tensor(vec![0.0; shape.iter().product()], shape));
    let gradient = gradient.reshape([POINTS, geometry.outputs * geometry.channels]);
    gradient
        .transpose()
        .matmul(kernel_matrix())
        .reshape(geometry.kernel_shape())
}

/// What a kernel in tiles makes of planes, a few images at a time: as many threads are at work as images allow, and what
/// one works on stays in its caches.
fn multiplied<const FROM: usize, const TO: usize>(
    numbers: &[f32],
    kernel: &Tensor<Flex, 3>,
    geometry: &Geometry,
    (from, to): (&Planes<FROM>, &Planes<TO>),
) -> Vec<f32> {
    let step = images_at_once(geometry);
    let mut multiplied = vec![0.0; geometry.images * to.image()];
    let parts = multiplied
        .par_chunks_mut(step * to.image())
        .zip(numbers.par_chunks(step * from.image()));
    parts.for_each(|(to_numbers, from_numbers)| {
        let product = kernel.clone().matmul(from.spread(from_numbers));
        to.collect(&super::numbers(&product), to_numbers);
    });
    multiplied
}

/// Images that are worked on together.
fn images_at_once(geometry: &Geometry) -> usize {
    COLUMNS.div_ceil(tiles(geometry).iter().product())
}

/// Tiles of an image, down and across.
fn tiles(geometry: &Geometry) -> [usize; 2] {
    [geometry.height, geometry.width].map(|axis| axis.places.div_ceil(STEP))
}

/// `G g Gᵀ`, `[points, outputs, channels]`.
fn in_tiles(geometry: &Geometry, kernel: &Tensor<Flex, 4>) -> Tensor<Flex, 3> {
    let kernels = geometry.outputs * geometry.channels;
    let kernel = kernel.clone().reshape([kernels, TAPS * TAPS]);
    let tiles = kernel_matrix().matmul(kernel.transpose());
    tiles.reshape([POINTS, geometry.outputs, geometry.channels])
}

/// From the points of a kernel to those of a tile, `G ⊗ G`.
fn kernel_matrix() -> Tensor<Flex, 2> {
    let rows = OF_KERNEL
        .iter()
        .flat_map(|down| OF_KERNEL.iter().map(move |across| (down, across)));
    let products = rows.flat_map(|(down, across)| down.iter().flat_map(move |down| across.map(|across| down * across)));
    tensor(products.collect(), [POINTS, TAPS * TAPS])
}

/// The planes of a map or an output, and how tiles are made of them: of `WINDOW x WINDOW` points each, every `STEP` points.
struct Planes<const WINDOW: usize> {
    matrix: [[f32; WINDOW]; TILE],
    channels: usize,
    /// Height and width.
    size: [usize; 2],
    /// Zeros above and to the left.
    padding: [usize; 2],
    /// Tiles down and across.
    tiles: [usize; 2],
}

impl Planes<TILE> {
    fn of_map(geometry: &Geometry) -> Self {
        Self {
            matrix: OF_MAP,
            channels: geometry.channels,
            size: [geometry.height.size, geometry.width.size],
            padding: [geometry.height.padding, geometry.width.padding],
            tiles: tiles(geometry),
        }
    }
}

impl Planes<STEP> {
    fn of_output(geometry: &Geometry) -> Self {
        Self {
            matrix: OF_OUTPUT,
            channels: geometry.outputs,
            size: [geometry.height.places, geometry.width.places],
            padding: [0, 0],
            tiles: tiles(geometry),
        }
    }
}

impl<const WINDOW: usize> Planes<WINDOW> {
    /// Steps that a window reaches beyond the first.
    const BEYOND: usize = (WINDOW - 1) / STEP;

    /// Numbers of an image.
    fn image(&self) -> usize {
        self.channels * self.points()
    }

    fn points(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Tiles of one plane.
    fn windows(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// `M p Mᵀ` of each window `p`, `[points, channels, tiles]`.
    fn spread(&self, numbers: &[f32]) -> Tensor<Flex, 3> {
        let planes = numbers.chunks_exact(self.points());
        let columns = planes.len() / self.channels * self.windows();
        let mut tiles = vec![0.0; POINTS * self.channels * columns];
        let mut parts = Parts::of(self);
        pulp::Arch::new().dispatch(|| {
            for (plane, numbers) in planes.enumerate() {
                parts.spread(self, numbers, &mut tiles, self.strips(plane, columns));
            }
        });
        tensor(tiles, [POINTS, self.channels, columns])
    }

    /// `Σ Mᵀ t M` of tiles `t`, `[points, channels, tiles]`, each in its window.
    fn collect(&self, tiles: &[f32], numbers: &mut [f32]) {
        let planes = numbers.chunks_exact_mut(self.points());
        let columns = planes.len() / self.channels * self.windows();
        let mut parts = Parts::of(self);
        pulp::Arch::new().dispatch(|| {
            for (plane, numbers) in planes.enumerate() {
                parts.collect(self, tiles, self.strips(plane, columns), numbers);
            }
        });
    }

    /// Where the tiles of a plane are.
    fn strips(&self, plane: usize, columns: usize) -> Strips {
        let (image, channel) = (plane / self.channels, plane % self.channels);
        Strips {
            first: channel * columns + image * self.windows(),
            step: self.channels * columns,
        }
    }
}

/// Where the tiles of a plane are, those of each point one after the other.
#[derive(Clone, Copy)]
struct Strips {
    first: usize,
    /// From a point to the next.
    step: usize,
}

/// One plane on its way. Neighbours are `STEP` points apart, so that what is done to one window is done to all of them in
/// long runs; a line has `BEYOND` more than it has windows.
struct Parts {
    grid: Grid,
    /// `STEP x STEP` parts of the plane.
    plane: Vec<f32>,
    /// What the columns of windows become, `TILE x STEP` parts.
    columns: Vec<f32>,
    /// What windows become at one point.
    point: Vec<f32>,
}

/// Where numbers are among the parts.
#[derive(Clone, Copy)]
struct Grid {
    line: usize,
    /// From one part to the next.
    length: usize,
}

impl Grid {
    /// A point of the plane with its zeros around it.
    #[inline(always)]
    fn of_plane(self, row: usize, column: usize) -> usize {
        self.of_columns(row % STEP, column) + row / STEP * self.line
    }

    /// What the first window's columns become at the point `down`, at one of its columns or behind it.
    #[inline(always)]
    fn of_columns(self, down: usize, column: usize) -> usize {
        (down * STEP + column % STEP) * self.length + column / STEP
    }
}

impl Parts {
    fn of<const WINDOW: usize>(planes: &Planes<WINDOW>) -> Self {
        let beyond = Planes::<WINDOW>::BEYOND;
        let line = planes.tiles[1] + beyond;
        let length = (planes.tiles[0] + beyond) * line + beyond;
        Self {
            grid: Grid { line, length },
            plane: vec![0.0; STEP * STEP * length],
            columns: vec![0.0; TILE * STEP * length],
            point: vec![0.0; planes.tiles[0] * line],
        }
    }

    #[inline(always)]
    fn spread<const WINDOW: usize>(
        &mut self,
        planes: &Planes<WINDOW>,
        numbers: &[f32],
        tiles: &mut [f32],
        strips: Strips,
    ) {
        let (grid, run) = (self.grid, self.point.len());
        for (row, numbers) in numbers.chunks_exact(planes.size[1]).enumerate() {
            for (from, part) in places(planes, grid, row) {
                let numbers = numbers[from..].iter().step_by(STEP);
                self.plane[part..]
                    .iter_mut()
                    .zip(numbers)
                    .for_each(|(part, number)| *part = *number);
            }
        }
        self.columns.fill(0.0);
        for (down, factors) in planes.matrix.iter().enumerate() {
            for (row, factor) in factors.iter().enumerate() {
                for phase in 0..STEP {
                    let to = &mut self.columns[grid.of_columns(down, phase)..][..run + Planes::<WINDOW>::BEYOND];
                    add(to, &self.plane[grid.of_plane(row, phase)..], *factor);
                }
            }
        }
        for down in 0..TILE {
            for (across, factors) in planes.matrix.iter().enumerate() {
                self.point.fill(0.0);
                for (column, factor) in factors.iter().enumerate() {
                    add(&mut self.point, &self.columns[grid.of_columns(down, column)..], *factor);
                }
                let strip = &mut tiles[strips.first + (down * TILE + across) * strips.step..];
                let lines = strip
                    .chunks_exact_mut(planes.tiles[1])
                    .zip(self.point.chunks_exact(grid.line));
                lines.for_each(|(to, from)| to.copy_from_slice(&from[..planes.tiles[1]]));
            }
        }
    }

    #[inline(always)]
    fn collect<const WINDOW: usize>(
        &mut self,
        planes: &Planes<WINDOW>,
        tiles: &[f32],
        strips: Strips,
        numbers: &mut [f32],
    ) {
        let (grid, run) = (self.grid, self.point.len());
        self.columns.fill(0.0);
        for down in 0..TILE {
            for (across, factors) in planes.matrix.iter().enumerate() {
                let strip = &tiles[strips.first + (down * TILE + across) * strips.step..];
                let lines = self
                    .point
                    .chunks_exact_mut(grid.line)
                    .zip(strip.chunks_exact(planes.tiles[1]));
                lines.for_each(|(to, from)| to[..planes.tiles[1]].copy_from_slice(from));
                for (column, factor) in factors.iter().enumerate() {
                    let to = &mut self.columns[grid.of_columns(down, column)..][..run];
                    add(to, &self.point, *factor);
                }
            }
        }
        self.plane.fill(0.0);
        for (down, factors) in planes.matrix.iter().enumerate() {
            for (row, factor) in factors.iter().enumerate() {
                for phase in 0..STEP {
                    let from = &self.columns[grid.of_columns(down, phase)..][..run + Planes::<WINDOW>::BEYOND];
                    let to = &mut self.plane[grid.of_plane(row, phase)..][..from.len()];
                    add(to, from, *factor);
                }
            }
        }
        for (row, numbers) in numbers.chunks_exact_mut(planes.size[1]).enumerate() {
            for (to, part) in places(planes, grid, row) {
                let numbers = numbers[to..].iter_mut().step_by(STEP);
                numbers
                    .zip(&self.plane[part..])
                    .for_each(|(number, part)| *number = *part);
            }
        }
    }
}

/// Where a row's first number of each part is, in the row and among the parts.
#[inline(always)]
fn places<const WINDOW: usize>(
    planes: &Planes<WINDOW>,
    grid: Grid,
    row: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let ([above, left], width) = (planes.padding, planes.size[1]);
    (0..STEP.min(width)).map(move |first| (first, grid.of_plane(row + above, first + left)))
}

/// `to += factor x from`.
#[inline(always)]
fn add(to: &mut [f32], from: &[f32], factor: f32) {
    if factor != 0.0 {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
    }
}
