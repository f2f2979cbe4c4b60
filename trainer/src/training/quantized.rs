//! The way from a trained network to its 8-bit form: calibrated on training images, its classifier fitted anew.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message;
use rayon::prelude::*;
use serde::Serialize;
use shared::network::Tensor;
use shared::pipeline::PipelineError;

use super::{Fitted, Prepared, Refinement, Selection, TrainingError, refined};
use crate::dataset::read;
use crate::onnx::proto::ModelProto;
use crate::quantize::{self, QuantizeError, Quantized, Samples, Speeds};
use crate::svm::ClassWeights;

/// Training images that a network is quantized by, at most.
const IMAGES: usize = 128;
/// Bytes that they take in memory, at most.
const BYTES: usize = 128 << 20;
/// One image in so many checks what the others calibrate.
const CHECKED: usize = 4;
/// The share of held-out images that a quantized network may recognize less, to be preferred.
const ALLOWED_LOSS: f64 = 0.005;

/// Whether the network that is served computes with 8-bit integers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantization {
    /// It computes with 32-bit floats.
    #[default]
    None,
    /// It does.
    Int8,
    /// It does where it recognizes held-out training images as well, within half a point, and is faster on this
    /// machine.
    Auto,
}

/// Checks, before anything is computed, that the network in the file `model` can be quantized.
pub(super) fn check(model: &[u8]) -> Result<(), TrainingError> {
    Ok(quantize::check(&decoded(model)?)?)
}

fn decoded(model: &[u8]) -> Result<ModelProto, QuantizeError> {
    ModelProto::decode(model).map_err(|error| QuantizeError::Unsuitable(error.to_string()))
}

/// What `job` asks for of `fitted`: the same, or its quantized form, and in the notes what speaks for it.
pub(super) fn apply<'a>(job: &Prepared, fitted: Fitted<'a>) -> Result<Fitted<'a>, TrainingError> {
    let wanted = job.parameters.quantization;
    if wanted == Quantization::None {
        return Ok(fitted);
    }
    let samples = samples(job)?;
    let outcome =
        decoded(&fitted.model).and_then(|model| quantize::quantize(&model, &samples, &job.workplace.workbench()));
    let quantized = match outcome {
        Ok(quantized) => quantized,
        Err(error @ (QuantizeError::Unsuitable(_) | QuantizeError::TooLossy { .. }))
            if wanted == Quantization::Auto =>
        {
            let notes = [fitted.notes, vec![format!("The network stays in floats: {error}.")]].concat();
            return Ok(Fitted { notes, ..fitted });
        }
        Err(error) => return Err(error.into()),
    };
    let small = refitted(job, &fitted, &quantized.model)?;
    let held_out = [accuracy(job, &fitted), accuracy(job, &small)];
    let mut notes = vec![told(&quantized, held_out, (&fitted.model, &small.model))];
    let mut keeps = true;
    if wanted == Quantization::Auto {
        let image = &samples.check[0];
        let speeds = quantize::compare(job.workplace.runtime, &fitted.model, &small.model, image)
            .map_err(QuantizeError::from)?;
        let (decision, reason) = decide(held_out, speeds);
        keeps = decision;
        notes.push(reason);
    }
    let mut chosen = if keeps { small } else { fitted };
    chosen.notes.extend(notes);
    Ok(chosen)
}

/// The classifier of `float`, fitted anew to the vectors of `network`.
fn refitted(job: &Prepared, float: &Fitted, network: &ModelProto) -> Result<Fitted<'static>, TrainingError> {
    let model = Bytes::from(network.encode_to_vec());
    let features = job.features_by(&model, float.head.takes())?;
    let refinement = float.refinement.clone();
    let fitted = match &refinement {
        None => job.svm_on(model, Cow::Owned(features), None)?,
        Some(Refinement { fold, .. }) if float.selection.is_some() => refined::svm_of(job, model, features, fold)?,
        Some(Refinement { fold, .. }) => refined::own_layer_of(job, model, features, fold),
    };
    Ok(Fitted { refinement, ..fitted })
}

/// Share of the held-out images of the training part that were recognized; `None` where nothing was held out.
fn accuracy(job: &Prepared, fitted: &Fitted) -> Option<f64> {
    if let Some(Selection { chosen_c, c_sweep, .. }) = &fitted.selection {
        let chosen = c_sweep.iter().find(|entry| entry.c.total_cmp(chosen_c).is_eq());
        return chosen.map(|entry| entry.cv_accuracy);
    }
    let held_out = &fitted.refinement.as_ref()?.fold.held_out;
    let rows: Vec<usize> = held_out.iter().map(|row| job.train[*row]).collect();
    let recognized = || job.recognized(&fitted.head, &fitted.features.matrix, &rows);
    (!rows.is_empty()).then(|| recognized().accuracy(ClassWeights::None))
}

