//! Options about the pre-trained network.

use std::path::{Path, PathBuf};

use super::Session;
use super::failure::Failure;
use super::values;
use crate::backbone::{self, Backbone, PreprocessingOverride};
use crate::setup::Cache;

/// The pre-trained network and how images are prepared for it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArguments {
    /// A name from the catalogue (`trainer setup --list`) or an ONNX file
    #[arg(long, value_name = "NAME|FILE", default_value = backbone::DEFAULT, value_parser = values::network)]
    backbone: String,
    /// Weights for a network of the catalogue, as .pth or .safetensors, instead of obtaining them
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Side of the network's square input, in pixels [default: the network's own]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=2048))]
    resolution: Option<u32>,
    /// Mean of each channel in 8-bit units, for an ONNX file that does not tell
    #[arg(long, value_name = "M", value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// Standard deviation of each channel in 8-bit units, for an ONNX file that does not tell
    #[arg(long, value_name = "S", value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
}

impl NetworkArguments {
    /// The network, obtained first where it is not there yet.
    pub fn obtain(&self, cache: &Cache, session: &Session) -> Result<Backbone, Failure> {
        let normalization = match (triple(&self.mean), triple(&self.std)) {
            (Some(mean), Some(std)) => Some(PreprocessingOverride { mean, std }),
            (None, None) if self.mean.is_empty() && self.std.is_empty() => None,
            _ => {
                return Err(Failure::usage(
                    "--mean and --std take three comma-separated numbers each",
                ));
            }
        };
        obtain(
            &self.backbone,
            self.weights.as_deref(),
            normalization,
            self.resolution,
            cache,
            session,
        )
    }
}

/// The network `name`, to be run at `resolution` where one is given.
pub fn obtain(
    name: &str,
    weights: Option<&Path>,
    normalization: Option<PreprocessingOverride>,
    resolution: Option<u32>,
    cache: &Cache,
    session: &Session,
) -> Result<Backbone, Failure> {
    let mut backbone = backbone::obtain(name, weights, normalization, cache, &session.progress)
        .map_err(|error| Failure::backbone(&error))?;
    if let Some(resolution) = resolution {
        backbone.preprocessing.resolution = resolution;
    }
    Ok(backbone)
}

fn triple(values: &[f32]) -> Option<[f32; 3]> {
    values.try_into().ok()
}
