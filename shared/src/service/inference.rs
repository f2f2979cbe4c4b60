//! The Open Inference Protocol, version 2, over REST: what model servers and their clients agree on.
//!
//! <https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol>. One input tensor of
//! images in, four output tensors out: the best label, its score, the decision, and the scores of all classes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::{ErrorCode, ServiceError};
use super::request::{self, Options, Request};
use super::response::{Answer, Record, Response};
use super::routes::{Inference, ModelPath};
use super::scoring::score_by;
use super::{Service, Version, hash};
use crate::bundle::Manifest;

/// Name of the input tensor.
const INPUT: &str = "image";
/// What the protocol calls texts and images, and numbers.
const TEXT: &str = "BYTES";
const NUMBERS: &str = "FP32";

/// An output tensor.
#[derive(Clone, Copy)]
enum Output {
    Label,
    Score,
    Decision,
    Scores,
}

/// What serves.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Server {
    name: &'static str,
    version: &'static str,
    /// None.
    extensions: [String; 0],
}

impl Server {
    pub(super) fn this() -> Self {
        Self {
            name: "ikat",
            version: env!("CARGO_PKG_VERSION"),
            extensions: [],
        }
    }
}

/// Whether the server answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Liveness {
    pub(super) live: bool,
}

/// Whether the server has a model to answer with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerReadiness {
    ready: bool,
}

/// Whether a model is in memory.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelReadiness {
    name: String,
    ready: bool,
}

/// What a model takes and gives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelMetadata<'a> {
    name: &'a str,
    /// Those in memory.
    versions: Vec<&'a str>,
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
    /// Names of the classes, in the order of the scores.
    classes: &'a [String],
}

/// Form of a tensor.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    /// -1 for any number.
    shape: Vec<i64>,
}

/// Images to classify.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct InferRequest {
    /// Repeated in the answer.
    id: Option<String>,
    /// Taken and not used.
    #[allow(dead_code)]
    parameters: Option<Map<String, Value>>,
    /// One tensor, called `image`.
    #[schema(min_items = 1, max_items = 1)]
    inputs: Vec<InputTensor>,
    /// The outputs that are wanted; all where there is no list.
    outputs: Option<Vec<RequestedOutput>>,
}

/// A tensor of images.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct InputTensor {
    #[schema(example = "image")]
    name: String,
    /// The number of images.
    #[schema(value_type = Vec<u32>, example = json!([1]))]
    shape: Vec<u64>,
    #[schema(example = "BYTES")]
    datatype: String,
    /// Taken and not used.
    #[allow(dead_code)]
    parameters: Option<Map<String, Value>>,
    /// Images in base64, or their places as `s3://bucket/key`; at most 64, in one list or nested as the shape.
    #[schema(value_type = Vec<Element>, min_items = 1, max_items = 64)]
    data: Vec<Value>,
}

/// An image, or a list along the next dimension.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(no_recursion)]
#[allow(dead_code)] // Described here, and read as any JSON for the sake of the errors.
enum Element {
    Image(String),
    List(Vec<Element>),
}

/// An output that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct RequestedOutput {
    /// label, score, decision or scores.
    name: String,
    /// Taken and not used.
    #[allow(dead_code)]
    parameters: Option<Map<String, Value>>,
}

/// The scores of images.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InferResponse {
    model_name: String,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<OutputTensor>,
}

/// An output.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutputTensor {
    name: &'static str,
    shape: Vec<usize>,
    /// BYTES or FP32.
    datatype: &'static str,
    /// Strings or numbers, the last dimension fastest.
    data: Data,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Data {
    Text(Vec<String>),
    Numbers(Vec<f32>),
}

/// Why there is no answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InferenceError<'a> {
    error: &'a str,
}

/// An error in the protocol's form.
pub(super) fn refuse(error: &ServiceError) -> Response {
    let mut response = Response::from(error.clone());
    let body = Response::json(response.status, &InferenceError { error: &error.message }).body;
    response.body = body;
    response
}

