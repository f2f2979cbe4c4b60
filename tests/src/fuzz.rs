//! What may be fed with anything: each target takes bytes that nobody has looked at and panics where a promise is
//! broken.
//!
//! `tests/fuzz.rs` runs what is committed in `corpus/` and mutations of it; `bin/fuzz.rs` lets libFuzzer look for more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use shared::bundle::{Bundle, Manifest};
use shared::classifier::LinearClassifier;
use shared::image::{Limits, decode, decode_to_fit, probe};
use shared::service::{Item, Request, Service};
use trainer::backbone::{self, PreprocessingOverride, Weights};
use trainer::onnx::proto::ModelProto;
use trainer::refine::network::Graph;
use trainer::setup::Cache;

use crate::{bundles, lasting_folder};

/// A target: its name, which is that of its corpus, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 9] = [
    ("request", request),
    ("base64", base64),
    ("image", image),
    ("manifest", manifest),
    ("svm", svm),
    ("onnx", onnx),
    ("checkpoint", checkpoint),
    ("safetensors", safetensors),
    ("event", event),
];

/// Small, so that an input that takes more than it may is noticed.
const LIMITS: Limits = Limits {
    max_bytes: 8 << 20,
    max_pixels: 4_000_000,
    max_allocation: 32 << 20,
};

/// A request of any method, path and content type, answered by a service whose network is the mean of its input. The
/// first byte chooses method and path, the second the content type, the rest is the body.
///
/// # Panics
/// For an answer that the interface does not know.
pub fn request(input: &[u8]) {
    const ROUTES: [(&str, &str); 8] = [
        ("POST", "/"),
        ("POST", "/score"),
        ("POST", "/v2/models/textures/infer"),
        ("GET", "/v2/models/textures"),
        ("GET", "/model"),
        ("GET", "/health/ready"),
        ("DELETE", "/"),
        ("POST", "/nowhere"),
    ];
    const TYPES: [Option<&str>; 4] = [Some("application/json"), Some("image/png"), Some("text/plain"), None];
    let [route, content_type, body @ ..] = input else {
        return;
    };
    let (method, path) = ROUTES[usize::from(*route) % ROUTES.len()];
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        content_type: TYPES[usize::from(*content_type) % TYPES.len()].map(str::to_owned),
        body: Bytes::copy_from_slice(body),
    };
    let response = service().answer(&request);
    let document: Value = serde_json::from_slice(&response.body).expect("an answer is JSON");
    match response.status {
        200 => {}
        400 | 403 | 404 | 405 | 413 | 415 | 422 => assert!(!document["error"].is_null(), "{document}"),
        status => panic!("{status} {document}"),
    }
}

fn service() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| bundles::service(LIMITS, 32))
}

/// Base64 as callers write it, and as it should be written.
///
/// # Panics
/// Where what was encoded is not what comes out.
pub fn base64(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(Item::Bytes(bytes)) = Item::read(&text) {
        assert!(bytes.len() <= text.len());
    }
    if !input.is_empty() {
        let Ok(Item::Bytes(bytes)) = Item::read(&STANDARD.encode(input)) else {
            panic!("proper base64 is read")
        };
        assert_eq!(bytes, input);
    }
}

/// An image file.
///
/// # Panics
/// For an image past the limits, or one whose header said otherwise.
pub fn image(input: &[u8]) {
    let header = probe(input, &LIMITS);
    // At an eighth, a quarter and a half where it can be.
    let longer = header.as_ref().map_or(1, |(_, width, height)| *width.max(height));
    for side in [1, longer / 6, longer / 3] {
        let _ = decode_to_fit(input, &LIMITS, side);
    }
    if let Ok(pixels) = decode(input, &LIMITS) {
        let (width, height) = pixels.dimensions();
        assert!(width > 0 && height > 0 && u64::from(width) * u64::from(height) <= LIMITS.max_pixels);
        let (_, told_width, told_height) = header.expect("what is decoded has a header");
        assert_eq!((width, height), (told_width, told_height));
    }
}

/// `manifest.json`, and the bundle that it would be of.
///
/// # Panics
/// Where a manifest that was read is not written as it was.
pub fn manifest(input: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(input) {
        let again = Manifest::from_json(&manifest.to_json()).expect("it was read once");
        assert_eq!(again, manifest);
    }
    // With the version that follows from the rest, which nobody finds by chance.
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(input) {
        let bundle = Bundle::new(manifest, BTreeMap::new());
        if let (Ok(_), Ok(head)) = (Manifest::from_json(&bundle.manifest.to_json()), bundle.head()) {
            let margins = vec![0.5; head.classes.len()];
            let prediction = head.decide(margins);
            assert!(
                prediction.probabilities.iter().all(|share| (0.0..=1.0).contains(share)),
                "{prediction:?}"
            );
        }
    }
}

/// `svm.json`.
///
/// # Panics
/// For a classifier that gives something else than numbers.
pub fn svm(input: &[u8]) {
    if let Ok(classifier) = LinearClassifier::from_json(input) {
        let margins = classifier.margins(&vec![0.0; classifier.features()]);
        assert_eq!(margins.len(), classifier.classes());
        assert!(margins.iter().all(|margin| margin.is_finite()));
        let again = LinearClassifier::from_json(&classifier.to_json().expect("usable")).expect("it was read once");
        assert_eq!(again, classifier);
    }
}

/// A network of somebody's own: cut where its features are, and read as a graph that is refined.
///
/// # Panics
/// Where a reader does.
pub fn onnx(input: &[u8]) {
    let path = file("onnx", input);
    let normalization = PreprocessingOverride {
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let cache = Cache::at(path.parent().expect("a folder"));
    let name = path.to_str().expect("Unicode");
    if let Ok(own) = backbone::obtain(name, None, Some(normalization), &cache, &trainer::progress::Silent) {
        assert!(own.feature_size > 0);
        for form in [own.onnx, own.trainable] {
            let _ = std::fs::remove_file(form);
        }
    }
    if let Ok(model) = ModelProto::decode(input) {
        let outputs = model.graph.iter().flat_map(|graph| graph.output.iter());
        for output in outputs {
            if let Ok(graph) = Graph::read(&model, None, &output.name) {
                trainer::refine::network::boundaries(&graph);
            }
        }
    }
}

/// A PyTorch checkpoint, from which no code comes.
///
/// # Panics
/// Where the reader does.
pub fn checkpoint(input: &[u8]) {
    let _ = Weights::read(&file("pth", input));
}

/// A `.safetensors` file.
///
/// # Panics
/// Where the reader does.
pub fn safetensors(input: &[u8]) {
    let _ = Weights::read(&file("safetensors", input));
}

/// An event as AWS Lambda brings it.
///
/// # Panics
/// Where the reader does.
pub fn event(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        scorer::examine_event(text);
    }
}

/// The input as a file, in memory where the system has such files.
fn file(extension: &str, input: &[u8]) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            lasting_folder(memory)
        } else {
            lasting_folder(&std::env::temp_dir())
        }
    });
    let path = folder.join(format!("input.{extension}"));
    std::fs::write(&path, input).expect("written");
    path
}
