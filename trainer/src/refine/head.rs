//! The last layer: features to class logits.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shared::classifier::l2_normalize;

use super::network::GraphError;
use crate::onnx::proto::{DimensionValue, ModelProto};
use crate::onnx::{Attribute, add_initializer, add_node, float_value, fresh_name};

// What is added to a network goes by these names, where it has nothing of that name yet.

/// The output that holds the class logits.
const LOGITS: &str = "logits";
/// The features scaled to length 1, and without some of them.
const NORMALIZED: &str = "head.normalized";
const DROPOUT: &str = "head.dropout";
/// The last layer's tensors.
const WEIGHT: &str = "head.weight";
const BIAS: &str = "head.bias";
const KERNEL: &str = "head.kernel";
/// The output that tells where the evidence for each class is, `[N, classes, h, w]`.
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

/// A network with a last layer, as [`HeadLayer::on`] made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// Its outputs are class logits, and perhaps the last feature map.
    pub model: ModelProto,
    /// Name of the output that holds the class logits.
    pub logits: String,
    /// Name of the last layer's weights.
    pub weight: String,
    /// Name of the last layer's biases.
    pub bias: String,
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

    /// The class logits of one image's features.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        let mut features = features.to_vec();
        if self.normalized {
            l2_normalize(&mut features);
        }
        let rows = self.weights.chunks(features.len().max(1));
        let logit = |(weights, bias): (&[f32], &f32)| {
            let products = weights.iter().zip(&features);
            let sum: f64 = products
                .map(|(weight, feature)| f64::from(*weight) * f64::from(*feature))
                .sum();
            (sum + f64::from(*bias)) as f32
        };
        rows.zip(&self.biases).map(logit).collect()
    }

    /// `backbone`, whose outputs are features and perhaps the last feature map, as a network whose outputs are
    /// class logits and that map. With `dropout`, a network to train; without, one to use, in which everything has the
    /// same name.
    ///
    /// # Errors
    /// [`GraphError::Unsound`] where the file has no such outputs.
    pub fn on(&self, backbone: &ModelProto, dropout: Option<f32>) -> Result<Classifier, GraphError> {
        let mut model = backbone.clone();
        let mut value = outputs(backbone)?.0;
        let graph = model.graph_mut()?;
        let classes = self.biases.len();
        let length = self.weights.len() / classes.max(1);
        if self.normalized {
            let euclidean = [("axis", Attribute::Int(1)), ("p", Attribute::Int(2))];
            value = add_node(graph, NORMALIZED, "LpNormalization", &[&value], &euclidean);
        }
        if let Some(ratio) = dropout.filter(|ratio| *ratio > 0.0) {
            let ratio = [("ratio", Attribute::Float(ratio))];
            value = add_node(graph, DROPOUT, "Dropout", &[&value], &ratio);
        }
        let weight = add_initializer(graph, WEIGHT, &[classes, length], &self.weights);
        let bias = add_initializer(graph, BIAS, &[classes], &self.biases);
        let transposed = [("transB", Attribute::Int(1))];
        let logits = add_node(graph, LOGITS, "Gemm", &[&value, &weight, &bias], &transposed);
        let dimensions = [DimensionValue::named("N"), DimensionValue::Fixed(classes as i64)];
        // The logits take the place of the features, before the map.
        graph.output.truncate(2);
        graph.output[0] = float_value(&logits, &dimensions);
        Ok(Classifier {
            model,
            logits,
            weight,
            bias,
        })
    }
}

/// The network of `classifier` with a map per class in place of the last feature map: the last layer's weights over
/// each of its cells (a 1 x 1 convolution), which tells where the evidence for each class is.
///
/// # Errors
/// [`GraphError::Unsound`] where the file holds no graph.
pub fn with_class_maps(classifier: Classifier) -> Result<ModelProto, GraphError> {
    let Classifier { mut model, weight, .. } = classifier;
    let graph = model.graph_mut()?;
    let weight = graph.initializer.iter().find(|tensor| tensor.name == weight);
    if let (Some(weight), [_, map]) = (weight, graph.output.as_slice()) {
        let (map, mut kernel) = (map.name.clone(), weight.clone());
        let classes = kernel.dims.first().copied().unwrap_or_default();
        kernel.name = fresh_name(graph, KERNEL);
        kernel.dims.extend([1, 1]);
        let maps = add_node(graph, CLASS_MAPS, "Conv", &[&map, &kernel.name], &[]);
        graph.initializer.push(kernel);
        let dimensions = [
            DimensionValue::named("N"),
            DimensionValue::Fixed(classes),
            DimensionValue::named("h"),
            DimensionValue::named("w"),
        ];
        graph.output[1] = float_value(&maps, &dimensions);
    }
    Ok(model)
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
