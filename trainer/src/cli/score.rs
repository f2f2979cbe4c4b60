use std::fmt::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::Session;
use super::failure::{Done, Failure};
use super::location::BundleArguments;
use super::output::{Output, print, printable, printable_path};
use super::resources::Resources;
use super::values;
use crate::dataset::text_of;
use crate::evaluation::padded;
use crate::scoring::{self, Outcome, Scored};

/// Classify images on this machine with a bundle.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    bundle: BundleArguments,
    /// Images to classify
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// How the result is printed; --json is the same as `--format json`
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only the best K classes of each image in the JSON
    #[arg(long, value_name = "K", value_parser = values::count::<usize>)]
    top_k: Option<usize>,
    #[command(flatten)]
    resources: Resources,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// A line per image, a column per class
    Csv,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let format = arguments.format(session);
    let top_k = arguments.top_k.filter(|_| format == Format::Json);
    session.warn_of_idle(&[("top_k", format == Format::Json, "--format json")]);
    let bundle = arguments.bundle.read()?;
    let cache = session.cache()?;
    let runtime = Resources::runtime(&cache, session)?;
    let (limits, images) = (arguments.resources.limits(), &arguments.images);
    let threads = arguments.resources.threads().min(images.len());
    let pipelines = scoring::pipelines(&bundle, &runtime, limits, threads)?;
    let results = scoring::score_files(pipelines, &bundle.manifest, images, top_k, limits);
    match format {
        Format::Table => print(&table(&results))?,
        Format::Json => Output::new(true, false).result(&Document { results: &results }, "")?,
        Format::Csv => print(&rows(&results, &bundle.manifest.classes))?,
    }
    let failed = results
        .iter()
        .filter(|result| matches!(result.outcome, Outcome::Error { .. }))
        .count();
    match failed {
        0 => Ok(Done::Complete),
        _ if failed < results.len() => Ok(Done::Partly),
        _ => Err(Failure::failed("none of the images could be classified")),
    }
}

impl Arguments {
    /// JSON where --json says so, unless --format is set more firmly.
    fn format(&self, session: &Session) -> Format {
        if session.output.is_json() && !session.is_firmer("format", "json") {
            Format::Json
        } else {
            self.format
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    results: &'a [Scored],
}

fn table(results: &[Scored]) -> String {
    let mut text = format!("{:<24} {:>6} {:>10}  image\n", "label", "score", "decision");
    for Scored { path, outcome } in results {
        let path = printable_path(path);
        let _ = match outcome {
            Outcome::Answer(answer) => writeln!(
                text,
                "{} {:>6.3} {:>10}  {path}",
                padded(&printable(&answer.label), 24),
                answer.score,
                answer.decision.name()
            ),
            Outcome::Error { error } => {
                writeln!(text, "{:<42}  {path}: {}", error.code.name(), printable(&error.message))
            }
        };
    }
    text
}

/// A line per image: path, label, score, decision, a column per class, and the error where there is one.
fn rows(results: &[Scored], classes: &[String]) -> String {
    let mut header = vec!["path", "label", "score", "decision"];
    header.extend(classes.iter().map(String::as_str));
    header.push("error");
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(header);
    for Scored { path, outcome } in results {
        let mut fields = vec![text_of(path)];
        match outcome {
            Outcome::Answer(answer) => {
                let decision = answer.decision.name().to_owned();
                fields.extend([answer.label.clone(), answer.score.to_string(), decision]);
                let of_class = |class: &String| {
                    let score = answer.scores.iter().find(|(name, _)| name == class);
                    score.map_or_else(String::new, |(_, score)| score.to_string())
                };
                fields.extend(classes.iter().map(of_class));
                fields.push(String::new());
            }
            Outcome::Error { error } => {
                fields.resize(classes.len() + 4, String::new());
                fields.push(format!("{}: {}", error.code.name(), error.message));
            }
        }
        let _ = writer.write_record(fields);
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use shared::service::ServiceError;

    use super::*;

    #[test]
    fn names_with_commas_and_quotes_are_quoted() {
        let results = [Scored {
            path: "a, \"b\".jpg".into(),
            outcome: Outcome::Error {
                error: ServiceError::bad_request("cut\nshort"),
            },
        }];
        assert_eq!(
            rows(&results, &["polka, dots".to_owned()]),
            "path,label,score,decision,\"polka, dots\",error\n\"a, \"\"b\"\".jpg\",,,,,\"bad_request: cut\nshort\"\n"
        );
    }
}
