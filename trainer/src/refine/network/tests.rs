use burn_flex::{Flex, FlexDevice};
use burn_tensor::{Tensor, TensorData};

use super::*;
use crate::onnx::proto::{DimensionValue, INT64, ModelProto, NodeProto};
use crate::onnx::{Attribute, GraphBuilder, add_node, add_tensor};

/// A small network: a convolution that halves the map, normalization, a residual block, pooling, a linear layer.
pub(in crate::refine) fn network() -> ModelProto {
    let mut graph = GraphBuilder::new("small");
    let wave = |count: usize, step: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * step).sin() * 0.4).collect() };
    let kernel = graph.initializer("stem.weight", &[4, 3, 3, 3], &wave(108, 0.7));
    let stem = [
        ("strides", Attribute::Ints(vec![2, 2])),
        ("auto_pad", Attribute::Text("SAME_UPPER")),
    ];
    let value = graph.node("stem", "Conv", &["image", &kernel], &stem);
    let mut inputs = vec![value];
    for (name, values) in [
        ("scale", vec![1.0, 0.9, 1.1, 1.2]),
        ("shift", vec![0.1, 0.0, -0.1, 0.2]),
        ("mean", vec![0.05, -0.02, 0.0, 0.1]),
        ("variance", vec![0.5, 0.7, 1.0, 0.4]),
    ] {
        inputs.push(graph.initializer(&format!("norm.{name}"), &[4], &values));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let normal = graph.node("norm", "BatchNormalization", &inputs, &[]);
    let low = graph.initializer("low", &[], &[0.0]);
    let high = graph.initializer("high", &[], &[6.0]);
    let base = graph.node("clip", "Clip", &[&normal, &low, &high], &[]);
    let kernel = graph.initializer("block.weight", &[4, 4, 1, 1], &wave(16, 1.3));
    let block = graph.node("block", "Conv", &[&base, &kernel], &[]);
    let sum = graph.node("sum", "Add", &[&block, &base], &[]);
    let pooled = graph.node("pool", "GlobalAveragePool", &[&sum], &[]);
    let flat = graph.node("features", "Flatten", &[&pooled], &[]);
    let weight = graph.initializer("head.weight", &[2, 4], &wave(8, 0.9));
    let bias = graph.initializer("head.bias", &[2], &[0.0, 0.1]);
    let logits = graph.node(
        "logits",
        "Gemm",
        &[&flat, &weight, &bias],
        &[("transB", Attribute::Int(1))],
    );
    let shape = [DimensionValue::named("N"), DimensionValue::Fixed(2)];
    graph.finish("image", &[(&logits, &shape)], &[])
}

fn parameters(graph: &Graph) -> Vec<Tensor<Flex, 1>> {
    let flat = |parameter: &Parameter| TensorData::new(parameter.values.clone(), [parameter.values.len()]);
    let tensors = graph
        .parameters
        .iter()
        .map(|parameter| Tensor::from_data(flat(parameter), &FlexDevice));
    tensors.collect()
}

pub(in crate::refine) fn images(count: usize) -> Vec<f32> {
    (0..count * 3 * 7 * 7)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
        .collect()
}

fn run(graph: &Graph, input: Value<Flex>) -> Vec<f32> {
    let pass = forward(graph, &parameters(graph), input, Mode::Inference).expect("a pass");
    match pass.output {
        Value::Map(map) => map.into_data().to_vec().expect("floats"),
        Value::Rows(rows) => rows.into_data().to_vec().expect("floats"),
    }
}

fn map(values: Vec<f32>, shape: [usize; 4]) -> Value<Flex> {
    Value::Map(Tensor::from_data(TensorData::new(values, shape), &FlexDevice))
}

#[test]
fn an_unknown_operator_is_named() {
    let mut model = network();
    let graph = model.graph.as_mut().expect("a graph");
    graph.node[2].op_type = "Einsum".to_owned();
    let error = Graph::read(&model, None, "logits").expect_err("unknown");
    assert!(
        error.to_string().contains("Einsum") && error.to_string().contains("clip"),
        "{error}"
    );
}