impl Service {
    pub(super) fn infer(&self, route: &Inference, request: &Request) -> Result<Response, ServiceError> {
        Ok(match route {
            Inference::Ready => Response::json(200, &ServerReadiness { ready: true }),
            Inference::ModelReady(path) => {
                let name = self.named(path)?.unwrap_or(&self.live).manifest().name.clone();
                Response::json(200, &ModelReadiness { name, ready: true })
            }
            Inference::Model(path) => {
                let version = self.named(path)?.unwrap_or(&self.live);
                Response::json(200, &self.metadata(version.manifest()))
            }
            Inference::Infer(path) => self.infer_images(path, request)?,
        })
    }

    /// The version that a path asks for; `None` where it leaves the choice to us.
    fn named(&self, path: &ModelPath) -> Result<Option<&std::sync::Arc<Version>>, ServiceError> {
        let manifest = self.live.manifest();
        if path.name != manifest.name {
            let message = format!("there is no model {}, but {}", path.name, manifest.name);
            return Err(ServiceError::new(ErrorCode::NotFound, message));
        }
        let Some(wanted) = &path.version else {
            return Ok(None);
        };
        self.version(wanted).map(Some).ok_or_else(|| {
            let message = format!(
                "version {wanted} is not in memory, but {}",
                self.in_memory().join(" and ")
            );
            ServiceError::new(ErrorCode::NotFound, message)
        })
    }

    /// Names of the versions in memory.
    fn in_memory(&self) -> Vec<&str> {
        self.versions()
            .map(|version| version.manifest().version.as_str())
            .collect()
    }

    fn metadata<'a>(&'a self, manifest: &'a Manifest) -> ModelMetadata<'a> {
        let output = |output: Output| TensorMetadata {
            name: output.name(),
            datatype: output.datatype(),
            shape: match output {
                Output::Label | Output::Score | Output::Decision => vec![-1],
                Output::Scores => vec![-1, manifest.classes.len() as i64],
            },
        };
        ModelMetadata {
            name: &manifest.name,
            versions: self.in_memory(),
            platform: "ikat",
            inputs: vec![TensorMetadata {
                name: INPUT,
                datatype: TEXT,
                shape: vec![-1],
            }],
            outputs: Output::ALL.map(output).into(),
            classes: &manifest.classes,
        }
    }

    fn infer_images(&self, path: &ModelPath, request: &Request) -> Result<Response, ServiceError> {
        let named = self.named(path)?;
        let asked: InferRequest = request::object(&request.body, "an image is sent in base64, as data of the input")?;
        let wanted = wanted(asked.outputs.as_deref())?;
        let data = images(&asked.inputs)?;
        let in_place = |number: usize, error: ServiceError| match data.len() {
            1 => error,
            _ => ServiceError::new(error.code, format!("image {}: {}", number + 1, error.message)),
        };
        // All answers or none: what is wrong with the request itself is said before anything is scored.
        let read = |(number, value)| {
            let item = request::item(value, "an entry of data");
            item.map_err(|error| in_place(number, error))
        };
        let items: Vec<_> = data.iter().copied().enumerate().map(read).collect::<Result<_, _>>()?;
        let (mut answers, mut records) = (Vec::new(), Vec::new());
        // One version answers for the whole tensor: its outputs have the classes of one version.
        let mut speaker = named.map(AsRef::as_ref);
        for (number, image) in self.obtain(items.into_iter().map(Ok)).enumerate() {
            let (answer, record) = match image {
                Ok(image) => {
                    let hash = hash(&image);
                    let version = *speaker.get_or_insert_with(|| self.speaker(&hash));
                    score_by(version, &image, &hash, Options::default(), self.until)
                }
                Err(error) => {
                    let record = Record::unread(error.code);
                    (Err(error), record)
                }
            };
            records.push(record);
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    let mut response = refuse(&in_place(number, error));
                    response.records = records;
                    return Ok(response);
                }
            }
        }
        let manifest = speaker.unwrap_or(&self.live).manifest();
        let mut response = Response::json(
            200,
            &InferResponse {
                model_name: manifest.name.clone(),
                model_version: manifest.version.clone(),
                id: asked.id,
                outputs: wanted
                    .into_iter()
                    .map(|output| output.tensor(manifest, &answers))
                    .collect(),
            },
        );
        response.records = records;
        Ok(response)
    }
}

