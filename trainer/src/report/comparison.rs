//! The page that sets runs side by side.

use askama::Template;
use serde::Serialize;

use super::chart::Line;
use super::plots::{MOST_LINES, roc_chart};
use super::{Plot, ReportError, STYLE, figure, interval, percent};
use crate::counted::counted;
use crate::evaluation::{RocCurve, RocCurves, SIGNIFICANCE, Spread, p_text};
use crate::runs::{Compared, Comparison, Difference};

/// At most so many classes get a plot of their own.
const CLASSES: usize = 12;

/// Repeats of one setting taken together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// What they have in common.
    pub setting: String,
    /// Their number.
    pub repeats: usize,
    /// Mean and standard deviation.
    pub accuracy: String,
    /// Least and largest accuracy.
    pub range: String,
    /// Mean and standard deviation.
    pub class_averaged: String,
    /// Mean and standard deviation.
    pub auc: String,
    /// The same as numbers.
    pub figures: Figures,
}

/// Figures over the repeats of a setting; absent where no repeat has one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Share of test images classified rightly.
    pub accuracy: Option<Spread>,
    /// Mean recall of the classes.
    pub class_averaged_accuracy: Option<Spread>,
    /// Mean of the classes' AUC.
    pub auc_macro: Option<Spread>,
}

#[derive(Template)]
#[template(path = "comparison.html")]
struct Page<'a> {
    title: String,
    style: &'a str,
    groups: &'a [Group],
    /// Runs beside these that cannot be compared with them, each with the reason.
    left_out: &'a [String],
    figure_names: Vec<&'static str>,
    runs: Vec<Row<'a>>,
    significance: f64,
    tests: usize,
    paired: Vec<PairRow>,
    caveats: &'a [String],
    charts: Vec<Plot>,
    /// How many classes there are curves of.
    classes: usize,
    /// How many of them have a plot.
    plotted: usize,
    differences: &'a [Difference],
}

struct Row<'a> {
    id: &'a str,
    label: &'a str,
    figures: Vec<String>,
}

struct PairRow {
    runs: String,
    images: usize,
    only_first: usize,
    only_second: usize,
    p_value: String,
    corrected: String,
    verdict: String,
}

/// The page, with the `groups` of repeats where there are any, and the names of runs that are `left_out`.
pub fn comparison(comparison: &Comparison, groups: &[Group], left_out: &[String]) -> Result<String, ReportError> {
    let drawn = drawn(comparison);
    let classes = classes(&drawn);
    let page = Page {
        title: format!("{} compared", counted(comparison.runs.len(), "run", "runs")),
        style: STYLE,
        groups,
        left_out,
        figure_names: vec![
            "accuracy",
            "interval",
            "class-averaged",
            "AUC macro",
            "AUC micro",
            "calibration error",
            "C",
            "test images",
        ],
        runs: comparison.runs.iter().map(row).collect(),
        significance: SIGNIFICANCE,
        tests: comparison.tests,
        paired: pairs(comparison),
        caveats: &comparison.caveats,
        classes: classes.len(),
        plotted: classes.len().min(CLASSES),
        charts: charts(&drawn, comparison.runs.len(), &classes)?,
        differences: &comparison.differences,
    };
    page.render().map_err(|error| ReportError::Page(error.to_string()))
}

fn row(run: &Compared) -> Row<'_> {
    let evaluation = &run.metrics.evaluation;
    Row {
        id: &run.id,
        label: &run.folder,
        figures: vec![
            percent(evaluation.accuracy),
            interval(evaluation.accuracy_interval).replace("95 % interval ", ""),
            percent(evaluation.class_averaged_accuracy),
            figure(evaluation.auc_macro),
            figure(evaluation.auc_micro),
            figure(evaluation.calibration.ece),
            run.metrics.chosen_c.map_or_else(|| "–".to_owned(), |c| c.to_string()),
            evaluation.test_count.to_string(),
        ],
    }
}

fn pairs(comparison: &Comparison) -> Vec<PairRow> {
    let label = |index: usize| &comparison.runs[index].folder;
    let rows = comparison.paired.iter().map(|pair| PairRow {
        runs: format!("{} and {}", label(pair.first), label(pair.second)),
        images: pair.test.images,
        only_first: pair.test.only_first,
        only_second: pair.test.only_second,
        p_value: p_text(pair.test.p_value),
        corrected: p_text(pair.corrected_p_value),
        verdict: pair.verdict(label(pair.first), label(pair.second)),
    });
    rows.collect()
}

/// A run whose curves are drawn.
struct Drawn<'a> {
    run: &'a Compared,
    curves: RocCurves,
}

impl Drawn<'_> {
    fn of_class(&self, class: &str) -> Option<RocCurve> {
        let index = self.run.predictions.classes.iter().position(|known| known == class)?;
        self.curves.per_class[index].clone()
    }
}

/// The runs that have a place in one plot.
fn drawn(comparison: &Comparison) -> Vec<Drawn<'_>> {
    let runs = comparison.runs.iter().take(MOST_LINES);
    runs.map(|run| Drawn {
        run,
        curves: RocCurves::new(&run.predictions),
    })
    .collect()
}

/// The classes that there are curves of, by name.
fn classes<'a>(drawn: &'a [Drawn<'a>]) -> Vec<&'a str> {
    let mut classes: Vec<&str> = drawn
        .iter()
        .flat_map(|drawn| drawn.run.predictions.classes.iter().zip(&drawn.curves.per_class))
        .filter(|(_, curve)| curve.is_some())
        .map(|(label, _)| label.as_str())
        .collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// The averages of the `drawn` among `all` runs, and each class, overlaid.
fn charts(drawn: &[Drawn], all: usize, classes: &[&str]) -> Result<Vec<Plot>, ReportError> {
    let caption = if all > MOST_LINES {
        format!("The first {MOST_LINES} of {all} runs.")
    } else {
        String::new()
    };
    let overlaid = |title: &str, curve: &dyn Fn(&Drawn) -> Option<RocCurve>| -> Result<Option<Plot>, ReportError> {
        let lines: Vec<Line> = drawn
            .iter()
            .filter_map(|drawn| {
                let points = curve(drawn)?.points.into_iter().map(|[x, y]| (x, y)).collect();
                Some(Line::new(drawn.run.folder.as_str(), points))
            })
            .collect();
        if lines.is_empty() {
            return Ok(None);
        }
        Ok(Some(Plot {
            svg: roc_chart(title, lines).draw()?,
            title: title.to_owned(),
            caption: caption.clone(),
        }))
    };
    let mut charts = Vec::new();
    charts.extend(overlaid("Mean of the classes (macro)", &|drawn: &Drawn| {
        drawn.curves.macro_average.clone()
    })?);
    charts.extend(overlaid("All together (micro)", &|drawn: &Drawn| {
        drawn.curves.micro_average.clone()
    })?);
    for &class in classes.iter().take(CLASSES) {
        charts.extend(overlaid(class, &|drawn: &Drawn| drawn.of_class(class))?);
    }
    Ok(charts)
}
