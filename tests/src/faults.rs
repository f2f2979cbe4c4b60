//! An object store that fails on purpose: a proxy that understands HTTP in front of a real one.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::dice::Dice;
use crate::lock;

/// What may happen to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 500, and the store never hears of it.
    Error,
    /// 503 with the code that asks for patience.
    SlowDown,
    /// The connection is reset before the store hears of it.
    ResetBefore,
    /// The store does what it is asked, and the connection is reset in place of the answer.
    ResetAfter,
    /// Half of the answer's body, and the connection is closed.
    Truncated,
    /// The answer takes a fifth of a second longer.
    Late,
    /// What the store answered the first time.
    Stale,
    /// One bit of the body is another.
    WrongBytes,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::SlowDown,
        Self::ResetBefore,
        Self::ResetAfter,
        Self::Truncated,
        Self::Late,
        Self::Stale,
        Self::WrongBytes,
    ];
}

/// The proxy; its threads end with the test's process.
#[derive(Clone)]
pub struct Faults {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    faults: Vec<Fault>,
    /// One request in so many fails, 0 for none.
    one_in: u64,
    dice: Dice,
    /// The first answer for each path that was read.
    first: HashMap<String, Vec<u8>>,
    happened: HashMap<Fault, usize>,
    requests: usize,
}

impl Faults {
    /// Starts one before `server`, an address like `http://127.0.0.1:9000`, that lets everything pass.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let proxy = Self {
            address: listener.local_addr().expect("bound"),
            state: Arc::new(Mutex::new(State {
                faults: Vec::new(),
                one_in: 0,
                dice: Dice::of(0),
                first: HashMap::new(),
                happened: HashMap::new(),
                requests: 0,
            })),
        };
        let own = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let own = own.clone();
                // Either side may hang up at any time.
                std::thread::spawn(move || own.serve(client, server));
            }
        });
        proxy
    }

    /// Its address, for `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on one request in `one_in` meets one of these faults, drawn from `seed`.
    pub fn set(&self, faults: &[Fault], one_in: u64, seed: u64) {
        let mut state = self.state();
        state.faults = faults.to_vec();
        state.one_in = one_in;
        state.dice = Dice::of(seed);
    }

    /// How often each fault happened, and the number of requests.
    pub fn tally(&self) -> (HashMap<Fault, usize>, usize) {
        let state = self.state();
        (state.happened.clone(), state.requests)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn serve(&self, mut client: TcpStream, server: SocketAddr) -> Option<()> {
        let request = read_message(&mut client, false)?;
        let line = String::from_utf8_lossy(&request).lines().next()?.to_owned();
        let reads = line.starts_with("GET ");
        let fault = self.draw(&line);
        match fault {
            Some(Fault::Error) => return respond(&mut client, "500 Internal Server Error", "InternalError"),
            Some(Fault::SlowDown) => return respond(&mut client, "503 Slow Down", "SlowDown"),
            Some(Fault::ResetBefore) => return client.shutdown(Shutdown::Both).ok(),
            _ => {}
        }
        let mut upstream = TcpStream::connect(server).ok()?;
        upstream.write_all(&closing(&request)).ok()?;
        let mut answer = read_message(&mut upstream, line.starts_with("HEAD "))?;
        if reads {
            let first = self.state().first.entry(line).or_insert_with(|| answer.clone()).clone();
            if fault == Some(Fault::Stale) {
                answer = first;
            }
        }
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        match fault {
            Some(Fault::ResetAfter) => return client.shutdown(Shutdown::Both).ok(),
            Some(Fault::Truncated) => answer.truncate(body + (answer.len() - body) / 2),
            Some(Fault::Late) => std::thread::sleep(Duration::from_millis(200)),
            Some(Fault::WrongBytes) if answer.len() > body => {
                let at = body + (answer.len() - body) / 2;
                answer[at] ^= 1;
            }
            _ => {}
        }
        client.write_all(&answer).ok()?;
        client.shutdown(Shutdown::Both).ok()
    }

    fn draw(&self, line: &str) -> Option<Fault> {
        let mut state = self.state();
        state.requests += 1;
        if state.one_in == 0 || state.faults.is_empty() {
            return None;
        }
        let number = state.dice.draw() >> 8;
        if !number.is_multiple_of(state.one_in) {
            return None;
        }
        let fault = state.faults[(number / state.one_in) as usize % state.faults.len()];
        // Nothing but a hash shows a flipped bit, and the alias has none; between a store and its clients TLS would.
        let fault = if fault == Fault::WrongBytes && !line.contains("/versions/") {
            Fault::Late
        } else {
            fault
        };
        *state.happened.entry(fault).or_default() += 1;
        Some(fault)
    }
}

/// A whole request or answer; a header alone where no body follows.
fn read_message(stream: &mut TcpStream, header_alone: bool) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut message = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        if let Some(end) = message.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let chunked = head
                .lines()
                .any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
            if head.lines().any(|line| line == "expect: 100-continue") && message.len() == end + 4 {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
            }
            let whole = match length {
                _ if header_alone => true,
                Some(length) => message.len() >= end + 4 + length,
                None if chunked => message.ends_with(b"0\r\n\r\n"),
                None => true,
            };
            if whole {
                return Some(message);
            }
        }
        match stream.read(&mut piece).ok()? {
            0 => return None,
            count => message.extend_from_slice(&piece[..count]),
        }
    }
}

/// The request with the wish that the connection ends with the answer, and without waiting for leave to send its body.
fn closing(request: &[u8]) -> Vec<u8> {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&request[..end]);
    let mut lines: Vec<&str> = head
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("expect:"))
        .collect();
    lines.push("connection: close");
    [lines.join("\r\n").as_bytes(), &request[end..]].concat()
}

fn respond(client: &mut TcpStream, status: &str, code: &str) -> Option<()> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).ok()?;
    client.write_all(body.as_bytes()).ok()?;
    client.shutdown(Shutdown::Both).ok()
}
