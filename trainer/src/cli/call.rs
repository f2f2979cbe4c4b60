use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::Session;
use super::failure::{Done, Failure};
use super::location::block_on;
use super::output::printable;
use crate::client::{CallResult, Client};

/// Call a deployed or local scorer and print what it answers.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Address of the scorer: a function URL, a local server, or `cargo lambda watch`'s
    /// http://127.0.0.1:9000/2015-03-31/functions/scorer/invocations
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Images to classify
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// How often each image is sent
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

#[derive(Serialize)]
struct Document<'a> {
    results: &'a [Call],
}

#[derive(Debug, Serialize)]
struct Call {
    image: PathBuf,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Answer(CallResult),
    Error { error: String },
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let client = Client::new(&arguments.endpoint, Duration::from_secs(arguments.timeout))?;
    let calls: Vec<Call> = block_on(async {
        let mut calls = Vec::new();
        for image in &arguments.images {
            for _ in 0..arguments.repeat {
                let outcome = match client.call_file(image).await {
                    Ok(answer) => Outcome::Answer(answer),
                    Err(error) => Outcome::Error {
                        error: error.to_string(),
                    },
                };
                calls.push(Call {
                    image: image.clone(),
                    outcome,
                });
            }
        }
        calls
    })?;
    session.output.result(&Document { results: &calls }, &table(&calls))?;
    let failed = calls
        .iter()
        .filter(|call| matches!(call.outcome, Outcome::Error { .. }))
        .count();
    match failed {
        0 => Ok(Done::Complete),
        _ if failed < calls.len() => Ok(Done::Partly),
        _ => Err(Failure::failed("no call was answered with a label")),
    }
}

fn table(calls: &[Call]) -> String {
    let mut text = format!(
        "{:<24} {:>6} {:>10} {:>11} {:>13}  image\n",
        "label", "score", "decision", "server ms", "round trip ms"
    );
    for call in calls {
        let image = printable(&call.image.to_string_lossy());
        let _ = match &call.outcome {
            Outcome::Answer(answer) => writeln!(
                text,
                "{:<24} {:>6.3} {:>10} {:>11.1} {:>13.1}  {image}",
                printable(&answer.label),
                answer.score,
                answer.decision,
                answer.server_ms,
                answer.round_trip_ms
            ),
            Outcome::Error { error } => writeln!(text, "error: {}  {image}", printable(error)),
        };
    }
    text
}
