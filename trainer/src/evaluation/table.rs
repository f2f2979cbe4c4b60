//! An evaluation as plain text.

use std::fmt::Write;
use std::path::Path;

use unicode_width::UnicodeWidthStr;

use super::{Evaluation, MATRIX};
use crate::counted::counted;
use crate::dataset::escape;

/// Mistakes that are listed where there are too many classes for a matrix.
const MISTAKES: usize = 20;

/// Per-class numbers and the confusion matrix, or the most frequent mistakes, in columns, without colours.
pub fn table(evaluation: &Evaluation) -> String {
    let mut rows = vec![
        ["class", "precision", "recall", "F1", "AUC", "images"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for class in &evaluation.classes {
        if let Some(of_class) = evaluation.per_class.get(class) {
            rows.push(vec![
                shown(class),
                share(of_class.precision),
                share(of_class.recall),
                share(of_class.f1),
                share(of_class.auc),
                of_class.support.to_string(),
            ]);
        }
    }
    let mut text = aligned(&rows);
    text.push('\n');
    let taken_for = if evaluation.classes.len() <= MATRIX {
        confusion(evaluation)
    } else {
        mistakes(evaluation)
    };
    text.push_str(&taken_for);
    text.push('\n');
    if let Some(untested) = evaluation.untested() {
        let _ = writeln!(text, "{untested}");
    }
    if evaluation.test_count == 0 {
        return text;
    }
    let interval = evaluation.accuracy_interval;
    let _ = writeln!(
        text,
        "Accuracy {} (95 % interval {} to {}) on {}; class-averaged {}; AUC macro {}, micro {}; \
         calibration error {}",
        share(evaluation.accuracy),
        share(interval.map(|bounds| bounds[0])),
        share(interval.map(|bounds| bounds[1])),
        counted(evaluation.test_count, "image", "images"),
        share(evaluation.class_averaged_accuracy),
        share(evaluation.auc_macro),
        share(evaluation.auc_micro),
        share(evaluation.calibration.ece),
    );
    if let Some(held_back) = evaluation.held_back() {
        let _ = writeln!(text, "{held_back}");
    }
    text
}

fn confusion(evaluation: &Evaluation) -> String {
    let mut rows = vec![
        std::iter::once(String::new())
            .chain((1..=evaluation.classes.len()).map(|number| number.to_string()))
            .collect::<Vec<_>>(),
    ];
    for (index, (class, counts)) in evaluation.classes.iter().zip(&evaluation.confusion).enumerate() {
        rows.push(
            std::iter::once(format!("{} {}", index + 1, shown(class)))
                .chain(counts.iter().map(ToString::to_string))
                .collect(),
        );
    }
    format!("Confusion (rows: truth, columns: prediction)\n{}", aligned(&rows))
}

fn mistakes(evaluation: &Evaluation) -> String {
    let mistakes = evaluation.mistakes();
    if mistakes.is_empty() {
        return "No image was taken for one of another class.\n".to_owned();
    }
    let mut rows = vec![["truth", "prediction", "images"].map(str::to_owned).to_vec()];
    for (truth, answer, count) in mistakes.into_iter().take(MISTAKES) {
        let classes = [truth, answer].map(|class| shown(&evaluation.classes[class]));
        rows.push(classes.into_iter().chain([count.to_string()]).collect());
    }
    format!("The most frequent mistakes\n{}", aligned(&rows))
}

/// The name of a class in one line.
pub(super) fn shown(class: &str) -> String {
    escape(Path::new(class))
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// Columns of equal width: the first left-aligned, the others right-aligned.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        text.push_str(&padded(&row[0], widths[0]));
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {}{cell}", padding(cell, *width));
        }
        text.push('\n');
    }
    text
}

/// `text`, left-aligned in so many columns of a terminal, of which a letter of East Asia or an emoji takes two.
pub fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", padding(text, width))
}

fn padding(text: &str, width: usize) -> String {
    " ".repeat(width.saturating_sub(text.width()))
}
