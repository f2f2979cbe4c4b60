//! Batch normalization: Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>. GPUs compose it of what their backend has. On a
//! processor, where each of these parts would be a pass through memory on one thread, it is one operator.

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{Flex, FlexTensor};
use burn_tensor::backend::Backend;
use burn_tensor::{Tensor, TensorPrimitive};
use rayon::prelude::*;

use super::convolution::{numbers, tensor, wrapped};

/// Numbers that are added up side by side, on every processor, so that sums do not depend on its vectors.
const LANES: usize = 16;

/// Least numbers that are worth a thread.
const NUMBERS: usize = 1 << 15;

/// A backend of tensors with its way to normalize maps, `[images, channels, height, width]`.
pub trait Normalize: Backend {
    /// `scale (map - mean) / sqrt(variance + epsilon) + shift`, each with one number for each channel, and mean and variance. These
    /// are the map's own where none are given; gradients then reach the map through them too.
    fn normalize(
        map: Tensor<Self, 4>,
        scale: Tensor<Self, 1>,
        shift: Tensor<Self, 1>,
        given: Option<[Tensor<Self, 1>; 2]>,
        epsilon: f32,
    ) -> (Tensor<Self, 4>, [Tensor<Self, 1>; 2]) {
        composed(map, scale, shift, given, epsilon)
    }
}

#[cfg(feature = "cuda")]
impl Normalize for burn_cuda::Cuda {}
#[cfg(feature = "cuda")]
impl Normalize for Autodiff<burn_cuda::Cuda> {}
#[cfg(feature = "wgpu")]
impl Normalize for burn_wgpu::Wgpu {}
#[cfg(feature = "wgpu")]
impl Normalize for Autodiff<burn_wgpu::Wgpu> {}

fn composed<B: Backend>(
    map: Tensor<B, 4>,
    scale: Tensor<B, 1>,
    shift: Tensor<B, 1>,
    given: Option<[Tensor<B, 1>; 2]>,
    epsilon: f32,
) -> (Tensor<B, 4>, [Tensor<B, 1>; 2]) {
    if let Some([mean, variance]) = given {
        let factor = scale / variance.clone().add_scalar(epsilon).sqrt();
        let offset = shift - mean.clone() * factor.clone();
        return (scaled_and_shifted(map, factor, offset), [mean, variance]);
    }
    let mean = channel_means(map.clone());
    let centred = by_channel(map, mean.clone(), |map, mean| map - mean);
    let variance = channel_means(centred.clone() * centred.clone());
    let factor = scale / variance.clone().add_scalar(epsilon).sqrt();
    let output = scaled_and_shifted(centred, factor, shift);
    (output, [mean.detach(), variance.detach()])
}

fn scaled_and_shifted<B: Backend>(map: Tensor<B, 4>, factor: Tensor<B, 1>, offset: Tensor<B, 1>) -> Tensor<B, 4> {
    let scaled = by_channel(map, factor, |map, factor| map * factor);
    by_channel(scaled, offset, |map, offset| map + offset)
}

/// Combines a map with one number for each channel. Written out for one image these are a row that all images share, which
/// backends broadcast by vector instructions; channels between images and points they take one value at a time.
pub(super) fn by_channel<B: Backend>(
    map: Tensor<B, 4>,
    numbers: Tensor<B, 1>,
    combine: impl Fn(Tensor<B, 2>, Tensor<B, 2>) -> Tensor<B, 2>,
) -> Tensor<B, 4> {
    let shape @ [images, channels, height, width] = map.dims();
    let points = height * width;
    let ones = Tensor::<B, 2>::ones([channels, points], (&map.device(), map.dtype()));
    let image = ones * numbers.reshape([channels, 1]);
    let row = image.reshape([1, channels * points]);
    combine(map.reshape([images, channels * points]), row).reshape(shape)
}

/// Mean of each channel.
fn channel_means<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 1> {
    let [images, channels, height, width] = map.dims();
    let means = map.reshape([images * channels, height * width]).mean_dim(1);
    means.reshape([images, channels]).mean_dim(0).reshape([channels])
}

