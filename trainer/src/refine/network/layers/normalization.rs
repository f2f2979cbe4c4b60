//! Batch normalization: on a processor each plane is read once to be normalized and, on the way back, once for what its
//! channel is the sum of and once for its gradient.

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{Flex, FlexTensor};
use burn_tensor::backend::Backend;
use burn_tensor::{Tensor, TensorPrimitive};
use rayon::prelude::*;

use super::{NUMBERS_A_THREAD, Normalization, Normalized, Numbers, numbers, tensor};

/// Numbers that are added up side by side, on every processor, so that sums do not depend on its vectors.
const LANES: usize = 16;

/// See [`super::Layers::normalize`].
pub(super) fn by_backend<B: Backend>(map: Tensor<B, 4>, normalization: Normalization<B>) -> Normalized<B> {
    let Normalization {
        scale,
        shift,
        running,
        epsilon,
    } = normalization;
    let deviation = |variance: Tensor<B, 1>| variance.add_scalar(epsilon).sqrt();
    if let Some([mean, variance]) = running {
        let factor = scale / deviation(variance.clone());
        let offset = shift - mean.clone() * factor.clone();
        return Normalized {
            map: scaled_and_shifted(map, factor, offset),
            statistics: [mean, variance],
        };
    }
    let mean = channel_means(map.clone());
    let centred = by_channel(map, mean.clone(), |map, mean| map - mean);
    let variance = channel_means(centred.clone() * centred.clone());
    let factor = scale / deviation(variance.clone());
    Normalized {
        map: scaled_and_shifted(centred, factor, shift),
        statistics: [mean.detach(), variance.detach()],
    }
}

/// The same on a processor.
pub(super) fn computed(map: &Tensor<Flex, 4>, normalization: Normalization<Flex>) -> Normalized<Flex> {
    normalized(map, normalization).0
}

/// The same, with its way back.
pub(super) fn differentiated(
    map: Tensor<Autodiff<Flex>, 4>,
    normalization: Normalization<Autodiff<Flex>>,
) -> Normalized<Autodiff<Flex>> {
    let of_map = normalization.running.is_none();
    let inner = Normalization {
        scale: normalization.scale.clone().inner(),
        shift: normalization.shift.clone().inner(),
        running: normalization.running.map(|statistics| statistics.map(Tensor::inner)),
        epsilon: normalization.epsilon,
    };
    let kept = map.clone().inner();
    let (
        Normalized {
            map: output,
            statistics,
        },
        channels,
    ) = normalized(&kept, inner);
    let nodes = [
        map.into_primitive().tensor().node,
        normalization.scale.into_primitive().tensor().node,
        normalization.shift.into_primitive().tensor().node,
    ];
    let output = output.into_primitive().tensor();
    let node = BatchNormalization.prepare::<NoCheckpointing>(nodes).compute_bound();
    let tracked = match node.stateful() {
        OpsKind::Tracked(node) => {
            let state = State {
                planes: Planes::of(&kept),
                channels,
                map: kept.into_primitive().tensor(),
                of_map,
            };
            node.finish(state, output)
        }
        OpsKind::UnTracked(node) => node.finish(output),
    };
    Normalized {
        map: Tensor::from_primitive(TensorPrimitive::Float(tracked)),
        statistics: statistics.map(Tensor::from_inner),
    }
}

/// Beside the normalized map, what was done to each channel.
fn normalized(map: &Tensor<Flex, 4>, normalization: Normalization<Flex>) -> (Normalized<Flex>, Channels) {
    let (planes, map) = (Planes::of(map), numbers(map));
    let statistics = normalization.running.unwrap_or_else(|| planes.statistics(&map));
    let channels = Channels::new(&normalization.scale, &statistics, normalization.epsilon);
    let map = planes.normalized(&map, &channels, &numbers(&normalization.shift));
    (Normalized { map, statistics }, channels)
}

#[derive(Debug)]
struct BatchNormalization;

