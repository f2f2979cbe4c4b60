use std::fmt::Write;
use std::path::PathBuf;

use shared::store::Location;

use super::Session;
use super::failure::{Done, Failure};
use super::location::{TrustArguments, block_on};
use super::output::printable;
use super::resources::{Resources, writable};
use crate::batch::local::{self, Scorer};
use crate::batch::output::{FAILURES, RESULTS, SUMMARY, TABLE};
use crate::batch::state_machine::{Order, StateMachine};
use crate::batch::{Input, Summary};
use crate::shell;

/// Score many images, by AWS Step Functions or on this machine's cores.
///
/// With --state-machine, the Distributed Map of the deployed stack invokes the scoring function; with --local, this
/// machine does the same work. Either way the output gets results.csv, results.jsonl, failures.csv and job.json.
/// Interrupted, the same command goes on where it was; every image has one result in the end. A failures.csv is a
/// list that can be the next --input.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The images: s3://bucket/prefix, a folder (with --local), or a list of them (.csv, .tsv, .jsonl, .txt; here or
    /// in a bucket)
    #[arg(long, value_name = "INPUT")]
    input: String,
    /// Where the results go: s3://bucket/prefix, or a folder (with --local)
    #[arg(long, value_name = "OUTPUT")]
    output: String,
    /// ARN of the state machine: `StateMachine` among the stack's outputs
    #[arg(long, value_name = "ARN")]
    state_machine: Option<String>,
    /// Batches that the state machine has scored at once
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// Score on this machine instead
    #[arg(long)]
    local: bool,
    /// A run or the bundle in it, for --local
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArguments,
    /// Also ask addresses in private networks, with --local
    #[arg(long)]
    allow_private: bool,
    #[command(flatten)]
    resources: Resources,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let input = Input::parse(&arguments.input)?;
    let cache = session.cache()?;
    let summary = match &arguments.state_machine {
        _ if arguments.local => {
            let Some(path) = &arguments.bundle else {
                return Err(Failure::usage("--local scores with a bundle: name it with --bundle"));
            };
            let bundle = arguments.trust.read(path)?;
            if let Location::Folder(folder) = Location::parse(&arguments.output)? {
                writable(&folder)?;
            }
            let runtime = Resources::runtime(&cache, session)?;
            let scorer = Scorer {
                bundle: &bundle,
                runtime: &runtime,
                limits: arguments.resources.limits(),
                threads: arguments.resources.threads(),
                allow_private: arguments.allow_private,
            };
            let work = local::run(&input, &arguments.output, &scorer, cache.root(), &session.progress);
            block_on(work)??
        }
        Some(arn) => {
            let order = Order {
                input: &input,
                output: &arguments.output,
                concurrency: arguments.concurrency,
            };
            block_on(async {
                let machine = StateMachine::connect(arn).await?;
                machine.run(&order, cache.root(), &session.progress).await
            })??
        }
        None => {
            return Err(Failure::usage(
                "say what scores: --state-machine ARN, or --local --bundle BUNDLE",
            ));
        }
    };
    let text = text(&summary);
    session.output.result(&summary, &text)?;
    match summary.failed {
        0 => Ok(Done::Complete),
        _ if summary.succeeded > 0 => Ok(Done::Partly),
        _ => Err(Failure::failed(format!(
            "none of the images could be scored: {FAILURES} tells why"
        ))),
    }
}

fn text(summary: &Summary) -> String {
    let mut text = format!("{:>10}  label\n", "images");
    for (label, count) in &summary.labels {
        let _ = writeln!(text, "{count:>10}  {}", printable(label));
    }
    let Summary {
        images,
        succeeded,
        failed,
        passing,
        ..
    } = summary;
    let _ = write!(text, "\n{succeeded} of {images} images scored, {failed} failed");
    if *passing > 0 {
        let _ = write!(text, " ({passing} of them may be scored later)");
    }
    if *failed > 0 {
        let failures = shell::quote(&format!("{}/{FAILURES}", summary.job.output));
        let _ = write!(
            text,
            "\nAgain:    trainer batch --input {failures} --output ANOTHER ..."
        );
    }
    let output = printable(&summary.job.output);
    let _ = write!(
        text,
        "\n\nResults:  {TABLE}, {RESULTS}, {FAILURES} and {SUMMARY} in {output}"
    );
    text
}