/// The network with its features put into `shape` and back before its last layer.
fn reshaped(shape: &[i64]) -> ModelProto {
    let mut model = network();
    let graph = model.graph.as_mut().expect("a graph");
    let bytes = shape.iter().flat_map(|length| length.to_le_bytes()).collect();
    let shape = add_tensor(graph, "shape", INT64, &[shape.len()], bytes);
    let before = graph.node.len() - 1;
    let reshape = add_node(graph, "reshape", "Reshape", &["features", &shape], &[]);
    let flat = add_node(graph, "flat", "Flatten", &[&reshape], &[]);
    graph.node[before].input[0] = flat;
    graph.node[before..].rotate_left(1);
    model
}

#[test]
fn a_row_becomes_a_cell_and_a_row_again() {
    let images = || map(images(2), [2, 3, 7, 7]);
    let expected = Graph::read(&network(), None, "logits").expect("a graph");
    let graph = Graph::read(&reshaped(&[-1, 4, 1, 1]), None, "logits").expect("a graph");
    assert!(!graph.is_row("reshape") && graph.is_row("flat"));
    assert_eq!(run(&graph, images()), run(&expected, images()));
}

#[test]
fn a_form_that_is_not_known_is_told_by_what_the_node_makes() {
    let mut model = reshaped(&[0, 4, -1]);
    for node in &mut model.graph.as_mut().expect("a graph").node {
        node.name.clear();
    }
    let error = Graph::read(&model, None, "logits").expect_err("tokens").to_string();
    assert!(
        error.contains("node reshape (Reshape)") && error.contains("the shape [0, 4, -1]; one row"),
        "{error}"
    );
    assert!(error.contains("`--classifier svm`"), "{error}");
}

/// Expected values by hand, for two channels of 1, 2 and 4, 8.
#[test]
fn arithmetic_keeps_the_order_of_its_operands() {
    let cases: [(&str, [&str; 2], [f32; 4]); 9] = [
        ("Add", ["image", "channel"], [3.0, 4.0, 8.0, 12.0]),
        ("Sub", ["image", "channel"], [-1.0, 0.0, 0.0, 4.0]),
        ("Sub", ["channel", "image"], [1.0, 0.0, 0.0, -4.0]),
        ("Sub", ["image", "mean"], [-0.5, 0.5, -2.0, 2.0]),
        ("Sub", ["row", "flat"], [7.0, 2.0, -2.0, -7.0]),
        ("Mul", ["channel", "image"], [2.0, 4.0, 16.0, 32.0]),
        ("Div", ["channel", "image"], [2.0, 1.0, 1.0, 0.5]),
        ("Div", ["mean", "image"], [1.5, 0.75, 1.5, 0.75]),
        ("Div", ["flat", "row"], [0.125, 0.5, 2.0, 8.0]),
    ];
    for (operator, inputs, expected) in cases {
        let mut graph = GraphBuilder::new("arithmetic");
        graph.initializer("channel", &[2, 1, 1], &[2.0, 4.0]);
        graph.initializer("row", &[4], &[8.0, 4.0, 2.0, 1.0]);
        graph.node("mean", "GlobalAveragePool", &["image"], &[]);
        graph.node("flat", "Flatten", &["image"], &[]);
        let value = graph.node("value", operator, &inputs, &[]);
        let model = graph.finish("image", &[(&value, &[])], &[]);
        let graph = Graph::read(&model, None, "value").expect("a graph");
        let actual = run(&graph, map(vec![1.0, 2.0, 4.0, 8.0], [1, 2, 1, 2]));
        assert_eq!(actual, expected, "{operator} {inputs:?}");
    }
}

