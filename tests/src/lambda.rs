//! The scorer as Lambda runs it: cargo-lambda's local Runtime API and the prebuilt binary.

use std::net::SocketAddr;
use std::process::{ChildStderr, Command, Stdio};

use serde_json::Value;

use crate::program::{Running, scorer};
use crate::{http, listens, on_free_port, tool};

/// Cargo-lambda's emulator with our scorer behind it.
pub struct Lambda {
    port: u16,
    scorer: Running,
    _emulator: Running,
}

impl Lambda {
    /// Starts both; `None` with a message where cargo-lambda is missing.
    pub fn start(environment: &[(&str, &str)]) -> Option<Self> {
        Self::start_with(environment, Stdio::inherit())
    }

    /// The same, with what the function logs, which somebody must read.
    pub fn start_and_listen(environment: &[(&str, &str)]) -> Option<(Self, ChildStderr)> {
        let mut lambda = Self::start_with(environment, Stdio::piped())?;
        let log = lambda.scorer.take_stderr();
        Some((lambda, log))
    }

    fn start_with(environment: &[(&str, &str)], log: Stdio) -> Option<Self> {
        let cargo_lambda = tool("cargo-lambda")?;
        let watch = |port: u16| {
            Running::start(
                Command::new(&cargo_lambda)
                    .args(["lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1"])
                    .args(["--invoke-port", &port.to_string()])
                    .current_dir(crate::root())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null()),
            )
        };
        let (emulator, port) = on_free_port("cargo lambda watch", watch, listens);
        let scorer = Running::start(
            scorer()
                .env("AWS_LAMBDA_RUNTIME_API", format!("http://127.0.0.1:{port}/.rt/scorer"))
                .env("AWS_LAMBDA_FUNCTION_NAME", "scorer")
                .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
                .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024")
                .env("IKAT_LOG", "error")
                .envs(environment.iter().copied())
                .stdout(Stdio::null())
                .stderr(log),
        );
        Some(Self {
            port,
            scorer,
            _emulator: emulator,
        })
    }

    /// Where plain events are sent.
    pub fn invocations(&self) -> String {
        format!("http://127.0.0.1:{}/2015-03-31/functions/scorer/invocations", self.port)
    }

    /// Invokes the function with an event; gives the status of the invocation and what the function returned.
    pub fn invoke(&self, event: &Value) -> (u16, Value) {
        let path = "/2015-03-31/functions/scorer/invocations";
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        http::post(address, path, "application/json", event.to_string().as_bytes())
    }

    /// The emulated function URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/lambda-url/scorer/", self.port)
    }
}
