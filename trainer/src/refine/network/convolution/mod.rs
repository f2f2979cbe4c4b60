//! Convolutions. GPUs compute their own. On a processor they are computed here, forward and back, as one matrix product
//! or, where every channel has its own kernel, plane by plane: the processor backend's own gradients take many small
//! products.

mod depthwise;
mod geometry;
#[cfg(test)]
mod tests;
mod unfolded;

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, binary};
use burn_flex::{Flex, FlexTensor};
use burn_tensor::backend::{AutodiffBackend, Backend};
use burn_tensor::module::conv2d;
use burn_tensor::ops::ConvOptions;
use burn_tensor::{DType, FloatDType, Tensor, TensorData, TensorPrimitive};

use geometry::Geometry;

/// A backend of tensors with its way to compute a convolution.
pub trait Convolve: Backend {
    /// What a kernel, `[outputs, channels / groups, height, width]`, gives over `map`,
    /// `[images, channels, height, width]`.
    fn convolve(map: Tensor<Self, 4>, kernel: Tensor<Self, 4>, options: ConvOptions<2>) -> Tensor<Self, 4> {
        let geometry = Geometry::new(map.dims(), kernel.dims(), &options);
        if geometry.is_pointwise() {
            // A matrix product, which every backend does fastest.
            channels_mixed(&geometry, map, kernel)
        } else {
            conv2d(map, kernel, None, options)
        }
    }
}

/// A backend to train on.
pub trait Trainable: AutodiffBackend<InnerBackend: Convolve> + Convolve {}

impl<B: AutodiffBackend<InnerBackend: Convolve> + Convolve> Trainable for B {}

#[cfg(feature = "cuda")]
impl Convolve for burn_cuda::Cuda {}
#[cfg(feature = "cuda")]
impl Convolve for Autodiff<burn_cuda::Cuda> {}
#[cfg(feature = "wgpu")]
impl Convolve for burn_wgpu::Wgpu {}
#[cfg(feature = "wgpu")]
impl Convolve for Autodiff<burn_wgpu::Wgpu> {}

impl Convolve for Flex {
    fn convolve(map: Tensor<Self, 4>, kernel: Tensor<Self, 4>, options: ConvOptions<2>) -> Tensor<Self, 4> {
        let geometry = Geometry::new(map.dims(), kernel.dims(), &options);
        forward(&geometry, map, kernel)
    }
}

impl Convolve for Autodiff<Flex> {
    fn convolve(map: Tensor<Self, 4>, kernel: Tensor<Self, 4>, options: ConvOptions<2>) -> Tensor<Self, 4> {
        let geometry = Geometry::new(map.dims(), kernel.dims(), &options);
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
}

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

fn forward(geometry: &Geometry, map: Tensor<Flex, 4>, kernel: Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    in_single_precision([map, kernel], |[map, kernel]| {
        if geometry.is_pointwise() {
            channels_mixed(geometry, map, kernel)
        } else if geometry.is_depthwise() {
            depthwise::forward(geometry, &map, &kernel)
        } else {
            unfolded::forward(geometry, &map, &kernel)
        }
    })
}

/// The gradient of the map from that of the output.
fn map_gradient(geometry: &Geometry, kernel: Tensor<Flex, 4>, output: Tensor<Flex, 4>) -> FlexTensor {
    let gradient = in_single_precision([kernel, output], |[kernel, output]| {
        if geometry.is_pointwise() {
            let kernel = kernel.reshape([1, geometry.outputs, geometry.channels]);
            let output = output.reshape([geometry.images, geometry.outputs, geometry.points()]);
            kernel.transpose().matmul(output).reshape(geometry.map_shape())
        } else if geometry.is_depthwise() {
            depthwise::map_gradient(geometry, &kernel, &output)
        } else {
            unfolded::map_gradient(geometry, &kernel, &output)
        }
    });
    gradient.into_primitive().tensor()
}

/// The gradient of the kernel from that of the output.
fn kernel_gradient(geometry: &Geometry, map: Tensor<Flex, 4>, output: Tensor<Flex, 4>) -> FlexTensor {
    let gradient = in_single_precision([map, output], |[map, output]| {
        if geometry.is_depthwise() {
            depthwise::kernel_gradient(geometry, &map, &output)
        } else {
            unfolded::kernel_gradient(geometry, &map, &output)
        }
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

fn wrapped<const D: usize>(tensor: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    wrapped(FlexTensor::from_data(TensorData::new(numbers, shape)))
}

/// The numbers of a tensor, row after row.
struct Numbers(FlexTensor);

impl std::ops::Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.storage()
    }
}

fn numbers<const D: usize>(tensor: &Tensor<Flex, D>) -> Numbers {
    Numbers(tensor.clone().into_primitive().tensor().to_contiguous())
}