#[test]
fn a_single_number_that_is_added_is_not_trained() {
    for (shape, values, role) in [
        (&[4][..], &[0.1, 0.2, 0.3, 0.4][..], Role::Offset),
        (&[], &[3.0], Role::Constant),
        (&[1], &[3.0], Role::Constant),
    ] {
        let mut graph = GraphBuilder::new("sum");
        let flat = graph.node("flat", "Flatten", &["image"], &[]);
        let added = graph.initializer("added", shape, values);
        let sum = graph.node("sum", "Add", &[&flat, &added], &[]);
        let model = graph.finish("image", &[(&sum, &[])], &[]);
        let graph = Graph::read(&model, None, "sum").expect("a graph");
        assert_eq!(graph.parameters[0].role, role, "{shape:?}");
    }
}

#[test]
fn lengths_that_no_tensor_has_are_an_error() {
    let mut graph = GraphBuilder::new("sum");
    let flat = graph.node("flat", "Flatten", &["image"], &[]);
    let added = graph.initializer("added", &[1 << 40, 1 << 40], &[]);
    let sum = graph.node("sum", "Add", &[&flat, &added], &[]);
    let model = graph.finish("image", &[(&sum, &[])], &[]);
    let error = Graph::read(&model, None, "sum").expect_err("no tensor");
    assert!(error.to_string().contains("the tensor added does not hold"), "{error}");
}

#[test]
fn same_padding_is_that_of_tensorflow() {
    let window = Window {
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        padding: Padding::Same { upper: true },
        ceil: false,
    };
    assert_eq!(window.padding.around([224, 7], &window), [0, 1, 1, 1]);
    assert_eq!(Padding::Same { upper: false }.around([224, 7], &window), [1, 1, 0, 1]);
}

#[test]
fn a_cut_network_computes_what_the_whole_one_does() {
    let model = network();
    let whole = Graph::read(&model, None, "logits").expect("a graph");
    let found = boundaries(&whole);
    let values: Vec<(&str, usize)> = found.iter().map(|one| (one.value.as_str(), one.layers_above)).collect();
    assert_eq!(values, [("clip", 2), ("features", 1)]);
    let expected = run(&whole, map(images(2), [2, 3, 7, 7]));

    let outputs_below = |value: &str| {
        let lower = lower_part(&model, value, whole.is_row(value)).expect("a lower part");
        let outputs = lower.graph.as_ref().map(|graph| graph.output.len());
        (lower, outputs)
    };
    // A row has no map to offer.
    assert_eq!(outputs_below("features").1, Some(1));
    let (lower, outputs) = outputs_below("clip");
    assert_eq!(outputs, Some(2));
    let lower = Graph::read(&lower, None, "ikat_map").expect("a graph");
    assert!(
        lower
            .parameters
            .iter()
            .all(|parameter| parameter.name != "block.weight")
    );
    let between = run(&lower, map(images(2), [2, 3, 7, 7]));
    let upper = Graph::read(&model, Some("clip"), "logits").expect("a graph");
    let actual = run(&upper, map(between, [2, 4, 4, 4]));
    assert_eq!(actual, expected);
}

#[test]
fn a_tensor_that_the_frozen_part_takes_too_is_not_trained() {
    let mut model = network();
    let graph = model.graph.as_mut().expect("a graph");
    let clip = graph.node.iter().position(|node| node.name == "clip").expect("a clip");
    let below = add_node(graph, "below", "Conv", &["norm", "block.weight"], &[]);
    graph.node[clip].input[0] = below;
    graph.node[clip..].rotate_right(1);
    let role = |input: Option<&str>| {
        let graph = Graph::read(&model, input, "logits").expect("a graph");
        let block = graph
            .parameters
            .iter()
            .find(|parameter| parameter.name == "block.weight");
        block.expect("the block's").role
    };
    assert_eq!((role(Some("clip")), role(None)), (Role::Constant, Role::Weight));
}

#[test]
fn what_is_written_back_is_read_again() {
    let mut model = network();
    let mut graph = Graph::read(&model, Some("clip"), "logits").expect("a graph");
    for parameter in &mut graph.parameters {
        parameter.values.iter_mut().for_each(|value| *value += 1.0);
    }
    write_back(&mut model, &graph.parameters).expect("written");
    let again = Graph::read(&model, Some("clip"), "logits").expect("a graph");
    assert_eq!(again, graph);
    let whole = Graph::read(&model, None, "logits").expect("a graph");
    assert!(
        whole
            .parameters
            .iter()
            .any(|parameter| parameter.name == "norm.scale" && (parameter.values[1] - 0.9).abs() < 1e-6)
    );
}

