use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use reqwest::Url;
use serde_json::{Value, json};

use super::*;
use crate::progress::Silent;

fn url(text: &str) -> Url {
    Url::parse(text).expect("an address")
}

#[test]
fn the_region_is_read_from_function_urls_alone() {
    for (address, region) in [
        ("https://abc123.lambda-url.eu-central-1.on.aws/", Some("eu-central-1")),
        (
            "https://abc123.lambda-url.us-gov-west-1.on.aws/health/live",
            Some("us-gov-west-1"),
        ),
        ("https://lambda-url.eu-central-1.on.aws/", None),
        ("https://abc.lambda-url.eu-central-1.on.aws.example.org/", None),
        ("https://example.org/abc.lambda-url.eu-central-1.on.aws", None),
        ("https://a.b.lambda-url.eu-central-1.on.aws/", None),
        ("http://127.0.0.1:9000/", None),
    ] {
        assert_eq!(region_of_function_url(&url(address)), region, "{address}");
    }
}

/// Computed with botocore 1.43's SigV4Auth for the same request, credentials and time.
#[test]
fn a_signature_is_the_one_that_botocore_makes() {
    let credentials = Credentials::new(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        Some("a token".into()),
        None,
        "tests",
    );
    let signer = Signer::new(credentials, "eu-central-1", "lambda");
    let address = url("https://abc123.lambda-url.eu-central-1.on.aws/");
    let mut request = reqwest::Request::new(reqwest::Method::POST, address);
    request
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let time = UNIX_EPOCH + Duration::from_mins(24_015_636);
    let headers = signer.headers(&request, br#"{"image": "AAAA"}"#, time).expect("signed");
    assert_eq!(headers["x-amz-date"], "20150830T123600Z");
    assert_eq!(headers["x-amz-security-token"], "a token");
    assert_eq!(
        headers["authorization"],
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-central-1/lambda/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, \
         Signature=e656495a2a1a8e958df7d6bdeb8174e9d35206decb5d61c9498d7a2d738dbe3b"
    );
}

#[test]
fn percentiles_are_times_of_real_calls() {
    assert_eq!(Percentiles::of([]), None);
    let of = |count: u32| Percentiles::of((1..=count).rev().map(f64::from)).expect("some");
    let same = |p50, p90, p99, max| Percentiles { p50, p90, p99, max };
    assert_eq!(of(1), same(1.0, 1.0, 1.0, 1.0));
    assert_eq!(of(10), same(5.0, 9.0, 10.0, 10.0));
    assert_eq!(of(1000), same(500.0, 900.0, 990.0, 1000.0));
}

fn good() -> Value {
    json!({
        "label": "red", "score": 0.75, "decision": "accepted", "scores": {"red": 0.75},
        "model": {"name": "m", "version": "v"}, "timing_ms": {"total": 2.5}, "statusCode": 200,
    })
}

#[test]
fn answers_in_each_form_are_told_apart() {
    let answer = |status: u16, body: Value| answer::read(&url("http://x/"), status, body.to_string().as_bytes(), 9.0);
    let result = answer(200, good()).expect("an answer");
    assert_eq!(
        (result.label.as_str(), result.server_ms, result.round_trip_ms),
        ("red", 2.5, 9.0)
    );
    for (status, body, code) in [
        (
            200,
            json!({"statusCode": 422, "error": {"code": "undecodable_image", "message": "cut"}}),
            "undecodable_image",
        ),
        (403, json!({"Message": "Forbidden"}), "forbidden"),
        (502, json!({"message": "Internal Server Error"}), "unknown"),
        (
            200,
            json!({"errorMessage": "out of memory", "errorType": "Runtime.ExitError"}),
            "unknown",
        ),
        (200, json!({"label": "red"}), "not_a_scorer"),
        (404, json!({"code": "NoSuchBucket"}), "not_a_scorer"),
        (404, json!({"message": "Not Found"}), "unknown"),
        (413, json!(null), "unknown"),
    ] {
        let error = answer(status, body.clone()).expect_err("no answer");
        assert_eq!(error.code(), code, "{body}: {error}");
    }
}

#[test]
fn who_is_at_fault_and_why_is_said() {
    for (status, body, said) in [
        (
            400,
            json!({"error": "there are 0 inputs"}),
            "refused the request: there are 0 inputs (status 400, unknown)",
        ),
        (
            503,
            json!({"error": {"code": "model_unavailable", "message": "no model"}}),
            "could not answer: no model (status 503, model_unavailable)",
        ),
        (502, json!({"message": "Bad Gateway"}), "could not answer: Bad Gateway"),
    ] {
        let error = answer::read(&url("http://x/"), status, body.to_string().as_bytes(), 9.0).expect_err("no answer");
        assert!(error.to_string().contains(said), "{error}");
    }
}

/// A server that answers `count` requests, refuses the first, and tells how many it worked on at once at most.
fn server(count: usize) -> (Url, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = url(&format!("http://{}/", listener.local_addr().expect("bound")));
    let serving = std::thread::spawn(move || {
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let answering: Vec<_> = (0..count)
            .map(|number| {
                let (stream, _) = listener.accept().expect("a connection");
                let (open, most) = (Arc::clone(&open), Arc::clone(&most));
                std::thread::spawn(move || {
                    answer(stream, number == 0, || {
                        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(100));
                        // Before the answer, which may be followed by the next request at once.
                        open.fetch_sub(1, Ordering::SeqCst);
                    });
                })
            })
            .collect();
        for thread in answering {
            thread.join().expect("no panic");
        }
        most.load(Ordering::SeqCst)
    });
    (address, serving)
}

