//! One address to its bytes: bounded in size, time, redirects and attempts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use super::address::{NotFound, NotPublic, PublicOnly, is_public};
use super::lock;
use crate::web_answers::{body, may_pass, retry_after};

const MOST_REDIRECTS: usize = 5;
const CONNECT: Duration = Duration::from_secs(10);
/// First wait before another attempt; it doubles.
const BACKOFF: Duration = Duration::from_millis(500);
/// A server that wants to be left alone for longer is asked in another run.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why an address gave no bytes.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(reqwest::Error),
    /// The server refused or has nothing.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// It leads into a private network.
    #[error("{host} is in a private network, where a list from the web must not lead; --allow-private asks it")]
    Private {
        /// Which host.
        host: String,
    },
    /// More redirects than any image needs, or one that leads nowhere.
    #[error("{0}")]
    Redirect(String),
    /// More bytes than an image may have.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Its name cannot be looked up. A proxy, and the client that asks private networks too, do not tell this apart.
    #[error("{0}")]
    UnknownName(String),
    /// Nothing is there, or not in time.
    #[error("{0}")]
    Unreachable(String),
}

impl TransferError {
    /// Whether asking again in the same way is in vain.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Status(status) => !may_pass(*status),
            Self::Private { .. } | Self::Redirect(_) | Self::TooLarge { .. } => true,
            Self::Setup(_) | Self::UnknownName(_) | Self::Unreachable(_) => false,
        }
    }
}

