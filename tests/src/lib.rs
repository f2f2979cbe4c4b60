//! What the end-to-end tests share: the binaries, the data, servers that stop with the test, and bundles
//! small enough to make by hand.

pub mod bundles;
pub mod colours;
pub mod dice;
pub mod faults;
pub mod fuzz;
pub mod http;
pub mod lambda;
pub mod ministack;
pub mod program;
pub mod relay;
pub mod seaweedfs;
pub mod step_functions;
pub mod web;
pub mod webdriver;
pub mod workshop;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
use image::{DynamicImage, ImageFormat};
use program::Running;

/// The region that every server of the tests is in.
pub const REGION: &str = "us-east-1";

/// The workspace's root.
///
/// # Panics
/// When it is gone.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the workspace exists")
}

/// A real data set or the folder of nasty files, or `None` with a message where this machine lacks it.
///
/// # Panics
/// In CI, where it must be there.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared/data").join(name);
    available(path, "the real images beside the checkout")
}

/// A program of the test environment that `cargo xtask setup` makes, or `None` with a message.
///
/// # Panics
/// In CI, where it must be there.
pub fn tool(name: &str) -> Option<PathBuf> {
    let environment = std::env::var_os("IKAT_TEST_VENV").map_or_else(|| root().join("target/test-venv"), PathBuf::from);
    let [common, own] = ["", name].map(|folder| environment.join(folder).join("bin").join(name));
    available(if own.exists() { own } else { common }, "`cargo xtask setup`")
}

/// A program of the system that `cargo xtask setup` installs where it is run as root, or `None` with a message.
///
/// # Panics
/// In CI, where it must be there.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file());
    let expected = || Path::new("/usr/bin").join(program);
    available(found.unwrap_or_else(expected), "`cargo xtask setup` as root")
}

fn available(path: PathBuf, from: &str) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is missing: it comes from {from}",
        path.display()
    );
    tell(&format!("SKIPPED: {} is missing: it comes from {from}", path.display()));
    None
}

/// A lock whose holder cannot have left anything half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something to whoever runs the tests, past the harness, which keeps what passing tests print to itself.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A new folder in `parent` that lasts as long as this process, for what a static holds: those are never dropped.
///
/// # Panics
/// When it cannot be made.
pub fn lasting_folder(parent: &Path) -> PathBuf {
    let folder = tempfile::tempdir_in(parent).expect("a folder").keep();
    let remover = Command::new("sh")
        .args(["-c", "trap '' HUP INT TERM; cat; rm -rf \"$0\""])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    // Its input ends with this process, however that does.
    std::mem::forget(remover);
    folder
}

/// A loopback port that nobody uses, which this process has not been given before.
///
/// It lies below those that systems choose for outgoing connections (from 32768 on Linux), each of which could take it
/// before the server that it is meant for does.
///
/// # Panics
/// When the machine has none left.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    // Processes that run side by side begin far apart.
    let first = std::process::id().wrapping_mul(997);
    let mut candidates = PORTS.map(|_| {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        (PORTS.start + number % (PORTS.end - PORTS.start)) as u16
    });
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.find(is_free).expect("a free port")
}

/// Starts a server on a free port and waits until it is `ready` there; on another where it ends instead, as somebody
/// else may take a port between its choice and its use.
///
/// # Panics
/// When it does not come up.
pub fn on_free_port(what: &str, start: impl Fn(u16) -> Running, ready: impl Fn(u16) -> bool) -> (Running, u16) {
    for _ in 0..3 {
        let port = free_port();
        let mut server = start(port);
        let mut ended = false;
        wait_until(what, || {
            ended = server.exit_code().is_some();
            ended || ready(port)
        });
        if !ended {
            return (server, port);
        }
    }
    panic!("{what} did not come up");
}

/// Whether somebody listens at a loopback port.
pub fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Asks `ready` every 50 ms until it says yes.
///
/// # Panics
/// After three minutes: a server that is up in seconds takes one where every core is trained on.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_mins(3), "{what} did not become ready");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A client for the S3 server at `endpoint`, or for what stands in for one.
pub fn s3_client(endpoint: &str, key: &str, secret: &str) -> aws_sdk_s3::Client {
    let settings = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(key, secret, None, None, "tests"))
        .endpoint_url(endpoint)
        .force_path_style(true);
    aws_sdk_s3::Client::from_conf(settings.build())
}

/// A picture as the bytes of its file.
///
/// # Panics
/// Where the format has no place for it.
pub fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let picture: DynamicImage = picture.into();
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("a picture");
    bytes.into_inner()
}

/// The files below a folder, in the order of their paths; none where there is no such folder. Links are followed.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Copies the first `count` images of each class folder.
///
/// # Panics
/// When the data cannot be read or written.
pub fn subset(data: &Path, to: &Path, classes: &[&str], count: usize) {
    for class in classes {
        let folder = to.join(class);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut files: Vec<_> = std::fs::read_dir(data.join(class))
            .expect("a class")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        for file in files.iter().take(count) {
            std::fs::copy(file, folder.join(file.file_name().expect("a name"))).expect("a copy");
        }
    }
}
