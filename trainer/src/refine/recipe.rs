//! How a network is refined: every parameter of it, and two sets of values.

use serde::{Deserialize, Serialize};

use super::augment::Augmentation;
use super::engine::Optimizer;
use super::network::Statistics;

/// Every parameter of a refinement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images per step.
    pub minibatch: usize,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// How a step follows from gradients.
    pub optimizer: Optimizer,
    /// Which part of the network is trained.
    pub trained: Trained,
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
    /// Share of the old value kept in the moving average of the weights that is used in the end; `None` for none.
    pub average: Option<f32>,
    /// Largest Euclidean length of a gradient; `None` for no limit.
    pub clip_norm: Option<f32>,
    /// Share of the training part that is kept to validate on.
    pub validation: f64,
    /// Epochs without a better validation after which the training stops; `None` for never.
    pub patience: Option<usize>,
    /// How the last layer begins.
    pub head: HeadStart,
    /// Seed of everything random.
    pub seed: u64,
}

/// Learning rate over time, per minibatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Constant over a number of epochs each; the last goes on to the end.
    Steps(Vec<(usize, f32)>),
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
    /// At most this many convolutions and linear layers, counted from the end.
    Layers(usize),
    /// Everything.
    All,
}

/// How the last layer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadStart {
    /// As the linear SVM on the unrefined features, whose length is normalized before it: refinement begins where
    /// the SVM ends (Kumar et al. 2022, <https://arxiv.org/abs/2202.10054>).
    Svm,
    /// Drawn at random, on the features as they are.
    Random,
}

impl Recipe {
    /// The values that did best in measurements on small photo collections.
    pub fn standard(seed: u64) -> Self {
        Self {
            epochs: 20,
            minibatch: 16,
            schedule: Schedule::Cosine { peak: 3e-4 },
            optimizer: Optimizer::AdamW { weight_decay: 0.05 },
            trained: Trained::LastStage,
            dropout: 0.2,
            label_smoothing: 0.1,
            mixup: 0.0,
            balanced: true,
            augmentation: Augmentation {
                smallest_crop: 0.6,
                flip: true,
                jitter: 0.2,
            },
            views: 10,
            statistics: Statistics::Frozen,
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
            schedule: Schedule::Steps(vec![(20, 0.01), (20, 0.001), (5, 0.0001)]),
            optimizer: Optimizer::Sgd {
                momentum: 0.9,
                weight_decay: 5e-4,
            },
            trained: Trained::Head,
            dropout: 0.5,
            label_smoothing: 0.0,
            mixup: 0.0,
            balanced: true,
            augmentation: Augmentation {
                smallest_crop: 0.9,
                flip: true,
                jitter: 0.2,
            },
            views: 10,
            statistics: Statistics::Frozen,
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
        let rates: Vec<f32> = match &self.schedule {
            Schedule::Steps(steps) => steps.iter().map(|(_, rate)| *rate).collect(),
            Schedule::Cosine { peak } => vec![*peak],
        };
        if self.epochs == 0 || self.minibatch == 0 || self.views == 0 {
            return Err("epochs, minibatch and views must be at least 1".to_owned());
        }
        if rates.is_empty() || rates.iter().any(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return Err("a learning rate must be above 0".to_owned());
        }
        for (name, share) in [("dropout", self.dropout), ("label smoothing", self.label_smoothing)] {
            if !(0.0..1.0).contains(&share) {
                return Err(format!("{name} must be from 0 to below 1, not {share}"));
            }
        }
        if !(0.0..=0.5).contains(&self.validation) {
            return Err(format!(
                "the validation share must be from 0 to 0.5, not {}",
                self.validation
            ));
        }
        if !(self.mixup >= 0.0 && self.mixup.is_finite()) {
            return Err(format!("mixup must be 0 or above, not {}", self.mixup));
        }
        Ok(())
    }
}

impl Schedule {
    /// The same course with another largest rate.
    #[must_use]
    pub fn with_peak(&self, peak: f32) -> Self {
        match self {
            Self::Cosine { .. } => Self::Cosine { peak },
            Self::Steps(steps) => {
                let largest = steps.iter().map(|(_, rate)| *rate).fold(f32::MIN_POSITIVE, f32::max);
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

    #[test]
    fn values_out_of_range_are_named() {
        let mut recipe = Recipe::standard(1);
        assert_eq!(recipe.check(), Ok(()));
        recipe.dropout = 1.0;
        assert!(recipe.check().is_err_and(|reason| reason.contains("dropout")));
    }
}
