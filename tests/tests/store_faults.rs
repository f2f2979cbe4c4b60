//! What a store does when the server or the network misbehaves, against a server that does so on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use end_to_end::{free_port, s3_client};
use shared::bundle::TrustedKeys;
use shared::store::versions::{VersionError, load_version};
use shared::store::{ObjectStore, Patience, S3Store, StoreError, VersionRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The object that the server has.
const CONTENTS: &[u8] = b"sixteen bytes...";

/// How the server treats one request.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Answer,
    /// Hangs up after half of the body.
    HangUp,
    /// Sends half of the body and then nothing more.
    Stall,
    /// Never sends a header.
    Hang,
    /// Answers with this status and no body.
    Status(u16),
    /// Answers with this status and this code of an error.
    Code(u16, &'static str),
}

/// A store of a server that takes whoever asks.
fn store_at(endpoint: &str, prefix: &str) -> S3Store {
    S3Store::with_client(s3_client(endpoint, "key", "secret"), "bucket", prefix)
}

/// Serves one behaviour per request, the last one for all that follow, and counts requests.
async fn serve(script: &'static [Behaviour]) -> (ObjectStore, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                // The client may hang up at any time.
                let _ = treat(connection, script, &counter).await;
            });
        }
    });
    // Short only where it is meant to end: a busy machine may hold up any answer.
    let ends = |behaviour: &Behaviour| matches!(behaviour, Behaviour::Stall | Behaviour::Hang);
    let wait = Duration::from_secs(if script.iter().any(ends) { 1 } else { 10 });
    let patience = Patience {
        answer: wait,
        stall: wait,
        ..Patience::default()
    };
    let store = store_at(&endpoint, "").with_patience(patience);
    (ObjectStore::S3(store), requests)
}

async fn treat(mut connection: TcpStream, script: &[Behaviour], counter: &AtomicUsize) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await?);
    }
    let behaviour = script[counter.fetch_add(1, Ordering::SeqCst).min(script.len() - 1)];
    let header = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"1\"\r\nconnection: close\r\n\r\n",
        CONTENTS.len()
    );
    match behaviour {
        Behaviour::Answer => connection.write_all(&[header.as_bytes(), CONTENTS].concat()).await,
        Behaviour::HangUp => {
            connection
                .write_all(&[header.as_bytes(), &CONTENTS[..8]].concat())
                .await
        }
        Behaviour::Stall => {
            connection
                .write_all(&[header.as_bytes(), &CONTENTS[..8]].concat())
                .await?;
            std::future::pending().await
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Status(status) => {
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            connection.write_all(answer.as_bytes()).await
        }
        Behaviour::Code(status, code) => {
            let body = format!("<Error><Code>{code}</Code><Message>a message</Message></Error>");
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            connection.write_all(answer.as_bytes()).await
        }
    }?;
    connection.shutdown().await
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    use Behaviour::{Answer, Hang, HangUp, Stall, Status};
    for script in [
        &[HangUp, Answer][..],
        &[Stall, Answer],
        &[Hang, Answer],
        &[Status(500), Answer],
        &[Status(503), HangUp, Answer],
        &[HangUp, Stall, Answer],
    ] {
        let (store, requests) = serve(script).await;
        let object = store.get("key", 100).await;
        let object = object
            .unwrap_or_else(|error| panic!("{script:?}: {error}"))
            .expect("there");
        assert_eq!(object.bytes, CONTENTS, "{script:?}");
        assert_eq!(requests.load(Ordering::SeqCst), script.len(), "{script:?}");
    }
}

