//! The layers that the architectures are made of, each reading its weights by name.

use crate::backbone::weights::{Weights, WeightsError};
use crate::onnx::proto::{DimensionValue, ModelProto};
use crate::onnx::{Attribute, GraphBuilder};

/// Name of the networks' input.
const IMAGE: &str = "image";

/// A network under construction.
pub(super) struct Layers<'a> {
    weights: &'a Weights,
    graph: GraphBuilder,
    /// Names of the constants 0 and 6, once they are needed.
    relu6_bounds: Option<[String; 2]>,
}

/// A two-dimensional convolution with a square kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convolution {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
    pub groups: usize,
    pub bias: bool,
}

/// What surrounds the input of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) enum Padding {
    /// This many zeros on each side.
    Each(usize),
    /// As many zeros as make the output `ceil(input / stride)`, the odd one right and below: TensorFlow's SAME.
    Same,
}

impl Convolution {
    /// A convolution without bias and groups whose padding keeps the size at stride 1.
    pub(super) fn centred(input: usize, output: usize, kernel: usize, stride: usize) -> Self {
        Self {
            input,
            output,
            kernel,
            stride,
            padding: Padding::Each(kernel / 2),
            groups: 1,
            bias: false,
        }
    }
}

impl<'a> Layers<'a> {
    pub(super) fn new(weights: &'a Weights) -> Self {
        Self {
            weights,
            graph: GraphBuilder::new("backbone"),
            relu6_bounds: None,
        }
    }

    /// Name of the images' value.
    pub(super) fn image() -> String {
        IMAGE.to_owned()
    }

    /// `NAME.weight` (and `NAME.bias`) over `input`.
    pub(super) fn convolution(&mut self, name: &str, input: &str, shape: Convolution) -> Result<String, WeightsError> {
        let Convolution {
            kernel, stride, groups, ..
        } = shape;
        let dimensions = [shape.output, shape.input / groups, kernel, kernel];
        let weight = self.parameter(&format!("{name}.weight"), &dimensions)?;
        let mut inputs = vec![input, &weight];
        let bias = if shape.bias {
            Some(self.parameter(&format!("{name}.bias"), &[shape.output])?)
        } else {
            None
        };
        inputs.extend(bias.as_deref());
        let pair = |length: usize| Attribute::Ints(vec![length as i64; 2]);
        let padding = match shape.padding {
            Padding::Each(zeros) => ("pads", Attribute::Ints(vec![zeros as i64; 4])),
            Padding::Same => ("auto_pad", Attribute::Text("SAME_UPPER")),
        };
        let attributes = [
            ("kernel_shape", pair(kernel)),
            ("strides", pair(stride)),
            ("group", Attribute::Int(groups as i64)),
            padding,
        ];
        Ok(self.graph.node(name, "Conv", &inputs, &attributes))
    }

    /// Batch normalization with the statistics `NAME.running_mean` and `NAME.running_var`.
    pub(super) fn batch_norm(
        &mut self,
        name: &str,
        input: &str,
        channels: usize,
        epsilon: f32,
    ) -> Result<String, WeightsError> {
        let mut parameters = Vec::with_capacity(4);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            parameters.push(self.parameter(&format!("{name}.{part}"), &[channels])?);
        }
        let mut inputs = vec![input];
        inputs.extend(parameters.iter().map(String::as_str));
        Ok(self.graph.node(
            name,
            "BatchNormalization",
            &inputs,
            &[("epsilon", Attribute::Float(epsilon))],
        ))
    }

    /// `max(input, 0)`.
    pub(super) fn relu(&mut self, input: &str) -> String {
        self.graph.node(&format!("{input}.relu"), "Relu", &[input], &[])
    }

    /// `min(max(input, 0), 6)`.
    pub(super) fn relu6(&mut self, input: &str) -> String {
        let graph = &mut self.graph;
        let bounds = [("relu6.low", 0.0), ("relu6.high", 6.0)];
        let [low, high] = self
            .relu6_bounds
            .get_or_insert_with(|| bounds.map(|(name, bound)| graph.initializer(name, &[], &[bound])));
        graph.node(&format!("{input}.relu6"), "Clip", &[input, low, high], &[])
    }

    /// The sum of two values of the same shape.
    pub(super) fn add(&mut self, name: &str, left: &str, right: &str) -> String {
        self.graph.node(name, "Add", &[left, right], &[])
    }

    /// Maximum over 3 x 3 at stride 2, padded by one on each side.
    pub(super) fn max_pool(&mut self, name: &str, input: &str) -> String {
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![3, 3])),
            ("strides", Attribute::Ints(vec![2, 2])),
            ("pads", Attribute::Ints(vec![1; 4])),
        ];
        self.graph.node(name, "MaxPool", &[input], &attributes)
    }

    /// The file whose features are the means of `map`.
    pub(super) fn finish(
        mut self,
        map: &str,
        features: usize,
        metadata: &[(&str, String)],
    ) -> Result<ModelProto, WeightsError> {
        let graph = &mut self.graph;
        let map = graph.node("feature_map", "Identity", &[map], &[]);
        let pooled = graph.node("pool", "GlobalAveragePool", &[&map], &[]);
        let vector = graph.node("features", "Flatten", &[&pooled], &[("axis", Attribute::Int(1))]);
        let named = DimensionValue::named;
        let size = DimensionValue::Fixed(features as i64);
        let outputs: [(&str, &[DimensionValue]); 2] = [
            (&vector, &[named("N"), size.clone()]),
            (&map, &[named("N"), size, named("h"), named("w")]),
        ];
        let model = self.graph.finish(IMAGE, &outputs, metadata);
        let constants = model.graph.iter().flat_map(|graph| &graph.initializer);
        self.weights.check_taken(constants.map(|tensor| tensor.name.as_str()))?;
        Ok(model)
    }

    fn parameter(&mut self, name: &str, shape: &[usize]) -> Result<String, WeightsError> {
        Ok(self.graph.initializer(name, shape, self.weights.get(name, shape)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_network_with_more_in_the_same_parts_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.safetensors");
        let entry = |name: &str, shape: &str, from: usize, to: usize| {
            format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let build = |other: &str, shape: &str| {
            let taken = entry("layer1.0.conv1.weight", "[1,3,1,1]", 0, 12);
            let header = format!("{{{taken},{}}}", entry(other, shape, 12, 16));
            let length = (header.len() as u64).to_le_bytes();
            let file = [&length[..], header.as_bytes(), &[0; 16][..]].concat();
            std::fs::write(&path, file).expect("written");
            let weights = Weights::read(&path).expect("weights");
            let mut layers = Layers::new(&weights);
            let shape = Convolution::centred(3, 1, 1, 1);
            let map = layers.convolution("layer1.0.conv1", IMAGE, shape)?;
            layers.finish(&map, 1, &[])
        };
        let refused = build("layer1.2.conv1.weight", "[1]").expect_err("a deeper network");
        let expected = "weights.safetensors has the tensor layer1.2.conv1.weight beside those of this network";
        assert!(refused.to_string().contains(expected), "{refused}");
        build("fc.bias", "[1]").expect("the last layer");
        build("layer1.0.bn1.num_batches_tracked", "[]").expect("a counter");
    }
}
