//! `report.html`.

use std::collections::BTreeMap;

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Plot, Report, ReportError, SCRIPT, STYLE, figure, interval, percent, plots};
use crate::counted::counted;
use crate::dataset::text_of;
use crate::evaluation::{Evaluation, MATRIX, Predicted};
use crate::runs::{ClassCount, flatten};

/// Where there are too many classes for a matrix, so many mistakes are listed.
const MISTAKES: usize = 50;
/// So many of an image's scores are on the page, or many classes would make it too large.
const SCORES: usize = 20;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    subtitle: String,
    style: &'a str,
    script: &'a str,
    script_hash: String,
    figures: Vec<Figure>,
    remarks: Vec<String>,
    advice: Vec<String>,
    classes: Vec<Class<'a>>,
    matrix: Vec<Row<'a>>,
    mistakes: Vec<Mistake<'a>>,
    charts: Vec<Plot>,
    pictures: usize,
    test_images: usize,
    data: String,
    facts: Vec<(&'a str, String)>,
    counts: &'a [ClassCount],
    parameters: BTreeMap<String, String>,
    left_out: Vec<(String, &'a str)>,
}

struct Figure {
    name: &'static str,
    value: String,
    note: String,
}

struct Class<'a> {
    label: &'a str,
    precision: String,
    recall: String,
    f1: String,
    auc: String,
    support: usize,
}

struct Row<'a> {
    index: usize,
    label: &'a str,
    cells: Vec<Cell>,
}

struct Cell {
    index: usize,
    count: usize,
    share: String,
    /// Opacity.
    shade: String,
    /// Whether there are images to link to.
    linked: bool,
}

struct Mistake<'a> {
    row: usize,
    column: usize,
    truth: &'a str,
    predicted: &'a str,
    count: usize,
}

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'a> {
    classes: &'a [String],
    images: Vec<Image>,
}

#[derive(Serialize)]
struct Image {
    path: String,
    truth: usize,
    /// Classes with their scores: the answer first, then the likeliest.
    scores: Vec<(usize, f64)>,
    width: u32,
    height: u32,
    thumbnail: String,
    map: Option<(usize, usize, String)>,
}

pub(super) fn render(report: &Report, roc: Plot) -> Result<String, ReportError> {
    let evaluation = &report.metrics.evaluation;
    let pictures = report.gallery.images.len();
    let (matrix, mistakes) = if evaluation.classes.len() <= MATRIX {
        (matrix(evaluation, pictures > 0), Vec::new())
    } else {
        (Vec::new(), mistakes(evaluation))
    };
    let mut parameters = BTreeMap::new();
    flatten("", report.parameters, &mut parameters);
    let left_out = report.skipped.iter();
    let page = Page {
        title: title(report),
        subtitle: subtitle(report),
        style: STYLE,
        script: SCRIPT,
        script_hash: STANDARD.encode(Sha256::digest(SCRIPT)),
        figures: figures(report),
        remarks: remarks(report),
        advice: report.record.advice(report.metrics),
        classes: classes(evaluation),
        matrix,
        mistakes,
        charts: charts(report, roc)?,
        pictures,
        test_images: evaluation.test_count,
        data: if pictures > 0 { data(report)? } else { String::new() },
        facts: facts(report),
        counts: &report.record.data.classes,
        parameters,
        left_out: left_out
            .map(|item| (text_of(&item.path), item.reason.as_str()))
            .collect(),
    };
    page.render().map_err(|error| ReportError::Page(error.to_string()))
}

fn title(report: &Report) -> String {
    let name = &report.record.name;
    match report.metrics.evaluation.accuracy {
        Some(accuracy) => format!("{name}: {:.1} % right", 100.0 * accuracy),
        None => format!("{name}: no test image"),
    }
}

fn subtitle(report: &Report) -> String {
    let record = report.record;
    format!(
        "Run {}, {}; {} with {} at {} pixels; version {}",
        record.id,
        record.created,
        record.classifier.name(),
        record.backbone.name,
        record.resolution,
        record.version
    )
}

fn figures(report: &Report) -> Vec<Figure> {
    let (metrics, evaluation) = (report.metrics, &report.metrics.evaluation);
    let counts = match metrics.train_count {
        Some(train) => format!("{train} trained on"),
        None => String::new(),
    };
    vec![
        Figure {
            name: "Accuracy",
            value: percent(evaluation.accuracy),
            note: interval(evaluation.accuracy_interval),
        },
        Figure {
            name: "Class-averaged accuracy",
            value: percent(evaluation.class_averaged_accuracy),
            note: interval(evaluation.class_averaged_accuracy_interval),
        },
        Figure {
            name: "AUC, mean of the classes",
            value: figure(evaluation.auc_macro),
            note: format!("of all together {}", figure(evaluation.auc_micro)),
        },
        Figure {
            name: "Calibration error",
            value: figure(evaluation.calibration.ece),
            note: "0 where confidence is accuracy".to_owned(),
        },
        Figure {
            name: "Test images",
            value: evaluation.test_count.to_string(),
            note: counts,
        },
    ]
}

