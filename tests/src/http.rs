//! The scorer in plain HTTP mode, and the little of a client that tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::program::{Running, scorer};
use crate::{lock, wait_until};

/// A scorer that answers on a loopback port.
pub struct Http {
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    scorer: Running,
}

impl Http {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(environment: &[(&str, &str)]) -> Self {
        let mut scorer = Running::start(
            scorer()
                .args(["--listen", "127.0.0.1:0"])
                .envs(environment.iter().copied())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let mut lines = BufReader::new(scorer.take_stderr()).lines();
        let mut log = Vec::new();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let address = line.strip_prefix("listening on http://").map(str::parse);
                log.push(line);
                address?.ok()
            })
            .expect("the scorer says where it listens");
        // What it logs from now on must not fill the pipe.
        let log = Arc::new(Mutex::new(log));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                lock(&kept).push(line);
            }
        });
        Self { address, log, scorer }
    }

    /// The lines that it has logged, those that are JSON.
    pub fn log(&self) -> Vec<Value> {
        lock(&self.log)
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Tells it to stop, as a system does; gives its exit code, and all that it has logged.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(mut self) -> (Option<i32>, Vec<Value>) {
        self.scorer.signal("-TERM");
        let mut code = None;
        wait_until("the scorer to stop", || {
            code = self.scorer.exit_code();
            code.is_some()
        });
        // Whoever reads it lets go of it at its end.
        wait_until("the end of the log", || Arc::strong_count(&self.log) == 1);
        (code, self.log())
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.scorer.id()
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Posts a body; gives status and JSON.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        post(self.address, path, content_type, body)
    }

    /// Posts a body with further header lines; gives status and JSON.
    pub fn post_with(&self, headers: &[&str], body: &[u8]) -> (u16, Value) {
        let length = format!("content-length: {}", body.len());
        let head = [&["POST / HTTP/1.1", &length], headers].concat().join("\r\n");
        exchange(self.address, &head, body)
    }

    /// Gets a path; gives status and JSON.
    pub fn get(&self, path: &str) -> (u16, Value) {
        exchange(self.address, &format!("GET {path} HTTP/1.1"), &[])
    }
}

/// Posts a body to a server; gives status and JSON.
pub fn post(address: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
    let head = format!(
        "POST {path} HTTP/1.1\r\ncontent-type: {content_type}\r\ncontent-length: {}",
        body.len()
    );
    exchange(address, &head, body)
}

/// A connection, on which an answer is waited for a minute and no longer.
///
/// # Panics
/// When nobody listens.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .expect("a timeout");
    stream
}

fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = connect(address);
    write!(stream, "{head}\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("a request");
    // A server that refuses a long body may answer and close before all of it was sent.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}
