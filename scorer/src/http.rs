//! Plain HTTP: for trying the scorer on one's own machine, and for places without Lambda.

use std::convert::{Infallible, identity};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::rt::Timer;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use shared::service::{self, ErrorCode, Request, Response, ServiceError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Failure;
use crate::origin::{Origin, TRACEPARENT};
use crate::responder::Responder;
use crate::watchdog::before;

/// The largest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 32 << 20;
/// How long a connection may be without a request: longer than balancers and proxies keep one to send another request
/// on, which is a minute by their defaults. Where the scorer closed it first, they would answer some requests with 502.
///
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html>
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take to send the body of a request whose time is not over before.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest head of a request, and the largest piece in which a body comes.
const MAX_BUFFERED_BYTES: usize = 64 << 10;
/// How much of a body that nobody reads is let pass by, and for how long.
const MAX_PASSED_BYTES: usize = 256 << 20;
const PASSING: Duration = Duration::from_secs(5);
/// The header in which a request is named, and its answer too.
const REQUEST_ID: &str = "x-request-id";
/// How long requests that were begun may take to finish after the process was told to stop.
const FAREWELL: Duration = Duration::from_secs(20);

/// What the connections share.
struct Server {
    responder: Arc<Responder>,
    places: Arc<Semaphore>,
    requests: AtomicU64,
}

/// Serves `address` until the process is told to stop; requests that were begun are finished, unless it is told
/// twice.
///
/// # Errors
/// When the address cannot be used.
pub async fn serve(responder: Arc<Responder>, address: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    let places = Arc::new(Semaphore::new(responder.places()));
    let server = Arc::new(Server {
        responder,
        places,
        requests: AtomicU64::new(1),
    });
    let following = Arc::clone(&server);
    let following = tokio::spawn(async move { following.responder.follow().await });
    announce(listener.local_addr()?);

    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop_signal());
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // For example no more file handles: others may close theirs.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.handle(request).await) }
        });
        let connection = protocol(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    following.abort();
    tokio::select! {
        () = connections.shutdown() => {}
        () = tokio::time::sleep(FAREWELL) => tracing::warn!("some connections were still open"),
        () = stop_signal() => {}
    }
    Ok(())
}

/// How connections are spoken on, in the time that `timer` tells.
fn protocol(timer: impl Timer + Send + Sync + 'static) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(timer)
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_BUFFERED_BYTES);
    builder
}

/// Tells people and scripts where to send requests, which matters where the system chose the port.
#[allow(clippy::print_stderr)]
fn announce(address: SocketAddr) {
    eprintln!("listening on http://{address}");
}

impl Server {
    async fn handle(&self, request: hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
        let (parts, mut body) = request.into_parts();
        let (method, path) = (parts.method.as_str().to_owned(), parts.uri.path().to_owned());
        let until = self.responder.until();
        let origin = self.origin(&parts.headers);
        let request_id = origin.request_id.clone();
        let bytes = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        // Whoever asks how the process is does so most of all when it is busy.
        let mut response = if service::is_answered_at_once(&method, &path) {
            let request = Request {
                method,
                path,
                ..Request::default()
            };
            self.responder.answer(request, origin, until, (), identity).await
        // A place is taken before the body is read: bodies are what memory goes into.
        } else if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            match read(&mut body, until).await {
                Ok(body) => {
                    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                    let request = Request {
                        method,
                        path,
                        content_type: content_type.map(str::to_owned),
                        body,
                    };
                    self.responder.answer(request, origin, until, place, identity).await
                }
                Err(error) => self.responder.refuse((&method, &path), bytes, &error, &origin),
            }
        } else {
            let message = "as many requests as are let to are waiting: try again in a moment";
            let error = ServiceError::new(ErrorCode::TooManyRequests, message);
            self.responder.refuse((&method, &path), bytes, &error, &origin)
        };
        // Most clients listen for an answer only once they have sent everything, and a connection that is closed before
        // takes the answer with it.
        if !pass_by(&mut body, before(until, PASSING)).await {
            response.headers.push(("connection", "close".to_owned()));
        }
        response.headers.push((REQUEST_ID, request_id));
        to_hyper(response)
    }

    /// A caller's own name for its request is kept where it is short and plain.
    fn origin(&self, headers: &HeaderMap) -> Origin {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let plain = |name: &&str| {
            let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.:/".contains(&letter);
            (1..=128).contains(&name.len()) && name.bytes().all(plain)
        };
        let number = || self.requests.fetch_add(1, Ordering::Relaxed).to_string();
        let request_id = text(REQUEST_ID).filter(plain).map_or_else(number, str::to_owned);
        Origin::new(request_id, None).by("http").following(text(TRACEPARENT))
    }
}

async fn read(body: &mut Incoming, until: Option<Instant>) -> Result<Bytes, ServiceError> {
    let patience = before(until, BODY_TIMEOUT);
    let collected = tokio::time::timeout(patience, Limited::new(body, MAX_BODY_BYTES).collect())
        .await
        .map_err(|_| {
            ServiceError::new(
                ErrorCode::DeadlineExceeded,
                "the request did not arrive whole within its time: send it faster, or a smaller image",
            )
        })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the request has more than {MAX_BODY_BYTES} bytes: send a smaller image");
            Err(ServiceError::new(ErrorCode::TooLarge, message))
        }
        Err(error) => Err(ServiceError::bad_request(format!("the request broke off: {error}"))),
    }
}

/// Reads what is left of a body and keeps nothing; whether its end came within `patience`.
async fn pass_by(body: &mut Incoming, patience: Duration) -> bool {
    let reading = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > MAX_PASSED_BYTES {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(patience, reading).await.unwrap_or(false)
}

fn to_hyper(response: Response) -> hyper::Response<Full<Bytes>> {
    let mut builder = hyper::Response::builder()
        .status(response.status)
        .header(CONTENT_TYPE, response.content_type);
    for (name, value) in response.headers {
        builder = builder.header(name, value);
    }
    let built = builder.body(Full::from(response.body));
    built.unwrap_or_else(|_| hyper::Response::new(Full::default()))
}

/// Ends with Ctrl-C, or when the system asks the process to stop.
async fn stop_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupt => {}
        () = terminate() => {}
    }
}

#[cfg(unix)]
async fn terminate() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminate() {
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use hyper::rt::Sleep;

    use super::*;

    /// Takes every wait to have begun a minute ago.
    struct AMinuteLater(TokioTimer);

    impl Timer for AMinuteLater {
        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
            self.0.sleep(duration)
        }

        fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
            self.0.sleep_until(deadline)
        }

        fn now(&self) -> Instant {
            let earlier = self.0.now().checked_sub(Duration::from_mins(1));
            earlier.expect("a clock that has run for a minute")
        }
    }

    #[tokio::test]
    async fn a_connection_without_requests_is_kept_for_as_long_as_balancers_keep_it() {
        let (_client, server) = tokio::io::duplex(MAX_BUFFERED_BYTES);
        let service = service_fn(|_: hyper::Request<Incoming>| async {
            Ok::<_, Infallible>(hyper::Response::new(Full::<Bytes>::default()))
        });
        let connection = protocol(AMinuteLater(TokioTimer::new())).serve_connection(TokioIo::new(server), service);
        let ended = tokio::time::timeout(Duration::from_secs(1), connection).await;
        assert!(ended.is_err(), "{ended:?}");
    }
}
