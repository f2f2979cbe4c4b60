use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;
use shared::files;

use super::Place;
use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::{printable, printable_path};
use crate::cli::resources::{check_new, save};
use crate::counted::counted;
use crate::evaluation;
use crate::report;
use crate::runs::{Comparison, Entry};

/// Set runs side by side: figures, ROC curves, parameters that differ, and whether the difference is more than chance.
///
/// Prints a table and writes a page. Where two runs were tested on the same images, McNemar's paired test says whether
/// the difference between them means anything, with Holm's correction for the number of pairs.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ids of runs or beginnings of them, names of their folders, the folders, or their bundles
    #[arg(value_name = "ID", num_args = 2.., required = true, value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    /// Where the page is written; must not exist already [default: comparison-DIGITS.html, the digits made of the ids]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    page: &'a Path,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if let Some(page) = &arguments.out {
        check_new(page, "--out")?;
    }
    let entries = arguments.place.find(&arguments.ids, session)?;
    check_different(&arguments.ids, &entries)?;
    let comparison = Comparison::new(&entries)?;
    let page = arguments.out.clone().unwrap_or_else(|| {
        // The same runs get the same name and the same page, so that nothing else is overwritten.
        let ids: Vec<&str> = entries.iter().map(|entry| entry.record.id.as_str()).collect();
        format!("comparison-{}.html", &files::sha256_hex(ids.join(" ").as_bytes())[..8]).into()
    });
    save(&page, report::comparison(&comparison, &[], &[])?.as_bytes(), "--out")?;
    let document = Document {
        page: &page,
        comparison: &comparison,
    };
    session.output.result(&document, &text(&comparison, &page))?;
    Ok(Done::Complete)
}

/// Refuses a run that is named twice: compared with itself, it would be no test of anything.
fn check_different(names: &[String], entries: &[Entry]) -> Result<(), Failure> {
    for (second, entry) in entries.iter().enumerate() {
        let is_same = |earlier: &Entry| earlier.record.id == entry.record.id;
        if let Some(first) = entries[..second].iter().position(is_same) {
            return Err(Failure::usage(format!(
                "{} and {} are the same run, {}: name different ones",
                names[first], names[second], entry.record.id
            )));
        }
    }
    Ok(())
}

fn text(comparison: &Comparison, page: &Path) -> String {
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.1} %", 100.0 * value));
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let header = [
        "run",
        "accuracy",
        "95 % interval",
        "class-averaged",
        "AUC macro",
        "C",
        "test images",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(comparison.runs.iter().map(|run| {
        let evaluation = &run.metrics.evaluation;
        vec![
            printable(&run.folder),
            share(evaluation.accuracy),
            evaluation.accuracy_interval.map_or_else(
                || "-".to_owned(),
                |[low, high]| format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high),
            ),
            share(evaluation.class_averaged_accuracy),
            figure(evaluation.auc_macro),
            run.metrics.chosen_c.map_or_else(|| "-".to_owned(), |c| c.to_string()),
            evaluation.test_count.to_string(),
        ]
    }));
    let mut text = evaluation::aligned(&rows);

    if !comparison.differences.is_empty() {
        text.push_str("\nParameters that differ:\n");
    }
    let mut rows = Vec::new();
    for difference in &comparison.differences {
        let values = difference.values.iter();
        let values = values.map(|value| printable(value.as_deref().unwrap_or("-")));
        rows.push(
            std::iter::once(format!("  {}", difference.parameter))
                .chain(values)
                .collect::<Vec<_>>(),
        );
    }
    text.push_str(&evaluation::aligned(&rows));
    text.push('\n');
    if comparison.paired.is_empty() {
        text.push_str("No test image in common: only the intervals can be compared.\n");
    }
    for pair in &comparison.paired {
        let label = |index: usize| printable(&comparison.runs[index].folder);
        let (first, second) = (label(pair.first), label(pair.second));
        let test = &pair.test;
        let corrected = if comparison.tests > 1 {
            let p = evaluation::p_text(pair.corrected_p_value);
            format!("; corrected for {} pairs (Holm): p = {p}", comparison.tests)
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "{first} and {second}: {}. Of {}, {} only {first} got right, {} only {second} (McNemar's \
             exact test: p = {}{corrected}).",
            pair.verdict(&first, &second),
            counted(test.images, "common test image", "common test images"),
            test.only_first,
            test.only_second,
            evaluation::p_text(test.p_value)
        );
    }
    for caveat in &comparison.caveats {
        let _ = writeln!(text, "{}", printable(caveat));
    }
    let _ = write!(text, "\nPage: {}", printable_path(page));
    text
}
