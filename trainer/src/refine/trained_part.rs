//! The part of a network that is trained: where it is cut off, and how its values come back into the network.

use super::head::{Classifier, HeadLayer, outputs};
use super::network::{Boundary, Graph, GraphError, Operator, Parameter, Role, boundaries, lower_part, write_back};
use super::recipe::Trained;
use crate::onnx::proto::ModelProto;

/// Layers that are trained in place of the last stage where a network has no stages.
const WITHOUT_STAGES: usize = 6;

/// The part of `backbone` that stays as it is, `None` where everything is trained, and the part of `classifier`, which
/// is the backbone with its last layer, that is `trained`.
///
/// # Errors
/// [`GraphError::Unsound`] where the network cannot be cut there, and others for a network that cannot be read.
pub fn cut_in_two(
    backbone: &ModelProto,
    classifier: &Classifier,
    trained: Trained,
) -> Result<(Option<ModelProto>, Graph), GraphError> {
    let Classifier { model, logits, .. } = classifier;
    let features = outputs(backbone)?.0;
    let parts = |cut: &str, is_row: bool| -> Result<(Option<ModelProto>, Graph), GraphError> {
        let lower = lower_part(backbone, cut, is_row)?;
        Ok((Some(lower), Graph::read(model, Some(cut), logits)?))
    };
    if trained == Trained::Head {
        // Whatever the network is made of below.
        return parts(&features, true);
    }
    let whole = Graph::read(model, None, logits)?;
    match choose_cut(&whole, trained, &features)? {
        Some(cut) => parts(&cut, whole.is_row(&cut)),
        None => Ok((None, whole)),
    }
}

/// The value below which nothing is trained; `None` where everything is. `features` is where the last layer begins.
fn choose_cut(whole: &Graph, trained: Trained, features: &str) -> Result<Option<String>, GraphError> {
    let boundaries = boundaries(whole);
    let is_layer = |operator: &&Operator| operator.operation.is_layer();
    let all = whole.operators.iter().filter(is_layer).count();
    let lowest_of = |layers: usize| {
        boundaries
            .iter()
            .find(|boundary| boundary.layers_above <= layers.max(1))
    };
    let chosen = match trained {
        Trained::All => return Ok(None),
        Trained::Head => return Ok(Some(features.to_owned())),
        Trained::Layers(layers) if layers >= all => return Ok(None),
        Trained::Layers(layers) => lowest_of(layers),
        Trained::LastStage => {
            let begins = |boundary: &Boundary| boundary.downsampled_above && boundary.layers_above > 1;
            match boundaries.iter().rposition(begins) {
                Some(last) => {
                    // Within a block the value before it is the smaller one.
                    let run = boundaries[..=last]
                        .iter()
                        .rev()
                        .take_while(|boundary| begins(boundary))
                        .count();
                    boundaries.get(last + 1 - run)
                }
                None if all <= WITHOUT_STAGES => return Ok(None),
                None => lowest_of(WITHOUT_STAGES),
            }
        }
    };
    match chosen {
        // What comes after the features belongs to the last layer, and no lower part has it.
        Some(boundary) if boundary.layers_above <= 1 => Ok(Some(features.to_owned())),
        Some(boundary) => Ok(Some(boundary.value.clone())),
        None => Err(GraphError::Unsound(
            "there is no place to cut the network in two; train all of it".to_owned(),
        )),
    }
}

