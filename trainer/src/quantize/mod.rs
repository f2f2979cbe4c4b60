//! A network computed with 8-bit integers: smaller and faster, and nearly the same function.
//!
//! Convolutions and what lies between them are rewritten as operators on integers: activations as unsigned bytes on
//! one grid per value, weights as signed bytes on one grid per output channel around zero (Jacob et al., "Quantization
//! and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018,
//! <https://arxiv.org/abs/1712.05877>). Grids come from what a float network computes for some images
//! ([`calibrate`]); [`weights`] tells how the weights are rounded so that every processor computes the same. What
//! cannot be quantized stays in floats: whatever is no convolution, sum or maximum, and the convolutions that cost most
//! where the whole would lose more than [`TARGET`] allows.

mod calibrate;
mod plan;
mod rewrite;
mod speed;
mod vectors;
mod weights;

use shared::network::{NetworkError, Tensor};

use crate::onnx::fold_batch_norm;
use crate::onnx::proto::ModelProto;
use crate::progress::stage;
use crate::workbench::Workbench;

pub use speed::{Speeds, compare};

use calibrate::Observed;
use plan::Plan;

/// The mean cosine between a quantized network's vectors and the float one's that is aimed at, from 0 to 1.
pub const TARGET: f64 = 0.99;
/// Images by which single convolutions are compared.
const TRIED: usize = 16;
/// The first operator set in which weights have a grid per channel.
const OLDEST_OPERATORS: i64 = 13;

/// The images that a network is quantized by, as it takes them, `[1, 3, H, W]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Those that the grids are made from.
    pub calibration: Vec<Tensor>,
    /// Those that the quantized network is compared with the float one on.
    pub check: Vec<Tensor>,
    /// The smallest and the largest value that a pixel can have.
    pub range: (f32, f32),
}

/// A quantized network.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// It, with the inputs and outputs of the float one.
    pub model: ModelProto,
    /// Mean cosine between its vectors and the float one's on [`Samples::check`].
    pub cosine: f64,
    /// Convolutions in all.
    pub convolutions: usize,
    /// How many of them stayed in floats, for the sake of [`TARGET`].
    pub left: usize,
}

/// Why a network was not quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// It is of a kind that is not quantized here.
    #[error("the network cannot be quantized: {0}")]
    Unsuitable(String),
    /// Nothing could be quantized without leaving [`TARGET`].
    #[error(
        "the network cannot be quantized: its vectors would have a mean cosine of {cosine:.3} with those of the float \
         network, below {TARGET}, whichever convolutions are left alone"
    )]
    TooLossy {
        /// With everything quantized.
        cosine: f64,
    },
    /// There is no image to go by.
    #[error("a network is quantized by images, and there is none")]
    NoImages,
    /// The network cannot be loaded or run.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Checks, before there is anything to quantize by, that something of `model` can be quantized.
pub fn check(model: &ModelProto) -> Result<(), QuantizeError> {
    planned(model).map(|_| ())
}

/// `model` with its batch normalizations folded, and what of it can be quantized.
fn planned(model: &ModelProto) -> Result<(ModelProto, Plan), QuantizeError> {
    let version = model.operators();
    if version < OLDEST_OPERATORS {
        return Err(QuantizeError::Unsuitable(format!(
            "it is written in version {version} of ONNX's operators; export it in version {OLDEST_OPERATORS} or later"
        )));
    }
    let mut folded = model.clone();
    fold_batch_norm(&mut folded);
    let plan = Plan::of(&folded)?;
    Ok((folded, plan))
}

/// Quantizes `model`, whose first output is a vector per image. The same images give the same network, whatever the
/// number of threads.
pub fn quantize(model: &ModelProto, samples: &Samples, workbench: &Workbench) -> Result<Quantized, QuantizeError> {
    if samples.calibration.is_empty() || samples.check.is_empty() {
        return Err(QuantizeError::NoImages);
    }
    let (folded, plan) = planned(model)?;
    let observed = calibrate::observe(&folded, &plan, samples, workbench)?;
    let attempts = Attempts {
        expected: workbench.vectors(model, &samples.check)?,
        folded,
        plan,
        observed,
        samples,
        workbench,
    };
    attempts.best()
}

/// One network quantized to different degrees.
struct Attempts<'a> {
    folded: ModelProto,
    plan: Plan,
    observed: Observed,
    samples: &'a Samples,
    workbench: &'a Workbench<'a>,
    /// The float network's vectors of the images to check by.
    expected: Vec<Vec<f32>>,
}

impl Attempts<'_> {
    /// The network with as few convolutions left in floats as [`TARGET`] allows, those that cost most first.
    fn best(&self) -> Result<Quantized, QuantizeError> {
        let whole = self.leaving(&[])?;
        if whole.cosine >= TARGET {
            return Ok(whole);
        }
        let order = self.costliest_first()?;
        let (mut too_few, mut enough) = (0, order.len());
        let mut best = None;
        while enough - too_few > 1 {
            let count = usize::midpoint(too_few, enough);
            let attempt = self.leaving(&order[..count])?;
            if attempt.cosine >= TARGET {
                enough = count;
                best = Some(attempt);
            } else {
                too_few = count;
            }
        }
        best.ok_or(QuantizeError::TooLossy { cosine: whole.cosine })
    }

    /// The convolutions by what quantizing each alone costs.
    fn costliest_first(&self) -> Result<Vec<usize>, QuantizeError> {
        let all: Vec<usize> = (0..self.plan.convolutions.len()).collect();
        let mut costs = Vec::with_capacity(all.len());
        let progress = self.workbench.progress;
        let _stage = stage(progress, "Quantizing each convolution alone", Some(all.len() as u64));
        for index in &all {
            let others: Vec<usize> = all.iter().copied().filter(|other| other != index).collect();
            let (_, cosine) = self.attempt(&others, TRIED)?;
            costs.push((cosine, *index));
            progress.advance(1);
        }
        costs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Ok(costs.into_iter().map(|(_, index)| index).collect())
    }

    fn leaving(&self, left: &[usize]) -> Result<Quantized, QuantizeError> {
        let (model, cosine) = self.attempt(left, usize::MAX)?;
        Ok(Quantized {
            model,
            cosine,
            convolutions: self.plan.convolutions.len(),
            left: left.len(),
        })
    }

    /// The network without the convolutions `left`, and its mean cosine on at most so many images.
    fn attempt(&self, left: &[usize], images: usize) -> Result<(ModelProto, f64), QuantizeError> {
        let model = rewrite::quantized(&self.folded, &self.plan, &self.observed, left);
        let check = &self.samples.check[..self.samples.check.len().min(images)];
        let vectors = self.workbench.vectors(&model, check)?;
        let cosines = vectors.iter().zip(&self.expected).map(|(a, b)| cosine(a, b));
        let mean = cosines.sum::<f64>() / vectors.len() as f64;
        Ok((model, mean))
    }
}

/// Cosine of the angle between two vectors; 1 where both are zero.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    if lengths > 0.0 {
        dot(a, b) / lengths
    } else {
        f64::from(u8::from(a == b))
    }
}
