//! How a network is refined: every parameter of it, and two sets of values.

use serde::{Deserialize, Serialize};

use super::augment::{Augmentation, MOST_MAGNITUDE, MOST_OPERATIONS, RandAugment};
use super::engine::Optimizer;
use super::network::{Precision, Statistics};

/// Largest number of epochs, images per step and the like.
const MOST_COUNT: usize = 1_000_000;

/// Every parameter of a refinement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images per step.
    pub minibatch: usize,
    /// Most images seen in each epoch, drawn anew for each; `None` for all.
    pub images_per_epoch: Option<usize>,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// How a step follows from gradients.
    pub optimizer: Optimizer,
    /// Which part of the network is trained.
    pub trained: Trained,
    /// Factor of the learning rate from each trained layer to the one below it, above 0, at most 1: Howard and Ruder
    /// 2018, <https://arxiv.org/abs/1801.06146>.
    pub layer_decay: f32,
    /// Share of the features dropped before the last layer, from 0 to below 1.
    pub dropout: f32,
    /// Share of the wanted probability spread over all classes, from 0 to below 1: Szegedy et al. 2016,
    /// <https://arxiv.org/abs/1512.00567>.
    pub label_smoothing: f32,
    /// Both parameters of the beta distribution that images are mixed by, 0 for none: Zhang et al. 2018,
    /// <https://arxiv.org/abs/1710.09412>.
    pub mixup: f32,
    /// Whether rare classes weigh as much as frequent ones.
    pub balanced: bool,
    /// How training images are varied.
    pub augmentation: Augmentation,
    /// Number of variations of each image over which the epochs go in turn; the frozen part of the network is
    /// computed once for each.
    pub views: usize,
    /// What batch normalization uses.
    pub statistics: Statistics,
    /// What products are computed in.
    pub precision: Precision,
    /// Share of the old value kept in the moving average of the weights that is used in the end; `None` for none.
    pub average: Option<f32>,
    /// Largest Euclidean length of a gradient; `None` for no limit.
    pub clip_norm: Option<f32>,
    /// Share of the training part that is kept to validate on, rounded to one part of a whole number of them.
    pub validation: f64,
    /// Epochs without a better validation after which the training stops; `None` for never.
    pub patience: Option<usize>,
    /// How the last layer begins.
    pub head: HeadStart,
    /// Seed of everything random.
    pub seed: u64,
}

/// Learning rate over time, per minibatch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Constant over a number of epochs each; the last goes on to the end.
    Steps(Vec<(usize, f32)>),
    /// Up over the first three tenths of the steps from a twenty-fifth of the peak, down over the others to next to
    /// nothing, both in half a cosine: Smith and Topin 2018, <https://arxiv.org/abs/1708.07120>, with PyTorch's values.
    OneCycle {
        /// The largest rate.
        peak: f32,
    },
    /// Up in a line over the first tenth of the steps, then down to zero in half a cosine: Loshchilov and Hutter
    /// 2017, <https://arxiv.org/abs/1608.03983>.
    Cosine {
        /// The largest rate.
        peak: f32,
    },
}

/// Which part of the network is trained; everything below stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trained {
    /// The last layer alone.
    Head,
    /// From the last layer that halves the map upwards.
    LastStage,
    /// At most this many convolutions and linear layers, counted from the end: 1 is the last layer alone.
    Layers(usize),
    /// Everything.
    All,
}

/// How the last layer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadStart {
    /// As the linear SVM on the unrefined features, whose length is normalized before it: refinement begins where
    /// the SVM ends (Kumar et al. 2022, <https://arxiv.org/abs/2202.10054>).
    Svm,
    /// Drawn at random, on the features as they are.
    Random,
}