/// What the gradients are made of.
#[derive(Debug, Clone)]
struct State {
    planes: Planes,
    channels: Channels,
    map: FlexTensor,
    /// Whether the statistics are the map's own, and so have a gradient, too.
    of_map: bool,
}

impl Backward<Flex, 3> for BatchNormalization {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let State {
            planes,
            channels,
            map,
            of_map,
        } = ops.state;
        let map = Numbers::from(map);
        let mut output = Numbers::from(gradients.consume::<Flex>(&ops.node));
        let sums = planes.sums(&output, &map, &channels);
        let [of_input, of_scale, of_shift] = ops.parents;
        if let Some(node) = of_scale {
            gradients.register::<Flex>(node.id, planes.by_channel(&sums, |[_, scale]| scale));
        }
        if let Some(node) = of_shift {
            gradients.register::<Flex>(node.id, planes.by_channel(&sums, |[shift, _]| shift));
        }
        if let Some(node) = of_input {
            let sums = of_map.then_some(&sums[..]);
            planes.turn_back(&mut output, &map, &channels, sums);
            gradients.register::<Flex>(node.id, output.0);
        }
    }
}

/// What is done to the values of each channel: `(value - mean) x factor + shift`.
#[derive(Debug, Clone)]
struct Channels {
    mean: Vec<f32>,
    /// 1 / standard deviation.
    inverse: Vec<f32>,
    /// The scale over the standard deviation.
    factor: Vec<f32>,
}

impl Channels {
    fn new(scale: &Tensor<Flex, 1>, [mean, variance]: &[Tensor<Flex, 1>; 2], epsilon: f32) -> Self {
        let inverse: Vec<f32> = numbers(variance)
            .iter()
            .map(|variance| 1.0 / (variance + epsilon).sqrt())
            .collect();
        Self {
            mean: numbers(mean).to_vec(),
            factor: numbers(scale).iter().zip(&inverse).map(|(a, b)| a * b).collect(),
            inverse,
        }
    }
}

/// The planes of a map: each channel of each image.
#[derive(Debug, Clone, Copy)]
struct Planes {
    shape: [usize; 4],
    channels: usize,
    /// Numbers of one.
    points: usize,
}

impl Planes {
    fn of(map: &Tensor<Flex, 4>) -> Self {
        let shape @ [_, channels, height, width] = map.dims();
        Self {
            shape,
            channels,
            points: height * width,
        }
    }

    /// Planes that are worth a thread.
    fn least(&self) -> usize {
        NUMBERS_A_THREAD.div_ceil(self.points)
    }

