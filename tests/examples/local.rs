//! The scoring function on this machine as AWS runs it: S3 (SeaweedFS), Lambda (cargo-lambda), a published model, and a
//! call. `cargo xtask local [--once] [RUN IMAGE]`; without a run it makes the demo's first.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use end_to_end::lambda::Lambda;
use end_to_end::program::trainer;
use end_to_end::root;
use end_to_end::seaweedfs::SeaweedFs;

/// The bucket of the models.
const BUCKET: &str = "models";
/// The name that the model is published under.
const NAME: &str = "local";

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let once = arguments.iter().any(|argument| argument == "--once");
    arguments.retain(|argument| argument != "--once");
    match serve(&arguments, once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("{message}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &[String], once: bool) -> Result<(), String> {
    let (run, image) = match arguments {
        [run, image] => (PathBuf::from(run), PathBuf::from(image)),
        [] => demo()?,
        _ => return Err("Usage: cargo xtask local [--once] [RUN IMAGE]".to_owned()),
    };
    let missing = || "the servers are missing: run `cargo xtask setup`".to_owned();
    let s3 = SeaweedFs::start().ok_or_else(missing)?;
    s3.create_bucket(BUCKET).await;
    let mut variables = s3.environment();
    let place = format!("s3://{BUCKET}");
    let mut publish = trainer(&["publish", "--to", &place, "--name", NAME, "--bundle"]);
    run_to_the_end(publish.arg(&run).envs(variables.iter().copied()))?;

    let model = format!("{place}/{NAME}");
    variables.extend([("IKAT_MODEL", model.as_str()), ("IKAT_REFRESH_SECONDS", "5")]);
    let lambda = Lambda::start(&variables).ok_or_else(missing)?;
    let url = lambda.url();
    run_to_the_end(trainer(&["call", "--repeat", "5", "--endpoint", &url]).arg(&image))?;
    if once {
        return Ok(());
    }
    tell(&variables, &url);
    tokio::signal::ctrl_c().await.map_err(|error| error.to_string())
}

/// The run of `trainer demo` in `target/local`, made where it is not there, and the demo's image.
fn demo() -> Result<(PathBuf, PathBuf), String> {
    let folder = root().join("target/local");
    let run = folder.join("run");
    if !run.join("run.json").exists() {
        run_to_the_end(trainer(&["demo", "--dir"]).arg(&folder))?;
    }
    Ok((run, folder.join("new-image.jpg")))
}

fn run_to_the_end(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} did not start: {error}")),
    }
}

/// How to go on from another terminal.
#[allow(clippy::print_stderr)]
fn tell(variables: &[(&str, &str)], url: &str) {
    eprintln!("\nThe function runs until Ctrl-C. In another terminal:\n");
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("AWS_")) {
        eprintln!("  export {name}={value}");
    }
    eprintln!("  trainer call --endpoint {url} IMAGE");
    eprintln!("  trainer publish --to s3://{BUCKET} --name {NAME} --bundle RUN     # served within 5 s");
}
