//! Answers of web servers: how much of one is read, whether and when to ask again, and why there is none.

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

/// A server that wants to be left alone for longer is asked another time.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Whether a status may be another one in a while.
pub fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// The bytes of an answer; none where there are more than `limit`, or its head says so.
pub async fn body(mut response: Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// How long a server wants to be left alone: it says seconds, or a date (RFC 9110, section 10.2.3).
pub fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What to say of a server that failed for `reason` and wants to be left alone for longer than anybody waits.
pub fn not_now(wished: Option<Duration>, reason: &str) -> Option<String> {
    let wished = wished.filter(|wished| *wished > LONGEST_WAIT)?;
    Some(format!("{reason}; ask again in {} s", wished.as_secs()))
}

/// What the innermost cause says. Of an error of the web, it tells refused from unresolved, and the outer ones repeat
/// the address.
pub fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The body of this answer, of at most four bytes, from a server that then says nothing more.
    async fn body_of(answer: &str) -> Option<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            assert!(stream.read(&mut [0; 1024]).await.expect("a request") > 0);
            stream.write_all(answer.as_bytes()).await.expect("written");
            stream
        };
        let (response, _silent) = tokio::join!(client.get(address).send(), serve);
        let body = tokio::time::timeout(Duration::from_secs(20), body(response.expect("an answer"), 4));
        body.await.expect("in time").expect("whole")
    }

    #[tokio::test]
    async fn a_body_is_refused_by_its_head_or_where_it_grows_too_long() {
        let told = |length| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        assert_eq!(body_of(&(told(4) + "abcd")).await.as_deref(), Some(&b"abcd"[..]));
        assert_eq!(body_of(&told(5)).await, None, "nothing of it was sent");
        assert_eq!(body_of("HTTP/1.1 200 OK\r\n\r\nabcde").await, None);
    }
}
