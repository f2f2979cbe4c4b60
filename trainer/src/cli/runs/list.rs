use clap::ValueEnum;
use serde::Serialize;

use super::Place;
use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::{printable, printable_path};
use crate::counted::counted;
use crate::evaluation;
use crate::runs::{Entry, Record};

/// List finished runs.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What they are ordered by, the largest or the latest last
    #[arg(long, value_enum, default_value_t = Order::Time)]
    sort: Order,
    /// Only runs with this text in their id, model, network, classifier, data or folder; may be given several times
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// When they ended
    Time,
    /// Share of right answers
    Accuracy,
    /// Name of the model
    Name,
}

/// A run in the list that `--json` prints.
#[derive(Serialize)]
struct Listed<'a> {
    folder: String,
    #[serde(flatten)]
    record: &'a Record,
    accuracy: Option<f64>,
    accuracy_interval: Option<[f64; 2]>,
    class_averaged_accuracy: Option<f64>,
    auc_macro: Option<f64>,
    test_count: usize,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let history = arguments.place.history(session)?;
    let wanted = |entry: &&Entry| {
        arguments
            .filter
            .iter()
            .all(|text| words(entry).contains(&text.to_lowercase()))
    };
    let mut entries: Vec<&Entry> = history.entries.iter().filter(wanted).collect();
    let accuracy = |entry: &Entry| entry.metrics.evaluation.accuracy.unwrap_or(-1.0);
    match arguments.sort {
        Order::Time => {}
        Order::Accuracy => entries.sort_by(|a, b| accuracy(a).total_cmp(&accuracy(b))),
        Order::Name => entries.sort_by(|a, b| a.record.name.cmp(&b.record.name)),
    }
    let document: Vec<Listed> = entries.iter().map(|entry| listed(entry)).collect();
    let place = printable_path(&arguments.place.runs);
    let text = match history.entries.len() {
        _ if !entries.is_empty() => table(&entries),
        0 => format!("No runs in {place}"),
        all => format!("None of {} in {place} fits --filter", counted(all, "run", "runs")),
    };
    session.output.result(&document, &text)?;
    Ok(Done::Complete)
}

fn words(entry: &Entry) -> String {
    let record = &entry.record;
    [
        record.id.as_str(),
        &record.name,
        &record.backbone.name,
        record.classifier.name(),
        &record.data.root,
        &entry.folder.to_string_lossy(),
    ]
    .map(str::to_lowercase)
    .join("\n")
}

fn listed(entry: &Entry) -> Listed<'_> {
    let evaluation = &entry.metrics.evaluation;
    Listed {
        folder: entry.folder.to_string_lossy().into_owned(),
        record: &entry.record,
        accuracy: evaluation.accuracy,
        accuracy_interval: evaluation.accuracy_interval,
        class_averaged_accuracy: evaluation.class_averaged_accuracy,
        auc_macro: evaluation.auc_macro,
        test_count: evaluation.test_count,
    }
}

fn table(entries: &[&Entry]) -> String {
    let header = [
        "id",
        "kind",
        "model",
        "network",
        "pixels",
        "classifier",
        "accuracy",
        "test",
        "folder",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        let (record, evaluation) = (&entry.record, &entry.metrics.evaluation);
        vec![
            record.id.clone(),
            record.kind.name().to_owned(),
            printable(&record.name),
            printable(&record.backbone.name),
            record.resolution.to_string(),
            record.classifier.name().to_owned(),
            evaluation
                .accuracy
                .map_or_else(|| "-".to_owned(), |accuracy| format!("{:.1} %", 100.0 * accuracy)),
            evaluation.test_count.to_string(),
            printable_path(&entry.folder),
        ]
    }));
    evaluation::aligned(&rows)
}
