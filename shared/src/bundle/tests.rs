use std::io::Cursor;

use serde_json::{Value, json};

use super::*;
use crate::classifier::{Calibration, Thresholds};
use crate::network::{Activations, Network, Outputs, Tensor};
use crate::preprocessing::tests::plain;

/// A network that says the same of every image.
struct Constant(Vec<f32>);

impl Network for Constant {
    fn run(&mut self, _: &Tensor, _: Outputs) -> Result<Activations, NetworkError> {
        Ok(Activations {
            vectors: self.0.clone(),
            size: self.0.len(),
            map: None,
        })
    }
}

fn manifest(scale: f64) -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        name: "m".to_owned(),
        version: String::new(),
        classes: vec!["a".to_owned(), "b".to_owned()],
        classifier: ClassifierKind::Dnn,
        backbone: Backbone {
            name: "none".to_owned(),
            sha256: "0".repeat(64),
            licence: None,
        },
        feature_size: 2,
        preprocessing: plain(8),
        calibration: Calibration::Temperature { scale },
        thresholds: Thresholds {
            probability: 0.5,
            margin: 0.0,
        },
        files: BTreeMap::new(),
        metrics: BTreeMap::new(),
    }
}

/// A bundle with these golden scores of one image.
fn bundle(golden: &Value) -> Bundle {
    let mut png = Cursor::new(Vec::new());
    ::image::RgbImage::new(4, 4)
        .write_to(&mut png, ::image::ImageFormat::Png)
        .expect("a PNG is written to memory");
    let files = BTreeMap::from([
        ("golden/1.png".to_owned(), png.into_inner().into()),
        (GOLDEN.to_owned(), golden.to_string().into()),
    ]);
    Bundle::new(manifest(1.0), files)
}

/// Proves the bundle with a network that gives `vector`.
fn prove(bundle: &Bundle, vector: &[f32]) -> Result<(), BundleError> {
    let network = Box::new(Constant(vector.to_vec()));
    let featurizer = Featurizer::new(Limits::default(), bundle.manifest.preprocessing.clone(), network);
    bundle.verify_golden(&mut Pipeline::new(featurizer, bundle.head()?))
}

#[test]
fn golden_scores_must_prove_something() {
    let golden = |tolerance: f32, scores: &[f32]| {
        bundle(&json!({
            "tolerance": tolerance,
            "images": [{ "file": "1.png", "label": "a", "scores": scores }],
        }))
    };
    prove(&golden(Golden::TOLERANCE, &[0.5, 0.5]), &[1.0, 1.0]).expect("the scores that were seen");
    let error = prove(&golden(Golden::TOLERANCE, &[0.9, 0.1]), &[1.0, 1.0]).expect_err("other scores");
    assert!(matches!(error, BundleError::Parity { .. }), "{error}");
    for bundle in [
        golden(1.0, &[0.9, 0.1]),
        golden(-1.0, &[0.5, 0.5]),
        golden(Golden::TOLERANCE, &[0.5]),
        bundle(&json!({ "tolerance": Golden::TOLERANCE, "images": [] })),
    ] {
        let error = prove(&bundle, &[1.0, 1.0]).expect_err("no proof");
        assert!(matches!(error, BundleError::NoProof(_)), "{error}");
    }
}

#[test]
fn a_vector_of_another_length_is_an_error() {
    let golden = json!({
        "tolerance": Golden::TOLERANCE,
        "images": [{ "file": "1.png", "label": "a", "scores": [0.5, 0.5] }],
    });
    for vector in [&[1.0, 1.0, 9.0][..], &[1.0]] {
        let error = prove(&bundle(&golden), vector).expect_err("another length");
        assert!(error.to_string().contains("the classifier takes 2"), "{error}");
    }
}

#[test]
fn a_manifest_must_fit_together() {
    let read = |manifest: Manifest| Manifest::from_json(&Bundle::new(manifest, BTreeMap::new()).manifest.to_json());
    read(manifest(0.5)).expect("a manifest");
    for scale in [0.0, -1.0] {
        let error = read(manifest(scale)).expect_err("no scale").to_string();
        assert!(error.contains("scale"), "{error}");
    }
    let longer = Manifest {
        feature_size: 3,
        ..manifest(1.0)
    };
    let error = read(longer).expect_err("three logits for two classes").to_string();
    assert!(error.contains("its own head"), "{error}");
}

/// Other programs read by them.
#[test]
fn the_names_within_the_files_of_a_bundle_stay() {
    let keys = |json: &[u8]| -> Vec<String> {
        let object: BTreeMap<String, Value> = serde_json::from_slice(json).expect("an object");
        object.into_keys().collect()
    };
    let classifier = LinearClassifier {
        weights: vec![vec![1.0]],
        intercepts: vec![0.0],
        c: 1.0,
        solver: "by-hand".to_owned(),
    };
    let classifier = classifier.to_json().expect("usable");
    assert_eq!(keys(&classifier), ["C", "intercepts", "solver", "weights"]);
    let manifest = bundle(&json!({})).manifest.to_json();
    let expected = [
        "backbone",
        "calibration",
        "classes",
        "classifier",
        "feature_size",
        "files",
        "metrics",
        "name",
        "preprocessing",
        "schema_version",
        "thresholds",
        "version",
    ];
    assert_eq!(keys(&manifest), expected);
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let file = manifest["files"][GOLDEN].to_string();
    assert_eq!(keys(file.as_bytes()), ["sha256", "size"]);
}