/// Images of the training part, spread over all of it, as the network takes them.
fn samples(job: &Prepared) -> Result<Samples, TrainingError> {
    let preprocessing = &job.backbone.preprocessing;
    let side = preprocessing.resolution as usize;
    let most = (BYTES / (3 * side * side * size_of::<f32>())).clamp(CHECKED, IMAGES);
    let rows = spread(&job.train, most);
    let tensor = |row: &usize| -> Result<Tensor, TrainingError> {
        let path = job.dataset.root.join(&job.dataset.items[*row].path);
        let limits = job.parameters.limits;
        let gone = |reason: String| TrainingError::Gone {
            path: path.clone(),
            reason,
        };
        let bytes = read(&path, limits).map_err(|error| gone(error.to_string()))?;
        let image = preprocessing
            .decode(&bytes, &limits)
            .map_err(|error| gone(PipelineError::from(error).to_string()))?;
        Ok(preprocessing.tensor(&image))
    };
    let tensors: Vec<Tensor> = rows.par_iter().map(tensor).collect::<Result<_, _>>()?;
    let (check, calibration) = if tensors.len() < CHECKED {
        (tensors.clone(), tensors)
    } else {
        let numbered = tensors.into_iter().enumerate();
        let (check, rest): (Vec<_>, Vec<_>) = numbered.partition(|(index, _)| index % CHECKED == CHECKED - 1);
        let without = |numbered: Vec<(usize, Tensor)>| numbered.into_iter().map(|(_, tensor)| tensor).collect();
        (without(check), without(rest))
    };
    let channels = preprocessing.mean.iter().zip(&preprocessing.std);
    let ends = channels.flat_map(|(mean, std)| [(0.0 - mean) / std, (255.0 - mean) / std]);
    let range = ends.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), end| {
        (low.min(end), high.max(end))
    });
    Ok(Samples {
        calibration,
        check,
        range,
    })
}

/// At most `most` of `rows`, evenly spaced.
fn spread(rows: &[usize], most: usize) -> Vec<usize> {
    let count = rows.len().min(most);
    (0..count).map(|index| rows[index * rows.len() / count]).collect()
}

/// What became of the network, in a sentence.
fn told(quantized: &Quantized, held_out: [Option<f64>; 2], (float, small): (&Bytes, &Bytes)) -> String {
    let mebibytes = |file: &Bytes| file.len() as f64 / f64::from(1 << 20);
    let accuracy = match held_out {
        [Some(float), Some(small)] => format!(
            "; of the held-out training images it recognizes {:.1} %, the float one {:.1} %",
            100.0 * small,
            100.0 * float
        ),
        _ => String::new(),
    };
    format!(
        "In 8-bit integers, {} of {} convolutions, the network has {:.1} MiB instead of {:.1}, and its vectors a mean \
         cosine of {:.4} with the float one's{accuracy}.",
        quantized.convolutions - quantized.left,
        quantized.convolutions,
        mebibytes(small),
        mebibytes(float),
        quantized.cosine,
    )
}

/// Whether the quantized network, the second of each pair, is to be preferred, and why.
fn decide(held_out: [Option<f64>; 2], speeds: Speeds) -> (bool, String) {
    let milliseconds = |time: std::time::Duration| 1000.0 * time.as_secs_f64();
    let times = format!(
        "{:.1} ms instead of {:.1} for an image on one thread of this machine",
        milliseconds(speeds.second),
        milliseconds(speeds.first)
    );
    match held_out {
        [Some(float), Some(small)] if small + ALLOWED_LOSS < float => (
            false,
            format!(
                "The network stays in floats: in integers it would recognize {:.1} points less.",
                100.0 * (float - small)
            ),
        ),
        [Some(_), Some(_)] if speeds.second < speeds.first => {
            (true, format!("The network is kept in integers: it takes {times}."))
        }
        [Some(_), Some(_)] => (
            false,
            format!("The network stays in floats: in integers it would be no faster, {times}."),
        ),
        _ => (
            false,
            "The network stays in floats: nothing was held out to tell whether it is as good in integers.".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn integers_are_kept_where_they_are_as_good_and_faster() {
        let speeds = |first, second| Speeds {
            first: Duration::from_millis(first),
            second: Duration::from_millis(second),
        };
        let (keeps, reason) = decide([Some(0.9), Some(0.896)], speeds(10, 6));
        assert!(keeps && reason.contains("6.0 ms instead of 10.0"), "{reason}");
        let (keeps, reason) = decide([Some(0.9), Some(0.89)], speeds(10, 6));
        assert!(!keeps && reason.contains("1.0 points less"), "{reason}");
        let (keeps, reason) = decide([Some(0.9), Some(0.95)], speeds(10, 10));
        assert!(!keeps && reason.contains("no faster"), "{reason}");
        assert!(!decide([None, None], speeds(10, 6)).0);
    }

    #[test]
    fn images_are_spread_over_the_training_part() {
        assert_eq!(spread(&[3, 5, 8, 9, 11, 12], 3), [3, 8, 11]);
        assert_eq!(spread(&[3, 5], 3), [3, 5]);
        assert!(spread(&[], 3).is_empty());
    }
}
