//! Batch normalization folded into the convolution before it: the same function with half of the nodes.
//!
//! At inference `y = s (x - m) / sqrt(v + e) + b` is linear in `x`, so that it scales each output channel of the
//! convolution that makes `x` and shifts its bias: Jacob et al., "Quantization and Training of Neural Networks for
//! Efficient Integer-Arithmetic-Only Inference", 2018, <https://arxiv.org/abs/1712.05877>, section 3.2.

use std::collections::{HashMap, HashSet};

use super::proto::{GraphProto, ModelProto, NodeProto};
use super::{Constants, add_initializer, prune, shape, uses};

/// What ONNX takes where a node does not tell.
const EPSILON: f32 = 1e-5;

/// A convolution with the normalization after it.
struct Fold {
    convolution: usize,
    normalization: usize,
    shape: Vec<usize>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

/// Folds every batch normalization of `model` that follows a convolution whose result nothing else uses; gives how
/// many. Others, and those with weights that are no constants, stay as they are.
pub fn fold_batch_norm(model: &mut ModelProto) -> usize {
    let Some(graph) = &mut model.graph else { return 0 };
    let folds = find(graph);
    for fold in &folds {
        let output = graph.node[fold.normalization].output.clone();
        let [weight, bias] = ["folded_weight", "folded_bias"].map(|part| format!("{}.{part}", output[0]));
        let weight = add_initializer(graph, &weight, &fold.shape, &fold.weights);
        let bias = add_initializer(graph, &bias, &[fold.bias.len()], &fold.bias);
        let convolution = &mut graph.node[fold.convolution];
        convolution.input.truncate(1);
        convolution.input.extend([weight, bias]);
        convolution.output = output;
    }
    let gone: HashSet<usize> = folds.iter().map(|fold| fold.normalization).collect();
    let mut index = 0;
    graph.node.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
    if !folds.is_empty() {
        prune(graph);
    }
    folds.len()
}

fn find(graph: &GraphProto) -> Vec<Fold> {
    let constants = Constants::of(graph);
    let uses = uses(graph);
    let outputs = graph.node.iter().enumerate();
    let producers: HashMap<&str, usize> = outputs
        .filter_map(|(index, node)| Some((node.output.first()?.as_str(), index)))
        .collect();
    let fold = |(normalization, node): (usize, &NodeProto)| {
        let value = node.input.first()?;
        let convolution = *producers.get(value.as_str())?;
        let alone = node.op_type == "BatchNormalization" && node.output.len() == 1 && uses.get(value) == Some(&1);
        let trains = node.int("training_mode", 0) != 0;
        (alone && !trains).then_some(())?;
        let (shape, weights, bias) = folded(&graph.node[convolution], node, &constants)?;
        Some(Fold {
            convolution,
            normalization,
            shape,
            weights,
            bias,
        })
    };
    graph.node.iter().enumerate().filter_map(fold).collect()
}

/// Shape, weights and bias of a convolution that does what the two nodes do.
fn folded(
    convolution: &NodeProto,
    normalization: &NodeProto,
    constants: &Constants,
) -> Option<(Vec<usize>, Vec<f32>, Vec<f32>)> {
    (convolution.op_type == "Conv").then_some(())?;
    let weight = convolution.input.get(1)?;
    let shape = shape(constants.get(weight)?).ok()?;
    let mut weights = constants.floats(weight)?;
    let channels = *shape.first().filter(|channels| **channels > 0)?;
    let mut bias = match convolution.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => constants.floats(name)?,
        None => vec![0.0; channels],
    };
    let parameter = |position: usize| -> Option<Vec<f32>> {
        let values = constants.floats(normalization.input.get(position)?)?;
        (values.len() == channels).then_some(values)
    };
    let (scale, shift, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    (bias.len() == channels).then_some(())?;
    let epsilon = f64::from(normalization.float("epsilon", EPSILON));
    let length = weights.len() / channels;
    for channel in 0..channels {
        let factor = f64::from(scale[channel]) / (f64::from(variance[channel]) + epsilon).sqrt();
        for weight in &mut weights[channel * length..(channel + 1) * length] {
            *weight = (f64::from(*weight) * factor) as f32;
        }
        let centred = f64::from(bias[channel]) - f64::from(mean[channel]);
        bias[channel] = (centred * factor + f64::from(shift[channel])) as f32;
    }
    Some((shape, weights, bias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::DimensionValue;
    use crate::onnx::{Attribute, GraphBuilder};

    /// Two convolutions of one weight, each normalized; the second one's raw result is used once more.
    fn network() -> ModelProto {
        let mut graph = GraphBuilder::new("normalized");
        let weight = graph.initializer("weight", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
        let mut inputs = Vec::new();
        for (name, values) in [
            ("scale", [2.0, 1.0]),
            ("shift", [0.5, -1.0]),
            ("mean", [1.0, 0.0]),
            ("variance", [3.0, 0.0]),
        ] {
            inputs.push(graph.initializer(name, &[2], &values));
        }
        let epsilon = [("epsilon", Attribute::Float(1.0))];
        for name in ["first", "second"] {
            let value = graph.node(name, "Conv", &["image", &weight], &[]);
            let inputs: Vec<&str> = std::iter::once(&value).chain(&inputs).map(String::as_str).collect();
            graph.node(&format!("{name}.normal"), "BatchNormalization", &inputs, &epsilon);
        }
        let sum = graph.node("sum", "Add", &["first.normal", "second.normal"], &[]);
        let sum = graph.node("twice", "Add", &[&sum, "second"], &[]);
        let dimensions = [DimensionValue::named("N"), DimensionValue::Fixed(2)];
        graph.finish("image", &[(&sum, &dimensions)], &[])
    }

    #[test]
    fn a_normalization_scales_and_shifts_the_convolution_before_it() {
        let mut model = network();
        assert_eq!(fold_batch_norm(&mut model), 1);
        let graph = model.graph.expect("a graph");
        let operators: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(operators, ["Conv", "Conv", "BatchNormalization", "Add", "Add"]);
        assert_eq!(graph.node[0].output, ["first.normal"]);
        let constants = Constants::of(&graph);
        // 2 / sqrt(3 + 1) = 1, and 1 / sqrt(0 + 1) = 1.
        let values = |position: usize| constants.floats(&graph.node[0].input[position]).expect("floats");
        assert_eq!(values(1), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(values(2), [-0.5, -1.0]);
        assert_eq!(graph.node[1].input, ["image", "weight"]);
    }

    #[test]
    fn what_cannot_be_folded_stays() {
        let mut model = network();
        if let Some(graph) = &mut model.graph {
            graph.initializer.retain(|tensor| tensor.name != "mean");
        }
        let before = model.clone();
        assert_eq!(fold_batch_norm(&mut model), 0);
        assert_eq!(model, before);
        assert_eq!(fold_batch_norm(&mut ModelProto::default()), 0);
    }
}
