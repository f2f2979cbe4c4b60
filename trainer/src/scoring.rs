//! Classifying files on this machine, with the same answers that the scoring function gives.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use shared::bundle::{Bundle, BundleError, Manifest};
use shared::image::Limits;
use shared::network::Runtime;
use shared::pipeline::Pipeline;
use shared::service::{Answer, Request, Service, ServiceError, Version};

use crate::image_reader::instead_of_folder;
use crate::threads::{by_workers, workers};
use crate::{dataset, shell};

/// What came out for one file.
#[derive(Debug, Serialize)]
pub struct Scored {
    /// The file.
    #[serde(serialize_with = "crate::dataset::as_text")]
    pub path: PathBuf,
    /// Its scores, or why there are none.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Scores, or why there are none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Scores.
    Answer(Answer),
    /// Why there are none.
    Error {
        /// As the scoring function would say it.
        error: ServiceError,
    },
}

/// As many pipelines of `bundle`, made side by side.
pub fn pipelines(
    bundle: &Bundle,
    runtime: &Runtime,
    limits: Limits,
    count: usize,
) -> Result<Vec<Pipeline>, BundleError> {
    workers(count, || bundle.pipeline(runtime, limits, 1))
}

/// Scores each of `paths` by one of `pipelines`, which work side by side, keeping the best `top_k` classes of each.
pub fn score_files(
    mut pipelines: Vec<Pipeline>,
    manifest: &Manifest,
    paths: &[PathBuf],
    top_k: Option<usize>,
    limits: Limits,
) -> Vec<Scored> {
    let score = |pipeline: &mut Pipeline, path: &Path| {
        if path.is_dir() {
            let (instead, folder) = (instead_of_folder(path), shell::quote(path));
            let batch = format!("trainer batch --local --bundle BUNDLE --input {folder} --output DIR");
            let message = format!("{instead}; `{batch}` scores all of them");
            return Err(ServiceError::bad_request(message));
        }
        let bytes = dataset::read(path, limits)?;
        let (prediction, timing) = pipeline.predict(&bytes)?;
        Ok(Answer::new(manifest, &prediction, timing, top_k))
    };
    by_workers(&mut pipelines, paths, |pipeline, path| {
        let outcome = match score(pipeline, path) {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Error { error },
        };
        Scored {
            path: path.clone(),
            outcome,
        }
    })
}

/// Asks a scoring function made of `bundle` what `image` is, as a client would: with the image in base64.
///
/// # Errors
/// When the bundle cannot be used.
pub fn ask(bundle: &Bundle, runtime: &Runtime, limits: Limits, image: &[u8]) -> Result<Value, BundleError> {
    let mut pipeline = bundle.pipeline(runtime, limits, 1)?;
    bundle.verify_golden(&mut pipeline)?;
    let service = Service::new(Arc::new(Version::new(bundle.manifest.clone(), vec![pipeline])));
    let body = serde_json::json!({ "image": STANDARD.encode(image) }).to_string();
    let response = service.answer(&Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        content_type: Some("application/json".to_owned()),
        body: body.into(),
    });
    Ok(serde_json::from_slice(&response.body).unwrap_or(Value::Null))
}
