//! Weights and biases of a convolution as integers.
//!
//! Two things matter beyond rounding to the nearest.
//!
//! *Every processor must compute the same.* Before VNNI, x86 multiplies unsigned by signed bytes with an instruction
//! (VPMADDUBSW) that adds neighbouring products in 16 bits and cuts off what does not fit; ONNX Runtime documents 7-bit
//! weights against that. It is enough that no two weights of an output channel add up to more than 128:
//! 255 * 128 < 2^15. That leaves a channel whose largest weights have different signs, or one of which stands out,
//! nearly all of its 8 bits. Depthwise convolutions have no neighbouring products and use them all.
//!
//! *Rounding must not shift a channel.* What the rounding errors add up to over the mean input is taken off the bias:
//! Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
//! <https://arxiv.org/abs/1906.04721>, section 4.2.

use super::plan::Convolution;

/// The largest weight.
const LARGEST: f64 = 127.0;
/// The largest sum of two weights of a channel, less what rounding both can add.
const LARGEST_PAIR: f64 = 127.0;
/// The largest bias: a quarter of the accumulator, which must hold the products too.
const LARGEST_BIAS: f64 = (1 << 29) as f64;

/// A convolution's constants as integers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rounded {
    /// In the order of the float ones.
    pub weights: Vec<i8>,
    /// Width of a step of the weights, one per output channel.
    pub scales: Vec<f32>,
    /// In steps as wide as those of the input times those of the weights.
    pub bias: Vec<i32>,
}

/// Rounds the constants of `convolution`, whose input has steps of `input_scale` and the mean `means[c]` in channel
/// `c`.
pub(super) fn round(convolution: &Convolution, input_scale: f32, means: &[f64]) -> Rounded {
    let [channels, inputs, height, width] = convolution.shape;
    let (area, length) = (height * width, inputs * height * width);
    let per_group = channels / convolution.groups;
    let mut rounded = Rounded {
        weights: Vec::with_capacity(convolution.weights.len()),
        scales: Vec::with_capacity(channels),
        bias: Vec::with_capacity(channels),
    };
    for channel in 0..channels {
        let weights = &convolution.weights[channel * length..(channel + 1) * length];
        let bias = f64::from(convolution.bias[channel]);
        let least = bias.abs() / (f64::from(input_scale) * LARGEST_BIAS);
        let scale = step(weights, convolution.is_depthwise()).max(least as f32);
        let first = channel / per_group * inputs;
        let mut shift = 0.0;
        for (index, weight) in weights.iter().enumerate() {
            let steps = (f64::from(*weight) / f64::from(scale)).round().clamp(-LARGEST, LARGEST);
            let mean = means.get(first + index / area).copied().unwrap_or_default();
            shift += (steps * f64::from(scale) - f64::from(*weight)) * mean;
            rounded.weights.push(steps as i8);
        }
        let bias_scale = input_scale * scale;
        rounded.scales.push(scale);
        rounded
            .bias
            .push(((bias - shift) / f64::from(bias_scale)).round() as i32);
    }
    rounded
}

/// The narrowest step that lets a channel's weights be integers within the bounds.
fn step(weights: &[f32], depthwise: bool) -> f32 {
    let largest = weights
        .iter()
        .fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    let alone = f64::from(largest) / LARGEST;
    let bound = if depthwise {
        alone
    } else {
        let positive = largest_two(weights.iter().copied());
        let negative = largest_two(weights.iter().map(|weight| -weight));
        alone.max(positive.max(negative) / LARGEST_PAIR)
    };
    // A channel of zeros has no width to go by.
    let bound = bound as f32;
    if bound.is_normal() { bound } else { 1.0 }
}

