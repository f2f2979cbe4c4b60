//! EfficientNet-Lite: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
//! Networks", 2019, in the Lite variant: no squeeze-and-excitation, ReLU6, stem and head not scaled.
//!
//! Weights are named as in the Python package `efficientnet-lite-pytorch`.

use super::layers::{Convolution, Layers, Padding};
use crate::backbone::weights::WeightsError;

/// Length of the feature vector at every scale.
pub(super) const FEATURES: usize = 1280;

const STEM: usize = 32;
const EPSILON: f32 = 1e-3;

/// Blocks of one resolution and width.
struct Stage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    output: usize,
}

const STAGES: [Stage; 7] = [
    Stage {
        repeats: 1,
        kernel: 3,
        stride: 1,
        expansion: 1,
        output: 16,
    },
    Stage {
        repeats: 2,
        kernel: 3,
        stride: 2,
        expansion: 6,
        output: 24,
    },
    Stage {
        repeats: 2,
        kernel: 5,
        stride: 2,
        expansion: 6,
        output: 40,
    },
    Stage {
        repeats: 3,
        kernel: 3,
        stride: 2,
        expansion: 6,
        output: 80,
    },
    Stage {
        repeats: 3,
        kernel: 5,
        stride: 1,
        expansion: 6,
        output: 112,
    },
    Stage {
        repeats: 4,
        kernel: 5,
        stride: 2,
        expansion: 6,
        output: 192,
    },
    Stage {
        repeats: 1,
        kernel: 3,
        stride: 1,
        expansion: 6,
        output: 320,
    },
];

/// Builds the network scaled in width and depth and gives the name of its last feature map.
pub(super) fn build(layers: &mut Layers, width: f64, depth: f64) -> Result<String, WeightsError> {
    let stem = Convolution {
        padding: Padding::Same,
        ..Convolution::centred(3, STEM, 3, 2)
    };
    let mut value = layers.convolution("_conv_stem", &Layers::image(), stem)?;
    value = layers.batch_norm("_bn0", &value, STEM, EPSILON)?;
    value = layers.relu6(&value);

    let mut channels = STEM;
    let mut block = 0;
    for (number, stage) in STAGES.iter().enumerate() {
        let ends = number == 0 || number == STAGES.len() - 1;
        let repeats = if ends {
            stage.repeats
        } else {
            (stage.repeats as f64 * depth).ceil() as usize
        };
        let output = scaled(stage.output, width);
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stage.stride } else { 1 };
            value = inverted_residual(layers, block, &value, stage, channels, output, stride)?;
            channels = output;
            block += 1;
        }
    }

    value = layers.convolution("_conv_head", &value, Convolution::centred(channels, FEATURES, 1, 1))?;
    value = layers.batch_norm("_bn1", &value, FEATURES, EPSILON)?;
    Ok(layers.relu6(&value))
}

/// Expand, convolve each channel, project; the input is added where nothing changed its shape.
fn inverted_residual(
    layers: &mut Layers,
    block: usize,
    input: &str,
    stage: &Stage,
    channels: usize,
    output: usize,
    stride: usize,
) -> Result<String, WeightsError> {
    let name = |part: &str| format!("_blocks.{block}.{part}");
    let inner = channels * stage.expansion;
    let mut value = input.to_owned();
    if stage.expansion > 1 {
        value = layers.convolution(
            &name("_expand_conv"),
            &value,
            Convolution::centred(channels, inner, 1, 1),
        )?;
        value = layers.batch_norm(&name("_bn0"), &value, inner, EPSILON)?;
        value = layers.relu6(&value);
    }
    let depthwise = Convolution {
        padding: Padding::Same,
        groups: inner,
        ..Convolution::centred(inner, inner, stage.kernel, stride)
    };
    value = layers.convolution(&name("_depthwise_conv"), &value, depthwise)?;
    value = layers.batch_norm(&name("_bn1"), &value, inner, EPSILON)?;
    value = layers.relu6(&value);
    value = layers.convolution(
        &name("_project_conv"),
        &value,
        Convolution::centred(inner, output, 1, 1),
    )?;
    value = layers.batch_norm(&name("_bn2"), &value, output, EPSILON)?;
    if stride == 1 && channels == output {
        value = layers.add(&name("add"), &value, input);
    }
    Ok(value)
}

/// A width scaled to a multiple of 8 that is not more than a tenth below.
fn scaled(channels: usize, width: f64) -> usize {
    let exact = channels as f64 * width;
    let rounded = (((exact + 4.0) / 8.0).floor() * 8.0).max(8.0);
    (if rounded < 0.9 * exact { rounded + 8.0 } else { rounded }) as usize
}
