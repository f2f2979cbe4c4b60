use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Serialize;

use super::Session;
use super::failure::{Done, Failure};
use super::location::block_on;
use super::output::{printable, printable_path};
use super::values;
use crate::client::{Call, CallResult, Client, ClientError, Load, Outcome, Percentiles, Signer, Summary};
use crate::client::{call_all, region_of_function_url};
use crate::evaluation::padded;

/// Call a deployed or local scorer and print what it answers.
///
/// Requests to function URLs (https://ID.lambda-url.REGION.on.aws/) are signed where AWS credentials are found, as
/// AWS_IAM functions ask for. With --repeat and --concurrency it is a small load test.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Address of the scorer: a function URL, a local server, or `cargo lambda watch`'s
    /// http://127.0.0.1:9000/2015-03-31/functions/scorer/invocations
    #[arg(long, value_name = "URL", value_parser = values::address)]
    endpoint: Url,
    /// Images to classify
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// How often each image is sent
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Calls on their way at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<NonZero<usize>>)]
    concurrency: NonZero<usize>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Sign requests (AWS Signature Version 4) whatever the address, and fail where there are no credentials
    #[arg(long, alias = "sign")]
    sign_requests: bool,
    /// Region of the function that requests are signed for [default: as its URL, else the AWS configuration, says]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    results: &'a [Call],
    summary: &'a Summary,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let load = Load {
        images: arguments.images.clone(),
        repeat: arguments.repeat,
        concurrency: arguments.concurrency,
    };
    let (calls, summary) = block_on(async {
        let client = client(arguments, session).await?;
        Ok::<_, ClientError>(call_all(&client, &load, &session.progress).await)
    })??;
    let document = Document {
        results: &calls,
        summary: &summary,
    };
    session.output.result(&document, &text(&calls, &summary))?;
    match summary.answered {
        0 => Err(Failure::failed("no call was answered with a label")),
        answered if answered < summary.calls => Ok(Done::Partly),
        _ => Ok(Done::Complete),
    }
}

/// A client that signs where it must, and at function URLs where it can.
async fn client(arguments: &Arguments, session: &Session) -> Result<Client, ClientError> {
    let client = Client::new(arguments.endpoint.clone(), Duration::from_secs(arguments.timeout))?;
    if !arguments.sign_requests && region_of_function_url(client.endpoint()).is_none() {
        session.warn_of_idle(&[("region", false, "requests that are signed")]);
        return Ok(client);
    }
    match Signer::find(client.endpoint(), arguments.region.as_deref()).await {
        Ok(signer) => Ok(client.signed(signer)),
        Err(error) if arguments.sign_requests => Err(error),
        Err(error) => {
            // The function may be open to everybody.
            session.note(&format!("{error}: calling without a signature"));
            Ok(client)
        }
    }
}

/// A line for each answer to an image, with how often it came, and the summary of more than one call.
fn text(calls: &[Call], summary: &Summary) -> String {
    let mut text = format!(
        "{:<24} {:>6} {:>10} {:>6} {:>11} {:>13}  image\n",
        "label", "score", "decision", "calls", "server ms", "round trip ms"
    );
    for group in groups(calls) {
        let image = printable_path(&group[0].image);
        let _ = match &group[0].outcome {
            Outcome::Answer(answer) => writeln!(
                text,
                "{} {:>6.3} {:>10} {:>6} {:>11.1} {:>13.1}  {image}",
                padded(&printable(&answer.label), 24),
                answer.score,
                answer.decision,
                group.len(),
                median(&group, |answer| answer.server_ms),
                median(&group, |answer| answer.round_trip_ms),
            ),
            Outcome::Error { error, .. } => {
                let times = if group.len() > 1 {
                    format!(" ({} times)", group.len())
                } else {
                    String::new()
                };
                writeln!(text, "error{times}: {}  {image}", printable(error))
            }
        };
    }
    if summary.calls > 1 {
        let _ = write!(text, "\n{}", figures(summary));
    }
    text
}

/// Calls of one image that were answered alike, in the order in which the answers came first.
fn groups(calls: &[Call]) -> Vec<Vec<&Call>> {
    let alike = |one: &Call, other: &Call| {
        one.image == other.image
            && match (&one.outcome, &other.outcome) {
                (Outcome::Answer(one), Outcome::Answer(other)) => {
                    (&one.label, one.score, &one.model_version) == (&other.label, other.score, &other.model_version)
                }
                (Outcome::Error { error: one, .. }, Outcome::Error { error: other, .. }) => one == other,
                _ => false,
            }
    };
    let mut groups: Vec<Vec<&Call>> = Vec::new();
    // Calls come image by image, so that only the last few groups can be the one.
    for image in calls.chunk_by(|one, other| one.image == other.image) {
        let first = groups.len();
        for call in image {
            match groups[first..].iter_mut().find(|group| alike(group[0], call)) {
                Some(group) => group.push(call),
                None => groups.push(vec![call]),
            }
        }
    }
    groups
}

fn median(group: &[&Call], value: fn(&CallResult) -> f64) -> f64 {
    let values = group.iter().filter_map(|call| match &call.outcome {
        Outcome::Answer(answer) => Some(value(answer)),
        Outcome::Error { .. } => None,
    });
    Percentiles::of(values).map_or(f64::NAN, |percentiles| percentiles.p50)
}

fn figures(summary: &Summary) -> String {
    let mut text = format!(
        "{} of {} calls answered in {:.1} s, {:.1} a second\n",
        summary.answered, summary.calls, summary.seconds, summary.per_second
    );
    let mut counts = |what: &str, counts: &BTreeMap<String, usize>| {
        let counts: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{} {count}", printable(name)))
            .collect();
        let _ = writeln!(text, "{what}: {}", counts.join(", "));
    };
    if !summary.errors.is_empty() {
        counts("errors", &summary.errors);
    }
    if summary.versions.len() > 1 {
        counts("versions", &summary.versions);
    }
    let rows = [
        ("round trip", summary.round_trip_ms),
        ("server", summary.server_ms),
        ("around it", summary.around_ms),
    ];
    let rows: Vec<_> = rows.into_iter().filter_map(|(name, row)| Some((name, row?))).collect();
    if !rows.is_empty() {
        let _ = writeln!(text, "\n{:<12}{:>9}{:>9}{:>9}{:>9}", "ms", "p50", "p90", "p99", "max");
    }
    for (name, Percentiles { p50, p90, p99, max }) in rows {
        let _ = writeln!(text, "{name:<12}{p50:>9.1}{p90:>9.1}{p99:>9.1}{max:>9.1}");
    }
    text
}
