//! The catalogue's architectures, written as ONNX graphs around given weights.
//!
//! Every graph has the input `image` `[N, 3, H, W]` and two outputs: `features` `[N, D]`, pooled over the
//! last feature map, and `feature_map` `[N, D, h, w]`, that map. Batch norm stays a node of its own.

mod efficientnet_lite;
mod layers;
mod resnet;

use serde::{Deserialize, Serialize};

use self::layers::Layers;
use super::weights::{Weights, WeightsError};
use crate::onnx::proto::ModelProto;

/// An architecture of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// EfficientNet-Lite 0.
    EfficientnetLite0,
    /// EfficientNet-Lite 1.
    EfficientnetLite1,
    /// EfficientNet-Lite 2.
    EfficientnetLite2,
    /// ResNet-18 as in torchvision.
    Resnet18,
    /// ResNet-34 as in torchvision.
    Resnet34,
    /// ResNet-50 as in torchvision.
    Resnet50,
    /// ResNet-50 as in Keras' `resnet50`.
    Resnet50Keras,
}

impl Architecture {
    /// The network around `weights`, with `metadata` written into the file.
    ///
    /// # Errors
    /// Where a tensor is missing or has another shape than the architecture asks for, or there is one more.
    pub fn build(self, weights: &Weights, metadata: &[(&str, String)]) -> Result<ModelProto, WeightsError> {
        let mut layers = Layers::new(weights);
        let map = match self {
            Self::EfficientnetLite0 => efficientnet_lite::build(&mut layers, 1.0, 1.0),
            Self::EfficientnetLite1 => efficientnet_lite::build(&mut layers, 1.0, 1.1),
            Self::EfficientnetLite2 => efficientnet_lite::build(&mut layers, 1.1, 1.2),
            Self::Resnet18 => resnet::basic(&mut layers, [2, 2, 2, 2]),
            Self::Resnet34 => resnet::basic(&mut layers, [3, 4, 6, 3]),
            Self::Resnet50 => resnet::bottleneck(&mut layers, [3, 4, 6, 3]),
            Self::Resnet50Keras => resnet::keras(&mut layers, [3, 4, 6, 3]),
        }?;
        layers.finish(&map, self.feature_size(), metadata)
    }

    /// Length of the feature vector.
    pub fn feature_size(self) -> usize {
        match self {
            Self::EfficientnetLite0 | Self::EfficientnetLite1 | Self::EfficientnetLite2 => efficientnet_lite::FEATURES,
            Self::Resnet18 | Self::Resnet34 => 512,
            Self::Resnet50 | Self::Resnet50Keras => 2048,
        }
    }
}
