//! Running our own binaries.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

use crate::colours::library;

/// A program that was built beside the tests.
///
/// # Panics
/// When it was not: `cargo xtask test` builds it.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.ancestors().nth(2).expect("target/profile/deps/test");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins --example local` first",
        path.display()
    );
    path
}

/// A command of the trainer, untouched by parameters of this machine's user.
pub fn trainer(arguments: &[&str]) -> Command {
    let mut command = untouched("trainer");
    command.args(arguments).env("NO_COLOR", "1");
    command
}

/// A command of the scorer, as untouched, with the runtime library of the trainer.
pub fn scorer() -> Command {
    let mut command = untouched("scorer");
    command.env("ORT_DYLIB_PATH", library());
    command
}

fn untouched(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || (text.starts_with("IKAT_") && text != "IKAT_CACHE") {
            command.env_remove(&name);
        }
    }
    command
}

/// What a finished program said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// The JSON document on standard output.
    ///
    /// # Panics
    /// When there is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Asserts the exit code.
    ///
    /// # Panics
    /// When it is another.
    #[allow(clippy::return_self_not_must_use)] // The assertion alone is often what is wanted.
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end, which comes within ten minutes on the slowest machine.
///
/// # Panics
/// As [`say_within`].
pub fn say(command: &mut Command) -> Said {
    say_within(600, command)
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not start, when a signal ends it, or when it has not ended after that many seconds.
pub fn say_within(seconds: u32, command: &Command) -> Said {
    let mut limit = Command::new("timeout");
    limit.args(["--signal=KILL", &seconds.to_string()]);
    let ended = run_by(limit, command).output();
    let said = Said::from(ended.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    assert_ne!(
        said.code, -1,
        "{command:?} was ended by a signal, or not within {seconds} s: {said:?}"
    );
    said
}

/// The same command, started by another that takes programs after its own arguments, as `timeout` does.
pub fn run_by(mut other: Command, command: &Command) -> Command {
    other.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        other.current_dir(folder);
    }
    other
}

/// The paths that a document lists as left out, with the reasons.
///
/// # Panics
/// When it has no such list.
pub fn skipped(document: &Value) -> Vec<(String, String)> {
    let list = document["skipped"].as_array().expect("a list");
    list.iter()
        .map(|item| {
            let text = |key: &str| item[key].as_str().expect("a text").to_owned();
            (text("path"), text("reason"))
        })
        .collect()
}

/// Why a path was left out.
///
/// # Panics
/// When it was not.
pub fn reason<'a>(skipped: &'a [(String, String)], path: &str) -> &'a str {
    skipped.iter().find(|(name, _)| name == path).map_or_else(
        || panic!("{path} is not listed: {skipped:?}"),
        |(_, reason)| reason.as_str(),
    )
}

/// A program in the background that ends with the test.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Starts it with all that it starts in turn, in silence. They end where it does, and with this process, however
    /// that ends: a terminal's Ctrl-C goes to this process and not to a group of their own.
    ///
    /// # Panics
    /// When no shell starts.
    pub fn start_group(command: &Command) -> Self {
        let mut shell = Command::new("sh");
        // Its input ends with this process.
        shell.args(["-c", "{ \"$@\"; kill -KILL 0; } & cat; kill -KILL 0", "sh"]);
        let mut leader = run_by(shell, command);
        leader.process_group(0).stdin(Stdio::piped());
        Self::start(leader.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Starts it and waits for the first line that it prints, which is given too, without its end.
    ///
    /// # Panics
    /// When it does not start, or what it prints is no text.
    pub fn start_and_listen(command: &mut Command) -> (Self, String) {
        let mut running = Self::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut first = String::new();
        BufReader::new(running.take_stdout())
            .read_line(&mut first)
            .expect("a line");
        (running, first.trim().to_owned())
    }

    /// Its standard error, where it was piped.
    ///
    /// # Panics
    /// When it was not.
    pub fn take_stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().expect("piped")
    }

    /// Its standard output, where it was piped.
    ///
    /// # Panics
    /// When it was not.
    pub fn take_stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("piped")
    }

    /// Its exit code, once it has ended; -1 for a signal.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.0.try_wait().expect("a state")?;
        Some(status.code().unwrap_or(-1))
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal, such as `-INT`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{signal}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that leads a process group takes its children with it; any other leads none, which fails.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.id())])
            .stderr(Stdio::null())
            .status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_until;

    #[test]
    fn a_group_ends_with_its_program_and_with_whoever_started_it() {
        let mut over = Running::start_group(&Command::new("true"));
        wait_until("the end of the group", || over.exit_code() == Some(-1));
        let mut left = Running::start_group(Command::new("sleep").arg("600"));
        assert_eq!(left.exit_code(), None);
        // As where this process ends.
        drop(left.0.stdin.take());
        wait_until("the end of the group", || left.exit_code() == Some(-1));
    }
}