fn wanted(outputs: Option<&[RequestedOutput]>) -> Result<Vec<Output>, ServiceError> {
    let Some(outputs) = outputs.filter(|outputs| !outputs.is_empty()) else {
        return Ok(Output::ALL.to_vec());
    };
    let known = |RequestedOutput { name, .. }: &RequestedOutput| {
        let found = Output::ALL.into_iter().find(|output| output.name() == name);
        found.ok_or_else(|| {
            let known = Output::ALL.map(Output::name).join(", ");
            ServiceError::bad_request(format!("there is no output {name:?}, but {known}"))
        })
    };
    outputs.iter().map(known).collect()
}

fn images(inputs: &[InputTensor]) -> Result<Vec<&Value>, ServiceError> {
    let [input] = inputs else {
        let message = format!("there are {} inputs: send one, called {INPUT:?}", inputs.len());
        return Err(ServiceError::bad_request(message));
    };
    if input.name != INPUT || input.datatype != TEXT {
        let message = format!(
            "the input is called {:?} and has datatype {:?}: send {INPUT:?} with BYTES",
            input.name, input.datatype
        );
        return Err(ServiceError::bad_request(message));
    }
    let mut data = Vec::new();
    flatten(&input.data, input.shape.len(), &mut data);
    request::check_count(data.len(), "data")?;
    let count = input
        .shape
        .iter()
        .try_fold(1_u64, |count, length| count.checked_mul(*length));
    if count != Some(data.len() as u64) {
        let message = format!("shape {:?} does not go with {} images", input.shape, data.len());
        return Err(ServiceError::bad_request(message));
    }
    Ok(data)
}

/// The entries of `data`, the last dimension fastest, from lists that are nested no deeper than there are `dimensions`.
fn flatten<'a>(data: &'a [Value], dimensions: usize, into: &mut Vec<&'a Value>) {
    for value in data {
        match value {
            Value::Array(inner) if dimensions > 1 => flatten(inner, dimensions - 1, into),
            value => into.push(value),
        }
    }
}

impl Output {
    const ALL: [Self; 4] = [Self::Label, Self::Score, Self::Decision, Self::Scores];

    fn name(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Score => "score",
            Self::Decision => "decision",
            Self::Scores => "scores",
        }
    }

    fn datatype(self) -> &'static str {
        match self {
            Self::Label | Self::Decision => TEXT,
            Self::Score | Self::Scores => NUMBERS,
        }
    }

    fn tensor(self, manifest: &Manifest, answers: &[Answer]) -> OutputTensor {
        let mut shape = vec![answers.len()];
        let data = match self {
            Self::Label => Data::Text(answers.iter().map(|answer| answer.label.clone()).collect()),
            Self::Decision => Data::Text(answers.iter().map(|answer| answer.decision.name().to_owned()).collect()),
            Self::Score => Data::Numbers(answers.iter().map(|answer| answer.score).collect()),
            Self::Scores => {
                shape.push(manifest.classes.len());
                let score = |answer: &Answer, class: &String| {
                    let found = answer.scores.iter().find(|(name, _)| name == class);
                    found.map_or(0.0, |(_, score)| *score)
                };
                let rows = answers
                    .iter()
                    .flat_map(|answer| manifest.classes.iter().map(move |class| score(answer, class)));
                Data::Numbers(rows.collect())
            }
        };
        OutputTensor {
            name: self.name(),
            shape,
            datatype: self.datatype(),
            data,
        }
    }
}
