//! From images with labels to what a step learns from: their order, targets and weights, and pairs that are mixed.

use std::f64::consts::TAU;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::engine::{Batch, Inputs};
use super::{Recipe, stream};

/// Streams of the generator that no image has.
const ORDER: usize = u32::MAX as usize;
const MIXTURE: usize = ORDER - 1;

/// The images that are trained on.
pub(super) struct Batches<'a> {
    recipe: &'a Recipe,
    /// Class of every image, also of those that validate.
    labels: &'a [usize],
    /// Which of them are trained on.
    rows: Vec<usize>,
    /// Weight of an image of each class.
    weights: Vec<f32>,
}

impl<'a> Batches<'a> {
    /// Of the images of `classes` classes that `rows` names.
    pub fn new(recipe: &'a Recipe, labels: &'a [usize], rows: Vec<usize>, classes: usize) -> Self {
        let mut counts = vec![0_usize; classes];
        for row in &rows {
            counts[labels[*row]] += 1;
        }
        let total = rows.len() as f32;
        let weigh = |count: &usize| {
            if recipe.balanced {
                total / (classes * (*count).max(1)) as f32
            } else {
                1.0
            }
        };
        Self {
            weights: counts.iter().map(weigh).collect(),
            recipe,
            labels,
            rows,
        }
    }

    /// Images seen in each epoch.
    pub fn images(&self) -> usize {
        self.recipe
            .images_per_epoch
            .map_or(self.rows.len(), |most| most.min(self.rows.len()))
    }

    /// Number of steps in each epoch.
    pub fn steps(&self) -> usize {
        divided(&self.rows[..self.images()], self.recipe.minibatch).len()
    }

    /// The images of an epoch in the order drawn for it.
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order = self.rows.clone();
        let mut generator = ChaCha8Rng::seed_from_u64(self.recipe.seed);
        generator.set_stream(stream(epoch, ORDER));
        order.shuffle(&mut generator);
        order.truncate(self.images());
        order
    }

    /// Inputs with what is wanted of them.
    pub fn batch(&self, rows: &[usize], mut inputs: Inputs, step: usize) -> Batch {
        let classes = self.weights.len();
        let smooth = self.recipe.label_smoothing;
        let mut targets = vec![smooth / classes as f32; rows.len() * classes];
        for (row, target) in rows.iter().zip(targets.chunks_mut(classes)) {
            target[self.labels[*row]] += 1.0 - smooth;
        }
        let mut weights: Vec<f32> = rows.iter().map(|row| self.weights[self.labels[*row]]).collect();
        if self.recipe.mixup > 0.0 {
            let mut generator = ChaCha8Rng::seed_from_u64(self.recipe.seed);
            generator.set_stream(stream(step, MIXTURE));
            let share = beta(self.recipe.mixup, &mut generator);
            mix(&mut inputs.values, rows.len(), share);
            // Of two images, each is learned with its own weight: the mixture's weight is theirs together, and what is
            // wanted of it leans towards the heavier one.
            scale_rows(&mut targets, &weights);
            mix(&mut targets, rows.len(), share);
            mix(&mut weights, rows.len(), share);
            let inverse: Vec<f32> = weights.iter().map(|weight| 1.0 / weight).collect();
            scale_rows(&mut targets, &inverse);
        }
        Batch {
            inputs,
            targets,
            weights,
        }
    }
}

/// Minibatches of `size` images. An image that would be left alone at the end joins those before it: alone, it may
/// have no variance to normalize by, and it would weigh as much as a whole minibatch.
pub(super) fn divided(order: &[usize], size: usize) -> Vec<&[usize]> {
    let whole = order.len() / size * size;
    if order.len() == whole + 1 && size > 1 && whole > 0 {
        let (first, last) = order.split_at(whole - size);
        first.chunks(size).chain([last]).collect()
    } else {
        order.chunks(size).collect()
    }
}

fn scale_rows(values: &mut [f32], factors: &[f32]) {
    let length = values.len() / factors.len().max(1);
    for (row, factor) in values.chunks_mut(length.max(1)).zip(factors) {
        for value in row {
            *value *= factor;
        }
    }
}

/// Mixes each of `count` rows with its opposite: the first with the last, and so on.
fn mix(values: &mut [f32], count: usize, share: f32) {
    let length = values.len() / count.max(1);
    let original = values.to_vec();
    for row in 0..count {
        let other = count - 1 - row;
        for column in 0..length {
            let (own, opposite) = (original[row * length + column], original[other * length + column]);
            values[row * length + column] = share * own + (1.0 - share) * opposite;
        }
    }
}

/// The larger of a draw from the beta distribution with both parameters `alpha` and what it leaves of 1: the share of
/// one of two gamma variates in their sum.
fn beta(alpha: f32, generator: &mut ChaCha8Rng) -> f32 {
    let [first, second] = [(); 2].map(|()| log_gamma(f64::from(alpha), generator));
    (1.0 / (1.0 + (-(first - second).abs()).exp())) as f32
}