impl Normalize for Flex {
    fn normalize(
        map: Tensor<Self, 4>,
        scale: Tensor<Self, 1>,
        shift: Tensor<Self, 1>,
        given: Option<[Tensor<Self, 1>; 2]>,
        epsilon: f32,
    ) -> (Tensor<Self, 4>, [Tensor<Self, 1>; 2]) {
        let normal = Normal::of(&map, &scale, given, epsilon);
        (normal.forward(&map, &shift), normal.statistics())
    }
}

impl Normalize for Autodiff<Flex> {
    fn normalize(
        map: Tensor<Self, 4>,
        scale: Tensor<Self, 1>,
        shift: Tensor<Self, 1>,
        given: Option<[Tensor<Self, 1>; 2]>,
        epsilon: f32,
    ) -> (Tensor<Self, 4>, [Tensor<Self, 1>; 2]) {
        let given = given.map(|statistics| statistics.map(Tensor::inner));
        let [scale, shift] = [scale, shift].map(|tensor| tensor.into_primitive().tensor());
        let tracked = map.into_primitive().tensor();
        let map = wrapped::<4>(tracked.primitive.clone());
        let normal = Normal::of(&map, &wrapped(scale.primitive), given, epsilon);
        let output = normal
            .forward(&map, &wrapped(shift.primitive))
            .into_primitive()
            .tensor();
        let statistics = normal.statistics().map(Tensor::from_inner);
        let nodes = [tracked.node, scale.node, shift.node];
        let output = match Normalization
            .prepare::<NoCheckpointing>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(node) => node.finish((normal, tracked.primitive), output),
            OpsKind::UnTracked(node) => node.finish(output),
        };
        (Tensor::from_primitive(TensorPrimitive::Float(output)), statistics)
    }
}

#[derive(Debug)]
struct Normalization;

impl Backward<Flex, 3> for Normalization {
    /// What is normalized by, and the map.
    type State = (Normal, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (normal, map) = ops.state;
        let (map, output) = (wrapped(map), wrapped(gradients.consume::<Flex>(&ops.node)));
        let sums = normal.sums(&map, &output);
        let [parent, scale, shift] = ops.parents;
        if let Some(parent) = parent {
            let gradient = normal.map_gradient(&map, &output, &sums);
            gradients.register::<Flex>(parent.id, gradient.into_primitive().tensor());
        }
        let of_scale = |(sums, inverse): (&Sums, &f32)| (sums.centred * f64::from(*inverse)) as f32;
        let of_scale: Vec<f32> = sums.iter().zip(&normal.inverse).map(of_scale).collect();
        let of_shift: Vec<f32> = sums.iter().map(|sums| sums.plain as f32).collect();
        for (parent, gradient) in [(scale, of_scale), (shift, of_shift)] {
            if let Some(parent) = parent {
                let gradient = tensor(gradient, [sums.len()]);
                gradients.register::<Flex>(parent.id, gradient.into_primitive().tensor());
            }
        }
    }
}

/// What a map is normalized by, channel by channel.
#[derive(Debug, Clone)]
struct Normal {
    shape: [usize; 4],
    mean: Vec<f32>,
    variance: Vec<f32>,
    /// One over the standard deviation.
    inverse: Vec<f32>,
    scale: Vec<f32>,
    /// Whether mean and variance are the map's own.
    own: bool,
}

/// Sums over one channel of the output's gradient.
struct Sums {
    /// As it is.
    plain: f64,
    /// Times the map's distance from its mean.
    centred: f64,
}

impl Normal {
    fn of(map: &Tensor<Flex, 4>, scale: &Tensor<Flex, 1>, given: Option<[Tensor<Flex, 1>; 2]>, epsilon: f32) -> Self {
        let own = given.is_none();
        let mut normal = Self {
            shape: map.dims(),
            mean: Vec::new(),
            variance: Vec::new(),
            inverse: Vec::new(),
            scale: numbers(scale).to_vec(),
            own,
        };
        (normal.mean, normal.variance) = match given {
            Some([mean, variance]) => (numbers(&mean).to_vec(), numbers(&variance).to_vec()),
            None => normal.moments(&numbers(map)),
        };
        let inverse = |variance: &f32| 1.0 / (variance + epsilon).sqrt();
        normal.inverse = normal.variance.iter().map(inverse).collect();
        normal
    }

