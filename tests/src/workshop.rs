//! Trainings that take a second: noisy pictures of a few colours, a network that averages them (`colours.onnx`), and
//! one with weights (`convolutional.onnx`).

use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use trainer::onnx::proto::DimensionValue;
use trainer::onnx::{Attribute, GraphBuilder};

use crate::bundles::noise;
use crate::colours::{COLOURS, library, network};
use crate::encoded;
use crate::program::trainer;

/// What the networks of a workshop take.
const INPUT: [&str; 6] = ["--resolution", "32", "--mean", "0,0,0", "--std", "255,255,255"];

/// A folder with two networks, a data set and a cache of its own.
pub struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    /// A workshop whose data set has `count` pictures of each colour.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn new(count: u8) -> Self {
        let workshop = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        for (name, network) in [("colours.onnx", network()), ("convolutional.onnx", convolutional())] {
            std::fs::write(workshop.path(name), network).expect("written");
        }
        for (class, (name, _)) in COLOURS.iter().enumerate() {
            for number in 0..count {
                let path = workshop.path("data").join(name).join(format!("{number:03}.png"));
                picture(&path, class, u64::from(number));
            }
        }
        workshop
    }

    /// Where `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the trainer that works in the folder, with the workshop's own cache.
    pub fn trainer(&self, arguments: &[&str]) -> Command {
        let mut command = trainer(arguments);
        command
            .current_dir(self.folder.path())
            .env("IKAT_CACHE", self.path("cache"))
            .env("ORT_DYLIB_PATH", library());
        command
    }

    /// `trainer train --json` of `data` to `out`, both within the folder.
    pub fn train(&self, data: &str, out: &str) -> Command {
        self.train_by("colours.onnx", data, out)
    }

    /// The same with another network of the folder.
    pub fn train_by(&self, network: &str, data: &str, out: &str) -> Command {
        let mut command = self.trainer(&["train", "--json", "--data", data, "--out", out, "--backbone", network]);
        command.args(INPUT);
        command
    }
}

/// Writes a noisy picture of the colour that stands at `class`, another one for each `seed`; no two are
/// near-duplicates. Folders are made.
///
/// # Panics
/// When it cannot be written.
pub fn picture(path: &Path, class: usize, seed: u64) {
    let seed = seed * COLOURS.len() as u64 + class as u64;
    let mut values = noise(seed, 24 * 24 * 3).into_iter();
    let (_, colour) = COLOURS[class % COLOURS.len()];
    let pixels = image::RgbImage::from_fn(24, 24, |_, _| {
        image::Rgb(colour.map(|value| value / 2 + values.next().unwrap_or_default() / 2))
    });
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, encoded(pixels, image::ImageFormat::Png)).expect("written");
}

/// A network with weights that can be refined: one convolution to eight channels, and their means.
fn convolutional() -> Vec<u8> {
    let mut graph = GraphBuilder::new("convolutional");
    let weights: Vec<f32> = noise(1, 8 * 3 * 9)
        .iter()
        .map(|value| (f32::from(*value) - 127.5) / 500.0)
        .collect();
    let weights = graph.initializer("weights", &[8, 3, 3, 3], &weights);
    let window = [
        ("kernel_shape", Attribute::Ints(vec![3, 3])),
        ("strides", Attribute::Ints(vec![2, 2])),
        ("pads", Attribute::Ints(vec![1, 1, 1, 1])),
    ];
    let convolved = graph.node("convolved", "Conv", &["image", &weights], &window);
    let map = graph.node("map", "Relu", &[&convolved], &[]);
    let pooled = graph.node("pooled", "GlobalAveragePool", &[&map], &[]);
    let features = graph.node("features", "Flatten", &[&pooled], &[]);
    let vector = [DimensionValue::named("N"), DimensionValue::Fixed(8)];
    graph.finish("image", &[(&features, &vector)], &[]).encode_to_vec()
}
