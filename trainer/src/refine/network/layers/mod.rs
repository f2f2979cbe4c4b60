//! The layers that take most of a refinement's time. On GPUs they are made of the backend's operations (`by_backend`). On a
//! processor each is one operation of our own, as it is and with its way back (`computed`, `differentiated`): those of
//! the processor backend take many passes through memory, and their gradients many small products.

mod average;
mod clip;
mod convolution;
mod normalization;

use burn_autodiff::Autodiff;
use burn_flex::{Flex, FlexTensor};
use burn_tensor::backend::{AutodiffBackend, Backend};
use burn_tensor::{Tensor, TensorData, TensorPrimitive};

pub use convolution::ConvolutionOptions;
pub(super) use normalization::by_channel;

/// A backend of tensors with its way to compute layers.
pub trait Layers: Backend {
    /// What a kernel, `[outputs, channels / groups, height, width]`, gives over `map`,
    /// `[images, channels, height, width]`.
    fn convolve(map: Tensor<Self, 4>, kernel: Tensor<Self, 4>, options: ConvolutionOptions) -> Tensor<Self, 4> {
        convolution::by_backend(map, kernel, &options)
    }

    /// `map` with each channel brought to the mean `shift` and the standard deviation `scale`.
    fn normalize(map: Tensor<Self, 4>, normalization: Normalization<Self>) -> Normalized<Self> {
        normalization::by_backend(map, normalization)
    }

    /// The mean of each channel of each image, `[images, channels]`.
    fn average(map: Tensor<Self, 4>) -> Tensor<Self, 2> {
        average::by_backend(map)
    }

    /// `min(max(values, low), high)`. A value at a limit has no gradient.
    fn clip<const D: usize>(values: Tensor<Self, D>, low: f32, high: f32) -> Tensor<Self, D> {
        clip::by_backend(values, low, high)
    }
}

/// Batch normalization, `[channels]` each: Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>.
#[derive(Debug, Clone)]
pub struct Normalization<B: Backend> {
    /// The standard deviation to bring channels to.
    pub scale: Tensor<B, 1>,
    /// The mean to bring them to.
    pub shift: Tensor<B, 1>,
    /// Mean and variance that the channels are said to have, which are not differentiated; else they are the map's own.
    pub running: Option<[Tensor<B, 1>; 2]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// What batch normalization gives.
#[derive(Debug, Clone)]
pub struct Normalized<B: Backend> {
    /// `[images, channels, height, width]`.
    pub map: Tensor<B, 4>,
    /// Mean and variance that channels were normalized by, without a way back to the map. The variance is that of these
    /// values, not an estimate of others'.
    pub statistics: [Tensor<B, 1>; 2],
}

/// A backend to train on.
pub trait Trainable: AutodiffBackend<InnerBackend: Layers> + Layers {}

impl<B: AutodiffBackend<InnerBackend: Layers> + Layers> Trainable for B {}

#[cfg(feature = "cuda")]
impl Layers for burn_cuda::Cuda {}
#[cfg(feature = "cuda")]
impl Layers for Autodiff<burn_cuda::Cuda> {}
#[cfg(feature = "wgpu")]
impl Layers for burn_wgpu::Wgpu {}
#[cfg(feature = "wgpu")]
impl Layers for Autodiff<burn_wgpu::Wgpu> {}

impl Layers for Flex {
    fn convolve(map: Tensor<Self, 4>, kernel: Tensor<Self, 4>, options: ConvolutionOptions) -> Tensor<Self, 4> {
        convolution::computed(map, kernel, &options)
    }

    fn normalize(map: Tensor<Self, 4>, normalization: Normalization<Self>) -> Normalized<Self> {
        normalization::computed(&map, normalization)
    }

    fn clip<const D: usize>(values: Tensor<Self, D>, low: f32, high: f32) -> Tensor<Self, D> {
        clip::computed(values, low, high)
    }
}

impl Layers for Autodiff<Flex> {
    fn convolve(map: Tensor<Self, 4>, kernel: Tensor<Self, 4>, options: ConvolutionOptions) -> Tensor<Self, 4> {
        convolution::differentiated(map, kernel, &options)
    }

    fn normalize(map: Tensor<Self, 4>, normalization: Normalization<Self>) -> Normalized<Self> {
        normalization::differentiated(map, normalization)
    }

    fn average(map: Tensor<Self, 4>) -> Tensor<Self, 2> {
        average::differentiated(map)
    }

    fn clip<const D: usize>(values: Tensor<Self, D>, low: f32, high: f32) -> Tensor<Self, D> {
        clip::differentiated(values, low, high)
    }
}

/// Least numbers that a thread is given where each takes little work.
const NUMBERS_A_THREAD: usize = 1 << 15;

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

/// In place where nobody else has them.
impl std::ops::DerefMut for Numbers {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0.storage_mut()
    }
}

impl From<FlexTensor> for Numbers {
    fn from(tensor: FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }
}

fn numbers<const D: usize>(tensor: &Tensor<Flex, D>) -> Numbers {
    tensor.clone().into_primitive().tensor().into()
}