fn remarks(report: &Report) -> Vec<String> {
    let evaluation = &report.metrics.evaluation;
    let measured = evaluation.accuracy.zip(evaluation.accuracy_interval);
    let width = measured.map(|(accuracy, [low, high])| {
        format!(
            "{} the accuracy uncertain by up to {:.1} points: on other test images, a model that is as good may well \
             differ by that much. Models tested on the same images are told apart by trainer runs compare.",
            counted(evaluation.test_count, "test image leaves", "test images leave"),
            // Near 0 and 100 % most of the interval lies on one side.
            100.0 * (accuracy - low).max(high - accuracy)
        )
    });
    let notes = report.record.notes.iter().cloned();
    width
        .into_iter()
        .chain(evaluation.held_back())
        .chain(evaluation.untested())
        .chain(notes)
        .collect()
}

fn classes(evaluation: &Evaluation) -> Vec<Class<'_>> {
    let of = |label: &String| evaluation.per_class.get_key_value(label);
    let rows = evaluation.classes.iter().filter_map(of);
    rows.map(|(label, of_class)| Class {
        label,
        precision: figure(of_class.precision),
        recall: figure(of_class.recall),
        f1: figure(of_class.f1),
        auc: figure(of_class.auc),
        support: of_class.support,
    })
    .collect()
}

fn matrix(evaluation: &Evaluation, linked: bool) -> Vec<Row<'_>> {
    let rows = evaluation.classes.iter().zip(&evaluation.confusion).enumerate();
    rows.map(|(index, (label, counts))| {
        let total: usize = counts.iter().sum();
        let cell = |(index, count): (usize, &usize)| {
            let share = if total == 0 { 0.0 } else { *count as f64 / total as f64 };
            Cell {
                index,
                count: *count,
                share: if total == 0 {
                    "–".to_owned()
                } else {
                    format!("{:.0} %", 100.0 * share)
                },
                shade: format!("{:.2}", 0.55 * share),
                linked: linked && *count > 0,
            }
        };
        Row {
            index,
            label,
            cells: counts.iter().enumerate().map(cell).collect(),
        }
    })
    .collect()
}

fn mistakes(evaluation: &Evaluation) -> Vec<Mistake<'_>> {
    let classes = &evaluation.classes;
    let mistakes = evaluation.mistakes().into_iter().take(MISTAKES);
    mistakes
        .map(|(row, column, count)| Mistake {
            row,
            column,
            truth: &classes[row],
            predicted: &classes[column],
            count,
        })
        .collect()
}

fn charts(report: &Report, roc: Plot) -> Result<Vec<Plot>, ReportError> {
    let evaluation = &report.metrics.evaluation;
    let mut charts = Vec::new();
    if evaluation.test_count > 0 {
        charts.push(roc);
        charts.push(plots::calibration(report.predictions, evaluation.calibration.ece)?);
        charts.push(plots::rejection(report.predictions)?);
    }
    charts.extend(plots::c_sweep(report.metrics)?);
    charts.extend(plots::epochs(
        report.history,
        evaluation.accuracy.map(|accuracy| 1.0 - accuracy),
    )?);
    Ok(charts)
}

fn facts<'a>(report: &Report) -> Vec<(&'a str, String)> {
    let (record, metrics) = (report.record, report.metrics);
    let seconds = metrics.seconds;
    let stages = [
        ("featurize", seconds.featurize),
        ("refine", seconds.refine),
        ("SVM", seconds.svm),
        ("evaluate", seconds.evaluate),
    ];
    let times = stages
        .into_iter()
        .filter_map(|(stage, seconds)| Some(format!("{stage} {:.1} s", seconds?)));
    let mut facts = vec![
        ("model", format!("{}, version {}", record.name, record.version)),
        (
            "network",
            format!("{} (SHA-256 {})", record.backbone.name, record.backbone.sha256),
        ),
        ("input", format!("{0} x {0} pixels", record.resolution)),
        (
            "data",
            format!(
                "{}: {} in {}, {} left out",
                record.data.root,
                counted(record.data.images, "image", "images"),
                counted(record.data.classes.len(), "class", "classes"),
                counted(record.data.left_out, "file", "files")
            ),
        ),
        ("fingerprint of the data", record.data.fingerprint.clone()),
        ("time", times.collect::<Vec<_>>().join(", ")),
        ("program", record.program.clone()),
    ];
    if let Some(c) = metrics.chosen_c {
        facts.insert(3, ("C", c.to_string()));
    }
    facts
}

fn scores(row: &Predicted) -> Vec<(usize, f64)> {
    let rounded = |score: &f32| (f64::from(*score) * 1e4).round() / 1e4;
    let mut scores: Vec<(usize, f64)> = row.probabilities.iter().map(rounded).enumerate().collect();
    scores.sort_by(|a, b| (b.0 == row.best).cmp(&(a.0 == row.best)).then(b.1.total_cmp(&a.1)));
    scores.truncate(SCORES);
    scores
}

/// The images as JSON that can stand within a page: nothing in it ends the script or begins markup.
fn data(report: &Report) -> Result<String, ReportError> {
    let predictions = report.predictions;
    let images = report.gallery.images.iter().map(|shown| {
        let row = &predictions.rows[shown.row];
        Image {
            path: text_of(&row.path),
            truth: row.truth,
            scores: scores(row),
            width: shown.width,
            height: shown.height,
            thumbnail: STANDARD.encode(&shown.thumbnail),
            map: shown
                .map
                .as_ref()
                .map(|map| (map.width, map.height, STANDARD.encode(map.intensities()))),
        }
    });
    let data = Data {
        classes: &predictions.classes,
        images: images.collect(),
    };
    let json = serde_json::to_string(&data).map_err(|error| ReportError::Page(error.to_string()))?;
    Ok(json
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026"))
}
