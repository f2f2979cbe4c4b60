//! Which plots a report has.

use super::chart::{Axis, Form, Line, LineChart, matrix};
use super::{Plot, ReportError, figure};
use crate::evaluation::confidence::{bins, rejections};
use crate::evaluation::{Evaluation, Metrics, Predictions, RocCurve, RocCurves};
use crate::refine::{Epoch, RateCurve, RatePoint};
use crate::svm::SweepEntry;

/// At most so many classes are drawn in one plot.
pub(super) const MOST_LINES: usize = 10;

/// Share axes go from 0 to 1.
fn share(label: &'static str) -> Axis {
    Axis {
        label,
        range: 0.0..1.0,
        form: Form::Percent,
    }
}

fn points(curve: &RocCurve) -> Vec<(f64, f64)> {
    curve.points.iter().map(|[x, y]| (*x, *y)).collect()
}

/// ROC axes with these curves.
pub(super) fn roc_chart(title: &str, mut lines: Vec<Line>) -> LineChart {
    lines.push(Line::reference(vec![(0.0, 0.0), (1.0, 1.0)]));
    LineChart {
        title: title.to_owned(),
        x: share("false positive rate"),
        y: share("true positive rate"),
        lines,
    }
}

/// Each class against the rest, and their averages, with the areas that `evaluation` gives.
pub(super) fn roc(predictions: &Predictions, evaluation: &Evaluation) -> Result<Plot, ReportError> {
    let curves = RocCurves::new(predictions);
    let average = |name: &str, curve: &Option<RocCurve>, area| {
        let curve = curve.as_ref()?;
        Some(Line::new(format!("{name} {}", figure(area)), points(curve)).summary())
    };
    let mut classes: Vec<(f64, &str, &RocCurve)> = predictions
        .classes
        .iter()
        .zip(&curves.per_class)
        .filter_map(|(label, curve)| Some((evaluation.per_class.get(label)?.auc?, label.as_str(), curve.as_ref()?)))
        .collect();
    let all = classes.len();
    if all > MOST_LINES {
        classes.sort_by(|a, b| a.0.total_cmp(&b.0));
        classes.truncate(MOST_LINES);
    }
    let of_class = |(area, label, curve): &(f64, &str, &RocCurve)| {
        Line::new(format!("{} {area:.3}", super::chart::shortened(label)), points(curve))
    };
    let mut lines: Vec<Line> = classes.iter().map(of_class).collect();
    lines.extend(average("macro", &curves.macro_average, evaluation.auc_macro));
    lines.extend(average("micro", &curves.micro_average, evaluation.auc_micro));
    let title = "ROC curves";
    let caption = if all > MOST_LINES {
        format!(
            "Each class against the rest, with the area under the curve; the {MOST_LINES} classes with the smallest."
        )
    } else {
        "Each class against the rest, with the area under the curve.".to_owned()
    };
    Ok(Plot {
        title: title.to_owned(),
        svg: roc_chart(title, lines).draw()?,
        caption,
    })
}

/// Confidence against accuracy.
pub(super) fn calibration(predictions: &Predictions, error: Option<f64>) -> Result<Plot, ReportError> {
    let bins = bins(predictions);
    let filled = bins.iter().filter(|bin| bin.images > 0);
    let line = filled.map(|bin| {
        let images = bin.images as f64;
        (bin.confidence / images, bin.right as f64 / images)
    });
    let chart = LineChart {
        title: "Calibration".to_owned(),
        x: share("confidence"),
        y: share("accuracy"),
        lines: vec![
            Line::new("accuracy", line.collect()).marked(),
            Line::reference(vec![(0.0, 0.0), (1.0, 1.0)]),
        ],
    };
    Ok(Plot {
        svg: chart.draw()?,
        title: chart.title,
        caption: format!(
            "Of the answers given with 80 % confidence, 80 % should be right: on the dashed line. Expected \
             calibration error {}.",
            figure(error)
        ),
    })
}

/// What is gained by answering only above a threshold.
pub(super) fn rejection(predictions: &Predictions) -> Result<Plot, ReportError> {
    const MOST_POINTS: usize = 400;
    let found = rejections(predictions);
    let step = found.len().div_ceil(MOST_POINTS).max(1);
    let thinned = || found.iter().step_by(step);
    let chart = LineChart {
        title: "Answering only when sure".to_owned(),
        x: share("least confidence that is answered"),
        y: share("share"),
        lines: vec![
            Line::new(
                "right answers",
                thinned().map(|point| (point.threshold, point.accuracy)).collect(),
            ),
            Line::new(
                "images answered",
                thinned().map(|point| (point.threshold, point.answered)).collect(),
            ),
        ],
    };
    Ok(Plot {
        svg: chart.draw()?,
        title: chart.title,
        caption: "How many answers are right, and how many images get one, where all that are less sure are held back."
            .into(),
    })
}

