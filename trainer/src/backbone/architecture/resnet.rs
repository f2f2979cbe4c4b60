//! ResNet: He et al., "Deep Residual Learning for Image Recognition", 2015.
//!
//! In torchvision's form (stride on the 3 x 3 convolution, weights named as there), and in that of Keras'
//! `resnet50` (stride on the first 1 x 1 convolution, convolutions with bias), whose weights the reader
//! renames to torchvision's.

use super::layers::{Convolution, Layers, Padding};
use crate::backbone::weights::WeightsError;

/// Width of the four stages.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// Where torchvision and Keras differ.
#[derive(Debug, Clone, Copy)]
struct Style {
    epsilon: f32,
    bias: bool,
    /// Which convolution of a bottleneck has the stride.
    stride_first: bool,
}

const TORCHVISION: Style = Style {
    epsilon: 1e-5,
    bias: false,
    stride_first: false,
};
const KERAS: Style = Style {
    epsilon: 1e-3,
    bias: true,
    stride_first: true,
};

/// ResNet-18 and 34.
pub(super) fn basic(layers: &mut Layers, depths: [usize; 4]) -> Result<String, WeightsError> {
    stages(
        layers,
        depths,
        TORCHVISION,
        1,
        |layers, name, input, channels, width, stride| {
            let value = unit(
                layers,
                name,
                1,
                input,
                Convolution::centred(channels, width, 3, stride),
                TORCHVISION,
            )?;
            let value = layers.relu(&value);
            unit(
                layers,
                name,
                2,
                &value,
                Convolution::centred(width, width, 3, 1),
                TORCHVISION,
            )
        },
    )
}

/// ResNet-50 in torchvision's form.
pub(super) fn bottleneck(layers: &mut Layers, depths: [usize; 4]) -> Result<String, WeightsError> {
    bottlenecks(layers, depths, TORCHVISION)
}

/// ResNet-50 in Keras' form.
pub(super) fn keras(layers: &mut Layers, depths: [usize; 4]) -> Result<String, WeightsError> {
    bottlenecks(layers, depths, KERAS)
}

fn bottlenecks(layers: &mut Layers, depths: [usize; 4], style: Style) -> Result<String, WeightsError> {
    stages(
        layers,
        depths,
        style,
        4,
        |layers, name, input, channels, width, stride| {
            let (first, second) = if style.stride_first { (stride, 1) } else { (1, stride) };
            let value = unit(
                layers,
                name,
                1,
                input,
                Convolution::centred(channels, width, 1, first),
                style,
            )?;
            let value = layers.relu(&value);
            let value = unit(
                layers,
                name,
                2,
                &value,
                Convolution::centred(width, width, 3, second),
                style,
            )?;
            let value = layers.relu(&value);
            unit(
                layers,
                name,
                3,
                &value,
                Convolution::centred(width, 4 * width, 1, 1),
                style,
            )
        },
    )
}

/// The stem and four stages of blocks, each with its shortcut. `block` gets the block's name, its input,
/// the input's channels, the stage's width and the stride.
fn stages(
    layers: &mut Layers,
    depths: [usize; 4],
    style: Style,
    expansion: usize,
    block: impl Fn(&mut Layers, &str, &str, usize, usize, usize) -> Result<String, WeightsError>,
) -> Result<String, WeightsError> {
    let stem = Convolution {
        padding: Padding::Each(3),
        bias: style.bias,
        ..Convolution::centred(3, WIDTHS[0], 7, 2)
    };
    let mut value = layers.convolution("conv1", &Layers::image(), stem)?;
    value = layers.batch_norm("bn1", &value, WIDTHS[0], style.epsilon)?;
    value = layers.relu(&value);
    value = layers.max_pool("maxpool", &value);

    let mut channels = WIDTHS[0];
    for (stage, (depth, width)) in depths.into_iter().zip(WIDTHS).enumerate() {
        for index in 0..depth {
            let name = format!("layer{}.{index}", stage + 1);
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let output = expansion * width;
            let main = block(layers, &name, &value, channels, width, stride)?;
            let shortcut = if stride > 1 || channels != output {
                let shape = Convolution {
                    bias: style.bias,
                    ..Convolution::centred(channels, output, 1, stride)
                };
                let projected = layers.convolution(&format!("{name}.downsample.0"), &value, shape)?;
                layers.batch_norm(&format!("{name}.downsample.1"), &projected, output, style.epsilon)?
            } else {
                value
            };
            let sum = layers.add(&format!("{name}.add"), &main, &shortcut);
            value = layers.relu(&sum);
            channels = output;
        }
    }
    Ok(value)
}

/// Convolution and batch norm number `number` of a block.
fn unit(
    layers: &mut Layers,
    block: &str,
    number: usize,
    input: &str,
    shape: Convolution,
    style: Style,
) -> Result<String, WeightsError> {
    let shape = Convolution {
        bias: style.bias,
        ..shape
    };
    let value = layers.convolution(&format!("{block}.conv{number}"), input, shape)?;
    layers.batch_norm(&format!("{block}.bn{number}"), &value, shape.output, style.epsilon)
}
