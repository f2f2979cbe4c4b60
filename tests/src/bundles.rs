//! Bundles and services for tests that do not care what the network computes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shared::bundle::{Backbone, Bundle, ClassifierKind, MODEL, Manifest, SCHEMA_VERSION};
use shared::classifier::{Calibration, Head, Thresholds};
use shared::image::Limits;
use shared::network::{Activations, Network, NetworkError, Outputs, Tensor};
use shared::pipeline::{Featurizer, Pipeline};
use shared::preprocessing::{ChannelOrder, Geometry, Preprocessing};
use shared::service::{Service, Version};

use crate::dice::Dice;

/// A bundle whose version depends on `seed`, with `size` bytes in place of a network.
pub fn bundle(seed: u8, size: usize) -> Bundle {
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        name: "textures".to_owned(),
        version: String::new(),
        classes: vec!["dotted".to_owned(), "striped".to_owned()],
        classifier: ClassifierKind::Dnn,
        backbone: Backbone {
            name: "none".to_owned(),
            sha256: "0".repeat(64),
            licence: None,
        },
        feature_size: 2,
        preprocessing: Preprocessing {
            resolution: 32,
            geometry: Geometry::Letterbox,
            background: [0; 3],
            channels: ChannelOrder::Rgb,
            mean: [127.0; 3],
            std: [128.0; 3],
        },
        calibration: Calibration::Temperature { scale: 1.0 },
        thresholds: Thresholds {
            probability: 0.5,
            margin: 0.0,
        },
        files: BTreeMap::new(),
        metrics: BTreeMap::from([("accuracy".to_owned(), 0.875)]),
    };
    let files = BTreeMap::from([
        (MODEL.to_owned(), noise(seed.into(), size)),
        ("golden/1.jpg".to_owned(), noise(u64::from(seed) + 1, 500)),
    ]);
    Bundle::new(manifest, files)
}

/// Bytes without a pattern that a shifted or repeated part would go unnoticed in.
pub fn noise(seed: u64, size: usize) -> Bytes {
    let mut dice = Dice::at(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..size).map(|_| dice.draw() as u8).collect()
}

/// A service whose network, the mean of its input, needs no runtime, and takes images of `resolution` pixels a side.
pub fn service(limits: Limits, resolution: u32) -> Service {
    let mut manifest = bundle(1, 10).manifest;
    manifest.preprocessing.resolution = resolution;
    let head = Head {
        classes: manifest.classes.clone(),
        classifier: None,
        calibration: manifest.calibration.clone(),
        thresholds: manifest.thresholds,
    };
    let featurizer = Featurizer::new(limits, manifest.preprocessing.clone(), Box::new(Mean));
    Service::new(Arc::new(Version::new(manifest, vec![Pipeline::new(featurizer, head)])))
}

struct Mean;

impl Network for Mean {
    fn run(&mut self, images: &Tensor, _: Outputs) -> Result<Activations, NetworkError> {
        let mean = images.data().iter().sum::<f32>() / images.data().len() as f32;
        Ok(Activations {
            vectors: vec![mean, 1.0 - mean],
            size: 2,
            map: None,
        })
    }
}
