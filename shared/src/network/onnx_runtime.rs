//! Microsoft's ONNX Runtime as the network backend.

use ort::environment::Environment;
use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{CUDA, ExecutionProviderDispatch};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use super::{Activations, Network, NetworkError, Outputs, Tensor};

/// A network in one ONNX Runtime session.
///
/// The model has one image input `[N, 3, H, W]`; its first output is a vector per image, its second,
/// if there is one, the last feature map.
pub struct OnnxRuntime {
    session: Session,
    input: String,
}

impl OnnxRuntime {
    pub(super) fn on_processor(environment: &Environment, model: &[u8], threads: usize) -> Result<Self, NetworkError> {
        let session = builder(environment, threads).and_then(|mut builder| builder.commit_from_memory(model));
        Self::new(session.map_err(|error| NetworkError::Load(error.to_string()))?)
    }

    pub(super) fn on_cuda(environment: &Environment, model: &[u8], device: usize) -> Result<Self, NetworkError> {
        let device = i32::try_from(device).map_err(|error| NetworkError::Cuda(error.to_string()))?;
        let session = builder(environment, 1)
            .and_then(|builder| Ok(builder.with_execution_providers([cuda(device)])?))
            .and_then(|mut builder| builder.commit_from_memory(model));
        Self::new(session.map_err(|error| NetworkError::Cuda(reason(&error)))?)
    }

    fn new(session: Session) -> Result<Self, NetworkError> {
        let input = match session.inputs() {
            [input] => input.name().to_owned(),
            inputs => {
                return Err(NetworkError::Load(format!(
                    "it has {} inputs instead of one image input",
                    inputs.len()
                )));
            }
        };
        if session.outputs().is_empty() {
            return Err(NetworkError::Load("it has no output".to_owned()));
        }
        Ok(Self { session, input })
    }
}

/// As many threads as are asked for, so that results do not depend on the number of cores. They do not spin while idle:
/// a function instance has but one request at a time. Weights are allocated one by one: the arena takes the next power
/// of two for them, a sixth of all memory.
fn builder(environment: &Environment, threads: usize) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_config_entry("session.intra_op.allow_spinning", "0")?
        .with_config_entry("session.use_device_allocator_for_initializers", "1")?)
}

/// What the library says, without the place in its source that it says first.
fn reason(error: &ort::Error) -> String {
    let text = error.to_string();
    let reason = text.rsplit_once(" : ").map_or(text.as_str(), |(_, reason)| reason);
    reason.trim().trim_end_matches('.').to_owned()
}

/// Floats stay as wide as on a processor, and algorithms follow from shapes alone: by trial, the fastest would be
/// another one now and then.
fn cuda(device: i32) -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(device)
        .with_tf32(false)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .build()
        .error_on_failure()
}

impl Network for OnnxRuntime {
    fn run(&mut self, images: &Tensor, outputs: Outputs) -> Result<Activations, NetworkError> {
        let failed = |error: ort::Error| NetworkError::Run(error.to_string());
        let count = images.shape()[0];
        let input = TensorRef::from_array_view((images.shape(), images.data())).map_err(failed)?;
        let results = self
            .session
            .run(ort::inputs![self.input.as_str() => input])
            .map_err(failed)?;

        let (shape, vectors) = results[0].try_extract_tensor::<f32>().map_err(failed)?;
        if vectors.is_empty() || vectors.len() % count != 0 || shape.first().copied() != Some(count as i64) {
            return Err(NetworkError::Run(format!(
                "its first output has shape {shape:?} for {count} image(s)"
            )));
        }
        if vectors.iter().any(|value| !value.is_finite()) {
            return Err(NetworkError::NotFinite);
        }
        let map = match outputs {
            Outputs::VectorsAndMap if results.len() > 1 => {
                let (shape, values) = results[1].try_extract_tensor::<f32>().map_err(failed)?;
                let [n, c, h, w] = shape[..] else {
                    return Err(NetworkError::Run(format!("its feature map has shape {shape:?}")));
                };
                let shape = [n, c, h, w].map(|length| usize::try_from(length).unwrap_or(0));
                Some(Tensor::new(shape, values.to_vec()))
            }
            _ => None,
        };
        Ok(Activations {
            vectors: vectors.to_vec(),
            size: vectors.len() / count,
            map,
        })
    }
}
