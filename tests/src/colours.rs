//! A model small enough to make by hand and real in every other way: it tells red from green from blue.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use shared::bundle::{
    Backbone, Bundle, ClassifierKind, GOLDEN, Golden, GoldenImage, MODEL, Manifest, SCHEMA_VERSION, SVM,
};
use shared::classifier::{Calibration, LinearClassifier, Thresholds};
use shared::image::Limits;
use shared::network::Runtime;
use shared::preprocessing::{ChannelOrder, Geometry, Preprocessing};
use trainer::backbone::PREPROCESSING_KEY;
use trainer::onnx::GraphBuilder;
use trainer::onnx::proto::DimensionValue;

use crate::encoded;
use crate::program::{say, trainer};

/// The colours, in the order of the classes.
pub const COLOURS: [(&str, [u8; 3]); 3] = [
    ("red", [250, 10, 10]),
    ("green", [10, 250, 10]),
    ("blue", [10, 10, 250]),
];

/// The ONNX Runtime library that the trainer uses.
///
/// # Panics
/// Where it cannot be obtained.
pub fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| PathBuf::from(obtained()["library"].as_str().expect("a path")))
}

/// A cache within `folder` for one test alone, but for what was obtained from outside: that is the user's.
///
/// # Panics
/// Where it cannot be obtained or linked.
pub fn own_cache(folder: &Path) -> PathBuf {
    let cache = folder.join("cache");
    std::fs::create_dir(&cache).expect("a folder");
    let users = Path::new(obtained()["cache"].as_str().expect("a path"));
    for kind in ["runtime", "downloads", "backbones"] {
        std::os::unix::fs::symlink(users.join(kind), cache.join(kind)).expect("a link");
    }
    cache
}

/// What `trainer setup` has obtained, and where.
fn obtained() -> &'static Value {
    static OBTAINED: OnceLock<Value> = OnceLock::new();
    OBTAINED.get_or_init(|| say(&mut trainer(&["setup", "--json"])).ended_with(0).json())
}

/// A picture of one colour.
pub fn png(colour: [u8; 3]) -> Vec<u8> {
    let picture = image::RgbImage::from_pixel(24, 24, image::Rgb(colour));
    encoded(picture, image::ImageFormat::Png)
}

/// A bundle whose classes are called `PREFIX-red` and so on, so that a label tells which version gave it.
///
/// # Panics
/// When the runtime library cannot be used.
pub fn bundle(prefix: &str) -> Bundle {
    golden(untested_bundle(prefix))
}

/// The same with golden scores that no machine computes.
///
/// # Panics
/// As [`bundle`].
pub fn lying_bundle(prefix: &str) -> Bundle {
    let bundle = bundle(prefix);
    let mut files = bundle.files.clone();
    let mut golden: Golden = serde_json::from_slice(&files[GOLDEN]).expect("golden scores");
    golden.images[0].scores.reverse();
    files.insert(GOLDEN.to_owned(), serde_json::to_vec(&golden).expect("JSON").into());
    Bundle::new(bundle.manifest, files)
}

fn untested_bundle(prefix: &str) -> Bundle {
    let classes: Vec<String> = COLOURS.iter().map(|(name, _)| format!("{prefix}-{name}")).collect();
    let classifier = LinearClassifier {
        weights: vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]],
        intercepts: vec![0.0; 3],
        c: 1.0,
        solver: "by-hand".to_owned(),
    };
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        name: "colours".to_owned(),
        version: String::new(),
        classes,
        classifier: ClassifierKind::Svm,
        backbone: Backbone {
            name: "mean-colour".to_owned(),
            sha256: "0".repeat(64),
            licence: None,
        },
        feature_size: 3,
        preprocessing: preprocessing(16),
        calibration: Calibration::Temperature { scale: 5.0 },
        thresholds: Thresholds {
            probability: 0.5,
            margin: 0.5,
        },
        files: BTreeMap::new(),
        metrics: BTreeMap::from([("accuracy".to_owned(), 1.0)]),
    };
    let files = BTreeMap::from([
        (MODEL.to_owned(), Bytes::from(network())),
        (SVM.to_owned(), classifier.to_json().expect("a classifier").into()),
    ]);
    Bundle::new(manifest, files)
}

fn preprocessing(resolution: u32) -> Preprocessing {
    Preprocessing {
        resolution,
        geometry: Geometry::Letterbox,
        background: [0; 3],
        channels: ChannelOrder::Rgb,
        mean: [0.0; 3],
        std: [255.0; 3],
    }
}

/// The network as an ONNX file: the mean of each channel; the feature map is the image itself.
///
/// # Panics
/// Never: preprocessing has a JSON form.
pub fn network() -> Vec<u8> {
    let preprocessing = serde_json::to_string(&preprocessing(32)).expect("JSON");
    let mut graph = GraphBuilder::new("mean-colour");
    let map = graph.node("map", "Identity", &["image"], &[]);
    let pooled = graph.node("pooled", "GlobalAveragePool", &[&map], &[]);
    let features = graph.node("features", "Flatten", &[&pooled], &[]);
    let named = DimensionValue::named;
    let vector = [named("N"), DimensionValue::Fixed(3)];
    let planes = [named("N"), DimensionValue::Fixed(3), named("H"), named("W")];
    graph
        .finish(
            "image",
            &[(&features, &vector), (&map, &planes)],
            &[(PREPROCESSING_KEY, preprocessing)],
        )
        .encode_to_vec()
}

fn golden(bundle: Bundle) -> Bundle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::load(&[library().clone()]).expect("the runtime library"));
    let mut pipeline = bundle.pipeline(runtime, Limits::default(), 1).expect("a pipeline");
    let mut files = bundle.files.clone();
    let mut golden = Golden {
        tolerance: Golden::TOLERANCE,
        images: Vec::new(),
    };
    for (name, colour) in COLOURS {
        let bytes = png(colour);
        let (prediction, _) = pipeline.predict(&bytes).expect("a prediction");
        files.insert(format!("golden/{name}.png"), bytes.into());
        golden.images.push(GoldenImage {
            file: format!("{name}.png"),
            label: bundle.manifest.classes[prediction.best].clone(),
            scores: prediction.probabilities,
        });
    }
    files.insert(GOLDEN.to_owned(), serde_json::to_vec(&golden).expect("JSON").into());
    Bundle::new(bundle.manifest, files)
}
