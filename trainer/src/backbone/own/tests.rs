use std::collections::HashSet;

use super::*;
use crate::onnx::proto::{AttributeProto, NodeProto, StringStringEntryProto};
use crate::onnx::{GraphBuilder, float_value};
use crate::refine::head::HeadLayer;
use crate::setup::KEPT;

/// A classifier whose convolution and output have the names that a refinement gives its last layer.
pub(super) fn classifier() -> ModelProto {
    let mut graph = GraphBuilder::new("own");
    let kernel = graph.initializer("head.weight", &[2, 3, 1, 1], &[0.5; 6]);
    let map = graph.node("head", "Conv", &["image", &kernel], &[]);
    let pooled = graph.node("pooled", "GlobalAveragePool", &[&map], &[]);
    let flat = graph.node("flat", "Flatten", &[&pooled], &[]);
    let weight = graph.initializer("weight", &[2, 2], &[1.0, 0.0, 0.0, 1.0]);
    let logits = graph.node("logits", "MatMul", &[&flat, &weight], &[]);
    let shape = [DimensionValue::named("N"), DimensionValue::Fixed(2)];
    graph.finish("image", &[(&logits, &shape)], &[])
}

fn cut_of(mut model: ModelProto) -> ModelProto {
    let found = cut(model.graph.as_mut().expect("a graph")).expect("features");
    assert_eq!(found.size, 2);
    model
}

fn outputs(model: &ModelProto) -> Vec<&str> {
    let graph = model.graph.as_ref().expect("a graph");
    graph.output.iter().map(|output| output.name.as_str()).collect()
}

/// Puts a node with one output over the one that is there.
pub(super) fn end_in(graph: &mut GraphProto, operator: &str, others: &[&str]) {
    let before = graph.output[0].name.clone();
    let inputs: Vec<&str> = std::iter::once(before.as_str()).chain(others.iter().copied()).collect();
    graph.output[0].name = add_node(graph, "end", operator, &inputs, &[]);
}

#[test]
fn features_of_half_precision_become_32_bit_floats() {
    let mut model = classifier();
    let graph = model.graph.as_mut().expect("a graph");
    graph.initializer[1].data_type = 10;
    end_in(graph, "Cast", &[]);
    let half = cut_of(model);
    assert_eq!(outputs(&half), ["ikat_features", "ikat_feature_map"]);
    let nodes = &half.graph.as_ref().expect("a graph").node;
    assert_eq!(nodes.iter().filter(|node| node.op_type == "Cast").count(), 2);
    assert_eq!(cut_of(half.clone()), half);
}

#[test]
fn nodes_may_stand_in_any_order() {
    let mut unordered = classifier();
    unordered.graph.as_mut().expect("a graph").node.reverse();
    assert_eq!(cut_of(unordered), cut_of(classifier()));
}

#[test]
fn a_network_keeps_the_resolution_that_it_tells_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own.onnx");
    let read = |stored: &Preprocessing, fixed: Option<i64>, given: Option<PreprocessingOverride>| {
        let mut model = classifier();
        model.metadata_props.push(StringStringEntryProto {
            key: PREPROCESSING_KEY.to_owned(),
            value: serde_json::to_string(stored).expect("JSON"),
        });
        if let Some(side) = fixed {
            let shape = [1, 3, side, side].map(DimensionValue::Fixed);
            model.graph.as_mut().expect("a graph").input[0] = float_value("image", &shape);
        }
        std::fs::write(&path, model.encode_to_vec()).expect("written");
        let network = read(&path, given, &Cache::at(folder.path()));
        network
            .map(|network| network.preprocessing)
            .map_err(|error| error.to_string())
    };
    let given = PreprocessingOverride {
        mean: [1.0; 3],
        std: [2.0; 3],
    };
    let of_side = |side| given.preprocessing(side, ChannelOrder::Bgr);
    assert_eq!(read(&of_side(448), None, Some(given)), Ok(of_side(448)));
    assert_eq!(read(&of_side(448), Some(64), None), Ok(of_side(64)));
    let reason = read(&of_side(5000), None, None).expect_err("too large");
    assert!(reason.contains("5000 x 5000 pixels; 1 to 4096"), "{reason}");
    let turned = Preprocessing {
        std: [1.0, -1.0, 1.0],
        ..of_side(64)
    };
    let reason = read(&turned, None, None).expect_err("a negative deviation");
    assert!(reason.contains("[1.0, -1.0, 1.0]; numbers above 0"), "{reason}");
}

#[test]
fn networks_that_were_not_used_for_long_give_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own.onnx");
    std::fs::write(&path, classifier().encode_to_vec()).expect("written");
    let before = ["own-before.onnx", "resnet18-before.onnx"].map(|name| folder.path().join("backbones").join(name));
    std::fs::create_dir(folder.path().join("backbones")).expect("a folder");
    for before in &before {
        let file = std::fs::File::create(before).expect("a file");
        // A file of one hole takes no room.
        file.set_len(KEPT).expect("its length");
        let age = std::time::Duration::from_hours(48);
        file.set_modified(std::time::SystemTime::now() - age).expect("its time");
    }
    let given = PreprocessingOverride {
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let network = read(&path, Some(given), &Cache::at(folder.path())).expect("a network");
    let there = [&before[0], &before[1], &network.onnx, &network.trainable].map(|path| path.exists());
    assert_eq!(there, [false, false, true, true]);
}

