//! Pooling in all its forms. The backends know the plain ones; whatever else ONNX allows is led back to those.

use burn_tensor::backend::Backend;
use burn_tensor::module::{avg_pool2d, max_pool2d};
use burn_tensor::ops::PadMode;
use burn_tensor::{Tensor, TensorData};

use super::layers::{ConvolutionOptions, Layers};
use super::{Layout, Window};

/// The map, and the padding that is left to the operator: padding that differs between the sides is put on here.
pub(super) fn padded<B: Backend>(
    map: Tensor<B, 4>,
    [top, left, bottom, right]: [usize; 4],
    value: f32,
) -> (Tensor<B, 4>, [usize; 2]) {
    if top == bottom && left == right {
        (map, [top, left])
    } else {
        (map.pad((left, right, top, bottom), PadMode::Constant(value)), [0, 0])
    }
}

/// Largest value under the window.
pub(super) fn largest<B: Backend>(map: Tensor<B, 4>, window: &Window, layout: Layout) -> Tensor<B, 4> {
    let (map, padding) = padded(map, layout.reached(), f32::NEG_INFINITY);
    max_pool2d(map, window.kernel, window.stride, padding, window.dilation, false)
}

/// Mean under the window. What is beyond the padding never counts, the padding itself with `include_padding`.
pub(super) fn mean<B: Layers>(
    map: Tensor<B, 4>,
    window: &Window,
    layout: Layout,
    include_padding: bool,
) -> Tensor<B, 4> {
    let [_, channels, height, width] = map.dims();
    let [top, left, bottom, right] = layout.padding;
    let plain = window.dilation == [1, 1] && layout.overhang == [0, 0] && top == bottom && left == right;
    if plain {
        return avg_pool2d(map, window.kernel, window.stride, [top, left], include_padding, false);
    }
    let counted = |axis: usize, size: usize| -> Vec<f32> {
        let (begin, end) = (layout.padding[axis], layout.padding[axis] + size);
        let counts = if include_padding {
            0..end + layout.padding[axis + 2]
        } else {
            begin..end
        };
        let under = |position: usize| {
            let points = (0..window.kernel[axis])
                .map(|point| position * window.stride[axis] + point * window.dilation[axis])
                .filter(|place| counts.contains(place));
            points.count().max(1) as f32
        };
        (0..layout.positions[axis]).map(under).collect()
    };
    let (down, across) = (counted(0, height), counted(1, width));
    let shares: Vec<f32> = down
        .iter()
        .flat_map(|rows| across.iter().map(move |columns| 1.0 / (rows * columns)))
        .collect();
    let [rows, columns] = layout.positions;
    let device = map.device();
    let shares = Tensor::<B, 4>::from_data(TensorData::new(shares, [1, 1, rows, columns]), &device);
    let ones = Tensor::ones([channels, 1, window.kernel[0], window.kernel[1]], &device);
    let options = ConvolutionOptions {
        stride: window.stride,
        padding: layout.reached(),
        dilation: window.dilation,
        groups: channels,
    };
    B::convolve(map, ones, options) * shares
}

impl Layout {
    /// Top, left, bottom, right of all that the window ever stands on.
    fn reached(&self) -> [usize; 4] {
        let [top, left, bottom, right] = self.padding;
        [top, left, bottom + self.overhang[0], right + self.overhang[1]]
    }
}
