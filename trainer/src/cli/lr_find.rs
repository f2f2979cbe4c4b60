use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use shared::bundle::ClassifierKind;

use super::Session;
use super::failure::{Done, Failure};
use super::network::NetworkArguments;
use super::output::{list_skipped, printable_path};
use super::resources::{Resources, check_new, save, writable};
use super::training::TrainingArguments;
use super::values;
use crate::dataset::{Dataset, Skipped};
use crate::refine::{RateCurve, RateRange};
use crate::{report, training};

/// Rows of the curve in the terminal.
const ROWS: usize = 20;
/// Width of its widest bar.
const WIDTH: f32 = 40.0;

/// Suggest a learning rate for a refinement.
///
/// Trains for a few steps at rates that grow from very small to very large, draws the loss over them, and suggests the
/// rate at which it fell fastest, or none where it fell by no more than chance. Give the same options as to the
/// refinement itself; nothing is kept of the training.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders, or a list of paths and labels (.csv, .tsv or metadata.jsonl)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// File for the curve as SVG; must not exist already [default: none]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The first rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-6, value_parser = rate, alias = "from")]
    from_rate: f32,
    /// The last rate, where the loss does not grow out of bounds before
    #[arg(long, value_name = "RATE", default_value_t = 1.0, value_parser = rate, alias = "to")]
    to_rate: f32,
    /// Rates between them, one for each minibatch
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = values::number("a whole number from 10 to 10000", |steps: &usize| (10..=10_000).contains(steps)))]
    steps: usize,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    training: TrainingArguments,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    curve: &'a RateCurve,
    #[serde(serialize_with = "crate::dataset::as_text")]
    plot: Option<PathBuf>,
    skipped: &'a [Skipped],
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if let Some(out) = &arguments.out {
        check_new(out, "--out")?;
    }
    if arguments.to_rate <= arguments.from_rate {
        return Err(Failure::usage("--to-rate must be above --from-rate"));
    }
    if let Some(out) = &arguments.out {
        writable(out, "choose another file with --out")?;
    }
    let training = &arguments.training;
    training.check(true, session)?;
    let dataset = Dataset::scan(&arguments.data)?;
    let cache = session.cache()?;
    let runtime = Resources::runtime_for(&training.recipe.device, &cache, session)?;
    let backbone = arguments.network.obtain(&runtime, &cache, session)?;
    let workplace = training.workplace(&runtime, &cache, session);
    let parameters = training.parameters(&arguments.data, ClassifierKind::Dnn, training.split.seed());
    let Some(recipe) = &parameters.recipe else {
        return Err(Failure::failed("there is nothing to refine"));
    };
    let range = RateRange {
        least: arguments.from_rate,
        most: arguments.to_rate,
        steps: arguments.steps,
    };
    let (curve, skipped) = training::find_rate(&dataset, &backbone, &parameters, recipe, range, &workplace)?;
    if let Some(out) = &arguments.out {
        save(out, report::rate_plot(&curve)?.as_bytes(), "--out")?;
    }
    let document = Document {
        curve: &curve,
        plot: arguments.out.clone(),
        skipped: &skipped,
    };
    list_skipped(&skipped);
    session
        .output
        .result(&document, &text(&curve, arguments.out.as_deref()))?;
    Ok(Done::unless_left_out(&skipped))
}

fn text(curve: &RateCurve, plot: Option<&Path>) -> String {
    let highest = curve
        .points
        .iter()
        .fold(f32::MIN_POSITIVE, |top, point| top.max(point.smoothed));
    let mut text = "    rate    loss\n".to_owned();
    for point in curve.points.iter().step_by(curve.points.len().div_ceil(ROWS).max(1)) {
        let bar = "█".repeat((WIDTH * point.smoothed / highest).round() as usize);
        let _ = writeln!(text, "{:8.1e} {:7.3} {bar}", point.rate, point.smoothed);
    }
    let _ = match curve.suggestion {
        Some(rate) => write!(
            text,
            "\nSuggested: --learning-rate {rate:.1e}, at which the loss fell fastest"
        ),
        None => write!(
            text,
            "\nSuggested: nothing. The loss fell by no more than chance at any of these rates, so the default stands; \
             with more --steps less is left to chance"
        ),
    };
    if let Some(plot) = plot {
        let _ = write!(text, "\nCurve:     {}", printable_path(plot));
    }
    text
}

fn rate(text: &str) -> Result<f32, String> {
    values::number("a number above 0", |rate: &f32| rate.is_finite() && *rate > 0.0)(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refine::RatePoint;

    #[test]
    fn the_curve_is_drawn_in_the_terminal() {
        let point = |rate, smoothed| RatePoint {
            rate,
            loss: smoothed,
            smoothed,
        };
        let curve = RateCurve {
            points: vec![point(1e-4, 1.0), point(1e-3, 0.5), point(1e-2, 2.0)],
            suggestion: Some(1e-4),
        };
        insta::assert_snapshot!("lr-find", text(&curve, Some(Path::new("curve.svg"))));
        assert!(report::rate_plot(&curve).is_ok_and(|svg| svg.contains("suggested: 1.0e-4")));
        let without = RateCurve {
            suggestion: None,
            ..curve
        };
        assert!(text(&without, None).contains("Suggested: nothing."));
        assert!(report::rate_plot(&without).is_ok_and(|svg| !svg.contains("suggested")));
    }
}
