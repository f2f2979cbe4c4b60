//! Many requests at once: a bounded queue, bounded memory, and nothing dropped that was taken.
//!
//! `IKAT_LOAD_REQUESTS` says how many requests the long test sends (few, where nothing is said).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use end_to_end::http::{Http, connect, post};
use end_to_end::{colours, encoded, seaweedfs, wait_until};
use shared::bundle::MANIFEST;
use shared::store::versions::{LIVE, Live, file_key};

const CI_REQUESTS: usize = 3_000;

fn cores() -> usize {
    std::thread::available_parallelism().expect("cores").get()
}

fn scorer(more: &[(&str, &str)]) -> (Http, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    colours::bundle("a").write(folder.path()).expect("written");
    let model = folder.path().display().to_string();
    let scorer = Http::start(&[&[("IKAT_MODEL", model.as_str())][..], more].concat());
    wait_until("the model", || scorer.get("/health/ready").0 == 200);
    (scorer, folder)
}

/// A picture that takes a good while to decode.
fn large(width: u32, height: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([250, (x ^ y) as u8 / 8, 10]));
    encoded(picture, image::ImageFormat::Png)
}

/// One connection for many requests.
struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = connect(address);
        stream.set_nodelay(true).expect("an option");
        Self {
            reader: BufReader::new(stream),
        }
    }

    fn post(&mut self, body: &[u8]) -> u16 {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.reader.get_mut();
        stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("a line");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).expect("a body");
        status
    }
}

/// Memory that the process has in use, in kilobytes.
#[cfg(target_os = "linux")]
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_where_it_is_over_many_requests() {
    let (scorer, _folder) = scorer(&[]);
    let total = std::env::var("IKAT_LOAD_REQUESTS").map_or(CI_REQUESTS, |text| text.parse().expect("a number"));
    let pictures: Vec<Vec<u8>> = colours::COLOURS
        .iter()
        .map(|(_, colour)| colours::png(*colour))
        .collect();
    let (sent, clients) = (AtomicUsize::new(0), 4 * cores());
    let mut latencies: Vec<Duration> = Vec::with_capacity(total);
    let mut memories = Vec::new();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(scorer.address());
                    let mut own = Vec::new();
                    loop {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        if number >= total {
                            break own;
                        }
                        let start = Instant::now();
                        assert_eq!(connection.post(&pictures[number % pictures.len()]), 200);
                        own.push(start.elapsed());
                    }
                })
            })
            .collect();
        // Beginnings take memory: what counts is the rest.
        for part in 1..=10 {
            wait_until("a tenth of the requests", || {
                sent.load(Ordering::Relaxed) >= total * part / 10
                    || workers.iter().all(std::thread::ScopedJoinHandle::is_finished)
            });
            memories.push(memory(scorer.id()));
        }
        for worker in workers {
            latencies.extend(worker.join().expect("no failure"));
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{total} requests by {clients} clients in {seconds:.1} s, {:.0} a second; p50 {:?}, p95 {:?}, p99 {:?}, \
         longest {:?}; memory in MB after each tenth: {:?}",
        total as f64 / seconds,
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
        memories.iter().map(|kilobytes| kilobytes / 1024).collect::<Vec<_>>()
    );
    assert_eq!(latencies.len(), total);
    let growth = memories[9].saturating_sub(memories[2]);
    assert!(growth < 16 << 10, "it grew by {growth} KB: {memories:?}");
}

#[test]
fn past_the_bound_the_answer_is_429_at_once() {
    let (scorer, _folder) = scorer(&[("IKAT_QUEUE", "2")]);
    let address = scorer.address();
    let picture = large(4000, 3000);
    let answers: Vec<(u16, Duration)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..40)
            .map(|_| {
                scope.spawn(|| {
                    let start = Instant::now();
                    (post(address, "/", "image/png", &picture).0, start.elapsed())
                })
            })
            .collect();
        // Whoever asks whether it is alive does not stand in the queue.
        let start = Instant::now();
        assert_eq!(scorer.get("/health/live").0, 200);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        clients
            .into_iter()
            .map(|client| client.join().expect("an answer"))
            .collect()
    });
    let of = |status: u16| {
        answers
            .iter()
            .filter(|(found, _)| *found == status)
            .map(|(_, time)| *time)
            .collect::<Vec<_>>()
    };
    let (scored, refused) = (of(200), of(429));
    assert_eq!(scored.len() + refused.len(), 40, "{answers:?}");
    assert!(scored.len() >= 2 + cores() && !refused.is_empty(), "{answers:?}");
    let slowest = scored.iter().max().expect("some");
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    assert!(
        median(refused.clone()) < *slowest,
        "a refusal waits for nothing: {answers:?}"
    );
    println!(
        "40 at once, {} places: {} scored (slowest {slowest:?}), {} refused (median {:?})",
        2 + cores(),
        scored.len(),
        refused.len(),
        median(refused)
    );
}