    fn points(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    /// Numbers of one channel.
    fn count(&self) -> usize {
        self.shape[0] * self.points()
    }

    /// One channel of each image.
    fn planes<'a>(&self, map: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        map.chunks_exact(self.points()).skip(channel).step_by(self.shape[1])
    }

    /// `work` on each channel.
    fn each_channel<R: Send>(&self, work: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
        let channels = (0..self.shape[1]).into_par_iter();
        channels
            .with_min_len(NUMBERS.div_ceil(self.count().max(1)))
            .map(work)
            .collect()
    }

    /// Mean and variance of each channel.
    fn moments(&self, map: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let count = self.count() as f64;
        let moments = self.each_channel(|channel| {
            let sum: f64 = self
                .planes(map, channel)
                .map(|plane| total(plane, plane, |value, _| value))
                .sum();
            let mean = (sum / count) as f32;
            let square = |value: f32, _: f32| (value - mean) * (value - mean);
            let squares: f64 = self.planes(map, channel).map(|plane| total(plane, plane, square)).sum();
            (mean, (squares / count) as f32)
        });
        moments.into_iter().unzip()
    }

    fn statistics(&self) -> [Tensor<Flex, 1>; 2] {
        [&self.mean, &self.variance].map(|values| tensor(values.clone(), [values.len()]))
    }

    /// What a distance from the mean is multiplied by.
    fn factor(&self, channel: usize) -> f32 {
        self.scale[channel] * self.inverse[channel]
    }

    fn forward(&self, map: &Tensor<Flex, 4>, shift: &Tensor<Flex, 1>) -> Tensor<Flex, 4> {
        let shift = numbers(shift);
        self.each_plane(map, map, |channel| {
            let (mean, factor, shift) = (self.mean[channel], self.factor(channel), shift[channel]);
            move |value: f32, _: f32| (value - mean) * factor + shift
        })
    }

    fn sums(&self, map: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>) -> Vec<Sums> {
        let (map, output) = (numbers(map), numbers(output));
        self.each_channel(|channel| {
            let mean = self.mean[channel];
            let planes = || self.planes(&map, channel).zip(self.planes(&output, channel));
            Sums {
                plain: planes().map(|(map, output)| total(map, output, |_, slope| slope)).sum(),
                centred: planes()
                    .map(|(map, output)| total(map, output, |value, slope| (value - mean) * slope))
                    .sum(),
            }
        })
    }

    /// The gradient of the map from that of the output.
    fn map_gradient(&self, map: &Tensor<Flex, 4>, output: &Tensor<Flex, 4>, sums: &[Sums]) -> Tensor<Flex, 4> {
        // What comes by the map's own mean, and by its own variance.
        let by_statistics = |(sums, inverse): (&Sums, &f32)| {
            let share = if self.own { 1.0 / self.count() as f64 } else { 0.0 };
            let by_variance = sums.centred * f64::from(inverse * inverse) * share;
            ((sums.plain * share) as f32, by_variance as f32)
        };
        let by_statistics: Vec<(f32, f32)> = sums.iter().zip(&self.inverse).map(by_statistics).collect();
        self.each_plane(map, output, |channel| {
            let (by_mean, by_variance) = by_statistics[channel];
            let (mean, factor) = (self.mean[channel], self.factor(channel));
            move |value: f32, slope: f32| factor * (slope - by_mean - by_variance * (value - mean))
        })
    }