    /// Of one channel in all images.
    fn of_channel<'a>(&self, map: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        map.chunks_exact(self.points).skip(channel).step_by(self.channels)
    }

    /// What `work` gives for each channel. A channel is one thread's, so that no sum depends on their number.
    fn for_channels<T: Send>(&self, work: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
        let images = self.shape[0].max(1);
        let channels = (0..self.channels).into_par_iter();
        channels.with_min_len(self.least().div_ceil(images)).map(work).collect()
    }

    /// Numbers of one channel.
    fn count(&self) -> f64 {
        (self.shape[0] * self.points) as f64
    }

    /// Mean and variance of each channel.
    fn statistics(&self, map: &[f32]) -> [Tensor<Flex, 1>; 2] {
        let moments = self.for_channels(|channel| {
            let mean = self.mean(map, channel, |value| value);
            [mean, self.mean(map, channel, |value| (value - mean) * (value - mean))]
        });
        [0, 1].map(|which| tensor(moments.iter().map(|moment| moment[which]).collect(), [self.channels]))
    }

    /// Of what `of` makes of a channel's values.
    fn mean(&self, map: &[f32], channel: usize, of: impl Fn(f32) -> f32) -> f32 {
        let planes = self.of_channel(map, channel);
        let sums = planes.map(|plane| sums(plane, plane, |value, _| [of(value)])[0]);
        (sums.sum::<f64>() / self.count()) as f32
    }

    fn normalized(&self, map: &[f32], channels: &Channels, shift: &[f32]) -> Tensor<Flex, 4> {
        let mut output = vec![0.0; map.len()];
        let planes = output.par_chunks_exact_mut(self.points);
        let planes = planes.zip(map.par_chunks_exact(self.points)).enumerate();
        planes.with_min_len(self.least()).for_each(|(plane, (output, map))| {
            let channel = plane % self.channels;
            let (mean, factor, shift) = (channels.mean[channel], channels.factor[channel], shift[channel]);
            for (output, value) in output.iter_mut().zip(map) {
                *output = (value - mean) * factor + shift;
            }
        });
        tensor(output, self.shape)
    }

    /// Of each channel the sums of the output's gradient, alone and times the normalized value.
    fn sums(&self, output: &[f32], map: &[f32], channels: &Channels) -> Vec<[f64; 2]> {
        self.for_channels(|channel| {
            let mean = channels.mean[channel];
            let planes = self.of_channel(output, channel).zip(self.of_channel(map, channel));
            let sums =
                planes.map(|(output, map)| sums(output, map, |gradient, value| [gradient, gradient * (value - mean)]));
            let [alone, product] = sums.fold([0.0; 2], |sum, more| [sum[0] + more[0], sum[1] + more[1]]);
            [alone, product * f64::from(channels.inverse[channel])]
        })
    }

    fn by_channel(&self, sums: &[[f64; 2]], which: impl Fn([f64; 2]) -> f64) -> FlexTensor {
        let sums = sums.iter().map(|sums| which(*sums) as f32).collect();
        tensor(sums, [self.channels]).into_primitive().tensor()
    }

    /// Makes the gradient of the output that of the map. With `sums`, where the statistics are the map's own.
    fn turn_back(&self, output: &mut [f32], map: &[f32], channels: &Channels, sums: Option<&[[f64; 2]]>) {
        let planes = output.par_chunks_exact_mut(self.points);
        let planes = planes.zip(map.par_chunks_exact(self.points)).enumerate();
        planes.with_min_len(self.least()).for_each(|(plane, (output, map))| {
            let channel = plane % self.channels;
            let factor = channels.factor[channel];
            let Some(sums) = sums else {
                for gradient in output {
                    *gradient *= factor;
                }
                return;
            };
            let (mean, inverse) = (channels.mean[channel], channels.inverse[channel]);
            let [alone, product] = sums[channel].map(|sum| (sum / self.count()) as f32);
            let slope = product * inverse;
            for (gradient, value) in output.iter_mut().zip(map) {
                *gradient = (*gradient - alone - (value - mean) * slope) * factor;
            }
        });
    }
}

/// The sums of what `of` makes of the values of two planes at the same place.
fn sums<const N: usize>(left: &[f32], right: &[f32], of: impl Fn(f32, f32) -> [f32; N]) -> [f64; N] {
    let mut sums = [[0.0_f32; LANES]; N];
    let mut add = |left: &[f32], right: &[f32]| {
        for (lane, (left, right)) in left.iter().zip(right).enumerate() {
            for (sums, value) in sums.iter_mut().zip(of(*left, *right)) {
                sums[lane] += value;
            }
        }
    };
    let (lefts, rights) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    for (left, right) in lefts.0.iter().zip(rights.0) {
        add(left, right);
    }
    add(lefts.1, rights.1);
    sums.map(|sums| sums.into_iter().map(f64::from).sum())
}

