//! A web server on loopback whose answers a test writes itself, byte by byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::lock;

/// The server; its threads end with the test's process.
pub struct Web {
    address: SocketAddr,
    requests: Arc<Mutex<HashMap<String, usize>>>,
}

impl Web {
    /// Answers each request by `handler`, which gets the path with its query, how often it was asked for before, and
    /// the connection, which closes afterwards.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(handler: impl Fn(&str, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let requests: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let (counts, handler) = (Arc::clone(&requests), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (counts, handler) = (Arc::clone(&counts), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream, &counts, &*handler));
            }
        });
        Self { address, requests }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        lock(&self.requests).get(path).copied().unwrap_or(0)
    }

    /// How many requests there were.
    pub fn total(&self) -> usize {
        lock(&self.requests).values().sum()
    }
}

fn serve(
    mut stream: TcpStream,
    counts: &Mutex<HashMap<String, usize>>,
    handler: &(dyn Fn(&str, usize, &mut TcpStream) + Send + Sync),
) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reading).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    // The headers are read to their end, so that closing does not look like a reset.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let before = {
        let mut counts = lock(counts);
        let count = counts.entry(path.clone()).or_default();
        *count += 1;
        *count - 1
    };
    handler(&path, before, &mut stream);
}

/// Writes an answer with a body and its length. A client that went away is no error.
pub fn answer(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += name;
        head += ": ";
        head += value;
        head += "\r\n";
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