/// Asks addresses, never too many of one host at once.
pub struct Downloader {
    client: Client,
    timeout: Duration,
    attempts: u32,
    per_host: usize,
    allow_private: bool,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Downloader {
    /// `timeout` bounds one attempt, connection to last byte; there are at most `attempts` for each address.
    ///
    /// # Errors
    /// [`TransferError::Setup`].
    pub fn new(timeout: Duration, attempts: u32, per_host: usize, allow_private: bool) -> Result<Self, TransferError> {
        Ok(Self {
            client: client(timeout, allow_private).build().map_err(TransferError::Setup)?,
            timeout,
            attempts: attempts.max(1),
            per_host: per_host.max(1),
            allow_private,
            hosts: Mutex::default(),
        })
    }

    /// The bytes at `url`, at most `limit` of them. A server that is busy or breaks off is asked again, after as long
    /// as it wishes or in ever longer intervals. Of `jobs`, the caller has one; while a server wishes to be left alone,
    /// another has it.
    pub async fn get(&self, url: &Url, limit: usize, jobs: Option<&Semaphore>) -> Result<Vec<u8>, TransferError> {
        let mut wait = BACKOFF;
        for attempt in 1.. {
            let permit = self.permit(url).await;
            let outcome = tokio::time::timeout(self.timeout, self.attempt(url, limit)).await;
            drop(permit);
            let (error, wished) = match outcome {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(Attempt { error, retry_after })) => (error, retry_after),
                Err(_) => {
                    let seconds = self.timeout.as_secs();
                    (TransferError::Unreachable(format!("not sent within {seconds} s")), None)
                }
            };
            let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.5));
            let pause = wished.unwrap_or(jittered);
            if error.is_final() || attempt >= self.attempts || pause > LONGEST_WAIT {
                return Err(error);
            }
            // What nobody answers keeps its job, so that it is told of before every other address was asked.
            let lent = jobs.filter(|_| wished.is_some());
            if let Some(jobs) = lent {
                jobs.add_permits(1);
            }
            tokio::time::sleep(pause).await;
            if let Some(jobs) = lent
                && let Ok(job) = jobs.acquire().await
            {
                job.forget();
            }
            wait *= 2;
        }
        Err(TransferError::Unreachable("it was never asked".to_owned()))
    }

    async fn permit(&self, url: &Url) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let of_host = Arc::clone(
            lock(&self.hosts)
                .entry(host)
                .or_insert_with(|| Arc::new(Semaphore::new(self.per_host))),
        );
        of_host.acquire_owned().await.ok()
    }

    async fn attempt(&self, url: &Url, limit: usize) -> Result<Vec<u8>, Attempt> {
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            self.check(&url)?;
            let sent = self.client.get(url.clone()).send().await;
            let response = sent.map_err(|error| unreachable_address(&error))?;
            let status = response.status();
            if status.is_redirection() {
                url = target(&url, &response)?;
            } else if status.is_success() {
                let body = body(response, limit)
                    .await
                    .map_err(|error| unreachable_address(&error))?;
                return body.ok_or_else(|| TransferError::TooLarge { limit }.into());
            } else {
                return Err(Attempt {
                    retry_after: retry_after(&response),
                    error: TransferError::Status(status),
                });
            }
        }
        Err(TransferError::Redirect(format!("more than {MOST_REDIRECTS} redirects")).into())
    }

    /// An address that is a number never reaches the resolver.
    fn check(&self, url: &Url) -> Result<(), TransferError> {
        let host = url.host_str().unwrap_or_default();
        let number: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        match number {
            Some(number) if !self.allow_private && !is_public(number) => {
                Err(TransferError::Private { host: host.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// What asks one address, and goes to no other.
fn client(timeout: Duration, allow_private: bool) -> ClientBuilder {
    let builder = Client::builder()
        .connect_timeout(CONNECT.min(timeout))
        .redirect(Policy::none())
        .user_agent(concat!("ikat-trainer/", env!("CARGO_PKG_VERSION")));
    if allow_private {
        builder
    } else {
        builder.dns_resolver(Arc::new(PublicOnly))
    }
}

/// How an attempt failed.
struct Attempt {
    error: TransferError,
    /// How long the server wants to be left alone.
    retry_after: Option<Duration>,
}

impl From<TransferError> for Attempt {
    fn from(error: TransferError) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

fn target(url: &Url, response: &Response) -> Result<Url, TransferError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| url.join(location).ok());
    target
        .filter(|target| matches!(target.scheme(), "http" | "https"))
        .ok_or_else(|| TransferError::Redirect("a redirect that leads nowhere".to_owned()))
}

/// What the innermost cause says: the outer ones only repeat the address.
fn unreachable_address(error: &reqwest::Error) -> TransferError {
    let mut cause: &dyn std::error::Error = error;
    loop {
        // It may be the name of a proxy.
        if let Some(NotPublic(host)) = cause.downcast_ref::<NotPublic>() {
            return TransferError::Private { host: host.clone() };
        }
        if let Some(not_found) = cause.downcast_ref::<NotFound>() {
            return TransferError::UnknownName(not_found.to_string());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return TransferError::Unreachable(cause.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn nobody_is_led_into_a_private_network() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let (server, time) = (listener.local_addr().expect("bound"), Duration::from_secs(20));
        // By its name it could be anywhere.
        let known = client(time, false).no_proxy().resolve("public.example", server);
        let downloader = Downloader {
            client: known.build().expect("a client"),
            ..Downloader::new(time, 1, 1, false).expect("a client")
        };
        let url = Url::parse(&format!("http://public.example:{}/1.jpg", server.port())).expect("an address");
        for place in [
            format!("http://{server}/"),
            format!("http://localhost:{}/", server.port()),
            format!("http://[::ffff:127.0.0.1]:{}/", server.port()),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
        ] {
            let leading = async {
                let (mut asking, _) = listener.accept().await.expect("a connection");
                let _ = asking.read(&mut [0; 4096]).await;
                let answer = format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\nconnection: close\r\n\r\n");
                asking.write_all(answer.as_bytes()).await.expect("written");
            };
            let (found, _) = tokio::join!(downloader.get(&url, 1000, None), tokio::time::timeout(time, leading));
            let error = found.expect_err("refused");
            assert!(matches!(error, TransferError::Private { .. }), "{place}: {error}");
        }
    }

    /// Why nobody is reached whose name can never be looked up.
    async fn error_through(proxy: Option<&str>) -> TransferError {
        let client = Client::builder().no_proxy().dns_resolver(Arc::new(PublicOnly));
        let client = match proxy {
            Some(proxy) => client.proxy(reqwest::Proxy::http(proxy).expect("a proxy")),
            None => client,
        };
        let address = format!("http://{}.example/1.jpg", "a".repeat(64));
        let sent = client.build().expect("a client").get(address).send().await;
        unreachable_address(&sent.expect_err("nobody is there"))
    }

    #[tokio::test]
    async fn a_name_that_is_unknown_is_told_from_a_proxy_that_is_not_there() {
        let unknown = error_through(None).await;
        assert!(matches!(unknown, TransferError::UnknownName(_)), "{unknown:?}");
        let away = error_through(Some("http://127.0.0.1:9")).await;
        assert!(matches!(away, TransferError::Unreachable(_)), "{away:?}");
    }

    #[tokio::test]
    async fn a_proxy_in_a_private_network_is_not_taken_for_the_host() {
        let error = error_through(Some("http://localhost:9")).await;
        assert!(
            matches!(&error, TransferError::Private { host } if host == "localhost"),
            "{error}"
        );
    }
}
