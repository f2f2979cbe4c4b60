//! The package registries' own clients as child processes.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::SetupError;
use super::cache::at;

/// The client of the npm registry.
pub(super) const NPM: &str = "npm";
/// How much of a failed client's words is passed on.
const SAID: usize = 800;

/// Lets pip download the wheel of `requirement` into `folder` and gives its path.
pub(super) fn pip_download(requirement: &str, options: &[&str], folder: &Path) -> Result<PathBuf, SetupError> {
    let run = |python: &str| {
        Command::new(python)
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--no-input",
            ])
            .arg("--only-binary=:all:")
            .args(options)
            .arg("--dest")
            .arg(folder)
            .arg(requirement)
            .stdin(Stdio::null())
            .output()
    };
    fetched(requirement, &["python3", "python"], run)?;
    single(folder, "whl", requirement)
}

/// Lets npm download the archive of `package` into `folder` and gives its path.
pub(super) fn npm_pack(package: &str, folder: &Path) -> Result<PathBuf, SetupError> {
    let run = |npm: &str| {
        Command::new(npm)
            .args(["pack", "--silent", "--pack-destination"])
            .arg(folder)
            .arg(package)
            .stdin(Stdio::null())
            .output()
    };
    fetched(package, &[NPM], run)?;
    single(folder, "tgz", package)
}

/// Runs the first of `programs` that exists.
fn fetched(package: &str, programs: &[&str], run: impl Fn(&str) -> std::io::Result<Output>) -> Result<(), SetupError> {
    for program in programs {
        match run(program) {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim();
                let start = said.char_indices().rev().nth(SAID).map_or(0, |(index, _)| index);
                return Err(SetupError::Client {
                    package: package.to_owned(),
                    program: (*program).to_owned(),
                    output: said[start..].to_owned(),
                });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => {
                return Err(SetupError::File {
                    path: PathBuf::from(program),
                    source,
                });
            }
        }
    }
    Err(SetupError::NoClient {
        package: package.to_owned(),
        programs: programs.iter().map(|program| (*program).to_owned()).collect(),
    })
}

/// The one file with the extension in a folder.
fn single(folder: &Path, extension: &str, package: &str) -> Result<PathBuf, SetupError> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension() == Some(OsStr::new(extension)))
        .ok_or_else(|| SetupError::Archive {
            path: PathBuf::from(package),
            file: format!("a .{extension} file"),
            reason: "the client left none".to_owned(),
        })
}
