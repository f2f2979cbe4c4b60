//! The networks that are known by name: `resources/backbones.toml`, compiled in.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use shared::preprocessing::{ChannelOrder, Geometry, Preprocessing};

use super::BackboneError;
use super::architecture::Architecture;
use crate::setup::Source;

/// Name of the network that is used unless another is asked for.
pub const DEFAULT: &str = "efficientnet-lite0";

/// One network of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// What it is called on the command line.
    pub name: String,
    /// How its graph is built.
    pub architecture: Architecture,
    /// Licence of the weights, as an SPDX expression.
    pub licence: String,
    /// Length of its feature vector.
    pub feature_size: usize,
    /// Side of the square input that it was trained with, in pixels.
    pub resolution: u32,
    /// Order of the colour channels that it expects.
    pub channels: ChannelOrder,
    /// Mean of each channel in 8-bit units, in that order.
    pub mean: [f32; 3],
    /// Standard deviation of each channel in 8-bit units.
    pub std: [f32; 3],
    /// SHA-256 of the weights file, or of the archive that holds it.
    pub sha256: String,
    /// Where the weights come from.
    pub source: Source,
}

impl CatalogueEntry {
    /// How images are prepared for it.
    pub fn preprocessing(&self) -> Preprocessing {
        preprocessing(self.resolution, self.channels, self.mean, self.std)
    }
}

/// Preprocessing with a letterbox on the colour that becomes zero: what surrounds the picture then says as
/// little to the network as can be.
pub(super) fn preprocessing(resolution: u32, channels: ChannelOrder, mean: [f32; 3], std: [f32; 3]) -> Preprocessing {
    let mut background = mean.map(|value| value.round().clamp(0.0, 255.0) as u8);
    if channels == ChannelOrder::Bgr {
        background.reverse();
    }
    Preprocessing {
        resolution,
        geometry: Geometry::Letterbox,
        background,
        channels,
        mean,
        std,
    }
}

/// Every network of the catalogue.
///
/// # Panics
/// Never: the file is part of the program, and a test reads it.
pub fn catalogue() -> &'static [CatalogueEntry] {
    #[derive(Deserialize)]
    struct File {
        backbone: Vec<CatalogueEntry>,
    }
    static CATALOGUE: LazyLock<Vec<CatalogueEntry>> = LazyLock::new(|| {
        let text = include_str!("../../../resources/backbones.toml");
        toml::from_str::<File>(text)
            .expect("the catalogue is well formed")
            .backbone
    });
    &CATALOGUE
}

/// The network of that name.
///
/// # Errors
/// [`BackboneError::Unknown`].
pub fn find(name: &str) -> Result<&'static CatalogueEntry, BackboneError> {
    catalogue()
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| BackboneError::Unknown {
            name: name.to_owned(),
            known: catalogue()
                .iter()
                .map(|entry| entry.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_agrees_with_its_architecture() {
        assert!(catalogue().iter().any(|entry| entry.name == DEFAULT));
        for entry in catalogue() {
            assert_eq!(entry.feature_size, entry.architecture.feature_size(), "{}", entry.name);
        }
    }

    /// The eight digits that a publisher writes into a file's name tell damage, and no other file made to have them.
    #[test]
    fn every_entry_is_pinned_by_a_whole_hash() {
        let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        for entry in catalogue() {
            assert!(
                entry.sha256.len() == 64 && entry.sha256.bytes().all(is_digit),
                "{}",
                entry.name
            );
            if let Source::Url { url } = &entry.source {
                let name = url.trim_end_matches(".pth");
                let published = name.rsplit('-').next().expect("digits");
                assert!(entry.sha256.starts_with(published), "{url}");
            }
        }
    }
}
