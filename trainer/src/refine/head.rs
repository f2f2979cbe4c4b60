//! The last layer: features to class logits.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::network::GraphError;
use crate::onnx::proto::{DimensionValue, ModelProto};
use crate::onnx::{Attribute, Form, add_initializer, add_node, add_output, float_value};

/// Name of the output that holds the class logits.
pub const LOGITS: &str = "logits";
/// Names of the last layer's tensors.
const WEIGHT: &str = "head.weight";
const BIAS: &str = "head.bias";
const KERNEL: &str = "head.kernel";
/// Name of the output that tells where the evidence for each class is, `[N, classes, h, w]`.
const CLASS_MAPS: &str = "class_maps";

/// A linear layer over features.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadLayer {
    /// `classes x features`, row-major.
    pub weights: Vec<f32>,
    /// One per class.
    pub biases: Vec<f32>,
    /// Whether the features are scaled to length 1 before it.
    pub normalized: bool,
}

impl HeadLayer {
    /// Small weights drawn at random, as PyTorch draws those of a linear layer.
    pub fn random(classes: usize, features: usize, seed: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let bound = 1.0 / (features as f32).sqrt();
        let mut draw = |count: usize| -> Vec<f32> {
            (0..count)
                .map(|_| bound * (2.0 * generator.random::<f32>() - 1.0))
                .collect()
        };
        Self {
            weights: draw(classes * features),
            biases: draw(classes),
            normalized: false,
        }
    }

    /// `backbone`, whose outputs are features and perhaps the last feature map, as a network whose outputs are
    /// class logits and that map. With `dropout`, a network to train; without, one to use.
    ///
    /// # Errors
    /// [`GraphError::Unsound`] where the file has no such outputs.
    pub fn on(&self, backbone: &ModelProto, dropout: Option<f32>) -> Result<ModelProto, GraphError> {
        let mut model = backbone.clone();
        let (features, map) = outputs(backbone)?;
        let graph = model
            .graph
            .as_mut()
            .ok_or_else(|| GraphError::Unsound("the file holds no graph".to_owned()))?;
        let classes = self.biases.len();
        let length = self.weights.len() / classes.max(1);
        let map_shape = graph.output.get(1).cloned();
        graph.output.clear();
        let mut value = features;
        if self.normalized {
            let euclidean = [("axis", Attribute::Int(1)), ("p", Attribute::Int(2))];
            add_node(graph, "head.normalized", "LpNormalization", &[&value], &euclidean);
            "head.normalized".clone_into(&mut value);
        }
        if let Some(ratio) = dropout.filter(|ratio| *ratio > 0.0) {
            add_node(
                graph,
                "head.dropout",
                "Dropout",
                &[&value],
                &[("ratio", Attribute::Float(ratio))],
            );
            "head.dropout".clone_into(&mut value);
        }
        add_initializer(graph, WEIGHT, &[classes, length], &self.weights);
        add_initializer(graph, BIAS, &[classes], &self.biases);
        add_node(
            graph,
            LOGITS,
            "Gemm",
            &[&value, WEIGHT, BIAS],
            &[("transB", Attribute::Int(1))],
        );
        let dimensions = [
            DimensionValue::Named("N".to_owned()),
            DimensionValue::Fixed(classes as i64),
        ];
        graph.output.push(float_value(LOGITS, &dimensions));
        match (map, map_shape) {
            (Some(_), Some(shape)) => graph.output.push(shape),
            (Some(map), None) => add_output(graph, &map, Form::Same, "map", &[]),
            _ => {}
        }
        Ok(model)
    }
}

/// `network`, made by [`HeadLayer::on`], with a map per class in place of the last feature map: the last layer's
/// weights over each of its cells (a 1 x 1 convolution), which tells where the evidence for each class is.
///
/// # Errors
/// [`GraphError::Unsound`] where the file holds no graph.
pub fn with_class_maps(mut network: ModelProto) -> Result<ModelProto, GraphError> {
    let graph = network
        .graph
        .as_mut()
        .ok_or_else(|| GraphError::Unsound("the file holds no graph".to_owned()))?;
    let weight = graph.initializer.iter().find(|tensor| tensor.name == WEIGHT);
    if let (Some(weight), [_, map]) = (weight, graph.output.as_slice()) {
        let (map, mut kernel) = (map.name.clone(), weight.clone());
        let classes = kernel.dims.first().copied().unwrap_or_default();
        KERNEL.clone_into(&mut kernel.name);
        kernel.dims.extend([1, 1]);
        graph.initializer.push(kernel);
        add_node(graph, CLASS_MAPS, "Conv", &[&map, KERNEL], &[]);
        let dimensions = [
            DimensionValue::Named("N".to_owned()),
            DimensionValue::Fixed(classes),
            DimensionValue::Named("h".to_owned()),
            DimensionValue::Named("w".to_owned()),
        ];
        graph.output[1] = float_value(CLASS_MAPS, &dimensions);
    }
    Ok(network)
}

/// Names of a backbone's features, and of its last feature map.
///
/// # Errors
/// [`GraphError::Unsound`] where the file has no output.
pub fn outputs(backbone: &ModelProto) -> Result<(String, Option<String>), GraphError> {
    let outputs = backbone.graph.iter().flat_map(|graph| &graph.output);
    let mut names = outputs.map(|output| output.name.clone());
    let features = names
        .next()
        .ok_or_else(|| GraphError::Unsound("the file has no output".to_owned()))?;
    Ok((features, names.next()))
}
