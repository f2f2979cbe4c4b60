use burn_autodiff::Autodiff;
use burn_flex::{Flex, FlexDevice};

use super::session::Session;
use super::*;
use crate::device::Device;
use crate::onnx::proto::ModelProto;
use crate::onnx::{add_initializer, add_node};
use crate::refine::head::HeadLayer;
use crate::refine::network::Role;
use crate::refine::network::tests::{images, network};

fn plan(statistics: Statistics, optimizer: Optimizer) -> Plan {
    let graph = Graph::read(&network(), None, "logits").expect("a graph");
    Plan {
        rate_scales: vec![1.0; graph.parameters.len()],
        graph,
        classes: 2,
        optimizer,
        statistics,
        precision: Precision::Single,
        average: Some(0.9),
        clip_norm: None,
        images_at_once: None,
    }
}

/// Part of the network with a last layer of two classes.
fn headed(normalized: bool, dropout: Option<f32>) -> Graph {
    let head = HeadLayer {
        weights: vec![0.3, -0.2, 0.5, 0.1, -0.4, 0.2, 0.1, 0.3],
        biases: vec![0.0, 0.1],
        normalized,
    };
    let mut backbone = network();
    backbone.graph.as_mut().expect("a graph").output[0].name = "features".to_owned();
    let classifier = head.on(&backbone, dropout).expect("a network");
    Graph::read(&classifier.model, Some("clip"), &classifier.logits).expect("a graph")
}

fn batch() -> Batch {
    Batch {
        inputs: Inputs {
            shape: vec![3, 7, 7],
            values: images(4),
        },
        targets: vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0],
        weights: vec![1.0; 4],
    }
}

const SGD: Optimizer = Optimizer::Sgd {
    momentum: 0.0,
    weight_decay: 0.0,
};

/// The network with `(2 - sum) / sigmoid(sum)` in place of its sum.
fn dividing() -> ModelProto {
    let mut model = network();
    let graph = model.graph.as_mut().expect("a graph");
    let after = graph.node.iter().position(|node| node.name == "pool").expect("a pool");
    let two = add_initializer(graph, "two", &[], &[2.0]);
    let difference = add_node(graph, "difference", "Sub", &[&two, "sum"], &[]);
    let gate = add_node(graph, "gate", "Sigmoid", &["sum"], &[]);
    let quotient = add_node(graph, "quotient", "Div", &[&difference, &gate], &[]);
    graph.node[after].input[0] = quotient;
    graph.node[after..].rotate_right(3);
    model
}

/// The first step's change of a parameter is minus the rate times the gradient; it must agree with the loss's
/// difference quotient.
#[test]
fn gradients_agree_with_difference_quotients() {
    let loss = |plan: &Plan| {
        let mut engine = open(&Device::Cpu, plan.clone()).expect("a processor");
        f64::from(engine.step(&batch(), 0.0, 1).expect("a step").loss)
    };
    for (model, statistics) in [
        (network(), Statistics::Frozen),
        (network(), Statistics::Batch),
        (dividing(), Statistics::Frozen),
    ] {
        let graph = Graph::read(&model, None, "logits").expect("a graph");
        let plan = Plan {
            rate_scales: vec![1.0; graph.parameters.len()],
            graph,
            ..plan(statistics, SGD)
        };
        let mut engine = open(&Device::Cpu, plan.clone()).expect("a processor");
        engine.step(&batch(), 1.0, 1).expect("a step");
        let after = engine.parameters(Version::Current).expect("values");
        for (index, parameter) in plan.graph.parameters.iter().enumerate() {
            if !matches!(parameter.role, Role::Weight | Role::Offset) {
                continue;
            }
            let gradient = f64::from(parameter.values[0] - after[index][0]);
            let moved = |by: f32| {
                let mut plan = plan.clone();
                plan.graph.parameters[index].values[0] += by;
                loss(&plan)
            };
            let quotient = (moved(2e-2) - moved(-2e-2)) / 4e-2;
            let off = (gradient - quotient).abs() / quotient.abs().max(0.02);
            assert!(
                off < 0.05,
                "{} {statistics:?}: {gradient} and {quotient}",
                parameter.name
            );
        }
    }
}