#[test]
fn clients_that_send_everything_first_are_told_that_there_are_too_many() {
    let (scorer, _folder) = scorer(&[("IKAT_QUEUE", "2")]);
    let address = scorer.address();
    let picture = large(4000, 3000);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..40)
            .map(|_| {
                scope.spawn(|| {
                    // A refusal leaves the connection as good as it was.
                    let mut connection = Connection::open(address);
                    [connection.post(&picture), connection.post(&picture)]
                })
            })
            .collect();
        let answers = clients.into_iter().map(|client| client.join().expect("two answers"));
        answers.flatten().collect()
    });
    assert!(answers.iter().all(|status| matches!(status, 200 | 429)), "{answers:?}");
    assert!(answers.contains(&429), "{answers:?}");
}

#[test]
fn an_answer_without_the_body_waits_for_it_5_s_at_most_and_not_past_the_deadline() {
    for (deadline, longest) in [("1", 5), ("60", 30)] {
        let (scorer, _folder) = scorer(&[("IKAT_DEADLINE_SECONDS", deadline)]);
        let begun = Instant::now();
        let mut client = connect(scorer.address());
        client
            .write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-request-id: order-7\r\ncontent-length: 9\r\n\r\n{")
            .expect("a beginning");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for header in ["connection: close", "x-request-id: order-7"] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(longest), "{deadline}: {took:?}");
    }
}

#[test]
fn what_was_taken_is_finished_when_it_is_told_to_stop() {
    let (scorer, _folder) = scorer(&[("IKAT_QUEUE", "4")]);
    let (address, places) = (scorer.address(), 4 + cores());
    let picture = colours::png([250, 10, 10]);
    let (first, rest) = picture.split_at(picture.len() / 2);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: image/png\r\ncontent-length: {}\r\n\r\n",
        picture.len()
    );
    let mut clients: Vec<TcpStream> = (0..places)
        .map(|_| {
            let mut client = connect(address);
            client
                .write_all(&[head.as_bytes(), first].concat())
                .expect("half of a request");
            client
        })
        .collect();
    wait_until("every place to be taken", || {
        post(address, "/", "application/json", b"{}").0 == 429
    });
    let stopped = std::thread::spawn(|| scorer.stop().0);
    wait_until("the scorer to let nobody in any more", || {
        TcpStream::connect(address).is_err()
    });
    for client in &mut clients {
        client.write_all(rest).expect("the other half");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(stopped.join().expect("no panic"), Some(0));
}

#[test]
fn a_disk_that_does_not_answer_keeps_no_scorer_from_stopping() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("m");
    std::fs::create_dir_all(model.join("versions/v")).expect("a folder");
    std::fs::write(model.join(LIVE), Live::new("v", "", None).to_json()).expect("written");
    // Whoever reads it waits for whoever writes it.
    let pipe = folder.path().join(file_key("m", "v", MANIFEST));
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.is_ok_and(|status| status.success()), "no pipe");
    let scorer = Http::start(&[("IKAT_MODEL", &model.display().to_string())]);
    wait_until("the library", || {
        let mut lines = scorer.log().into_iter();
        lines.any(|line| line["message"] == "ONNX Runtime is loaded")
    });
    // Open once it is being read.
    let _writer = File::options().write(true).open(&pipe).expect("a reader");
    assert_eq!(scorer.stop().0, Some(0));
}