    /// A map of what the function of each channel gives for pairs of numbers.
    fn each_plane<F: Fn(f32, f32) -> f32>(
        &self,
        left: &Tensor<Flex, 4>,
        right: &Tensor<Flex, 4>,
        of_channel: impl Fn(usize) -> F + Send + Sync,
    ) -> Tensor<Flex, 4> {
        let (left, right) = (numbers(left), numbers(right));
        let points = self.points();
        let mut map = vec![0.0; left.len()];
        let planes = map.par_chunks_exact_mut(points).enumerate();
        planes
            .with_min_len(NUMBERS.div_ceil(points.max(1)))
            .for_each(|(plane, map)| {
                let (value, begin) = (of_channel(plane % self.shape[1]), plane * points);
                let pairs = left[begin..][..points].iter().zip(&right[begin..][..points]);
                map.iter_mut()
                    .zip(pairs)
                    .for_each(|(to, (left, right))| *to = value(*left, *right));
            });
        tensor(map, self.shape)
    }
}

/// The sum of `term` over pairs of numbers.
fn total(left: &[f32], right: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    let mut sums = [0.0_f32; LANES];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            sums[lane] += term(left[lane], right[lane]);
        }
    }
    let rest = left_rest.iter().zip(right_rest);
    let rest: f32 = rest.map(|(left, right)| term(*left, *right)).sum();
    f64::from(sums.iter().sum::<f32>() + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Learning = Autodiff<Flex>;

    fn wave<const D: usize>(shape: [usize; D], step: f32) -> Tensor<Flex, D> {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|index| 1.2 + 0.7 * (index as f32 * step).sin());
        tensor(values.collect(), shape)
    }

    /// Output, statistics, and the gradients of map, scale and shift where the output's is `slope`.
    fn learned(
        normalize: impl Fn(
            Tensor<Learning, 4>,
            Tensor<Learning, 1>,
            Tensor<Learning, 1>,
            Option<[Tensor<Learning, 1>; 2]>,
            f32,
        ) -> (Tensor<Learning, 4>, [Tensor<Learning, 1>; 2]),
        [map, slope]: [&Tensor<Flex, 4>; 2],
        [scale, shift]: [&Tensor<Flex, 1>; 2],
        given: Option<&[Tensor<Flex, 1>; 2]>,
    ) -> [Vec<f32>; 6] {
        let map = Tensor::from_inner(map.clone()).require_grad();
        let [scale, shift] = [scale, shift].map(|values| Tensor::from_inner(values.clone()).require_grad());
        let given = given.map(|statistics| statistics.clone().map(Tensor::from_inner));
        let (output, [mean, variance]) = normalize(map.clone(), scale.clone(), shift.clone(), given, 1e-3);
        let gradients = (output.clone() * Tensor::from_inner(slope.clone())).sum().backward();
        [
            numbers(&output.inner()).to_vec(),
            numbers(&mean.inner()).to_vec(),
            numbers(&variance.inner()).to_vec(),
            numbers(&map.grad(&gradients).unwrap()).to_vec(),
            numbers(&scale.grad(&gradients).unwrap()).to_vec(),
            numbers(&shift.grad(&gradients).unwrap()).to_vec(),
        ]
    }

    #[test]
    fn one_operator_does_what_its_parts_do() {
        for shape in [[3, 5, 7, 6], [3, 2, 1, 1], [9, 4, 40, 30]] {
            let maps = [&wave(shape, 0.37), &wave(shape, 0.53)];
            let [scale, shift, mean, variance] = [0.4, 0.9, 1.3, 2.1].map(|step| wave([shape[1]], step));
            let given = [mean, variance];
            for given in [None, Some(&given)] {
                let ours = learned(Learning::normalize, maps, [&scale, &shift], given);
                let theirs = learned(composed, maps, [&scale, &shift], given);
                for (what, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                    assert_eq!(ours.len(), theirs.len());
                    let largest = theirs.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
                    for (ours, theirs) in ours.iter().zip(theirs) {
                        assert!(
                            (ours - theirs).abs() < 1e-4 * largest,
                            "{what}: {ours} {theirs} {shape:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn sums_do_not_depend_on_the_number_of_threads() {
        let maps = [&wave([6, 48, 30, 30], 0.37), &wave([6, 48, 30, 30], 0.53)];
        let channels = [&wave([48], 0.4), &wave([48], 0.9)];
        let computed = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| learned(Learning::normalize, maps, channels, None))
        };
        assert_eq!(computed(1), computed(3));
    }
}