/// The logarithm of a draw from the gamma distribution of shape `alpha`: Marsaglia and Tsang, "A Simple Method for
/// Generating Gamma Variables", 2000, <https://doi.org/10.1145/358407.358414>. Draws of a small shape lie nearer to
/// zero than floats can.
fn log_gamma(alpha: f64, generator: &mut ChaCha8Rng) -> f64 {
    if alpha < 1.0 {
        return log_gamma(alpha + 1.0, generator) + above_zero(generator).ln() / alpha;
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        // Of the normal distribution, by Box and Muller's method.
        let length = (-2.0 * above_zero(generator).ln()).sqrt();
        let x = length * (TAU * above_zero(generator)).cos();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && above_zero(generator).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return (d * v).ln();
        }
    }
}

/// Evenly from above 0 to 1.
fn above_zero(generator: &mut ChaCha8Rng) -> f64 {
    1.0 - generator.random::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [usize; 6] = [0, 0, 0, 1, 1, 1];

    fn inputs(values: &[f32]) -> Inputs {
        Inputs {
            shape: vec![1],
            values: values.to_vec(),
        }
    }

    #[test]
    fn weights_count_only_what_is_trained_on() {
        let recipe = Recipe::standard(1);
        let batches = Batches::new(&recipe, &LABELS, vec![0, 1, 2, 3], 2);
        let batch = batches.batch(&[0, 3], inputs(&[0.0, 0.0]), 0);
        assert!((batch.weights[0] - 4.0 / 6.0).abs() < 1e-6);
        assert!((batch.weights[1] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_mixture_is_learned_as_its_two_images_are() {
        let recipe = Recipe {
            mixup: 0.4,
            ..Recipe::standard(1)
        };
        let plain = Recipe {
            mixup: 0.0,
            ..recipe.clone()
        };
        let rows = [0, 3];
        let mixed = Batches::new(&recipe, &LABELS, vec![0, 1, 2, 3], 2).batch(&rows, inputs(&[1.0, 0.0]), 5);
        let apart = Batches::new(&plain, &LABELS, vec![0, 1, 2, 3], 2).batch(&rows, inputs(&[1.0, 0.0]), 5);
        let share = mixed.inputs.values[0];
        assert!((0.5..1.0).contains(&share), "{share}");
        for class in 0..2 {
            let wanted = share * apart.weights[0] * apart.targets[class]
                + (1.0 - share) * apart.weights[1] * apart.targets[2 + class];
            assert!((mixed.weights[0] * mixed.targets[class] - wanted).abs() < 1e-6);
        }
        assert!((mixed.targets[..2].iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    /// The variance of the distribution is 1 / (4 (2 alpha + 1)).
    #[test]
    fn shares_of_mixtures_vary_as_they_should_for_every_parameter() {
        for alpha in [0.05_f32, 0.4, 1.0, 8.0, 100.0] {
            let draws = |seed: u64| -> Vec<f32> {
                let mut generator = ChaCha8Rng::seed_from_u64(seed);
                (0..20_000).map(|_| beta(alpha, &mut generator)).collect()
            };
            let shares = draws(1);
            assert!(shares.iter().all(|share| (0.5..=1.0).contains(share)), "{alpha}");
            let squares = shares.iter().map(|share| (f64::from(*share) - 0.5).powi(2));
            let variance = squares.sum::<f64>() / shares.len() as f64;
            let ratio = variance * 4.0 * (2.0 * f64::from(alpha) + 1.0);
            assert!((ratio - 1.0).abs() < 0.05, "{alpha}: {ratio}");
            assert_eq!(shares, draws(1));
        }
    }

    #[test]
    fn no_image_is_left_alone() {
        let order: Vec<usize> = (0..9).collect();
        let sizes = |count: usize, size: usize| -> Vec<usize> {
            divided(&order[..count], size).into_iter().map(<[usize]>::len).collect()
        };
        assert_eq!(sizes(9, 4), [4, 5]);
        assert_eq!(sizes(8, 4), [4, 4]);
        assert_eq!(sizes(6, 4), [4, 2]);
        assert_eq!(sizes(5, 4), [5]);
        assert_eq!(sizes(1, 4), [1]);
        assert_eq!(sizes(3, 1), [1, 1, 1]);
    }

    #[test]
    fn an_epoch_sees_no_more_images_than_it_may() {
        let recipe = Recipe {
            images_per_epoch: Some(3),
            minibatch: 2,
            ..Recipe::standard(1)
        };
        let batches = Batches::new(&recipe, &LABELS, (0..6).collect(), 2);
        assert_eq!((batches.images(), batches.steps()), (3, 1));
        assert_eq!(batches.order(0).len(), 3);
        assert_ne!(batches.order(0), batches.order(1));
    }
}
