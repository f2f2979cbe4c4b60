use std::io::Cursor;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::bundle::{Backbone, ClassifierKind, Manifest, SCHEMA_VERSION};
use crate::classifier::{Calibration, Head, LinearClassifier, Thresholds};
use crate::image::Limits;
use crate::network::{Activations, Network, NetworkError, Outputs, Tensor};
use crate::pipeline::{Featurizer, Pipeline};
use crate::preprocessing::tests::plain;

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
        preprocessing: plain(8),
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

fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
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
        assert_eq!(
            keys(&answer),
            ["decision", "label", "model", "score", "scores", "timing_ms"]
        );
        let times = ["classify", "decode", "network", "preprocess", "total"];
        assert_eq!(keys(&answer["timing_ms"]), times);
    }
}

#[test]
fn no_image_is_begun_once_the_time_is_over() {
    let service = service().with_deadline(Some(Instant::now()));
    let image = base64(&png([10, 20, 250]));
    let tensor = json!({ "name": "image", "shape": [1], "datatype": "BYTES", "data": [image] });
    for (path, body) in [
        ("/", json!({ "image": image })),
        ("/", json!({ "images": [image, image] })),
        ("/v2/models/colours/infer", json!({ "inputs": [tensor] })),
    ] {
        let response = service.answer(&Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            body: Bytes::from(body.to_string()),
            ..Request::default()
        });
        assert_eq!(response.status, 504, "{body}");
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
    let record = &response.records[0];
    assert_eq!(record.outcome.as_ref().expect("scored").label, "blue");
    assert_eq!(record.sha256.as_ref().map(String::len), Some(64));
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
        ("GET", "/nothing", 404),
        ("GET", "/", 405),
        ("GET", "/openapi.json", 200),
        ("GET", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/colours", 200),
        ("GET", "/v2/models/colours/ready", 200),
        ("GET", "/v2/models/colours/versions/0123456789abcdef", 200),
        ("GET", "/v2/models/colours/versions/7", 404),
        ("GET", "/v2/models/others", 404),
        ("POST", "/model", 405),
        ("DELETE", "/", 405),
        ("POST", "/", 400),
    ] {
        assert_eq!(ask(method, path, None, b"").0, status, "{method} {path}");
    }
    assert_eq!(ask("GET", "/model", None, b"").1["name"], "colours");
}

#[test]
fn a_path_or_a_method_that_there_is_not_waits_for_no_model() {
    for (method, path, status) in [
        ("GET", "/health/live", Some(200)),
        ("GET", "/nothing", Some(404)),
        ("GET", "/v2/nothing", Some(404)),
        ("GET", "/", Some(405)),
        ("POST", "/model", Some(405)),
        ("GET", "/model", None),
        ("GET", "/v2/models/others", None),
        ("POST", "/", None),
    ] {
        let answered = answer_without_model(method, path).map(|response| response.status);
        assert_eq!(answered, status, "{method} {path}");
        assert_eq!(is_answered_at_once(method, path), status.is_some(), "{method} {path}");
    }
    let refusal = answer_without_model("GET", "/").expect("a refusal");
    assert_eq!(refusal.headers, [("allow", "POST".to_owned())]);
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
fn errors_of_the_open_inference_protocol_speak_of_what_it_takes() {
    let service = service().with_canary(Some((version("fedcba9876543210"), 0.3)));
    let message = |path: &str, body: &'static str| {
        let response = service.answer(&Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            body: Bytes::from_static(body.as_bytes()),
            ..Request::default()
        });
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        answer["error"].as_str().expect("a message").to_owned()
    };
    let unknown = message("/v2/models/colours/versions/9/infer", "{}");
    assert!(
        unknown.ends_with("0123456789abcdef and fedcba9876543210"),
        "both versions in memory: {unknown}"
    );
    let text = message("/v2/models/colours/infer", "an image");
    assert!(text.contains("base64") && !text.contains("content-type"), "{text}");
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

fn infer(path: &str, body: &Value) -> (u16, Value) {
    ask("POST", path, Some("application/json"), body.to_string().as_bytes())
}

