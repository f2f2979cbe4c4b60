//! Options of the refinement.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Command, Id, ValueEnum};

use crate::device::Device;
use crate::refine::engine::Optimizer;
use crate::refine::network::{Precision, Statistics};
use crate::refine::{HeadStart, Recipe, Schedule, Trained};

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
    /// Folder for events of each epoch that TensorBoard can follow while the training runs [default: none; a finished run
    /// holds them in any case]
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
    /// Numbers that are multiplied while training: f32, or bf16, which GPUs with matrix units for it are faster with; weights
    /// and sums are f32 in any case [default: f32]
    #[arg(long, value_enum)]
    precision: Option<Numbers>,
    /// Share of the old value kept in the moving average of the weights that is used in the end; 0 for no average
    /// [default: 0.99; original: 0]
    #[arg(long, value_name = "SHARE")]
    average_decay: Option<f32>,
    /// Largest Euclidean length of a gradient; 0 for no limit [default: 1; original: 0]
    #[arg(long, value_name = "LENGTH")]
    clip_norm: Option<f32>,
    /// Share of the training part held out to choose the epoch and to calibrate [default: 0.15]
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

    /// What to say of the options `typed` that `recipe`, which was made of these, has no use for.
    pub fn idle(&self, typed: &[Id], recipe: &Recipe) -> Vec<&'static str> {
        let has_steps = matches!(recipe.schedule, Schedule::Steps(_)) && self.schedule != Some(Course::Constant);
        let has_momentum = matches!(recipe.optimizer, Optimizer::Sgd { .. });
        let options = [
            ("rate_steps", has_steps, "--rate-steps is for --schedule steps alone"),
            ("momentum", has_momentum, "--momentum is for --optimizer sgd alone"),
        ];
        let idle = options
            .into_iter()
            .filter(|(option, used, _)| !used && typed.iter().any(|id| id == option));
        idle.map(|(_, _, reason)| reason).collect()
    }

    /// The preset with what was given changed in it; `balanced` tells whether rare classes weigh as much as frequent
    /// ones.
    pub fn recipe(&self, seed: u64, balanced: bool) -> Recipe {
        let mut recipe = match self.recipe {
            Preset::Standard => Recipe::standard(seed),
            Preset::Original => Recipe::original(seed),
        };
        if self.recipe == Preset::Standard && self.device.is_accelerator() {
            recipe.trained = Trained::All;
        }
        recipe.balanced = balanced;
        recipe.schedule = self.schedule(&recipe.schedule, seed);
        recipe.optimizer = self.optimizer(recipe.optimizer);
        recipe.images_per_epoch = self.images_per_epoch.or(recipe.images_per_epoch);
        recipe.patience = self.patience.or(recipe.patience);
        replace(&mut recipe.epochs, self.epochs);
        replace(&mut recipe.minibatch, self.minibatch);
        replace(&mut recipe.trained, self.trained);
        replace(&mut recipe.layer_decay, self.layer_decay);
        replace(&mut recipe.dropout, self.dropout);
        replace(&mut recipe.label_smoothing, self.label_smoothing);
        replace(&mut recipe.mixup, self.mixup);
        replace(&mut recipe.views, self.views);
        replace(&mut recipe.validation, self.validation);
        let augmentation = &mut recipe.augmentation;
        replace(&mut augmentation.scale, self.scale);
        replace(&mut augmentation.smallest_crop, self.crop);
        replace(&mut augmentation.flip, self.flip);
        replace(&mut augmentation.jitter, self.color_jitter);
        replace(&mut augmentation.rand_augment.operations, self.rand_augment);
        replace(&mut augmentation.rand_augment.magnitude, self.rand_augment_magnitude);
        let unless_zero = |value: f32| (value != 0.0).then_some(value);
        replace(&mut recipe.average, self.average_decay.map(unless_zero));
        replace(&mut recipe.clip_norm, self.clip_norm.map(unless_zero));
        let statistics = self.batch_norm.map(|statistics| match statistics {
            BatchNorm::Frozen => Statistics::Frozen,
            BatchNorm::Batch => Statistics::Batch,
        });
        replace(&mut recipe.statistics, statistics);
        let precision = self.precision.map(|precision| match precision {
            Numbers::F32 => Precision::Single,
            Numbers::Bf16 => Precision::Brain,
        });
        replace(&mut recipe.precision, precision);
        let head = self.head_start.map(|start| match start {
            Start::Svm => HeadStart::Svm,
            Start::Random => HeadStart::Random,
        });
        replace(&mut recipe.head, head);
        recipe
    }

    /// `preset` with another course, or another largest rate.
    fn schedule(&self, preset: &Schedule, seed: u64) -> Schedule {
        let peak = preset.peak();
        let schedule = match self.schedule {
            Some(Course::Constant) => Schedule::Steps(vec![(1, peak)]),
            Some(Course::Cosine) => Schedule::Cosine { peak },
            Some(Course::OneCycle) => Schedule::OneCycle { peak },
            Some(Course::Steps) => Recipe::original(seed).schedule,
            None => preset.clone(),
        };
        let schedule = match schedule {
            Schedule::Steps(_) if self.schedule != Some(Course::Constant) && !self.rate_steps.is_empty() => {
                Schedule::Steps(self.rate_steps.clone())
            }
            other => other,
        };
        match self.learning_rate {
            Some(rate) => schedule.with_peak(rate),
            None => schedule,
        }
    }

    /// `preset`, or the named optimizer at the values that the preset made for it has.
    fn optimizer(&self, preset: Optimizer) -> Optimizer {
        let mut optimizer = match self.optimizer {
            None => preset,
            Some(OptimizerName::Adamw) => Recipe::standard(0).optimizer,
            Some(OptimizerName::Sgd) => Recipe::original(0).optimizer,
        };
        match &mut optimizer {
            Optimizer::Sgd { momentum, weight_decay } => {
                replace(momentum, self.momentum);
                replace(weight_decay, self.weight_decay);
            }
            Optimizer::AdamW { weight_decay } => replace(weight_decay, self.weight_decay),
        }
        optimizer
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

fn rate_step(text: &str) -> Result<(usize, f32), String> {
    let step = text.split_once(':').and_then(|(epochs, rate)| {
        let (epochs, rate) = (epochs.trim().parse().ok()?, rate.trim().parse().ok()?);
        Some((epochs, rate))
    });
    step.ok_or_else(|| "give epochs and rate, 20:0.01 for example".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        recipe: RecipeArguments,
    }

    fn recipe(arguments: &[&str]) -> Recipe {
        let all = std::iter::once("trainer").chain(arguments.iter().copied());
        Line::try_parse_from(all).expect("options").recipe.recipe(7, true)
    }

    #[test]
    fn options_of_the_refinement_are_known_among_those_typed() {
        let typed = ["learning_rate", "device", "seed", "epochs"].map(Id::from);
        assert_eq!(RecipeArguments::among(&typed), ["--epochs", "--learning-rate"]);
        assert!(RecipeArguments::among(&[]).is_empty());
    }

    #[test]
    fn a_preset_alone_is_the_preset() {
        assert_eq!(recipe(&[]), Recipe::standard(7));
        assert_eq!(recipe(&["--recipe", "original"]), Recipe::original(7));
    }

    #[test]
    fn every_option_changes_the_recipe() {
        let standard = recipe(&[]);
        let options = [
            "--epochs 3",
            "--minibatch 4",
            "--images-per-epoch 9",
            "--learning-rate 0.5",
            "--schedule one-cycle",
            "--schedule steps",
            "--schedule constant",
            "--optimizer sgd",
            "--weight-decay 0.2",
            "--trained 3",
            "--layer-decay 0.8",
            "--head-start random",
            "--dropout 0.3",
            "--label-smoothing 0",
            "--mixup 0.2",
            "--scale 3",
            "--crop 0.8",
            "--flip false",
            "--color-jitter 0",
            "--rand-augment 2",
            "--rand-augment-magnitude 5",
            "--views 3",
            "--batch-norm batch",
            "--average-decay 0",
            "--clip-norm 0",
            "--validation 0.2",
            "--patience 3",
        ];
        for option in options {
            let changed = recipe(&option.split(' ').collect::<Vec<_>>());
            assert_ne!(changed, standard, "{option}");
            assert_eq!(changed.check(), Ok(()), "{option}");
        }
    }

    #[test]
    fn steps_of_the_rate_are_read_and_scaled() {
        let steps = recipe(&["--schedule", "steps", "--rate-steps", "3:0.1,2:0.01"]).schedule;
        assert_eq!(steps, Schedule::Steps(vec![(3, 0.1), (2, 0.01)]));
        let scaled = recipe(&["--recipe", "original", "--learning-rate", "0.02"]).schedule;
        assert!((scaled.rate(0, 1, 25) - 0.002).abs() < 1e-7);
        assert!(rate_step("3").is_err_and(|reason| reason.contains("20:0.01")));
    }

    #[test]
    fn options_of_another_schedule_or_optimizer_are_told_of() {
        let idle = |line: &str| {
            let line = Line::try_parse_from(std::iter::once("trainer").chain(line.split(' '))).expect("options");
            let typed = ["rate_steps", "momentum"].map(Id::from);
            line.recipe.idle(&typed, &line.recipe.recipe(7, true)).len()
        };
        for (line, expected) in [
            ("--rate-steps 3:0.1 --momentum 0.8", 2),
            ("--rate-steps 3:0.1 --momentum 0.8 --schedule constant", 2),
            ("--rate-steps 3:0.1 --momentum 0.8 --schedule steps --optimizer sgd", 0),
            ("--rate-steps 3:0.1 --momentum 0.8 --recipe original", 0),
        ] {
            assert_eq!(idle(line), expected, "{line}");
        }
    }

    #[test]
    fn an_optimizer_comes_with_its_own_values() {
        let optimizer = recipe(&["--optimizer", "sgd", "--momentum", "0.8"]).optimizer;
        let Optimizer::Sgd { momentum, weight_decay } = optimizer else {
            panic!("{optimizer:?}");
        };
        assert_eq!((momentum, weight_decay), (0.8, 0.0005));
    }
}
