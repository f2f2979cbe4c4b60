//! Options about the pre-trained network.

use std::path::{Path, PathBuf};

use shared::network::Runtime;

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
    #[command(flatten)]
    normalization: NormalizationArguments,
}

/// How pixels become what the network takes, where it does not tell itself.
#[derive(Debug, clap::Args)]
pub struct NormalizationArguments {
    /// Mean of each channel in 8-bit units, for an ONNX file that does not tell
    #[arg(long, value_name = "M", value_delimiter = ',',
          value_parser = values::number("a finite number", |mean: &f32| mean.is_finite()))]
    mean: Vec<f32>,
    /// Standard deviation of each channel in 8-bit units, for an ONNX file that does not tell
    #[arg(long, value_name = "S", value_delimiter = ',',
          value_parser = values::number("a number above 0", |std: &f32| std.is_finite() && *std > 0.0))]
    std: Vec<f32>,
}

impl NetworkArguments {
    /// The network, obtained first where it is not there yet, and tried out where it is the user's own.
    pub fn obtain(&self, runtime: &Runtime, cache: &Cache, session: &Session) -> Result<Backbone, Failure> {
        let normalization = self.normalization.given()?;
        if normalization.is_some() && self.weights.is_none() && !is_file(&self.backbone) {
            session.warn(&format!(
                "--mean and --std take the place of those that {} was trained with, which makes it recognize less: \
                 they are for an ONNX file that does not tell its own",
                self.backbone
            ));
        }
        let mut network = obtain(&self.backbone, self.weights.as_deref(), normalization, cache, session)?;
        if let Some(resolution) = self.resolution {
            network = network.at(resolution)?;
        }
        network.try_out(runtime)?;
        Ok(network)
    }
}

impl NormalizationArguments {
    /// The networks of these names. Those of the catalogue have a normalization of their own.
    pub fn obtain(&self, names: &[String], cache: &Cache, session: &Session) -> Result<Vec<Backbone>, Failure> {
        let given = self.given()?;
        if given.is_some() && !names.iter().any(|name| is_file(name)) {
            session.warn("--mean and --std are for ONNX files: networks of the catalogue have their own");
        }
        let networks = names.iter().map(|name| {
            let normalization = given.filter(|_| is_file(name));
            obtain(name, None, normalization, cache, session)
        });
        networks.collect()
    }

    /// What is given, which must be both: the parser, which could ask for that too, does not see a parameter file.
    fn given(&self) -> Result<Option<PreprocessingOverride>, Failure> {
        match (triple(&self.mean), triple(&self.std)) {
            (Some(mean), Some(std)) => Ok(Some(PreprocessingOverride { mean, std })),
            (None, None) if self.mean.is_empty() && self.std.is_empty() => Ok(None),
            _ => Err(Failure::usage(
                "--mean and --std take three comma-separated numbers each",
            )),
        }
    }
}

fn obtain(
    name: &str,
    weights: Option<&Path>,
    normalization: Option<PreprocessingOverride>,
    cache: &Cache,
    session: &Session,
) -> Result<Backbone, Failure> {
    let network = backbone::obtain(name, weights, normalization, cache, &session.progress)?;
    for note in &network.notes {
        session.note(note);
    }
    Ok(network)
}

fn is_file(name: &str) -> bool {
    backbone::is_file(Path::new(name))
}

fn triple(values: &[f32]) -> Option<[f32; 3]> {
    values.try_into().ok()
}
