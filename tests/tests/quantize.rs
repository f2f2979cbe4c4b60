//! Networks in 8-bit integers: close to the float ones, the same each time, and served like any other.

use std::process::Command;
use std::sync::OnceLock;

use end_to_end::bundles::noise;
use end_to_end::colours::library;
use end_to_end::program::{say, say_within};
use end_to_end::workshop::Workshop;
use prost::Message;
use serde_json::Value;
use shared::network::{Network, Outputs, Runtime, Tensor};
use trainer::onnx::proto::{DimensionValue, INT8, ModelProto};
use trainer::onnx::{Attribute, GraphBuilder};
use trainer::progress::Silent;
use trainer::quantize::{QuantizeError, Samples, quantize};
use trainer::workbench::Workbench;

/// Side of the small network's images.
const SIDE: usize = 24;

/// Numbers between -0.5 and 0.5.
fn weights(seed: u64, count: usize) -> Vec<f32> {
    let bytes = noise(seed, count).into_iter();
    bytes.map(|value| f32::from(value) / 255.0 - 0.5).collect()
}

/// Everything that is quantized in one network: convolutions of three kinds, one before batch normalization, rectifiers
/// of both kinds, a sum and a maximum; and a sigmoid, which is not.
fn network() -> ModelProto {
    let mut graph = GraphBuilder::new("small");
    let kernel = graph.initializer("stem.weight", &[8, 3, 3, 3], &weights(1, 8 * 27));
    let pads = ("pads", Attribute::Ints(vec![1; 4]));
    let stem = graph.node("stem", "Conv", &["image", &kernel], std::slice::from_ref(&pads));
    let mut inputs = vec![stem];
    for (name, values) in [("scale", 1.5), ("shift", 0.2), ("mean", 0.1), ("variance", 0.6)] {
        inputs.push(graph.initializer(name, &[8], &[values; 8]));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let normal = graph.node("normal", "BatchNormalization", &inputs, &[]);
    let rectified = graph.node("rectified", "Relu", &[&normal], &[]);
    let window = [
        ("kernel_shape", Attribute::Ints(vec![3, 3])),
        ("strides", Attribute::Ints(vec![2, 2])),
        pads.clone(),
    ];
    let pooled = graph.node("pooled", "MaxPool", &[&rectified], &window);
    let kernel = graph.initializer("depthwise.weight", &[8, 1, 3, 3], &weights(2, 72));
    let depthwise = [("group", Attribute::Int(8)), pads];
    let depthwise = graph.node("depthwise", "Conv", &[&pooled, &kernel], &depthwise);
    let (low, high) = (
        graph.initializer("low", &[], &[0.0]),
        graph.initializer("high", &[], &[6.0]),
    );
    let clipped = graph.node("clipped", "Clip", &[&depthwise, &low, &high], &[]);
    let kernel = graph.initializer("pointwise.weight", &[8, 8, 1, 1], &weights(3, 64));
    let bias = graph.initializer("pointwise.bias", &[8], &weights(4, 8));
    let pointwise = graph.node("pointwise", "Conv", &[&clipped, &kernel, &bias], &[]);
    let sum = graph.node("sum", "Add", &[&pointwise, &pooled], &[]);
    let sum = graph.node("sum.relu", "Relu", &[&sum], &[]);
    let kernel = graph.initializer("last.weight", &[16, 8, 1, 1], &weights(5, 128));
    let last = graph.node("last", "Conv", &[&sum, &kernel], &[]);
    let map = graph.node("map", "Sigmoid", &[&last], &[]);
    let pooled = graph.node("mean.map", "GlobalAveragePool", &[&map], &[]);
    let features = graph.node("features", "Flatten", &[&pooled], &[]);
    let named = DimensionValue::named;
    let vector = [named("N"), DimensionValue::Fixed(16)];
    let maps = [named("N"), DimensionValue::Fixed(16), named("h"), named("w")];
    graph.finish("image", &[(&features, &vector), (&map, &maps)], &[])
}

fn image(seed: u64) -> Tensor {
    let values = weights(seed, 3 * SIDE * SIDE);
    Tensor::new([1, 3, SIDE, SIDE], values.iter().map(|value| 2.0 * value).collect())
}

fn samples() -> Samples {
    Samples {
        calibration: (10..30).map(image).collect(),
        check: (30..38).map(image).collect(),
        range: (-1.0, 1.0),
    }
}

/// A process loads the library once.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::load(std::slice::from_ref(library())).expect("the library"))
}

