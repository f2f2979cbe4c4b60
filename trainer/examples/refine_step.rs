//! Steps of the refinement on given tensors, for `tests/reference/refine_compare.py`, which compares with PyTorch.
//!
//! `refine_step NETWORK.onnx BATCH.safetensors AFTER.safetensors OPTIONS`: the batch holds `inputs`
//! (`images x channels x height x width`), `targets` (`images x classes`) and `weights`; OPTIONS is JSON with the name
//! of the `output`, the `optimizer`, the `statistics`, `rate`, `steps` and `clip_norm`. What comes out are `before`
//! (the logits for inference before the steps), `loss` (of each step), `after`, and the parameters and what the
//! optimizer remembers by their names in a checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;
use trainer::device::Device;
use trainer::onnx::proto::ModelProto;
use trainer::refine::engine::{Batch, Inputs, Optimizer, Plan, Version, open};
use trainer::refine::network::{Graph, Precision, Statistics};

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    output: String,
    optimizer: Optimizer,
    statistics: Statistics,
    rate: f32,
    steps: u64,
    clip_norm: Option<f32>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, network, batch, after, options] = arguments.as_slice() else {
        return Err("usage: refine_step NETWORK.onnx BATCH.safetensors AFTER.safetensors OPTIONS".into());
    };
    let options: Options = serde_json::from_str(options)?;
    let model = ModelProto::decode(std::fs::read(network)?.as_slice())?;
    let graph = Graph::read(&model, None, &options.output)?;
    let bytes = std::fs::read(batch)?;
    let batch = read(&SafeTensors::deserialize(&bytes)?)?;
    let mut engine = open(
        &Device::Cpu,
        Plan {
            classes: batch.targets.len() / batch.weights.len(),
            rate_scales: vec![1.0; graph.parameters.len()],
            graph,
            optimizer: options.optimizer,
            statistics: options.statistics,
            precision: Precision::Single,
            average: None,
            clip_norm: options.clip_norm,
            images_at_once: None,
        },
    )?;
    let mut answer = BTreeMap::from([("before".to_owned(), engine.logits(&batch.inputs, Version::Current)?)]);
    let mut losses = Vec::new();
    for step in 0..options.steps {
        losses.push(engine.step(&batch, options.rate, step)?.loss);
    }
    answer.insert("loss".to_owned(), losses);
    answer.insert("after".to_owned(), engine.logits(&batch.inputs, Version::Current)?);
    answer.extend(engine.state()?.tensors);
    write(&answer, Path::new(after))
}

fn read(file: &SafeTensors) -> Result<Batch, Failure> {
    let floats = |name: &str| -> Result<(Vec<usize>, Vec<f32>), Failure> {
        let tensor = file.tensor(name)?;
        let four = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok((
            tensor.shape().to_vec(),
            tensor.data().chunks_exact(4).map(four).collect(),
        ))
    };
    let (shape, values) = floats("inputs")?;
    Ok(Batch {
        inputs: Inputs {
            shape: shape.get(1..).unwrap_or_default().to_vec(),
            values,
        },
        targets: floats("targets")?.1,
        weights: floats("weights")?.1,
    })
}

fn write(answer: &BTreeMap<String, Vec<f32>>, path: &Path) -> Result<(), Failure> {
    let bytes: BTreeMap<&String, Vec<u8>> = answer
        .iter()
        .map(|(name, values)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views: Vec<(&String, TensorView)> = bytes
        .iter()
        .map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()?;
    std::fs::write(path, safetensors::serialize(views, None)?)?;
    Ok(())
}