impl Recipe {
    /// Nothing else that was tried on small photo collections was better on test images.
    pub fn standard(seed: u64) -> Self {
        Self {
            epochs: 20,
            minibatch: 16,
            images_per_epoch: None,
            schedule: Schedule::Cosine { peak: 3e-4 },
            optimizer: Optimizer::AdamW { weight_decay: 0.05 },
            trained: Trained::LastStage,
            layer_decay: 1.0,
            dropout: 0.2,
            label_smoothing: 0.1,
            mixup: 0.0,
            balanced: true,
            augmentation: Augmentation {
                scale: 1.5,
                smallest_crop: 0.6,
                flip: true,
                jitter: 0.2,
                rand_augment: RandAugment {
                    operations: 0,
                    magnitude: 9,
                },
            },
            views: 10,
            statistics: Statistics::Frozen,
            precision: Precision::Single,
            average: Some(0.99),
            clip_norm: Some(1.0),
            validation: 0.15,
            patience: None,
            head: HeadStart::Svm,
            seed,
        }
    }

    /// The values of Microsoft's sample of 2017, but for what its own comments regret: classes are balanced by
    /// weights and not by copies.
    pub fn original(seed: u64) -> Self {
        Self {
            epochs: 45,
            minibatch: 16,
            images_per_epoch: None,
            schedule: Schedule::Steps(vec![(20, 0.01), (20, 0.001), (5, 0.0001)]),
            optimizer: Optimizer::Sgd {
                momentum: 0.9,
                weight_decay: 5e-4,
            },
            trained: Trained::Head,
            layer_decay: 1.0,
            dropout: 0.5,
            label_smoothing: 0.0,
            mixup: 0.0,
            balanced: true,
            augmentation: Augmentation {
                scale: 2.0,
                smallest_crop: 0.9,
                flip: true,
                jitter: 0.2,
                rand_augment: RandAugment {
                    operations: 0,
                    magnitude: 9,
                },
            },
            views: 10,
            statistics: Statistics::Frozen,
            precision: Precision::Single,
            average: None,
            clip_norm: None,
            validation: 0.15,
            patience: None,
            head: HeadStart::Random,
            seed,
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// What is out of range, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let whole = |name: &str, value: usize| match value {
            1..=MOST_COUNT => Ok(()),
            _ => Err(format!("{name} must be from 1 to {MOST_COUNT}, not {value}")),
        };
        let (momentum, weight_decay) = match self.optimizer {
            Optimizer::Sgd { momentum, weight_decay } => (momentum, weight_decay),
            Optimizer::AdamW { weight_decay } => (0.0, weight_decay),
        };
        let optional = |value: Option<usize>| value.unwrap_or(1);
        whole("epochs", self.epochs)?;
        whole("minibatch", self.minibatch)?;
        whole("views", self.views)?;
        whole("patience", optional(self.patience))?;
        whole("images per epoch", optional(self.images_per_epoch))?;
        let Augmentation {
            scale,
            smallest_crop,
            jitter,
            rand_augment,
            ..
        } = self.augmentation;
        self.schedule.check()?;
        for (name, value, range) in [
            ("momentum", momentum, Range::Share),
            ("dropout", self.dropout, Range::Share),
            ("label smoothing", self.label_smoothing, Range::Share),
            ("weight decay", weight_decay, Range::From(0.0, 100.0)),
            ("layer decay", self.layer_decay, Range::Factor),
            ("mixup", self.mixup, Range::From(0.0, 100.0)),
            ("average decay", self.average.unwrap_or(0.0), Range::Share),
            ("clip norm", self.clip_norm.unwrap_or(1.0), Range::Positive),
            ("crop", smallest_crop, Range::Factor),
            ("scale", scale, Range::From(1.0, 8.0)),
            ("colour jitter", jitter, Range::From(0.0, 1.0)),
            ("validation", self.validation as f32, Range::From(0.0, 0.5)),
        ] {
            if !range.contains(value) {
                return Err(format!("{name} must be {range}, not {value}"));
            }
        }
        if rand_augment.operations > MOST_OPERATIONS || rand_augment.magnitude > MOST_MAGNITUDE {
            return Err(format!(
                "RandAugment takes at most {MOST_OPERATIONS} operations, at a magnitude up to {MOST_MAGNITUDE}"
            ));
        }
        Ok(())
    }
}

/// Which values are allowed.
#[derive(Clone, Copy)]
enum Range {
    /// From 0 to below 1.
    Share,
    /// Above 0, at most 1.
    Factor,
    /// Above 0.
    Positive,
    /// From, to.
    From(f32, f32),
}