fn workbench(threads: usize) -> Workbench<'static> {
    Workbench {
        runtime: runtime(),
        threads,
        progress: &Silent,
    }
}

fn operators(model: &ModelProto, operator: &str) -> usize {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    nodes.filter(|node| node.op_type == operator).count()
}

#[test]
fn a_quantized_network_is_close_to_the_float_one_and_the_same_each_time() {
    let (float, samples) = (network(), samples());
    let quantized = quantize(&float, &samples, &workbench(1)).expect("it can be quantized");
    assert_eq!((quantized.convolutions, quantized.left), (4, 0));
    assert!(quantized.cosine > 0.999, "{}", quantized.cosine);
    let model = &quantized.model;
    assert_eq!(operators(model, "BatchNormalization"), 0);
    // The rectifiers are in the grids, and the maximum stays on the grid of its values.
    assert_eq!((operators(model, "Relu"), operators(model, "Clip")), (0, 0));
    // Floats begin with the image, and end where the sigmoid takes them.
    let quantized_operators = [
        "QuantizeLinear",
        "DequantizeLinear",
        "QLinearConv",
        "QLinearAdd",
        "MaxPool",
    ];
    assert_eq!(
        quantized_operators.map(|operator| operators(model, operator)),
        [1, 1, 4, 1, 1]
    );
    let bytes = model.graph.iter().flat_map(|graph| &graph.initializer);
    assert_eq!(
        bytes
            .filter(|tensor| tensor.name.ends_with("weight.integers") && tensor.data_type == INT8)
            .count(),
        4
    );

    for threads in [2, 5] {
        let again = quantize(&float, &samples, &workbench(threads)).expect("it can be quantized");
        assert_eq!(again, quantized, "{threads} threads");
    }

    let mut networks = [&float, model].map(|model| runtime().network(&model.encode_to_vec(), 1).expect("loaded"));
    let seen = networks
        .each_mut()
        .map(|network| network.run(&image(50), Outputs::VectorsAndMap).expect("run"));
    let maps = seen.map(|seen| seen.map.expect("a map"));
    assert_eq!(maps[0].shape(), maps[1].shape());
    let pairs = maps[0].data().iter().zip(maps[1].data());
    let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 0.05, "a cell of the map differs by {largest}");
}

/// Four convolutions in a row. One channel between the first two is a thousand times as large as the others, which the
/// grid of that value cannot tell from zero.
fn uneven() -> ModelProto {
    let mut graph = GraphBuilder::new("uneven");
    let mut value = "image".to_owned();
    for (number, inputs) in [3, 8, 8, 8].into_iter().enumerate() {
        let mut values = weights(20 + number as u64, 8 * inputs);
        match number {
            0 => values[..inputs].iter_mut().for_each(|value| *value *= 1000.0),
            1 => values.iter_mut().step_by(inputs).for_each(|value| *value /= 1000.0),
            _ => {}
        }
        let name = format!("convolution.{number}");
        let kernel = graph.initializer(&format!("{name}.weight"), &[8, inputs, 1, 1], &values);
        value = graph.node(&name, "Conv", &[&value, &kernel], &[]);
        if number < 3 {
            value = graph.node(&format!("{name}.relu"), "Relu", &[&value], &[]);
        }
    }
    let pooled = graph.node("pooled", "GlobalAveragePool", &[&value], &[]);
    let features = graph.node("features", "Flatten", &[&pooled], &[]);
    let vector = [DimensionValue::named("N"), DimensionValue::Fixed(8)];
    graph.finish("image", &[(&features, &vector)], &[])
}

