use std::fmt::Write;
use std::path::{Path, PathBuf};

use shared::files::real_path;
use shared::store::Location;

use super::failure::{Done, Failure};
use super::interruption;
use super::location::{TrustArguments, block_on};
use super::output::printable;
use super::resources::{Resources, check_changeable, writable};
use super::values;
use super::{Session, again};
use crate::batch::local::{self, Scorer};
use crate::batch::output::{FAILURES, RESULTS, SUMMARY, TABLE};
use crate::batch::state_machine::{Arn, Order, StateMachine};
use crate::batch::{Input, Summary};

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
    #[arg(long, value_name = "OUTPUT", value_parser = values::store)]
    output: String,
    /// ARN of the state machine: `StateMachine` among the stack's outputs
    #[arg(long, value_name = "ARN", value_parser = values::state_machine)]
    state_machine: Option<Arn>,
    /// Batches scored at once by the state machine
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// Score on this machine instead
    #[arg(long, conflicts_with = "state_machine")]
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
    check_output(&Location::parse(&arguments.output)?, &input)?;
    session.warn_of_idle(&[
        ("concurrency", !arguments.local, "--state-machine"),
        ("allow_private", arguments.local, "--local"),
        ("trusted_key", arguments.local, "--local"),
        ("threads", arguments.local, "--local"),
        ("max_megapixels", arguments.local, "--local"),
    ]);
    let cache = session.cache()?;
    interruption::goes_on(session);
    let (summary, note) = match &arguments.state_machine {
        // Options that exclude each other are never both set.
        _ if arguments.local => {
            let Some(path) = &arguments.bundle else {
                return Err(Failure::usage("--local scores with a bundle: name it with --bundle"));
            };
            let bundle = arguments.trust.read(path)?;
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
        Some(_) if session.is_typed("bundle") => {
            return Err(Failure::usage(
                "--state-machine scores with the model that its function serves: --bundle is for --local",
            ));
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
    if let Some(note) = note {
        session.note(&note);
    }
    let hint = again::hint(&summary, arguments.local, std::env::args_os());
    session.output.result_with_hint(&summary, &text(&summary), &hint)?;
    match summary.failed {
        0 => Ok(Done::Complete),
        _ if summary.succeeded > 0 => Ok(Done::Partly),
        _ => Err(Failure::failed(format!(
            "none of the images could be scored: {FAILURES} tells why"
        ))),
    }
}

/// Refuses what is no place for results: above all where they would be among the images of the next job.
fn check_output(output: &Location, input: &Input) -> Result<(), Failure> {
    match (output, input) {
        (Location::Folder(folder), _) => check_folder(folder, input),
        (
            Location::S3 { bucket, prefix },
            Input::Prefix {
                bucket: from,
                prefix: images,
            },
        ) if bucket == from && key(prefix).starts_with(images.as_str()) => Err(Failure::usage(format!(
            "s3://{bucket}/{prefix} lies in the part of the bucket that the images are in: choose another with --output"
        ))),
        (Location::S3 { .. }, _) => Ok(()),
    }
}

/// The key of one of the results.
fn key(prefix: &str) -> String {
    if prefix.is_empty() {
        TABLE.to_owned()
    } else {
        format!("{prefix}/{TABLE}")
    }
}

/// The same of a folder: it is none, is never to change, lies in that of the images, or cannot be written.
fn check_folder(output: &Path, input: &Input) -> Result<(), Failure> {
    let refused = |reason: &str| {
        Err(Failure::usage(format!(
            "{} {reason}: choose another folder with --output",
            output.display()
        )))
    };
    if output.is_file() {
        return refused("is a file, and results go to a folder");
    }
    check_changeable(output, "--output")?;
    if let Input::Folder(images) = input
        && real_path(output)?.starts_with(real_path(images)?)
    {
        return refused("lies in the folder of the images");
    }
    writable(&output.join(SUMMARY), "choose another folder with --output")
}

fn text(summary: &Summary) -> String {
    let mut text = String::new();
    if !summary.labels.is_empty() {
        let _ = writeln!(text, "{:>10}  label", "images");
    }
    for (label, count) in &summary.labels {
        let _ = writeln!(text, "{count:>10}  {}", printable(label));
    }
    if !summary.labels.is_empty() {
        text.push('\n');
    }
    let Summary {
        images,
        succeeded,
        unknown,
        failed,
        passing,
        ..
    } = summary;
    let _ = write!(text, "{succeeded} of {images} images scored");
    if *unknown > 0 {
        let _ = write!(text, ", {unknown} of them answered with `unknown`");
    }
    let _ = write!(text, ", {failed} failed");
    if *passing > 0 {
        let _ = write!(text, " ({passing} of them may be scored later)");
    }
    let output = printable(&summary.job.output);
    let _ = write!(
        text,
        "\n\nResults:  {TABLE}, {RESULTS}, {FAILURES} and {SUMMARY} in {output}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::again::tests::summary;

    #[test]
    fn a_table_without_labels_has_no_header() {
        assert!(
            text(&summary("out", 1, 0)).starts_with("    images  label\n         1  dotted\n\n1 of 3 images scored")
        );
        assert!(text(&summary("out", 0, 1)).starts_with("0 of 2 images scored, 2 failed (1 of them"));
    }

    #[test]
    fn labels_that_are_held_back_are_told() {
        let held_back = Summary {
            unknown: 3,
            ..summary("out", 4, 0)
        };
        let said = text(&held_back);
        assert!(
            said.contains("4 of 6 images scored, 3 of them answered with `unknown`, 2 failed\n"),
            "{said}"
        );
    }

    #[test]
    fn results_go_to_no_run_no_bundle_no_file_and_not_among_the_images() {
        let place = tempfile::tempdir().expect("a folder");
        let path = |name: &str| place.path().join(name);
        for (file, contents) in [
            ("run/run.json", "{}"),
            ("run/bundle/manifest.json", "{}"),
            ("images/1.jpg", "x"),
        ] {
            shared::files::write_atomically(&path(file), contents.as_bytes()).expect("written");
        }
        let images = Input::Folder(path("images"));
        let check = |output: &str| check_output(&Location::Folder(path(output)), &images);
        for (output, part) in [
            ("run", "a run or a bundle"),
            ("run/bundle", "a run or a bundle"),
            ("images", "folder of the images"),
            ("images/new/scores", "folder of the images"),
            ("run/../images/scores", "folder of the images"),
            ("images/1.jpg", "is a file"),
        ] {
            let said = check(output).expect_err(output).text();
            assert!(said.contains(part) && said.contains("--output"), "{said}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path("images"), path("link")).expect("a link");
            check("link/scores").expect_err("among the images");
        }
        for output in ["scores", "images-scores/1", "run/../scores"] {
            check(output).expect(output);
        }
        assert!(!path("scores").exists(), "nothing of the check stays");
    }

    #[test]
    fn results_do_not_go_to_the_part_of_a_bucket_that_holds_the_images() {
        let check = |input: &str, output: &str| {
            let output = Location::parse(output).expect("a place");
            check_output(&output, &Input::parse(input).expect("images"))
        };
        for (input, output) in [
            ("s3://photos", "s3://photos/scores"),
            ("s3://photos/in/", "s3://photos/in"),
            ("s3://photos/in/", "s3://photos/in/scores"),
            ("s3://photos/in", "s3://photos/in-scores"),
        ] {
            let said = check(input, output).expect_err(output).text();
            assert!(said.contains(output) && said.contains("--output"), "{said}");
        }
        for (input, output) in [
            ("s3://photos/in/", "s3://photos/in-scores"),
            ("s3://photos/in/", "s3://photos"),
            ("s3://photos", "s3://scores"),
            ("s3://photos/list.csv", "s3://photos/list"),
        ] {
            check(input, output).expect(output);
        }
    }
}