#[test]
fn a_tensor_under_two_names_becomes_two_once_trained() {
    let mut model = network();
    let graph = model.graph.as_mut().expect("a graph");
    graph.initializer.retain(|tensor| tensor.name != "norm.mean");
    let identity = NodeProto {
        op_type: "Identity".to_owned(),
        input: vec!["norm.shift".to_owned()],
        output: vec!["norm.mean".to_owned()],
        ..NodeProto::default()
    };
    graph.node.insert(0, identity);
    let mut graph = Graph::read(&model, None, "logits").expect("a graph");
    for (index, parameter) in graph.parameters.iter_mut().enumerate() {
        parameter.values.fill(index as f32);
    }
    write_back(&mut model, &graph.parameters).expect("written");
    let again = Graph::read(&model, None, "logits").expect("a graph");
    assert_eq!(again, graph);
    let values = |name: &str| {
        let parameter = again.parameters.iter().find(|parameter| parameter.name == name);
        parameter.expect("a tensor").values.clone()
    };
    assert_ne!(values("norm.shift"), values("norm.mean"));
}

/// A network of one pooling operator and a sum.
fn pool(operator: &'static str, size: i64, attributes: &[(&'static str, Attribute)]) -> Graph {
    let mut graph = GraphBuilder::new("pool");
    let mut all = vec![("kernel_shape", Attribute::Ints(vec![size, size]))];
    all.extend_from_slice(attributes);
    let pooled = graph.node("pooled", operator, &["image"], &all);
    let model = graph.finish("image", &[(&pooled, &[])], &[]);
    Graph::read(&model, None, "pooled").expect("a graph")
}

/// Operator, size of its window, attributes, expected values.
type PoolCase = (&'static str, i64, Vec<(&'static str, Attribute)>, Vec<f32>);

/// Expected values by hand, for a map of 1 to 9.
#[test]
fn means_count_what_they_should() {
    let values: Vec<f32> = (1..=9_u8).map(f32::from).collect();
    let uneven = || ("pads", Attribute::Ints(vec![0, 0, 1, 1]));
    let two = || ("strides", Attribute::Ints(vec![2, 2]));
    let cases: [PoolCase; 6] = [
        ("AveragePool", 2, vec![uneven(), two()], vec![3.0, 4.5, 7.5, 9.0]),
        (
            "AveragePool",
            2,
            vec![uneven(), two(), ("count_include_pad", Attribute::Int(1))],
            vec![3.0, 2.25, 3.75, 2.25],
        ),
        (
            "AveragePool",
            2,
            vec![two(), ("ceil_mode", Attribute::Int(1))],
            vec![3.0, 4.5, 7.5, 9.0],
        ),
        (
            "AveragePool",
            2,
            vec![
                two(),
                ("ceil_mode", Attribute::Int(1)),
                ("count_include_pad", Attribute::Int(1)),
            ],
            vec![3.0, 4.5, 7.5, 9.0],
        ),
        (
            "AveragePool",
            2,
            vec![("dilations", Attribute::Ints(vec![2, 2]))],
            vec![5.0],
        ),
        (
            "MaxPool",
            2,
            vec![two(), ("ceil_mode", Attribute::Int(1))],
            vec![5.0, 6.0, 8.0, 9.0],
        ),
    ];
    for (operator, size, attributes, expected) in cases {
        let graph = pool(operator, size, &attributes);
        let actual = run(&graph, map(values.clone(), [1, 1, 3, 3]));
        assert_eq!(actual, expected, "{operator} {attributes:?}");
    }
}

#[test]
fn a_map_that_is_too_small_is_told_of() {
    let graph = pool("AveragePool", 7, &[]);
    let error = forward(&graph, &[], map(vec![0.0; 9], [1, 1, 3, 3]), Mode::Inference).expect_err("too small");
    assert!(error.to_string().contains("(AveragePool)"), "{error}");
    assert!(error.to_string().ends_with("give a larger --resolution"), "{error}");
}