#[test]
fn the_open_inference_protocol_is_spoken() {
    let tensor =
        |shape: Value, data: Value| json!({"name": "image", "shape": shape, "datatype": "BYTES", "data": data});
    let images = json!([base64(&png([250, 0, 0])), base64(&png([0, 0, 250]))]);
    let (status, answer) = infer(
        "/v2/models/colours/infer",
        &json!({"id": "7", "inputs": [tensor(json!([2, 1]), images.clone())]}),
    );
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["id"], &answer["model_name"]), (&json!("7"), &json!("colours")));
    let outputs = answer["outputs"].as_array().expect("outputs");
    assert_eq!(
        outputs[0],
        json!({"name": "label", "shape": [2], "datatype": "BYTES", "data": ["red", "blue"]})
    );
    assert_eq!(outputs[3]["shape"], json!([2, 3]));
    assert_eq!(
        outputs[3]["data"][0], outputs[1]["data"][0],
        "the score of red comes first"
    );

    let nested = tensor(json!([2, 1]), json!([[images[0]], [images[1]]]));
    let (_, same) = infer("/v2/models/colours/infer", &json!({"id": "7", "inputs": [nested]}));
    assert_eq!(same["outputs"], answer["outputs"], "data is nested as the shape is");

    let only = json!({"inputs": [tensor(json!([2]), images.clone())], "outputs": [{"name": "decision"}]});
    let (_, answer) = infer("/v2/models/colours/versions/0123456789abcdef/infer", &only);
    assert_eq!(answer["outputs"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["outputs"][0]["data"], json!(["accepted", "accepted"]));

    for (path, body, status) in [
        ("colours", json!({"inputs": [tensor(json!([3]), images.clone())]}), 400),
        (
            "colours",
            json!({"inputs": [tensor(json!([2]), json!([[images[0]], [images[1]]]))]}),
            400,
        ),
        ("colours", json!({"inputs": []}), 400),
        ("colours", json!([]), 400),
        (
            "colours",
            json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}),
            400,
        ),
        (
            "colours",
            json!({"inputs": [tensor(json!([2]), images.clone())], "outputs": [{"name": "x"}]}),
            400,
        ),
        (
            "colours",
            json!({"inputs": [tensor(json!([1]), json!([base64(b"text")]))]}),
            415,
        ),
        ("others", json!({"inputs": [tensor(json!([2]), images)]}), 404),
    ] {
        let (found, answer) = infer(&format!("/v2/models/{path}/infer"), &body);
        assert_eq!(found, status, "{answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
}

/// A bucket that has one image.
struct Bucket;

impl References for Bucket {
    fn fetch(&self, references: Vec<S3Reference>) -> Box<dyn Iterator<Item = Result<Bytes, ServiceError>> + '_> {
        Box::new(references.into_iter().map(|reference| match reference.key.as_str() {
            "green.png" => Ok(png([0, 250, 0]).into()),
            _ => Err(ServiceError::new(ErrorCode::NotFound, "there is no such image")),
        }))
    }
}

#[test]
fn images_in_a_bucket_are_scored_where_that_is_allowed() {
    let (status, answer) = post(&json!({"s3": "s3://photos/green.png"}));
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("forbidden")));

    let service = service().with_references(Arc::new(Bucket));
    let ask = |body: Value| {
        let response = service.answer(&Request {
            method: "POST".to_owned(),
            body: Bytes::from(body.to_string()),
            ..Request::default()
        });
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        (response.status, answer)
    };
    let (status, answer) = ask(json!({"s3": "s3://photos/green.png"}));
    assert_eq!((status, &answer["label"]), (200, &json!("green")));
    assert_eq!(ask(json!({"s3": "s3://photos/none.png"})).0, 404);
    let mixed = json!({"images": ["s3://photos/none.png", base64(&png([250, 0, 0])), "s3://photos/green.png", "!"]});
    let (_, answer) = ask(mixed);
    let labels: Vec<_> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| &result["label"])
        .collect();
    assert_eq!(labels, [&Value::Null, &json!("red"), &json!("green"), &Value::Null]);
}

#[test]
fn a_tensor_with_an_unreadable_image_is_refused_and_what_was_scored_is_recorded() {
    let service = service().with_references(Arc::new(Bucket));
    let records = |last: &str| {
        let data = json!(["s3://photos/green.png", last]);
        let tensor = json!({"name": "image", "shape": [2], "datatype": "BYTES", "data": data});
        let response = service.answer(&Request {
            method: "POST".to_owned(),
            path: "/v2/models/colours/infer".to_owned(),
            body: Bytes::from(json!({"inputs": [tensor]}).to_string()),
            ..Request::default()
        });
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert!(
            answer["error"].as_str().expect("a text").starts_with("image 2: "),
            "{answer}"
        );
        let outcomes = response
            .records
            .into_iter()
            .map(|record| record.outcome.map(|scored| scored.label));
        (response.status, outcomes.collect::<Vec<_>>())
    };
    let found = records("s3://photos/none.png");
    assert_eq!(found, (404, vec![Ok("green".to_owned()), Err(ErrorCode::NotFound)]));
    assert_eq!(records("!"), (400, Vec::new()), "nothing is scored");
}

#[test]
fn a_refusal_says_what_would_be_taken() {
    let response = service().answer(&Request {
        method: "DELETE".to_owned(),
        path: "/model".to_owned(),
        ..Request::default()
    });
    assert_eq!(
        (response.status, response.headers),
        (405, vec![("allow", "GET, HEAD".to_owned())])
    );
}