/// Combines a map with one number for each channel. Written out for one image these are a row that all images share,
/// which backends broadcast by vector instructions; channels between images and points they take one value at a time.
pub(in crate::refine::network) fn by_channel<B: Backend>(
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

fn scaled_and_shifted<B: Backend>(map: Tensor<B, 4>, factor: Tensor<B, 1>, offset: Tensor<B, 1>) -> Tensor<B, 4> {
    let scaled = by_channel(map, factor, |map, factor| map * factor);
    by_channel(scaled, offset, |map, offset| map + offset)
}

/// Mean of each channel.
fn channel_means<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 1> {
    let [images, channels, height, width] = map.dims();
    let means = map.reshape([images * channels, height * width]).mean_dim(1);
    means.reshape([images, channels]).mean_dim(0).reshape([channels])
}

#[cfg(test)]
mod tests {
    use burn_flex::FlexDevice;

    use super::super::Layers;
    use super::*;

    type Learning = Autodiff<Flex>;

    fn wave<const D: usize>(shape: [usize; D], middle: f32) -> Tensor<Flex, D> {
        let count = shape.iter().product();
        let value = |index: usize| middle + (index as f32 * 0.37).sin() + (index as f32 * 0.011).cos();
        tensor((0..count).map(value).collect(), shape)
    }

    /// Output and statistics by `normalize`, and the gradients of map, scale and shift.
    fn learned(
        normalize: impl Fn(Tensor<Learning, 4>, Normalization<Learning>) -> Normalized<Learning>,
        shape: [usize; 4],
        running: bool,
    ) -> [Vec<f32>; 6] {
        let one = |middle| Tensor::<Learning, 1>::from_inner(wave([shape[1]], middle));
        let map = Tensor::from_inner(wave(shape, 5.0)).require_grad();
        let [scale, shift] = [1.0, -0.5].map(|middle| one(middle).require_grad());
        let normalization = Normalization {
            scale: scale.clone(),
            shift: shift.clone(),
            running: running.then(|| [one(4.0), one(3.0)]),
            epsilon: 1e-3,
        };
        let Normalized {
            map: output,
            statistics: [mean, variance],
        } = normalize(map.clone(), normalization);
        let slope = Tensor::from_inner(wave(shape, 0.1));
        let gradients = (output.clone() * slope.clone() * slope).sum().backward();
        let of_numbers = |of: &Tensor<Learning, 1>| numbers(&of.grad(&gradients).unwrap()).to_vec();
        [
            numbers(&output.inner()).to_vec(),
            numbers(&mean.inner()).to_vec(),
            numbers(&variance.inner()).to_vec(),
            numbers(&map.grad(&gradients).unwrap()).to_vec(),
            of_numbers(&scale),
            of_numbers(&shift),
        ]
    }

    #[test]
    fn normalized_maps_and_their_gradients_are_those_of_the_backend() {
        for shape in [[3, 4, 7, 5], [2, 3, 16, 18], [4, 5, 1, 1], [1, 2, 3, 3]] {
            for running in [false, true] {
                let ours = learned(Learning::normalize, shape, running);
                let theirs = learned(by_backend, shape, running);
                let what = ["output", "mean", "variance", "map", "scale", "shift"];
                for (what, (ours, theirs)) in what.iter().zip(ours.iter().zip(&theirs)) {
                    assert_eq!(ours.len(), theirs.len());
                    let largest = theirs.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
                    for (ours, theirs) in ours.iter().zip(theirs) {
                        let apart = (ours - theirs).abs();
                        assert!(apart < 5e-5 * largest, "{what} {shape:?} {running}: {ours} {theirs}");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_do_not_depend_on_the_number_of_threads() {
        let computed = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| learned(Learning::normalize, [6, 48, 40, 40], false))
        };
        assert_eq!(computed(1), computed(3));
    }

    #[test]
    fn what_is_not_trained_has_no_gradient() {
        let map = Tensor::<Learning, 4>::from_inner(wave([2, 3, 4, 4], 0.0));
        let shift = Tensor::<Learning, 1>::zeros([3], &FlexDevice).require_grad();
        let normalization = Normalization {
            scale: Tensor::ones([3], &FlexDevice),
            shift: shift.clone(),
            running: None,
            epsilon: 1e-5,
        };
        let scale = normalization.scale.clone();
        let gradients = Learning::normalize(map.clone(), normalization).map.sum().backward();
        assert_eq!(*numbers(&shift.grad(&gradients).unwrap()), [32.0; 3]);
        assert!(map.grad(&gradients).is_none() && scale.grad(&gradients).is_none());
    }
}