impl Range {
    fn contains(self, value: f32) -> bool {
        match self {
            Self::Share => (0.0..1.0).contains(&value),
            Self::Factor => value > 0.0 && value <= 1.0,
            Self::Positive => value > 0.0 && value.is_finite(),
            Self::From(least, most) => (least..=most).contains(&value),
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Share => formatter.write_str("from 0 to below 1"),
            Self::Factor => formatter.write_str("above 0 and at most 1"),
            Self::Positive => formatter.write_str("a number above 0"),
            Self::From(least, most) => write!(formatter, "from {least} to {most}"),
        }
    }
}

impl Schedule {
    /// The largest rate.
    pub fn peak(&self) -> f32 {
        match self {
            Self::Cosine { peak } | Self::OneCycle { peak } => *peak,
            Self::Steps(steps) => steps.iter().map(|(_, rate)| *rate).fold(f32::MIN_POSITIVE, f32::max),
        }
    }

    fn check(&self) -> Result<(), String> {
        let sound = |rate: f32| rate.is_finite() && rate > 0.0;
        match self {
            Self::Cosine { peak } | Self::OneCycle { peak } if sound(*peak) => Ok(()),
            Self::Steps(steps) if steps.iter().any(|(epochs, _)| *epochs == 0) => {
                Err("a learning rate must hold for at least one epoch".to_owned())
            }
            Self::Steps(steps) if !steps.is_empty() && steps.iter().all(|(_, rate)| sound(*rate)) => Ok(()),
            _ => Err("a learning rate must be a number above 0".to_owned()),
        }
    }

    /// The same course with another largest rate.
    #[must_use]
    pub fn with_peak(&self, peak: f32) -> Self {
        match self {
            Self::Cosine { .. } => Self::Cosine { peak },
            Self::OneCycle { .. } => Self::OneCycle { peak },
            Self::Steps(steps) => {
                let largest = self.peak();
                Self::Steps(
                    steps
                        .iter()
                        .map(|(epochs, rate)| (*epochs, rate * peak / largest))
                        .collect(),
                )
            }
        }
    }

