//! Options of the refinement.

use std::str::FromStr;

use clap::ValueEnum;

use crate::refine::network::Statistics;
use crate::refine::{Device, Recipe, Trained};

/// How the network is refined, for the classifiers dnn and svm-refined.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Refinement (dnn, svm-refined)")]
pub struct RecipeArguments {
    /// The set of values that the options below change
    #[arg(long, value_enum, default_value_t = Preset::Standard)]
    recipe: Preset,
    /// Where the network is refined: auto, cpu, cuda, cuda:1, wgpu
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Passes over the training images [default: 20; original: 45]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images per step [default: 16]
    #[arg(long, value_name = "N")]
    minibatch: Option<usize>,
    /// Largest learning rate [default: 0.0003; original: 0.01]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f32>,
    /// Which part is trained: head, last-stage, a number of layers counted from the end, or all [default:
    /// last-stage on a processor, all on a GPU; original: head]
    #[arg(long, value_name = "PART", value_parser = part)]
    trained: Option<Trained>,
    /// Share of the features dropped before the last layer [default: 0.2; original: 0.5]
    #[arg(long, value_name = "SHARE")]
    dropout: Option<f32>,
    /// Share of the wanted probability spread over all classes [default: 0.1; original: 0]
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f32>,
    /// How strongly pairs of images are mixed; 0 for not at all [default: 0]
    #[arg(long, value_name = "ALPHA")]
    mixup: Option<f32>,
    /// Variations of each image over which the epochs go in turn [default: 10]
    #[arg(long, value_name = "N")]
    views: Option<usize>,
    /// Statistics that batch normalization uses while training [default: frozen]
    #[arg(long, value_enum)]
    batch_norm: Option<BatchNorm>,
    /// Share of the training part held out to choose the epoch and to calibrate [default: 0.15]
    #[arg(long, value_name = "SHARE")]
    validation: Option<f64>,
    /// Stop after so many epochs without a better validation [default: never]
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// What did best in measurements on small photo collections
    Standard,
    /// The values of Microsoft's sample of 2017
    Original,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BatchNorm {
    /// Those of the pre-trained network: right for small batches
    Frozen,
    /// Those of each batch
    Batch,
}

impl RecipeArguments {
    /// The preset with what was given changed in it.
    pub fn recipe(&self, seed: u64) -> Recipe {
        let mut recipe = match self.recipe {
            Preset::Standard => Recipe::standard(seed),
            Preset::Original => Recipe::original(seed),
        };
        if self.recipe == Preset::Standard && self.device.is_accelerator() {
            recipe.trained = Trained::All;
        }
        if let Some(rate) = self.learning_rate {
            recipe.schedule = recipe.schedule.with_peak(rate);
        }
        replace(&mut recipe.epochs, self.epochs);
        replace(&mut recipe.minibatch, self.minibatch);
        replace(&mut recipe.trained, self.trained);
        replace(&mut recipe.dropout, self.dropout);
        replace(&mut recipe.label_smoothing, self.label_smoothing);
        replace(&mut recipe.mixup, self.mixup);
        replace(&mut recipe.views, self.views);
        replace(&mut recipe.validation, self.validation);
        let statistics = self.batch_norm.map(|statistics| match statistics {
            BatchNorm::Frozen => Statistics::Frozen,
            BatchNorm::Batch => Statistics::Batch,
        });
        replace(&mut recipe.statistics, statistics);
        recipe.patience = self.patience.or(recipe.patience);
        recipe
    }
}

fn replace<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}

fn part(text: &str) -> Result<Trained, String> {
    match text {
        "head" => Ok(Trained::Head),
        "last-stage" => Ok(Trained::LastStage),
        "all" => Ok(Trained::All),
        number => match usize::from_str(number) {
            Ok(layers) if layers > 0 => Ok(Trained::Layers(layers)),
            _ => Err("give head, last-stage, all, or a number of layers".to_owned()),
        },
    }
}