/// Sum of the largest two values above zero.
fn largest_two(values: impl Iterator<Item = f32>) -> f64 {
    let (mut first, mut second) = (0.0_f32, 0.0_f32);
    for value in values {
        if value > first {
            (first, second) = (value, first);
        } else if value > second {
            second = value;
        }
    }
    f64::from(first) + f64::from(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convolution(shape: [usize; 4], groups: usize, weights: Vec<f32>) -> Convolution {
        Convolution {
            node: 0,
            input: "image".to_owned(),
            output: "map".to_owned(),
            bias: vec![0.25; shape[0]],
            shape,
            groups,
            weights,
        }
    }

    fn wave(count: usize) -> Vec<f32> {
        (0..count).map(|index| (index as f32 * 0.7).sin() * 0.4 + 0.1).collect()
    }

    #[test]
    fn weights_are_within_half_a_step_and_no_pair_overflows() {
        for (shape, groups) in [
            ([5, 4, 3, 3], 1),
            ([6, 2, 1, 1], 3),
            ([4, 1, 5, 5], 4),
            // One input channel, and a matrix product all the same.
            ([4, 1, 5, 5], 1),
            ([4, 1, 3, 3], 2),
        ] {
            let length = shape[1] * shape[2] * shape[3];
            let exact = convolution(shape, groups, wave(shape[0] * length));
            let rounded = round(&exact, 0.02, &vec![0.0; shape[1] * groups]);
            for (index, weight) in exact.weights.iter().enumerate() {
                let scale = rounded.scales[index / length];
                let back = f32::from(rounded.weights[index]) * scale;
                assert!(
                    (back - weight).abs() <= 0.5001 * scale,
                    "{weight} became {back} in steps of {scale}"
                );
            }
            for channel in rounded.weights.chunks(length) {
                let mut sorted: Vec<i32> = channel.iter().map(|weight| i32::from(*weight)).collect();
                sorted.sort_unstable();
                let pair = (sorted[0] + sorted[1])
                    .abs()
                    .max(sorted[length - 1] + sorted[length - 2]);
                let depthwise = groups == 4;
                assert!(depthwise || pair * 255 < 1 << 15, "{channel:?}");
                assert!(!depthwise || channel.iter().any(|weight| weight.abs() == 127));
            }
        }
    }

    #[test]
    fn a_weight_that_stands_out_keeps_eight_bits() {
        let rounded = round(
            &convolution([1, 4, 1, 1], 1, vec![1.0, 0.004, -0.9, -0.01]),
            1.0,
            &[0.0; 4],
        );
        assert!(rounded.weights[0] > 120, "{:?}", rounded.weights);
    }

    #[test]
    fn the_bias_takes_off_what_rounding_adds_to_the_mean() {
        let exact = convolution([2, 2, 2, 2], 1, wave(16));
        let means = [3.0, -1.0];
        let rounded = round(&exact, 1e-4, &means);
        for channel in 0..2 {
            let mean = |weight: &dyn Fn(usize) -> f64| -> f64 {
                (0..8).map(|index| weight(channel * 8 + index) * means[index / 4]).sum()
            };
            let scale = f64::from(rounded.scales[channel]);
            let float = mean(&|index| f64::from(exact.weights[index])) + 0.25;
            let bias = f64::from(rounded.bias[channel]) * f64::from(1e-4 * rounded.scales[channel]);
            let integer = mean(&|index| f64::from(rounded.weights[index]) * scale) + bias;
            assert!((float - integer).abs() < 1e-6, "{float} and {integer}");
        }
    }

    #[test]
    fn a_channel_of_zeros_keeps_its_bias() {
        let rounded = round(&convolution([1, 3, 1, 1], 1, vec![0.0; 3]), 1e-3, &[1.0; 3]);
        assert_eq!(rounded.weights, [0; 3]);
        assert!((rounded.bias[0] as f32 * 1e-3 * rounded.scales[0] - 0.25).abs() < 1e-3);
        // One with nearly nothing but a bias: it still fits.
        let rounded = round(&convolution([1, 1, 1, 1], 1, vec![1e-20]), 1e-3, &[1.0]);
        assert!((rounded.bias[0] as f32 * 1e-3 * rounded.scales[0] - 0.25).abs() < 1e-6);
    }
}