#[test]
fn a_kernel_for_other_channels_is_told_of() {
    let graph = Graph::read(&network(), Some("clip"), "logits").expect("a graph");
    let map = map(vec![0.5; 3 * 16], [1, 3, 4, 4]);
    let error = forward(&graph, &parameters(&graph), map, Mode::Inference).expect_err("no output");
    assert!(error.to_string().contains("the map has 3"), "{error}");
}

/// A Reshape may make other rows of the images than those that it is taken for.
#[test]
fn shapes_that_do_not_go_together_are_told_of() {
    for (operator, inputs, expected) in [
        (
            "Add",
            ["image", "channels"],
            "(Add) cannot be refined: values of the shapes [1, 2, 1, 2] and [1, 3, 1, 1]",
        ),
        (
            "Sub",
            ["row", "flat"],
            "(Sub) cannot be refined: values of the shapes [1, 3] and [1, 4]",
        ),
        (
            "Concat",
            ["image", "mean"],
            "(Concat) cannot be refined: values of the shapes [1, 2, 1, 2] and [1, 2, 1, 1]",
        ),
        (
            "MatMul",
            ["flat", "matrix"],
            "(MatMul) cannot be refined: its matrix is for rows of 3, and one has 4",
        ),
    ] {
        let mut graph = GraphBuilder::new("shapes");
        graph.initializer("channels", &[3, 1, 1], &[1.0; 3]);
        graph.initializer("row", &[3], &[1.0; 3]);
        graph.initializer("matrix", &[3, 2], &[1.0; 6]);
        graph.node("mean", "GlobalAveragePool", &["image"], &[]);
        graph.node("flat", "Flatten", &["image"], &[]);
        let value = graph.node("value", operator, &inputs, &[("axis", Attribute::Int(1))]);
        let model = graph.finish("image", &[(&value, &[])], &[]);
        let graph = Graph::read(&model, None, "value").expect("a graph");
        let image = map(vec![1.0; 4], [1, 2, 1, 2]);
        let error = forward(&graph, &parameters(&graph), image, Mode::Inference).expect_err("no output");
        assert!(error.to_string().contains(&format!("node value {expected}")), "{error}");
        assert!(error.to_string().contains("`--classifier svm`"), "{error}");
    }
}

#[test]
fn one_value_has_no_variance() {
    let mut graph = GraphBuilder::new("norm");
    let inputs: Vec<String> = ["scale", "shift", "mean", "variance"]
        .iter()
        .map(|name| graph.initializer(name, &[1], &[1.0]))
        .collect();
    let inputs: Vec<&str> = std::iter::once("image")
        .chain(inputs.iter().map(String::as_str))
        .collect();
    let normal = graph.node("norm", "BatchNormalization", &inputs, &[]);
    let model = graph.finish("image", &[(&normal, &[])], &[]);
    let graph = Graph::read(&model, None, "norm").expect("a graph");
    let mode = Mode::Training {
        statistics: Statistics::Batch,
        precision: Precision::Single,
        seed: 1,
        first_image: 0,
    };
    let error = forward(&graph, &parameters(&graph), map(vec![0.5], [1, 1, 1, 1]), mode).expect_err("one value");
    assert!(error.to_string().contains("--minibatch"), "{error}");
}

#[test]
fn layers_are_counted_from_the_end() {
    let graph = Graph::read(&network(), None, "logits").expect("a graph");
    let above: Vec<(&str, usize)> = graph
        .parameters
        .iter()
        .zip(graph.layers_above())
        .map(|(parameter, layers)| (parameter.name.as_str(), layers))
        .filter(|(name, _)| name.contains("weight") || name.contains("shift"))
        .collect();
    let expected = [
        ("stem.weight", 2),
        ("norm.shift", 2),
        ("block.weight", 1),
        ("head.weight", 0),
    ];
    assert_eq!(above, expected);
}
