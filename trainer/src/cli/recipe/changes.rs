//! Presets of the refinement with what was given changed in them.

use super::{BatchNorm, Course, Numbers, OptimizerName, Preset, RecipeArguments, Start};
use crate::refine::engine::Optimizer;
use crate::refine::network::{Precision, Statistics};
use crate::refine::{HeadStart, Recipe, Schedule, Trained};

impl RecipeArguments {
    /// The options that not every recipe has a use for: whether `recipe`, which was made of these, has one, and what
    /// they are for.
    pub fn uses(&self, recipe: &Recipe) -> [(&'static str, bool, &'static str); 4] {
        let has_steps = match self.schedule {
            Some(course) => course == Course::Steps,
            None => matches!(recipe.schedule, Schedule::Steps(_)),
        };
        let has_momentum = matches!(recipe.optimizer, Optimizer::Sgd { .. });
        let has_operations = recipe.augmentation.rand_augment.operations > 0;
        [
            ("rate_steps", has_steps, "--schedule steps"),
            ("momentum", has_momentum, "--optimizer sgd"),
            ("rand_augment_magnitude", has_operations, "--rand-augment above 0"),
            ("patience", recipe.validation > 0.0, "--validation above 0"),
        ]
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
        let schedule = match (self.schedule, preset) {
            (Some(Course::Constant), _) => Schedule::Steps(vec![(1, peak)]),
            (Some(Course::Cosine), _) => Schedule::Cosine { peak },
            (Some(Course::OneCycle), _) => Schedule::OneCycle { peak },
            (Some(Course::Steps), _) | (None, Schedule::Steps(_)) if !self.rate_steps.is_empty() => {
                Schedule::Steps(self.rate_steps.clone())
            }
            (Some(Course::Steps), _) => Recipe::original(seed).schedule,
            (None, preset) => preset.clone(),
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
    }

    #[test]
    fn options_that_another_leaves_without_use_are_told_of() {
        let idle = |line: &str| -> Vec<&'static str> {
            let line = Line::try_parse_from(std::iter::once("trainer").chain(line.split(' '))).expect("options");
            let uses = line.recipe.uses(&line.recipe.recipe(7, true));
            let idle = uses.into_iter().filter(|(_, used, _)| !used);
            idle.map(|(option, ..)| option).collect()
        };
        let (rates, magnitude) = ("--rate-steps 3:0.1 --momentum 0.8", "rand_augment_magnitude");
        for (more, expected) in [
            ("--mixup 0.1", &["rate_steps", "momentum", magnitude][..]),
            ("--schedule constant", &["rate_steps", "momentum", magnitude]),
            ("--schedule steps --optimizer sgd", &[magnitude]),
            ("--recipe original", &[magnitude]),
            ("--recipe original --rand-augment 2", &[]),
            ("--recipe original --rand-augment 2 --validation 0", &["patience"]),
        ] {
            assert_eq!(idle(&format!("{rates} {more}")), expected, "{more}");
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
