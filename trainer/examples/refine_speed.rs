//! How many images a second the refinement learns from, for `tests/benchmarks/refinement.py`, which asks PyTorch the
//! same.
//!
//! `refine_speed CACHE NETWORK.onnx OPTIONS`: OPTIONS is JSON with the `resolution`, what is `trained` ("all", or
//! "last-stage" on the output of what is below), the `minibatch`, the number of `steps` that are timed, the `device`,
//! the `precision` and the `statistics`. Prints JSON: `shape` of one input, `seconds` of each step, and its `loss`.

use std::path::Path;
use std::time::Instant;

use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::json;
use shared::network::{Activations, Network, Outputs, Runtime, Tensor};
use trainer::onnx::proto::ModelProto;
use trainer::progress::Silent;
use trainer::refine::engine::{Batch, Inputs, Optimizer, Plan, open};
use trainer::refine::head::HeadLayer;
use trainer::refine::network::{Precision, Statistics};
use trainer::refine::{Trained, cut_in_two};
use trainer::setup::{self, Cache};

const CLASSES: usize = 10;
const SGD: Optimizer = Optimizer::Sgd {
    momentum: 0.9,
    weight_decay: 5e-4,
};

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    resolution: usize,
    trained: Trained,
    minibatch: usize,
    steps: usize,
    device: String,
    precision: Precision,
    statistics: Statistics,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, cache, network, options] = arguments.as_slice() else {
        return Err("usage: refine_speed CACHE NETWORK.onnx OPTIONS".into());
    };
    let options: Options = serde_json::from_str(options)?;
    let backbone = ModelProto::decode(std::fs::read(network)?.as_slice())?;
    let image = Tensor::new(
        [1, 3, options.resolution, options.resolution],
        vec![0.5; 3 * options.resolution * options.resolution],
    );
    let runtime = Runtime::load(&[setup::runtime_library(&Cache::at(Path::new(cache)), &Silent)?])?;
    let features = run(&runtime, &backbone, &image)?.size;
    let classifier = HeadLayer::random(CLASSES, features, 0).on(&backbone, None)?;
    let (lower, graph) = cut_in_two(&backbone, &classifier, options.trained)?;
    let shape = match lower {
        Some(lower) => {
            let below = run(&runtime, &lower, &image)?;
            below.map.map_or(vec![below.size], |map| map.shape()[1..].to_vec())
        }
        None => image.shape()[1..].to_vec(),
    };
    let mut engine = open(
        &options.device.parse()?,
        Plan {
            classes: CLASSES,
            rate_scales: vec![1.0; graph.parameters.len()],
            graph,
            optimizer: SGD,
            statistics: options.statistics,
            precision: options.precision,
            average: None,
            clip_norm: None,
            images_at_once: None,
        },
    )?;
    let batch = random(&shape, options.minibatch);
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    // The first step is for what is done once.
    for step in 0..=options.steps {
        let begin = Instant::now();
        losses.push(engine.step(&batch, 1e-3, step as u64)?.loss);
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let answer = json!({ "shape": shape, "seconds": seconds[1..], "loss": losses[1..] });
    anstream::println!("{answer}");
    Ok(())
}

fn run(runtime: &Runtime, model: &ModelProto, image: &Tensor) -> Result<Activations, Failure> {
    let mut network = runtime.network(&model.encode_to_vec(), 1)?;
    Ok(network.run(image, Outputs::VectorsAndMap)?)
}

/// Inputs and classes drawn at random.
fn random(shape: &[usize], minibatch: usize) -> Batch {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let count = minibatch * shape.iter().product::<usize>();
    let values = (0..count).map(|_| generator.random::<f32>()).collect();
    let mut targets = vec![0.0; minibatch * CLASSES];
    for row in targets.chunks_exact_mut(CLASSES) {
        row[generator.random_range(0..CLASSES)] = 1.0;
    }
    Batch {
        inputs: Inputs {
            shape: shape.to_vec(),
            values,
        },
        targets,
        weights: vec![1.0; minibatch],
    }
}
