//! Convolutions: on a processor, forward and back, as one matrix product, as several smaller ones (`winograd`) or, where
//! every channel has its own kernel, plane by plane.

mod depthwise;
mod geometry;
#[cfg(test)]
mod tests;
mod unfolded;
mod winograd;

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, binary};
use burn_flex::{Flex, FlexTensor};
use burn_tensor::backend::Backend;
use burn_tensor::module::conv2d;
use burn_tensor::ops::ConvOptions;
use burn_tensor::{DType, FloatDType, Tensor, TensorPrimitive};

use super::{NUMBERS_A_THREAD, numbers, tensor, wrapped};
use crate::refine::network::pool::padded;

use geometry::Geometry;

/// How a kernel moves over a map: height first, then width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionOptions {
    /// Step.
    pub stride: [usize; 2],
    /// Zeros around the map: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Distance between the kernel's points.
    pub dilation: [usize; 2],
    /// Groups of channels.
    pub groups: usize,
}

/// See [`super::Layers::convolve`].
pub(super) fn by_backend<B: Backend>(
    map: Tensor<B, 4>,
    kernel: Tensor<B, 4>,
    options: &ConvolutionOptions,
) -> Tensor<B, 4> {
    let geometry = Geometry::new(map.dims(), kernel.dims(), options);
    if geometry.is_pointwise() {
        // A matrix product, which every backend does fastest.
        return channels_mixed(&geometry, map, kernel);
    }
    let (map, padding) = padded(map, options.padding, 0.0);
    let options = ConvOptions::new(options.stride, padding, options.dilation, options.groups);
    conv2d(map, kernel, None, options)
}

/// The same on a processor.
pub(super) fn computed(map: Tensor<Flex, 4>, kernel: Tensor<Flex, 4>, options: &ConvolutionOptions) -> Tensor<Flex, 4> {
    let geometry = Geometry::new(map.dims(), kernel.dims(), options);
    forward(&geometry, map, kernel)
}

/// The same, with its way back.
pub(super) fn differentiated(
    map: Tensor<Autodiff<Flex>, 4>,
    kernel: Tensor<Autodiff<Flex>, 4>,
    options: &ConvolutionOptions,
) -> Tensor<Autodiff<Flex>, 4> {
    let geometry = Geometry::new(map.dims(), kernel.dims(), options);
    let (map, kernel) = (map.into_primitive().tensor(), kernel.into_primitive().tensor());
    let output = forward(
        &geometry,
        wrapped(map.primitive.clone()),
        wrapped(kernel.primitive.clone()),
    );
    let output = output.into_primitive().tensor();
    let nodes = [map.node.clone(), kernel.node.clone()];
    let node = Convolution.prepare::<NoCheckpointing>(nodes).compute_bound().stateful();
    let tracked = match node {
        OpsKind::Tracked(node) => {
            let kept = State {
                geometry,
                map: kernel.is_tracked().then(|| map.primitive.clone()),
                kernel: map.is_tracked().then(|| kernel.primitive.clone()),
            };
            node.finish(kept, output)
        }
        OpsKind::UnTracked(node) => node.finish(output),
    };
    Tensor::from_primitive(TensorPrimitive::Float(tracked))
}

/// Least points of a map whose images are multiplied one by one, where they lie.
const POINTS: usize = 256;

#[derive(Debug)]
struct Convolution;

/// What the gradients are made of: the kernel's of the map, the map's of the kernel.
#[derive(Debug, Clone)]
struct State {
    geometry: Geometry,
    map: Option<FlexTensor>,
    kernel: Option<FlexTensor>,
}

impl Backward<Flex, 2> for Convolution {
    type State = State;

    fn backward(self, ops: Ops<State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let State { geometry, map, kernel } = ops.state;
        let of_map = |output: FlexTensor| match kernel {
            Some(kernel) => map_gradient(&geometry, wrapped(kernel), wrapped(output)),
            None => output,
        };
        let of_kernel = |output: FlexTensor| match map {
            Some(map) => kernel_gradient(&geometry, wrapped(map), wrapped(output)),
            None => output,
        };
        binary::<Flex, _, _>(ops.parents, ops.node, gradients, of_map, of_kernel);
    }
}