fn answer(mut stream: TcpStream, refuse: bool, work: impl FnOnce()) {
    let _ = stream.read(&mut [0; 8192]);
    work();
    let (status, body) = if refuse {
        (429, json!({"error": {"code": "too_many_requests", "message": "later"}}))
    } else {
        (200, good())
    };
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    let _ = stream.write_all((head + &body).as_bytes());
}

#[tokio::test]
async fn calls_go_out_together_and_come_back_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let images = ["a.png", "none.png", "b.png"].map(|name| folder.path().join(name));
    for image in [&images[0], &images[2]] {
        std::fs::write(image, "an image").expect("written");
    }
    let (address, serving) = server(12);
    let client = Client::new(address, Duration::from_secs(20)).expect("a client");
    let load = Load {
        images: images.to_vec(),
        repeat: 6,
        concurrency: NonZero::new(3).expect("three"),
    };
    let (calls, summary) = call_all(&client, &load, &Silent).await;
    let order: Vec<_> = calls.iter().map(|call| &call.image).collect();
    let expected: Vec<_> = images.iter().flat_map(|image| [image; 6]).collect();
    assert_eq!(order, expected);
    assert_eq!((summary.calls, summary.answered), (18, 11));
    let errors: Vec<_> = summary
        .errors
        .iter()
        .map(|(code, count)| (code.as_str(), *count))
        .collect();
    assert_eq!(errors, [("file", 6), ("too_many_requests", 1)]);
    assert_eq!(summary.versions["v"], 11);
    let [round_trip, around] = [summary.round_trip_ms, summary.around_ms].map(|row| row.expect("answers"));
    assert!(
        round_trip.p50 >= 100.0 && round_trip.p50 - around.p50 < 3.0,
        "{summary:?}"
    );
    // Each call takes a tenth of a second, three at a time.
    assert!(summary.seconds >= 0.4, "{summary:?}");
    assert_eq!(serving.join().expect("no panic"), 3);
}

#[tokio::test]
async fn what_no_scorer_takes_is_not_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.png");
    let file = std::fs::File::create(&path).expect("a file");
    let error = Client::prepare(&path).await.map(drop).expect_err("empty");
    assert!(matches!(error, ClientError::Empty), "{error}");
    file.set_len(MAX_FILE_BYTES).expect("longer");
    let Prepared(body) = Client::prepare(&path).await.expect("a request");
    assert_eq!(body.len(), 32 << 20);
    file.set_len(MAX_FILE_BYTES + 1).expect("longer");
    let error = Client::prepare(&path).await.map(drop).expect_err("too large");
    assert!(matches!(error, ClientError::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_sent_is_named_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let [empty, large, none] = ["empty.png", "large.png", "none.png"].map(|name| folder.path().join(name));
    std::fs::write(&empty, "").expect("written");
    let file = std::fs::File::create(&large).expect("a file");
    file.set_len(MAX_FILE_BYTES + 1).expect("longer");
    let client = Client::new(url("http://127.0.0.1:9/"), Duration::from_secs(20)).expect("a client");
    let load = Load {
        images: vec![empty, large, none],
        repeat: 1,
        concurrency: NonZero::new(1).expect("one"),
    };
    let (calls, _) = call_all(&client, &load, &Silent).await;
    for (call, name) in calls.iter().zip(["empty.png", "large.png", "none.png"]) {
        let row = serde_json::to_string(call).expect("JSON");
        assert_eq!(row.matches(name).count(), 1, "{row}");
    }
}

/// A port, a client that calls it as `user` (`NAME:PASSWORD@`, or nothing), and a request.
async fn calling(user: &str) -> (TcpListener, Client, Prepared) {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("a.png");
    std::fs::write(&image, "an image").expect("written");
    let request = Client::prepare(&image).await.expect("a request");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = url(&format!("http://{user}{}/", listener.local_addr().expect("bound")));
    let client = Client::new(address, Duration::from_secs(20)).expect("a client");
    (listener, client, request)
}

#[tokio::test]
async fn who_is_not_there_and_who_breaks_off_are_told_apart() {
    let (listener, client, request) = calling("").await;

    let breaking = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 8192]);
        let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{");
    });
    let error = client.call(request.clone()).await.expect_err("half an answer");
    breaking.join().expect("no panic");
    assert_eq!(error.code(), "broken_off", "{error}");

    let error = client.call(request).await.expect_err("nobody");
    assert_eq!(error.code(), "unreachable", "{error}");
    assert!(error.to_string().contains("that the scorer runs"), "{error}");
}

#[tokio::test]
async fn a_password_in_the_address_is_sent_and_not_repeated() {
    let (listener, client, request) = calling("user:secret@").await;

    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 8192];
        let length = stream.read(&mut request).expect("a request");
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let error = client.call(request).await.expect_err("no answer").to_string();
    let asked = asked.join().expect("no panic");
    assert!(asked.contains("authorization: Basic dXNlcjpzZWNyZXQ="), "{asked}");
    assert!(error.contains("127.0.0.1") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn an_address_that_leads_on_is_told_where_to() {
    let (listener, client, request) = calling("").await;
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 8192]);
        let head = "HTTP/1.1 301 X\r\nlocation: https://scorer.example/\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
    });
    let error = client.call(request).await.expect_err("no answer");
    assert_eq!(error.code(), "unreachable", "{error}");
    assert!(
        error.to_string().contains("leads on to https://scorer.example/"),
        "{error}"
    );
}
