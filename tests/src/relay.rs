//! A connection that fails on purpose: a relay on the loopback interface in front of a server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How the relay treats what passes it, also on connections that are open already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    /// Nothing is held up.
    Fine,
    /// Every piece of at most 4 KB takes a tenth of a second.
    Slow,
    /// Connections are closed, new ones at once.
    Down,
    /// Connections stay open and nothing passes.
    Silent,
}

/// The relay.
#[derive(Debug, Clone)]
pub struct Relay {
    address: SocketAddr,
    weather: Arc<AtomicU8>,
}

impl Relay {
    /// Starts one before `server`, an address like `http://127.0.0.1:9000`.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let relay = Self {
            address: listener.local_addr().expect("bound"),
            weather: Arc::new(AtomicU8::new(Weather::Fine as u8)),
        };
        let sky = relay.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if sky.is(Weather::Down) {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(server) else {
                    continue;
                };
                for (from, to) in [(&client, &upstream), (&upstream, &client)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    let sky = sky.clone();
                    std::thread::spawn(move || sky.carry(from, to));
                }
            }
        });
        relay
    }

    /// Its address, for `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
    }

    fn is(&self, weather: Weather) -> bool {
        self.weather.load(Ordering::SeqCst) == weather as u8
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = [0; 4096];
        let tick = Duration::from_millis(100);
        let _ = from.set_read_timeout(Some(tick));
        while !self.is(Weather::Down) {
            let count = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    continue;
                }
                Err(_) => break,
            };
            while self.is(Weather::Silent) {
                std::thread::sleep(tick);
            }
            if self.is(Weather::Slow) {
                std::thread::sleep(tick);
            }
            if to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