#[test]
fn an_image_that_takes_too_long_is_answered_in_time() {
    let (scorer, _folder) = scorer(&[("IKAT_DEADLINE_SECONDS", "0.02")]);
    let picture = large(4000, 3000);
    let begun = Instant::now();
    let (status, answer) = scorer.post("/", "image/png", &picture);
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (504, Some("deadline_exceeded")),
        "{answer}"
    );
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The work was not lost for ever: the pipeline comes back.
    wait_until("the scorer to score again", || {
        scorer.post("/", "image/png", &colours::png([250, 10, 10])).0 == 200
    });
}

#[test]
fn long_lists_past_their_deadline_do_not_end_the_process() {
    let (scorer, _folder) = scorer(&[("IKAT_DEADLINE_SECONDS", "1")]);
    let address = scorer.address();
    // Small to send, and as slow to decode as its pixels are many.
    let picture = encoded(image::GrayImage::new(5000, 5000), image::ImageFormat::Png);
    let picture = base64::engine::general_purpose::STANDARD.encode(picture);
    let body = serde_json::json!({ "images": vec![picture; 64] }).to_string();
    std::thread::scope(|scope| {
        // One more than can be worked on at once.
        for _ in 0..cores() + 2 {
            scope.spawn(|| {
                let (status, answer) = post(address, "/", "application/json", body.as_bytes());
                assert_eq!(status, 504, "{answer}");
            });
        }
    });
    // By then whole lists would have held every place for two deadlines more.
    std::thread::sleep(Duration::from_secs(4));
    wait_until("the scorer to score again", || {
        scorer.post("/", "image/png", &colours::png([250, 10, 10])).0 == 200
    });
}

#[test]
fn a_body_that_does_not_come_costs_no_more_than_the_deadline_and_no_answer_about_health() {
    let (scorer, _folder) = scorer(&[("IKAT_QUEUE", "0"), ("IKAT_DEADLINE_SECONDS", "5")]);
    let begun = Instant::now();
    let mut clients: Vec<TcpStream> = (0..cores())
        .map(|_| {
            let mut client = connect(scorer.address());
            client
                .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
                .expect("a beginning");
            client
        })
        .collect();
    wait_until("every place to be taken", || {
        let (status, answer) = scorer.post("/", "application/json", b"{}");
        status == 429 && answer["error"]["code"] == "too_many_requests"
    });
    for path in ["/health/live", "/health/ready", "/v2/health/ready"] {
        assert_eq!(scorer.get(path).0, 200, "{path}");
    }
    // Whoever hangs up holds a place no longer.
    drop(clients.pop());
    wait_until("a place to be free", || {
        scorer.post("/", "application/json", b"{}").0 == 400
    });
    for client in &mut clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        assert!(answer.contains("deadline_exceeded"), "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let (_, log) = scorer.stop();
    let late = log.iter().filter(|line| line["status"] == 504);
    assert_eq!(late.count(), clients.len(), "who hung up was waited for: {log:?}");
}

#[test]
fn a_client_that_sends_everything_first_is_told_that_it_is_too_large() {
    let (scorer, _folder) = scorer(&[]);
    let bytes = 64 << 20;
    let mut client = connect(scorer.address());
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
    client.write_all(head.as_bytes()).expect("a head");
    client.write_all(&vec![0_u8; bytes]).expect("everything is taken");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let (_, log) = scorer.stop();
    let line = log.iter().find(|line| line["status"] == 413).expect("its line");
    assert_eq!(line["bytes"], bytes, "{line}");
}

#[test]
fn a_store_that_does_not_answer_is_told_of_within_the_time_of_a_request() {
    // Connections are made by the system, and nobody reads from them.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    let mut environment = seaweedfs::environment(&endpoint);
    environment.extend([("IKAT_ALLOWED_BUCKETS", "photos"), ("IKAT_DEADLINE_SECONDS", "9")]);
    let (scorer, _folder) = scorer(&environment);
    let request = br#"{"s3": "s3://photos/1.png"}"#;
    let (status, answer) = post(scorer.address(), "/", "application/json", request);
    assert_eq!(status, 503, "{answer}");
    assert_eq!(answer["error"]["code"], "storage_unavailable", "{answer}");
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.ends_with("the log says more"), "{message}");
}
