//! Options of the refinement.

mod changes;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Command, Id, ValueEnum};

use crate::device::Device;
use crate::refine::Trained;

/// The option that also says where features are computed.
const DEVICE: &str = "device";

/// How the network is refined, for the classifiers dnn and svm-refined.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Refinement (dnn, svm-refined)")]
pub struct RecipeArguments {
    /// The set of values that the options below change
    #[arg(long, value_enum, default_value_t = Preset::Standard)]
    recipe: Preset,
    /// Where the network is refined: auto, cpu, wgpu, cuda, or cards by number as in cuda:1 and cuda:0,1. On cards that
    /// are named, features are computed too
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Folder for events of each epoch that TensorBoard can follow while the training runs [default: none; a finished
    /// run holds them in any case]
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
    /// Passes over the training images [default: 20; original: 45]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images per step [default: 16]
    #[arg(long, value_name = "N")]
    minibatch: Option<usize>,
    /// Most images seen in each epoch, drawn anew for each [default: all]
    #[arg(long, value_name = "N")]
    images_per_epoch: Option<usize>,
    /// Largest learning rate, per minibatch [default: 0.0003; original: 0.01]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f32>,
    /// Course of the learning rate [default: cosine; original: steps]
    #[arg(long, value_enum)]
    schedule: Option<Course>,
    /// Epochs and learning rate of each step of the schedule `steps`; the last goes on to the end [default:
    /// 20:0.01,20:0.001,5:0.0001]
    #[arg(long, value_name = "EPOCHS:RATE", value_delimiter = ',', value_parser = rate_step)]
    rate_steps: Vec<(usize, f32)>,
    /// How a step follows from gradients [default: adamw; original: sgd]
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,
    /// Share of the last step that sgd keeps [default: 0.9]
    #[arg(long, value_name = "SHARE")]
    momentum: Option<f32>,
    /// L2 regularization of sgd, decoupled weight decay of adamw [default: 0.05 for adamw, 0.0005 for sgd]
    #[arg(long, value_name = "FACTOR")]
    weight_decay: Option<f32>,
    /// Which part is trained: head, last-stage, a number of layers counted from the end, or all [default:
    /// last-stage on a processor, all on a GPU; original: head]
    #[arg(long, value_name = "PART", value_parser = part)]
    trained: Option<Trained>,
    /// Factor of the learning rate from each trained layer to the one below it [default: 1]
    #[arg(long, value_name = "FACTOR")]
    layer_decay: Option<f32>,
    /// How the last layer begins [default: svm; original: random]
    #[arg(long, value_enum)]
    head_start: Option<Start>,
    /// Share of the features dropped before the last layer [default: 0.2; original: 0.5]
    #[arg(long, value_name = "SHARE")]
    dropout: Option<f32>,
    /// Share of the wanted probability spread over all classes [default: 0.1; original: 0]
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f32>,
    /// How strongly pairs of images are mixed; 0 for not at all [default: 0]
    #[arg(long, value_name = "ALPHA")]
    mixup: Option<f32>,
    /// Longest side of an image before it is cropped, in units of the network's input [default: 1.5; original: 2]
    #[arg(long, value_name = "FACTOR")]
    scale: Option<f32>,
    /// Smallest share of each side that a random crop keeps; 1 for no crop [default: 0.6; original: 0.9]
    #[arg(long, value_name = "SHARE")]
    crop: Option<f32>,
    /// Whether half of the images are mirrored left to right [default: true]
    #[arg(long, value_name = "BOOL")]
    flip: Option<bool>,
    /// Largest relative change of brightness, contrast and saturation [default: 0.2]
    #[arg(long, value_name = "SHARE")]
    color_jitter: Option<f32>,
    /// Operations that RandAugment puts on each image; 0 for none [default: 0]
    #[arg(long, value_name = "N")]
    rand_augment: Option<u32>,
    /// Magnitude of RandAugment, from 0 to 30 [default: 9]
    #[arg(long, value_name = "M")]
    rand_augment_magnitude: Option<u32>,
    /// Variations of each image over which the epochs go in turn [default: 10]
    #[arg(long, value_name = "N")]
    views: Option<usize>,
    /// Statistics that batch normalization uses while training [default: frozen]
    #[arg(long, value_enum)]
    batch_norm: Option<BatchNorm>,
    /// Numbers that are multiplied while training: f32, or bf16, which is faster on GPUs with matrix units for it;
    /// weights and sums are f32 in any case [default: f32]
    #[arg(long, value_enum)]
    precision: Option<Numbers>,
    /// Share of the old value kept in the moving average of the weights that is used in the end; 0 for no average
    /// [default: 0.99; original: 0]
    #[arg(long, value_name = "SHARE")]
    average_decay: Option<f32>,
    /// Largest Euclidean length of a gradient; 0 for no limit [default: 1; original: 0]
    #[arg(long, value_name = "LENGTH")]
    clip_norm: Option<f32>,
    /// Share of the training part held out to choose the epoch and to calibrate, rounded to a half, a third, a quarter
    /// and so on [default: 0.15]
    #[arg(long, value_name = "SHARE")]
    validation: Option<f64>,
    /// Stop after so many epochs without a better validation [default: never]
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// Nothing else that was tried was better on test images
    Standard,
    /// The values of Microsoft's sample of 2017
    Original,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Course {
    /// The same all the time
    Constant,
    /// Those of --rate-steps
    Steps,
    /// A short rise, then half a cosine down
    Cosine,
    /// A long rise, then down, each half a cosine
    OneCycle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OptimizerName {
    /// Stochastic gradient descent with momentum
    Sgd,
    /// Adam with decoupled weight decay
    Adamw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Start {
    /// As the linear SVM on the unrefined features
    Svm,
    /// At random
    Random,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BatchNorm {
    /// Those of the pre-trained network: right for small batches
    Frozen,
    /// Those of each batch
    Batch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Numbers {
    /// 32 bits
    F32,
    /// 16 bits with the range of those of 32
    Bf16,
}

impl RecipeArguments {
    /// Those of the options `typed` that say nothing but how a network is refined, as they are typed.
    pub fn among(typed: &[Id]) -> Vec<String> {
        let command = Self::augment_args(Command::new("refinement"));
        let of_refinement = command.get_arguments().filter(|option| option.get_id() != DEVICE);
        let typed = of_refinement.filter(|option| typed.contains(option.get_id()));
        typed
            .filter_map(|option| Some(format!("--{}", option.get_long()?)))
            .collect()
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

fn rate_step(text: &str) -> Result<(usize, f32), String> {
    let step = text.split_once(':').and_then(|(epochs, rate)| {
        let (epochs, rate) = (epochs.trim().parse().ok()?, rate.trim().parse().ok()?);
        Some((epochs, rate))
    });
    step.ok_or_else(|| "give epochs and rate, 20:0.01 for example".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_refinement_are_known_among_those_typed() {
        let typed = ["learning_rate", "device", "seed", "epochs"].map(Id::from);
        assert_eq!(RecipeArguments::among(&typed), ["--epochs", "--learning-rate"]);
        assert!(RecipeArguments::among(&[]).is_empty());
    }

    #[test]
    fn a_step_of_the_rate_that_is_none_is_told_with_an_example() {
        assert_eq!(rate_step("3:0.1"), Ok((3, 0.1)));
        assert!(rate_step("3").is_err_and(|reason| reason.contains("20:0.01")));
    }
}