#[tokio::test]
async fn what_lasts_is_an_error_in_time() {
    for behaviour in [
        &[Behaviour::HangUp][..],
        &[Behaviour::Stall],
        &[Behaviour::Hang],
        &[Behaviour::Status(500)],
    ] {
        let (store, requests) = serve(behaviour).await;
        let begun = Instant::now();
        let error = store.get("key", 100).await.expect_err("never whole");
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{behaviour:?}: {:?}",
            begun.elapsed()
        );
        assert!(
            matches!(error, StoreError::Interrupted { .. } | StoreError::Request { .. }),
            "{behaviour:?}: {error}"
        );
        assert!(error.to_string().contains("s3://bucket/key"), "{error}");
        assert_eq!(requests.load(Ordering::SeqCst), 3, "{behaviour:?}");
    }
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again() {
    let (store, requests) = serve(&[Behaviour::Status(403)]).await;
    let error = store.get("key", 100).await.expect_err("refused");
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(error.to_string().contains("s3:ListBucket"), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let (store, _) = serve(&[Behaviour::Status(404)]).await;
    assert_eq!(store.get("key", 100).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_version_that_may_not_be_read_may_not_be_there() {
    let (store, _) = serve(&[Behaviour::Code(403, "AccessDenied")]).await;
    let loaded = load_version(&store, "m", &VersionRef::named("v"), &TrustedKeys::default()).await;
    let error = loaded.expect_err("refused");
    assert!(matches!(error, VersionError::Withheld { .. }), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("version v of m is not there") && said.contains("a message"),
        "{said}"
    );
    let told = error.for_callers().to_string();
    assert!(
        told.contains("s3://bucket/m/versions/v/") && !told.contains("a message"),
        "{told}"
    );
}

#[tokio::test]
async fn what_a_store_refuses_for_good_says_what_to_do() {
    for (behaviour, words) in [
        (&[Behaviour::Status(301)][..], "AWS_REGION"),
        (&[Behaviour::Code(301, "PermanentRedirect")], "AWS_REGION"),
        (
            &[Behaviour::Code(400, "IllegalLocationConstraintException")],
            "AWS_REGION",
        ),
        (&[Behaviour::Code(403, "InvalidObjectState")], "restore it"),
        (
            &[Behaviour::Code(400, "KMS.DisabledException")],
            "KMS.DisabledException",
        ),
        (&[Behaviour::Code(409, "InvalidBucketState")], "InvalidBucketState"),
    ] {
        let (store, requests) = serve(behaviour).await;
        let error = store.get("key", 100).await.expect_err("refused");
        assert!(error.is_refusal(), "{behaviour:?}: {error}");
        assert!(error.to_string().contains(words), "{behaviour:?}: {error}");
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{behaviour:?}");
    }
}

#[tokio::test]
async fn what_passes_is_told_by_its_code_too() {
    for behaviour in [
        &[Behaviour::Code(400, "RequestTimeout")][..],
        &[Behaviour::Code(400, "ThrottlingException")],
        &[Behaviour::Code(409, "OperationAborted")],
    ] {
        let (store, _) = serve(behaviour).await;
        let error = store.get("key", 100).await.expect_err("refused for now");
        assert!(!error.is_refusal(), "{behaviour:?}: {error}");
    }
}

/// More than goes up in one piece, in bytes.
const LARGE: usize = (16 << 20) + 1;

/// A server that has put an upload together, of which it then knows nothing.
async fn forgetful(method: Method, uri: Uri, _: Bytes) -> Response {
    match method {
        Method::POST if uri.query().is_some_and(|query| query.contains("uploads")) => {
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>".into_response()
        }
        Method::PUT => [(header::ETAG, "\"1\"")].into_response(),
        Method::HEAD => [
            (header::CONTENT_LENGTH, LARGE.to_string()),
            (header::ETAG, "\"2\"".to_owned()),
        ]
        .into_response(),
        _ => {
            let gone = "<Error><Code>NoSuchUpload</Code><Message>a message</Message></Error>";
            (StatusCode::NOT_FOUND, gone).into_response()
        }
    }
}

#[tokio::test]
async fn an_upload_whose_answer_got_lost_is_done_where_its_object_is_there() {
    let router = Router::new().fallback(forgetful).layer(DefaultBodyLimit::disable());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let store = ObjectStore::S3(store_at(&endpoint, ""));
    let put = |size: usize| store.put("key", vec![0_u8; size].into(), None);
    assert_eq!(put(LARGE).await.expect("it is there"), "\"2\"");
    let error = put(LARGE + 1).await.expect_err("something else is there");
    assert!(error.to_string().contains("NoSuchUpload"), "{error}");
}

#[tokio::test]
async fn an_object_over_the_limit_is_not_read() {
    let (store, requests) = serve(&[Behaviour::Stall]).await;
    let error = store.get("key", 15).await.expect_err("too large");
    assert!(
        matches!(
            error,
            StoreError::TooLarge {
                size: 16,
                limit: 15,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_in_time() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let store = ObjectStore::S3(store_at(&endpoint, "models"));
    let begun = Instant::now();
    let error = store.get("key", 15).await.expect_err("nobody there");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(matches!(error, StoreError::Request { .. }), "{error}");
    assert!(error.to_string().contains("s3://bucket/models/key"), "{error}");
}