/// Accuracy for each C, where there was a choice.
pub(super) fn c_sweep(metrics: &Metrics) -> Result<Option<Plot>, ReportError> {
    let entries = &metrics.c_sweep;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(None);
    };
    if entries.len() < 2 || first.c <= 0.0 {
        return Ok(None);
    }
    let along = |value: fn(&SweepEntry) -> f64| -> Vec<(f64, f64)> {
        let points = entries.iter();
        points.map(|entry| (entry.c.log10(), value(entry))).collect()
    };
    let (held_out, weighting) = if first.cv_class_averaged_accuracy.is_some() {
        ("held out, by class", ", every class counting the same")
    } else {
        ("held out", "")
    };
    let chart = LineChart {
        title: "Choice of C".to_owned(),
        x: Axis {
            label: "C",
            range: first.c.log10()..last.c.log10(),
            form: Form::PowerOfTen,
        },
        y: share("accuracy"),
        lines: vec![
            Line::new(held_out, along(SweepEntry::score)).marked(),
            Line::new("trained on", along(|entry| entry.train_accuracy)).marked(),
        ],
    };
    let chosen = metrics
        .chosen_c
        .map(|c| format!(" {c} was chosen."))
        .unwrap_or_default();
    Ok(Some(Plot {
        svg: chart.draw()?,
        title: chart.title,
        caption: format!(
            "A larger C fits the training images more closely. C is chosen by images held out of them{weighting}; a \
             class that is never held out counts by its training images.{chosen}"
        ),
    }))
}

/// Error over the epochs of a refinement.
pub(super) fn epochs(history: &[Epoch], test_error: Option<f64>) -> Result<Option<Plot>, ReportError> {
    if history.len() < 2 {
        return Ok(None);
    }
    let numbered = || {
        history
            .iter()
            .enumerate()
            .map(|(number, epoch)| ((number + 1) as f64, epoch))
    };
    let last = history.len() as f64;
    let validation: Vec<_> = numbered()
        .filter_map(|(number, epoch)| Some((number, f64::from(epoch.validation_error?))))
        .collect();
    let mut lines = vec![Line::new(
        "training",
        numbered()
            .map(|(number, epoch)| (number, f64::from(epoch.train_error)))
            .collect(),
    )];
    if !validation.is_empty() {
        lines.push(Line::new("validation", validation).marked());
    }
    if let Some(error) = test_error {
        lines.push(Line::new("test, at the end", vec![(1.0, error), (last, error)]));
    }
    let highest = lines
        .iter()
        .flat_map(|line| &line.points)
        .fold(0.05_f64, |top, point| top.max(point.1));
    let chart = LineChart {
        title: "Refinement".to_owned(),
        x: Axis {
            label: "epoch",
            range: 1.0..last,
            form: Form::Whole,
        },
        y: Axis {
            range: 0.0..(1.1 * highest).min(1.0),
            ..share("share of wrong answers")
        },
        lines,
    };
    Ok(Some(Plot {
        svg: chart.draw()?,
        title: chart.title,
        caption:
            "Training images are varied, and features dropped, so that their error can be the higher one. The test \
                  images were looked at once, after the last epoch."
                .to_owned(),
    }))
}

/// The curve of a search for a learning rate as SVG, with the suggested rate where there is one.
///
/// # Errors
/// [`ReportError::Plot`].
pub fn rates(curve: &RateCurve) -> Result<String, ReportError> {
    let along = |value: fn(&RatePoint) -> f32| -> Vec<(f64, f64)> {
        let points = curve.points.iter();
        points
            .map(|point| (f64::from(point.rate).log10(), f64::from(value(point))))
            .collect()
    };
    let (losses, smoothed) = (along(|point| point.loss), along(|point| point.smoothed));
    let highest = smoothed.iter().fold(0.05_f64, |top, point| top.max(point.1));
    let begin = smoothed.first().map_or(-6.0, |point| point.0.floor());
    let end = smoothed.last().map_or(0.0, |point| point.0.ceil()).max(begin + 1.0);
    let within = losses.into_iter().map(|(rate, loss)| (rate, loss.min(1.1 * highest)));
    let mut lines = vec![
        Line::new("each minibatch", within.collect()),
        Line::new("smoothed", smoothed).summary(),
    ];
    if let Some(rate) = curve.suggestion {
        let at = f64::from(rate).log10();
        lines.push(Line::new(
            format!("suggested: {rate:.1e}"),
            vec![(at, 0.0), (at, 1.1 * highest)],
        ));
    }
    LineChart {
        title: "Learning rates".to_owned(),
        x: Axis {
            label: "learning rate",
            range: begin..end,
            form: Form::PowerOfTen,
        },
        y: Axis {
            label: "loss",
            range: 0.0..1.1 * highest,
            form: Form::Plain,
        },
        lines,
    }
    .draw()
}

/// What is taken for what.
pub(super) fn confusion(evaluation: &Evaluation) -> Result<String, ReportError> {
    matrix("Confusion", &evaluation.classes, &evaluation.confusion)
}