#[test]
fn training_learns_and_a_restored_state_goes_on_the_same() {
    for optimizer in [SGD, Optimizer::AdamW { weight_decay: 0.01 }] {
        let mut engine = open(&Device::Cpu, plan(Statistics::Batch, optimizer)).expect("a processor");
        let first = engine.step(&batch(), 0.05, 1).expect("a step").loss;
        for step in 0..60 {
            engine.step(&batch(), 0.05, step).expect("a step");
        }
        let state = engine.state().expect("a state");
        let mut other = open(&Device::Cpu, plan(Statistics::Batch, optimizer)).expect("a processor");
        other.restore(&state).expect("restored");
        let last = engine.step(&batch(), 0.05, 30).expect("a step");
        assert!(last.loss < 0.9 * first, "{first} to {}", last.loss);
        assert_eq!(other.step(&batch(), 0.05, 30).expect("a step"), last);
        assert_eq!(other.state().expect("a state"), engine.state().expect("a state"));
    }
}

#[test]
fn a_state_of_another_network_changes_nothing() {
    let optimizer = Optimizer::AdamW { weight_decay: 0.01 };
    let mut engine = open(&Device::Cpu, plan(Statistics::Batch, optimizer)).expect("a processor");
    let before = engine.state().expect("a state");
    engine.step(&batch(), 0.05, 1).expect("a step");
    let after = engine.state().expect("a state");
    let mut other = open(&Device::Cpu, plan(Statistics::Batch, optimizer)).expect("a processor");
    for name in after.tensors.keys() {
        let mut lacking = after.clone();
        lacking.tensors.remove(name);
        assert!(matches!(other.restore(&lacking), Err(EngineError::State)), "{name}");
        assert_eq!(other.state().expect("a state"), before, "{name}");
    }
}

#[test]
fn gradients_summed_up_from_parts_are_those_of_the_whole_batch() {
    let plan = Plan {
        graph: headed(false, Some(0.5)),
        ..plan(Statistics::Frozen, SGD)
    };
    let inputs = Inputs {
        shape: vec![4, 4, 4],
        values: images(4)[..4 * 64].to_vec(),
    };
    let batch = Batch { inputs, ..batch() };
    let batch = Batch {
        weights: vec![0.5, 1.0, 2.0, 0.25],
        ..batch
    };
    let stepped = |images_at_once, devices| {
        let plan = Plan {
            rate_scales: vec![1.0; plan.graph.parameters.len()],
            images_at_once,
            ..plan.clone()
        };
        let devices = vec![FlexDevice; devices];
        let mut engine = Session::<Autodiff<Flex>>::new(plan, devices, false).expect("a processor");
        let outcome = engine.step(&batch, 0.5, 3).expect("a step");
        (outcome, engine.parameters(Version::Current).expect("values"))
    };
    let (whole, expected) = stepped(None, 1);
    for (at_once, devices) in [(1, 1), (3, 1), (4, 2), (4, 3), (3, 2), (4, 9)] {
        let (outcome, values) = stepped(Some(at_once), devices);
        assert_eq!((outcome.images_at_once, outcome.correct), (at_once, whole.correct));
        assert!((outcome.loss - whole.loss).abs() < 1e-5);
        for (values, expected) in values.iter().flatten().zip(expected.iter().flatten()) {
            assert!((values - expected).abs() < 1e-5, "{values} and {expected}");
        }
    }
}

