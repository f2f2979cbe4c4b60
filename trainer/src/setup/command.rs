//! The package registries' own clients as child processes.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shared::files::at;

use super::SetupError;

/// The client of the npm registry.
pub(super) const NPM: &str = "npm";
/// How much of a failed client's words is passed on.
const SAID: usize = 800;

/// Lets pip download the wheel of `requirement` into `folder` and gives its path.
pub(super) fn pip_download(requirement: &str, options: &[&str], folder: &Path) -> Result<PathBuf, SetupError> {
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-input",
        "--only-binary=:all:",
        "--dest",
        ".",
    ];
    let arguments = [&pip[..], options, &[requirement]].concat();
    fetched(requirement, &["python3", "python"], &arguments, folder)?;
    single(folder, "whl", requirement)
}

/// Lets npm download the archive of `package` into `folder` and gives its path.
pub(super) fn npm_pack(package: &str, folder: &Path) -> Result<PathBuf, SetupError> {
    fetched(package, &[NPM], &["pack", "--silent", package], folder)?;
    single(folder, "tgz", package)
}

/// Runs the first of `programs` that exists, in `folder`: of the user's own, which may hold somebody's data, Python
/// would take files for its modules, and npm for its settings.
fn fetched(package: &str, programs: &[&str], arguments: &[&str], folder: &Path) -> Result<(), SetupError> {
    for program in programs {
        let run = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output();
        match run {
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
            Err(error) => return Err(at(Path::new(program))(error).into()),
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn clients_work_in_the_folder_that_they_fill() {
        let folder = tempfile::tempdir().expect("a folder");
        fetched("package", &["sh"], &["-c", "echo > package.whl"], folder.path()).expect("a shell");
        let fetched = single(folder.path(), "whl", "package").expect("a file");
        assert_eq!(fetched, folder.path().join("package.whl"));
    }
}