#[test]
fn a_network_of_a_newer_format_is_read_and_one_of_newer_operators_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own.onnx");
    let given = PreprocessingOverride {
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let read = |format: i64, operators: i64| {
        let mut model = classifier();
        model.ir_version = format;
        model.opset_import[0].version = operators;
        std::fs::write(&path, model.encode_to_vec()).expect("written");
        read(&path, Some(given), &Cache::at(folder.path())).map_err(|error| error.to_string())
    };
    for (format, expected) in [(8, 8), (NEWEST_FORMAT + 3, NEWEST_FORMAT)] {
        let network = read(format, NEWEST_OPERATORS).expect("a network");
        for path in [&network.onnx, &network.trainable] {
            let bytes = std::fs::read(path).expect("a network");
            let model = ModelProto::decode(bytes.as_slice()).expect("ONNX");
            assert_eq!(model.ir_version, expected);
        }
    }
    let reason = read(8, NEWEST_OPERATORS + 1).expect_err("newer operators");
    assert!(
        reason.contains("own.onnx") && reason.contains("version 22 of ONNX's operators; export it in version 21"),
        "{reason}"
    );
}

#[test]
fn a_normalization_of_values_up_to_one_is_told_of() {
    let of = |std: [f32; 3]| small_scale(&PreprocessingOverride { mean: [0.5; 3], std });
    let note = of([0.229, 0.224, 0.225]).expect("a note");
    assert!(
        note.contains("--std 0.229,0.224,0.225") && note.contains("255 times"),
        "{note}"
    );
    assert_eq!(of([1.0; 3]), None);
    assert_eq!(of([58.395, 57.12, 57.375]), None);
}

#[test]
fn what_is_to_know_of_a_network_comes_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own.onnx");
    let mut model = classifier();
    end_in(model.graph.as_mut().expect("a graph"), "Relu", &[]);
    std::fs::write(&path, model.encode_to_vec()).expect("written");
    let given = PreprocessingOverride {
        mean: [0.5; 3],
        std: [0.25; 3],
    };
    let network = read(&path, Some(given), &Cache::at(folder.path())).expect("a network");
    let [of_features, of_scale] = network.notes.as_slice() else {
        panic!("{:?}", network.notes);
    };
    assert!(of_features.contains("own.onnx: no linear layer"), "{of_features}");
    assert!(of_scale.starts_with("--std 0.25,0.25,0.25 is below 1"), "{of_scale}");
}

#[test]
fn weights_in_another_file_are_asked_for_as_one() {
    let mut model = classifier();
    let graph = model.graph.as_mut().expect("a graph");
    assert_eq!(check_whole(graph), Ok(()));
    graph.initializer[1].external_data = vec![StringStringEntryProto {
        key: "location".to_owned(),
        value: "own.onnx.data".to_owned(),
    }];
    let reason = check_whole(graph).expect_err("in two files");
    assert!(reason.contains("(own.onnx.data)"), "{reason}");
}

#[test]
fn features_that_are_outputs_stay_as_they_are() {
    let once = cut_of(classifier());
    assert_eq!(outputs(&once), ["ikat_features", "ikat_feature_map"]);
    assert_eq!(cut_of(once.clone()), once);
}

#[test]
fn a_map_with_the_channels_last_is_offered_with_its_channels_first() {
    // As the convolution gives it, and as the turned result of a convolution.
    for is_turned in [false, true] {
        let mut model = classifier();
        let graph = model.graph.as_mut().expect("a graph");
        graph.node[1].op_type = "ReduceMean".to_owned();
        let axes = AttributeProto {
            name: "axes".to_owned(),
            ints: vec![1, 2],
            ..AttributeProto::default()
        };
        graph.node[1].attribute.push(axes);
        if is_turned {
            let last = [("perm", Attribute::Ints(vec![0, 2, 3, 1]))];
            graph.node[1].input[0] = add_node(graph, "turned", "Transpose", &["head"], &last);
            graph.node[1..].rotate_right(1);
        }
        let once = cut_of(model);
        assert_eq!(outputs(&once), ["ikat_features", "ikat_feature_map"]);
        let nodes = &once.graph.as_ref().expect("a graph").node;
        let turns: Vec<&NodeProto> = nodes.iter().filter(|node| node.op_type == "Transpose").collect();
        assert_eq!((turns.len(), turns[0].input[0].as_str()), (1, "head"));
        let map = nodes.last().expect("the map");
        let expected = if is_turned { "head" } else { turns[0].output[0].as_str() };
        assert_eq!((map.op_type.as_str(), map.input[0].as_str()), ("Identity", expected));
        assert_eq!(cut_of(once.clone()), once);
    }
}

#[test]
fn a_refined_network_can_be_refined_again() {
    let layer = HeadLayer {
        weights: vec![0.5; 4],
        biases: vec![0.0; 2],
        normalized: true,
    };
    let mut backbone = cut_of(classifier());
    for _ in 0..3 {
        let refined = layer.on(&backbone, Some(0.5)).expect("a network");
        let graph = refined.model.graph.as_ref().expect("a graph");
        let values = graph.node.iter().map(|node| &node.output[0]);
        let names: Vec<&String> = values
            .chain(graph.initializer.iter().map(|tensor| &tensor.name))
            .collect();
        let distinct: HashSet<&String> = names.iter().copied().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert_ne!(refined.weight, "head.weight");
        assert_eq!(outputs(&refined.model), [refined.logits.as_str(), "ikat_feature_map"]);
        backbone = cut_of(refined.model);
        assert_eq!(outputs(&backbone).len(), 2);
    }
}