/// Its length is zero, and so is what it has to teach.
#[test]
fn a_picture_without_features_stops_no_training() {
    let graph = headed(true, None);
    let plan = Plan {
        rate_scales: vec![1.0; graph.parameters.len()],
        graph,
        ..plan(Statistics::Frozen, SGD)
    };
    let mut values = images(4)[..4 * 64].to_vec();
    values[..64].fill(0.0);
    let inputs = Inputs {
        shape: vec![4, 4, 4],
        values,
    };
    let mut engine = open(&Device::Cpu, plan).expect("a processor");
    engine.step(&Batch { inputs, ..batch() }, 0.1, 1).expect("a step");
    let values = engine.parameters(Version::Current).expect("values");
    assert!(values.iter().flatten().all(|value| value.abs() < 10.0), "{values:?}");
}

/// Eight bits of mantissa are right to half a percent; what is updated and what is inferred stays in 32 bits.
#[test]
fn short_numbers_teach_nearly_the_same() {
    for statistics in [Statistics::Frozen, Statistics::Batch] {
        let stepped = |precision: Precision| {
            let plan = Plan {
                precision,
                ..plan(statistics, SGD)
            };
            let mut engine = open(&Device::Cpu, plan).expect("a processor");
            let before = engine.logits(&batch().inputs, Version::Current).expect("logits");
            let outcome = engine.step(&batch(), 0.1, 1).expect("a step");
            let after = engine.parameters(Version::Current).expect("parameters");
            (before, outcome.loss, after.concat())
        };
        let (before, loss, exact) = stepped(Precision::Single);
        let (same, near, short) = stepped(Precision::Brain);
        assert_eq!(before, same);
        assert!((loss - near).abs() < 0.01 * loss, "{loss} {near}");
        assert_ne!(exact, short);
        for (exact, short) in exact.iter().zip(&short) {
            assert!((exact - short).abs() < 0.01, "{exact} {short}");
        }
    }
}

#[test]
fn numbers_that_are_none_stop_the_step_and_change_nothing() {
    for clip_norm in [None, Some(1.0)] {
        let plan = Plan {
            clip_norm,
            ..plan(Statistics::Frozen, SGD)
        };
        let mut engine = open(&Device::Cpu, plan).expect("a processor");
        let before = engine.state().expect("a state");
        let mut spoilt = batch();
        spoilt.inputs.values[5] = f32::NAN;
        let error = engine.step(&spoilt, 0.1, 1).expect_err("no number");
        assert!(error.to_string().contains("--learning-rate"), "{error}");
        assert_eq!(engine.state().expect("a state"), before);
        engine.step(&batch(), 0.1, 1).expect("a step");
    }
}

#[test]
fn a_running_statistic_that_is_not_to_change_stays() {
    let mut plan = plan(Statistics::Batch, SGD);
    let mut parameters = plan.graph.parameters.iter();
    let mean = parameters.position(|parameter| parameter.name == "norm.mean");
    let mean = mean.expect("a running mean");
    plan.graph.parameters[mean].role = Role::Constant;
    let before = plan.graph.parameters[mean].values.clone();
    let mut engine = open(&Device::Cpu, plan).expect("a processor");
    engine.step(&batch(), 0.1, 1).expect("a step");
    assert_eq!(engine.parameters(Version::Current).expect("values")[mean], before);
}

/// Backends panic at tensors of a wrong length, as some do where their memory is used up.
#[test]
fn a_backend_that_panics_as_it_infers_is_an_error() {
    let mut plan = plan(Statistics::Frozen, SGD);
    plan.graph.parameters[0].values.pop();
    let mut engine = open(&Device::Cpu, plan).expect("a processor");
    let error = engine.logits(&batch().inputs, Version::Current).expect_err("no logits");
    assert!(matches!(error, EngineError::Device(_)), "{error}");
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_names_it() {
    if cfg!(not(feature = "cuda")) {
        let error = open(&Device::Cuda(vec![0]), plan(Statistics::Frozen, SGD))
            .err()
            .expect("no CUDA");
        assert!(error.to_string().contains("--device cpu"), "{error}");
    }
}