/// How a convolution is computed.
enum Method {
    Pointwise,
    Depthwise,
    Winograd,
    Unfolded,
}

impl Method {
    fn of(geometry: &Geometry) -> Self {
        if geometry.is_pointwise() {
            Self::Pointwise
        } else if geometry.is_depthwise() {
            Self::Depthwise
        } else if winograd::fits(geometry) {
            Self::Winograd
        } else {
            Self::Unfolded
        }
    }
}

fn forward(geometry: &Geometry, map: Tensor<Flex, 4>, kernel: Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    in_single_precision([map, kernel], |[map, kernel]| match Method::of(geometry) {
        Method::Pointwise => channels_mixed(geometry, map, kernel),
        Method::Depthwise => depthwise::forward(geometry, &map, &kernel),
        Method::Winograd => winograd::forward(geometry, &map, &kernel),
        Method::Unfolded => unfolded::forward(geometry, &map, &kernel),
    })
}

/// The gradient of the map from that of the output.
fn map_gradient(geometry: &Geometry, kernel: Tensor<Flex, 4>, output: Tensor<Flex, 4>) -> FlexTensor {
    let gradient = in_single_precision([kernel, output], |[kernel, output]| match Method::of(geometry) {
        Method::Pointwise => {
            let kernel = kernel.reshape([1, geometry.outputs, geometry.channels]);
            let output = output.reshape([geometry.images, geometry.outputs, geometry.points()]);
            kernel.transpose().matmul(output).reshape(geometry.map_shape())
        }
        Method::Depthwise => depthwise::map_gradient(geometry, &kernel, &output),
        Method::Winograd => winograd::map_gradient(geometry, &kernel, &output),
        Method::Unfolded => unfolded::map_gradient(geometry, &kernel, &output),
    });
    gradient.into_primitive().tensor()
}

/// The gradient of the kernel from that of the output.
fn kernel_gradient(geometry: &Geometry, map: Tensor<Flex, 4>, output: Tensor<Flex, 4>) -> FlexTensor {
    let gradient = in_single_precision([map, output], |[map, output]| match Method::of(geometry) {
        Method::Pointwise if geometry.points() >= POINTS => {
            let map = map.reshape([geometry.images, geometry.channels, geometry.points()]);
            let output = output.reshape([geometry.images, geometry.outputs, geometry.points()]);
            let products = output.matmul(map.transpose());
            products.sum_dim(0).reshape(geometry.kernel_shape())
        }
        Method::Depthwise => depthwise::kernel_gradient(geometry, &map, &output),
        Method::Winograd => winograd::kernel_gradient(geometry, &map, &output),
        Method::Pointwise | Method::Unfolded => unfolded::kernel_gradient(geometry, &map, &output),
    });
    gradient.into_primitive().tensor()
}

/// Computes in 32 bits what may stand in fewer.
fn in_single_precision(
    [left, right]: [Tensor<Flex, 4>; 2],
    compute: impl FnOnce([Tensor<Flex, 4>; 2]) -> Tensor<Flex, 4>,
) -> Tensor<Flex, 4> {
    let precision = left.dtype();
    if precision == DType::F32 {
        return compute([left, right]);
    }
    let computed = compute([left, right].map(|tensor| tensor.cast(FloatDType::F32)));
    computed.cast(FloatDType::from(precision))
}

/// A convolution of single points.
fn channels_mixed<B: Backend>(geometry: &Geometry, map: Tensor<B, 4>, kernel: Tensor<B, 4>) -> Tensor<B, 4> {
    let kernel = kernel.reshape([1, geometry.outputs, geometry.channels]);
    let map = map.reshape([geometry.images, geometry.channels, geometry.points()]);
    kernel.matmul(map).reshape(geometry.output_shape())
}