/// `backbone` with the last layer `head` on it and alone, and the last layer, all with the values of `parameters`.
pub(super) fn written_back(
    head: &HeadLayer,
    backbone: &ModelProto,
    mut parameters: Vec<Parameter>,
) -> Result<(Classifier, ModelProto, HeadLayer), GraphError> {
    parameters.retain(|parameter| parameter.role != Role::Constant);
    let mut classifier = head.on(backbone, None)?;
    write_back(&mut classifier.model, &parameters)?;
    let mut head = head.clone();
    // What the last layer added, and nothing else, is not in the network alone.
    parameters.retain(|Parameter { name, values, .. }| {
        let is_weight = *name == classifier.weight;
        let is_bias = *name == classifier.bias;
        if is_weight {
            head.weights.clone_from(values);
        } else if is_bias {
            head.biases.clone_from(values);
        }
        !is_weight && !is_bias
    });
    let mut backbone = backbone.clone();
    write_back(&mut backbone, &parameters)?;
    Ok((classifier, backbone, head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::DimensionValue;
    use crate::onnx::{Constants, GraphBuilder};

    /// One convolution, whose kernel has a name that the last layer would have, and its means.
    fn one_convolution() -> ModelProto {
        let mut graph = GraphBuilder::new("own");
        let kernel = graph.initializer("head.weight", &[2, 3, 1, 1], &[0.5; 6]);
        let map = graph.node("head", "Conv", &["image", &kernel], &[]);
        let pooled = graph.node("pooled", "GlobalAveragePool", &[&map], &[]);
        let features = graph.node("features", "Flatten", &[&pooled], &[]);
        let shape = [DimensionValue::named("N"), DimensionValue::Fixed(2)];
        graph.finish("image", &[(&features, &shape)], &[])
    }

    fn last_layer(normalized: bool) -> HeadLayer {
        HeadLayer {
            weights: vec![0.1; 4],
            biases: vec![0.0; 2],
            normalized,
        }
    }

    #[test]
    fn one_layer_is_the_last_and_as_many_as_there_are_is_all() {
        let backbone = one_convolution();
        for (normalized, dropout) in [(true, 0.5), (true, 0.0), (false, 0.5), (false, 0.0)] {
            let layer = last_layer(normalized);
            let classifier = layer.on(&backbone, Some(dropout)).expect("a network");
            let cut = |trained| {
                let (lower, graph) = cut_in_two(&backbone, &classifier, trained).expect("two parts");
                (lower.is_some(), graph.input)
            };
            for trained in [Trained::Head, Trained::Layers(1)] {
                assert_eq!(cut(trained), (true, "features".to_owned()), "{trained:?}");
            }
            for trained in [Trained::All, Trained::Layers(2), Trained::Layers(9), Trained::LastStage] {
                assert_eq!(cut(trained), (false, "image".to_owned()), "{trained:?}");
            }
        }
    }

    #[test]
    fn the_last_layer_alone_is_trained_on_operators_of_any_kind() {
        let mut backbone = one_convolution();
        backbone.graph.as_mut().expect("a graph").node[1].op_type = "GlobalMaxPool".to_owned();
        let classifier = last_layer(true).on(&backbone, Some(0.5)).expect("a network");
        let (lower, graph) = cut_in_two(&backbone, &classifier, Trained::Head).expect("two parts");
        assert!(lower.is_some());
        assert_eq!(graph.input, "features");
        assert!(cut_in_two(&backbone, &classifier, Trained::LastStage).is_err());
    }

    #[test]
    fn a_tensor_of_the_network_that_is_called_as_one_of_the_last_layer_is_written_back() {
        let backbone = one_convolution();
        let layer = last_layer(false);
        let classifier = layer.on(&backbone, Some(0.5)).expect("a network");
        let (_, graph) = cut_in_two(&backbone, &classifier, Trained::All).expect("a graph");
        let mut parameters = graph.parameters;
        for (index, parameter) in parameters.iter_mut().enumerate() {
            parameter.values.fill(index as f32 + 1.0);
        }
        let (classifier, backbone, head) = written_back(&layer, &backbone, parameters).expect("written");
        let values = |model: &ModelProto, name: &str| {
            let graph = model.graph.as_ref().expect("a graph");
            Constants::of(graph).floats(name).expect("a tensor")
        };
        assert_eq!(values(&backbone, "head.weight"), [1.0; 6]);
        assert_eq!(values(&classifier.model, "head.weight"), [1.0; 6]);
        assert_eq!(values(&classifier.model, &classifier.weight), [2.0; 4]);
        assert_eq!((&head.weights[..], &head.biases[..]), (&[2.0; 4][..], &[3.0; 2][..]));
        assert_eq!(head.logits(&[1.0, 0.5]), [6.0, 6.0]);
    }
}