    /// The rate at `step` of `steps` in all, in `epoch` (from 0).
    pub fn rate(&self, step: usize, steps: usize, epoch: usize) -> f32 {
        match self {
            Self::Steps(parts) => {
                let mut end = 0;
                let current = parts.iter().find(|(epochs, _)| {
                    end += epochs;
                    epoch < end
                });
                current.or(parts.last()).map_or(0.0, |(_, rate)| *rate)
            }
            Self::OneCycle { peak } => {
                let (start, end) = (peak / 25.0, peak / 250_000.0);
                let turn = 0.3 * steps as f32 - 1.0;
                let half_cosine = |from: f32, to: f32, share: f32| {
                    to + (from - to) * 0.5 * (1.0 + (std::f32::consts::PI * share.clamp(0.0, 1.0)).cos())
                };
                if (step as f32) < turn {
                    half_cosine(start, *peak, step as f32 / turn)
                } else {
                    half_cosine(*peak, end, (step as f32 - turn) / (steps as f32 - 1.0 - turn).max(1.0))
                }
            }
            Self::Cosine { peak } => {
                let warmup = (steps / 10).max(1);
                if step < warmup {
                    return peak * (step + 1) as f32 / warmup as f32;
                }
                let share = (step - warmup) as f32 / (steps - warmup).max(1) as f32;
                peak * 0.5 * (1.0 + (std::f32::consts::PI * share).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_CYCLE: [(usize, f32); 8] = [
        (0, 0.04),
        (1, 0.042_814),
        (10, 0.295_164),
        (28, 0.997_186),
        (29, 1.0),
        (30, 0.999_497),
        (60, 0.589_28),
        (99, 0.000_004),
    ];

    #[test]
    fn the_cosine_rises_to_its_peak_and_falls_to_nothing() {
        let schedule = Schedule::Cosine { peak: 1.0 };
        let rates: Vec<f32> = (0..100).map(|step| schedule.rate(step, 100, 0)).collect();
        assert!((rates[9] - 1.0).abs() < 1e-6);
        assert!(rates[..10].windows(2).all(|pair| pair[0] < pair[1]));
        assert!(rates[10..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!(rates[99] < 1e-3);
    }

    #[test]
    fn the_original_schedule_steps_down_twice() {
        let schedule = Recipe::original(1).schedule;
        let rates: Vec<f32> = [0, 19, 20, 39, 40, 44, 60]
            .map(|epoch| schedule.rate(0, 1, epoch))
            .into();
        assert_eq!(rates, [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001, 0.0001]);
    }

    /// Values of torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=100).
    #[test]
    fn one_cycle_is_that_of_pytorch() {
        let schedule = Schedule::OneCycle { peak: 1.0 };
        for (step, expected) in ONE_CYCLE {
            let rate = schedule.rate(step, 100, 0);
            assert!((rate - expected).abs() < 2e-6, "{step}: {rate} and {expected}");
        }
    }

    /// Changes one value of a recipe.
    type Spoil = fn(&mut Recipe);

    #[test]
    fn values_out_of_range_are_named() {
        assert_eq!(Recipe::standard(1).check(), Ok(()));
        assert_eq!(Recipe::original(1).check(), Ok(()));
        let cases: [(&str, Spoil); 22] = [
            ("epochs", |recipe| recipe.epochs = 0),
            ("minibatch", |recipe| recipe.minibatch = usize::MAX),
            ("views", |recipe| recipe.views = 0),
            ("patience", |recipe| recipe.patience = Some(0)),
            ("images per epoch", |recipe| recipe.images_per_epoch = Some(0)),
            ("learning rate", |recipe| {
                recipe.schedule = Schedule::Cosine { peak: f32::NAN }
            }),
            ("learning rate", |recipe| {
                recipe.schedule = Schedule::OneCycle { peak: 0.0 }
            }),
            ("learning rate", |recipe| recipe.schedule = Schedule::Steps(Vec::new())),
            ("one epoch", |recipe| recipe.schedule = Schedule::Steps(vec![(0, 0.1)])),
            ("momentum", |recipe| {
                recipe.optimizer = Optimizer::Sgd {
                    momentum: 1.0,
                    weight_decay: 0.0,
                };
            }),
            ("weight decay", |recipe| {
                recipe.optimizer = Optimizer::AdamW { weight_decay: -1.0 }
            }),
            ("dropout", |recipe| recipe.dropout = 1.0),
            ("label smoothing", |recipe| recipe.label_smoothing = -0.1),
            ("layer decay", |recipe| recipe.layer_decay = 0.0),
            ("mixup", |recipe| recipe.mixup = f32::INFINITY),
            ("average decay", |recipe| recipe.average = Some(1.0)),
            ("clip norm", |recipe| recipe.clip_norm = Some(0.0)),
            ("crop", |recipe| recipe.augmentation.smallest_crop = 1.5),
            ("scale", |recipe| recipe.augmentation.scale = 0.5),
            ("colour jitter", |recipe| recipe.augmentation.jitter = f32::NAN),
            ("RandAugment", |recipe| recipe.augmentation.rand_augment.magnitude = 31),
            ("validation", |recipe| recipe.validation = 0.9),
        ];
        for (name, spoil) in cases {
            let mut recipe = Recipe::standard(1);
            spoil(&mut recipe);
            let reason = recipe.check().expect_err(name);
            assert!(reason.contains(name), "{name}: {reason}");
        }
    }

    /// The sample's published parameters, whichever way the presets are built.
    #[test]
    fn the_original_is_the_original() {
        let recipe = Recipe::original(7);
        assert_eq!((recipe.epochs, recipe.minibatch), (45, 16));
        let Optimizer::Sgd { momentum, weight_decay } = recipe.optimizer else {
            panic!("{:?}", recipe.optimizer);
        };
        assert_eq!((momentum, weight_decay, recipe.dropout), (0.9, 0.0005, 0.5));
        assert_eq!((recipe.trained, recipe.balanced), (Trained::Head, true));
        let Augmentation {
            scale,
            smallest_crop,
            flip,
            jitter,
            ..
        } = recipe.augmentation;
        assert_eq!((scale, smallest_crop, flip, jitter), (2.0, 0.9, true, 0.2));
    }
}
