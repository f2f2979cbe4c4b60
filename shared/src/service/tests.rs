use std::io::Cursor;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::bundle::{Backbone, ClassifierKind, Manifest, SCHEMA_VERSION};
use crate::classifier::{Calibration, Head, LinearClassifier, Thresholds};
use crate::image::Limits;
use crate::network::{Activations, Network, NetworkError, Outputs, Tensor};
use crate::pipeline::{Featurizer, Pipeline};
use crate::preprocessing::{ChannelOrder, Geometry, Preprocessing};

/// The mean of each channel: enough of a network to tell red from green from blue.
struct MeanColour;

impl Network for MeanColour {
    fn run(&mut self, images: &Tensor, _: Outputs) -> Result<Activations, NetworkError> {
        let [_, _, height, width] = images.shape();
        let vectors = images
            .data()
            .chunks(height * width)
            .map(|plane| plane.iter().sum::<f32>() / plane.len() as f32)
            .collect();
        Ok(Activations {
            vectors,
            size: 3,
            map: None,
        })
    }
}

fn service() -> Service {
    Service::new(version("0123456789abcdef"))
}

fn version(version: &str) -> Arc<Version> {
    let classes = ["red", "green", "blue"].map(str::to_owned).to_vec();
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        name: "colours".to_owned(),
        version: version.to_owned(),
        classes: classes.clone(),
        classifier: ClassifierKind::Svm,
        backbone: Backbone {
            name: "mean-colour".to_owned(),
            sha256: "0".repeat(64),
            licence: None,
        },
        feature_size: 3,
        preprocessing: Preprocessing {
            resolution: 8,
            geometry: Geometry::Letterbox,
            background: [0; 3],
            channels: ChannelOrder::Rgb,
            mean: [0.0; 3],
            std: [1.0; 3],
        },
        calibration: Calibration::Temperature { scale: 5.0 },
        thresholds: Thresholds {
            probability: 0.5,
            margin: 0.5,
        },
        files: std::collections::BTreeMap::new(),
        metrics: std::collections::BTreeMap::new(),
    };
    let head = Head {
        classes,
        classifier: Some(LinearClassifier {
            weights: vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]],
            intercepts: vec![0.0; 3],
            c: 1.0,
            solver: "by-hand".to_owned(),
        }),
        calibration: manifest.calibration.clone(),
        thresholds: manifest.thresholds,
    };
    let featurizer = Featurizer::new(Limits::default(), manifest.preprocessing.clone(), Box::new(MeanColour));
    Arc::new(Version::new(manifest, vec![Pipeline::new(featurizer, head)]))
}

fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    ::image::RgbImage::from_pixel(16, 16, ::image::Rgb(colour))
        .write_to(&mut bytes, ::image::ImageFormat::Png)
        .expect("a PNG is written to memory");
    bytes.into_inner()
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn ask(method: &str, path: &str, content_type: Option<&str>, body: &[u8]) -> (u16, Value) {
    let response = service().answer(&Request {
        method: method.to_owned(),
        path: path.to_owned(),
        content_type: content_type.map(str::to_owned),
        body: Bytes::copy_from_slice(body),
    });
    assert_eq!(response.content_type, "application/json");
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

fn post(body: &Value) -> (u16, Value) {
    ask("POST", "/", None, body.to_string().as_bytes())
}

#[test]
fn every_form_of_an_image_has_the_same_answer() {
    let blue = png([10, 20, 250]);
    let text = base64(&blue);
    let answers = [
        post(&json!({"image": text})),
        post(&json!({"input_df": [{"image base64 string": text}]})),
        ask("POST", "/score", Some("image/png"), &blue),
    ];
    for (status, answer) in answers {
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["label"], "blue");
        assert_eq!(answer["decision"], "accepted");
        assert_eq!(
            answer["model"],
            json!({"name": "colours", "version": "0123456789abcdef"})
        );
        assert_eq!(answer["scores"]["blue"], answer["score"]);
        assert!(answer["timing_ms"]["total"].is_number());
        assert!(answer.get("warnings").is_none());
    }
}

#[test]
fn scores_are_in_descending_order_and_limited() {
    let body = json!({"image": base64(&png([10, 120, 250])), "top_k": 2, "explain": true}).to_string();
    let response = service().answer(&Request {
        method: "POST".to_owned(),
        body: Bytes::from(body),
        ..Request::default()
    });
    let text = String::from_utf8(response.body).expect("UTF-8");
    let scores = text
        .split_once("\"scores\":{")
        .expect("scores")
        .1
        .split_once('}')
        .expect("an end")
        .0;
    let blue = scores.find("blue").expect("the best class");
    assert!(blue < scores.find("green").expect("the second class"), "{text}");
    assert!(!scores.contains("red"), "{text}");
    assert!(text.contains("\"warnings\":["), "{text}");
    assert_eq!(response.summary.expect("one image has a summary").label, "blue");
}

#[test]
fn an_image_without_a_clear_class_is_unknown() {
    let (_, answer) = post(&json!({"image": base64(&png([100, 100, 100]))}));
    assert_eq!(answer["decision"], "unknown");
}

#[test]
fn a_list_has_one_result_or_error_each_in_order() {
    let (status, answer) =
        post(&json!({"images": [base64(&png([250, 0, 0])), "!", base64(b"text"), base64(&png([0, 250, 0]))]}));
    assert_eq!(status, 200);
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results[0]["label"], "red");
    assert_eq!(results[1]["error"]["code"], "bad_request");
    assert_eq!(results[2]["error"]["code"], "unsupported_format");
    assert_eq!(results[3]["label"], "green");
}

#[test]
fn a_truncated_image_is_undecodable() {
    let whole = png([1, 2, 3]);
    let (status, answer) = ask("POST", "/", Some("image/png"), &whole[..whole.len() / 2]);
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("undecodable_image")));
}

#[test]
fn routes() {
    for (method, path, status) in [
        ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
        ("GET", "/model", 200),
        ("GET", "/", 404),
        ("POST", "/model", 405),
        ("DELETE", "/", 405),
        ("POST", "/", 400),
    ] {
        assert_eq!(ask(method, path, None, b"").0, status, "{method} {path}");
    }
    assert_eq!(ask("GET", "/model", None, b"").1["name"], "colours");
}

#[test]
fn a_version_on_trial_answers_for_its_share_always_the_same_images() {
    let service = service().with_canary(Some((version("fedcba9876543210"), 0.3)));
    let speak = |red: u8| {
        let response = service.answer(&Request {
            method: "POST".to_owned(),
            content_type: Some("image/png".to_owned()),
            body: png([red, 0, 0]).into(),
            ..Request::default()
        });
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        answer["model"]["version"] == "fedcba9876543210"
    };
    let first: Vec<bool> = (0..=255).map(speak).collect();
    let count = first.iter().filter(|canary| **canary).count();
    assert!((50..105).contains(&count), "{count} of 256");
    assert_eq!(first, (0..=255).map(speak).collect::<Vec<_>>());
}

#[test]
fn a_refused_version_is_told_of_while_another_answers() {
    let problem = Problem {
        refused: Some("fedcba9876543210".to_owned()),
        reason: "damaged".to_owned(),
        since: "2026-01-01T00:00:00Z".to_owned(),
    };
    let service = service().with_problem(Some(problem));
    for path in ["/health/ready", "/model"] {
        let response = service.answer(&Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            ..Request::default()
        });
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!((response.status, &answer["version"]), (200, &json!("0123456789abcdef")));
        assert_eq!(answer["problem"]["refused"], "fedcba9876543210");
    }
}
