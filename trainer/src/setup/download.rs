//! Downloading from a public address.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::files::at;

use super::SetupError;
use crate::web_answers::{innermost, may_pass, not_now, retry_after};

/// The largest file that is downloaded, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// How often a download that broke off goes on where it was.
const ATTEMPTS: u32 = 5;

/// Downloads `url` into `folder` and gives the path. A transfer that breaks off goes on where it was.
pub(super) fn download(url: &str, folder: &Path) -> Result<PathBuf, SetupError> {
    let path = folder.join("downloaded");
    let mut file = File::create(&path).map_err(at(&path))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(at(&path))?;
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .build()
        .map_err(|error| failed(url, innermost(&error)))?;
    runtime.block_on(fetch(&client, url, &mut file))?;
    file.flush().map_err(at(&path))?;
    Ok(path)
}

fn failed(url: &str, reason: String) -> SetupError {
    SetupError::Download {
        url: url.to_owned(),
        reason,
    }
}

async fn fetch(client: &reqwest::Client, url: &str, file: &mut File) -> Result<(), SetupError> {
    let mut written = 0;
    let (mut reason, mut wished) = (String::new(), None);
    for attempt in 0..ATTEMPTS {
        tokio::time::sleep(wished.unwrap_or(Duration::from_millis(500) * attempt)).await;
        match transfer(client, url, file, &mut written).await {
            Ok(()) => return Ok(()),
            Err(Transfer::Final(reason)) => return Err(failed(url, reason)),
            Err(Transfer::Again(said, wish)) => (reason, wished) = (said, wish),
        }
        if let Some(said) = not_now(wished, &reason) {
            return Err(failed(url, said));
        }
    }
    Err(failed(url, reason))
}

/// Why a transfer ended early.
enum Transfer {
    /// Another attempt may succeed, after as long as the server wishes.
    Again(String, Option<Duration>),
    /// No attempt will.
    Final(String),
}

async fn transfer(client: &reqwest::Client, url: &str, file: &mut File, written: &mut u64) -> Result<(), Transfer> {
    let again = |error: reqwest::Error| Transfer::Again(innermost(&error), None);
    let local = |error: io::Error| Transfer::Final(error.to_string());
    let request = client.get(url);
    let request = if *written > 0 {
        request.header("range", format!("bytes={written}-"))
    } else {
        request
    };
    let mut response = request.send().await.map_err(again)?;
    let status = response.status();
    if !status.is_success() {
        let reason = format!("the server answered {status}");
        return Err(if may_pass(status) {
            Transfer::Again(reason, retry_after(&response))
        } else {
            Transfer::Final(reason)
        });
    }
    if status != reqwest::StatusCode::PARTIAL_CONTENT && *written > 0 {
        // The server sends everything again.
        file.set_len(0).map_err(local)?;
        io::Seek::rewind(file).map_err(local)?;
        *written = 0;
    }
    while let Some(chunk) = response.chunk().await.map_err(again)? {
        *written += chunk.len() as u64;
        if *written > MAX_BYTES {
            return Err(Transfer::Final(format!("it has more than {MAX_BYTES} bytes")));
        }
        file.write_all(&chunk).map_err(local)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_is_busy_is_asked_again() {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut file = tempfile::tempfile().expect("a file");
        for (status, again) in [("404 Not Found", false), ("429 Too Many Requests", true)] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let url = format!("http://{}/", listener.local_addr().expect("an address"));
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                assert!(stream.read(&mut [0; 1024]).expect("a request") > 0);
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").expect("written");
            });
            let transferred = transfer(&client, &url, &mut file, &mut 0).await;
            assert_eq!(matches!(transferred, Err(Transfer::Again(..))), again, "{status}");
            server.join().expect("asked once");
        }
    }

    #[tokio::test]
    async fn who_wants_to_be_left_alone_for_long_is_not_asked_again() {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut file = tempfile::tempfile().expect("a file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            assert!(stream.read(&mut [0; 1024]).expect("a request") > 0);
            let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3600\r\ncontent-length: 0";
            write!(stream, "{head}\r\n\r\n").expect("written");
        });
        let fetched = fetch(&client, &url, &mut file).await;
        let said = fetched.expect_err("busy").to_string();
        assert!(said.ends_with("429 Too Many Requests; ask again in 3600 s"), "{said}");
        server.join().expect("asked once");
    }

    #[tokio::test]
    async fn why_nobody_is_reached_is_said() {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut file = tempfile::tempfile().expect("a file");
        let transferred = transfer(&client, "http://127.0.0.1:9/", &mut file, &mut 0).await;
        let Err(Transfer::Again(reason, None)) = transferred else {
            panic!("nobody is there");
        };
        assert!(reason.contains("refused"), "{reason}");
    }
}