/// An image of one colour.
fn plain(seed: u64) -> Tensor {
    let colour = weights(seed, 3);
    let values = colour.iter().flat_map(|value| [2.0 * value; SIDE * SIDE]).collect();
    Tensor::new([1, 3, SIDE, SIDE], values)
}

#[test]
fn convolutions_that_cost_too_much_stay_in_floats() {
    let samples = Samples {
        calibration: (100..140).map(plain).collect(),
        check: (140..156).map(plain).collect(),
        range: (-1.0, 1.0),
    };
    let quantized = quantize(&uneven(), &samples, &workbench(2)).expect("it can be quantized");
    assert!((1..4).contains(&quantized.left), "{} of 4 are left", quantized.left);
    assert!(quantized.cosine >= 0.99, "{}", quantized.cosine);
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    let workbench = workbench(2);
    let refused = |model: &ModelProto, samples: &Samples| match quantize(model, samples, &workbench) {
        Err(error @ (QuantizeError::Unsuitable(_) | QuantizeError::NoImages)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let mut old = network();
    old.opset_import[0].version = 11;
    assert!(refused(&old, &samples()).contains("version 13"));
    let mut without = network();
    if let Some(graph) = &mut without.graph {
        graph.initializer.retain(|tensor| !tensor.name.ends_with(".weight"));
    }
    let mut half = network();
    if let Some(graph) = &mut half.graph {
        graph.initializer.iter_mut().for_each(|tensor| tensor.data_type = 10);
    }
    for unsuitable in [without, half] {
        let reason = refused(&unsuitable, &samples());
        assert!(
            reason.contains("no two-dimensional convolution with constant weights in 32-bit floats"),
            "{reason}"
        );
    }
    let none = Samples {
        check: Vec::new(),
        ..samples()
    };
    assert!(refused(&network(), &none).contains("there is none"));
}

fn train(workshop: &Workshop, network: &str, run: &str, more: &[&str]) -> Command {
    let mut train = workshop.train_by(network, "data", run);
    train.args(["--seed", "7"]).args(more);
    train
}

fn notes(document: &Value) -> String {
    document["notes"].to_string()
}

#[test]
fn a_quantized_model_is_trained_and_served_like_any_other() {
    let workshop = Workshop::new(20);
    let refinement = ["--epochs", "2", "--trained", "all", "--device", "cpu"];
    for classifier in ["svm", "dnn", "svm-refined"] {
        let run = format!("run-{classifier}");
        let mut train = train(&workshop, "convolutional.onnx", &run, &["--quantize", "int8"]);
        train.args(["--classifier", classifier]);
        if classifier != "svm" {
            train.args(refinement);
        }
        let document = say_within(300, &train).ended_with(0).json();
        assert!(notes(&document).contains("1 of 1 convolutions"), "{}", notes(&document));
        let model = std::fs::read(workshop.path(&run).join("bundle/model.onnx")).expect("a model");
        let model = ModelProto::decode(model.as_slice()).expect("ONNX");
        assert!(operators(&model, "DequantizeLinear") > 0, "{classifier}");
        // What is measured again, from the bundle, is what the training measured.
        let measured = workshop.trainer(&["evaluate", "--json", "--bundle", &run, "--data", "data", "--split"]);
        let mut measured = measured;
        measured.arg(format!("{run}/split.tsv"));
        let measured = say(&mut measured).ended_with(0).json();
        assert_eq!(measured["confusion"], document["metrics"]["confusion"], "{classifier}");
    }
}

#[test]
fn auto_says_why_a_network_stays_in_floats_and_int8_refuses() {
    let workshop = Workshop::new(12);
    let mut auto = train(&workshop, "colours.onnx", "auto", &["--quantize", "auto"]);
    let document = say(&mut auto).ended_with(0).json();
    assert!(notes(&document).contains("stays in floats"), "{}", notes(&document));
    let mut int8 = train(&workshop, "colours.onnx", "int8", &["--quantize", "int8"]);
    let said = say(&mut int8).ended_with(1);
    assert!(said.stderr.contains("cannot be quantized"), "{}", said.stderr);
    assert!(!said.stderr.contains("Computing features"), "{}", said.stderr);
}
