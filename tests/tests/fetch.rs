//! Fetching a list of addresses from servers that behave as those of an old list do.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use end_to_end::program::{Running, Said, run_by, say, trainer};
use end_to_end::web::{Web, answer};
use end_to_end::{encoded, free_port, tell, wait_until};
use serde_json::Value;

/// A picture that differs for each number.
fn jpeg(number: u32, width: u32, height: u32) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 3 + number * 17) as u8, (y * 5 + number * 29) as u8, (x ^ y) as u8])
    });
    encoded(pixels, image::ImageFormat::Jpeg)
}

/// A number for each path, the one in it where there is one.
fn number(path: &str) -> u32 {
    let digits: String = path.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| path.bytes().map(u32::from).sum())
}

fn misbehave(path: &str, before: usize, stream: &mut TcpStream) {
    let picture = jpeg(number(path), 80, 60);
    let ok = |stream: &mut TcpStream, body: &[u8]| answer(stream, "200 OK", &[("content-type", "image/jpeg")], body);
    match path {
        "/gone.jpg" => answer(stream, "404 Not Found", &[], b"gone"),
        "/page.jpg" => ok(stream, b"<!DOCTYPE html><title>Domain for sale</title>"),
        "/cut.jpg" => ok(stream, &picture[..picture.len() / 2]),
        "/copy.jpg" => ok(stream, &jpeg(1, 80, 60)),
        "/large.jpg" => ok(stream, &jpeg(7, 2400, 1200)),
        "/loop.jpg" => answer(stream, "302 Found", &[("location", "/loop.jpg")], b""),
        "/moved.jpg" => answer(stream, "301 Moved Permanently", &[("location", "/9.jpg")], b""),
        "/nowhere.jpg" => answer(stream, "302 Found", &[("location", "file:///etc/passwd")], b""),
        "/busy.jpg" if before == 0 => answer(stream, "429 Too Many Requests", &[("retry-after", "1")], b""),
        "/broken.jpg" if before == 0 => answer(stream, "503 Service Unavailable", &[], b""),
        "/reset.jpg" if before == 0 => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", picture.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&picture[..100]);
        }
        "/endless.jpg" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[0xff; 4096]).is_ok() {}
        }
        "/drip.jpg" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[0xff]).is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        _ => ok(stream, &picture),
    }
}

struct Work {
    folder: tempfile::TempDir,
    urls: String,
}

impl Work {
    fn new(lines: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lines: Vec<String> = lines.iter().map(|(label, url)| format!("{label}\t{url}")).collect();
        let text = lines.join("\n");
        let urls = folder.path().join("urls.tsv");
        std::fs::write(&urls, text).expect("a list");
        Self {
            urls: urls.display().to_string(),
            folder,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, more: &[&str]) -> Command {
        let data = self.data().display().to_string();
        let fetch = ["data", "fetch", "--json", "--urls", &self.urls, "--data", &data];
        trainer(&[&fetch[..], more].concat())
    }

    fn fetch(&self, more: &[&str]) -> Said {
        say(&mut self.command(more))
    }

    /// Every file of the class folders.
    fn images(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for class in std::fs::read_dir(self.data()).into_iter().flatten().flatten() {
            if class.file_name() != ".ikat" {
                let files = std::fs::read_dir(class.path()).expect("a class folder");
                found.extend(files.map(|file| file.expect("a file").path()));
            }
        }
        found.sort();
        found
    }

    /// The ledger's images by their path.
    fn ledger(&self) -> BTreeMap<PathBuf, Value> {
        let text = std::fs::read_to_string(self.data().join(".ikat/provenance.jsonl")).expect("a ledger");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line"));
        let images = lines.filter(|line| line["outcome"] == "image");
        images
            .map(|line| (self.data().join(line["path"].as_str().expect("a path")), line))
            .collect()
    }
}

#[test]
fn whatever_servers_do_the_images_arrive_and_the_rest_is_listed() {
    let web = Web::start(misbehave);
    let closed = format!("http://127.0.0.1:{}/x.jpg", free_port());
    let good = [
        "/1.jpg",
        "/2.jpg",
        "/busy.jpg",
        "/broken.jpg",
        "/reset.jpg",
        "/moved.jpg",
        "/large.jpg",
    ];
    let bad = [
        ("/gone.jpg", "dead"),
        ("/page.jpg", "corrupt"),
        ("/cut.jpg", "corrupt"),
        ("/loop.jpg", "dead"),
        ("/nowhere.jpg", "dead"),
        ("/endless.jpg", "too-large"),
        ("/drip.jpg", "dead"),
    ];
    let mut lines: Vec<(&str, String)> = good.iter().map(|path| ("dotted", web.url(path))).collect();
    lines.extend(bad.iter().map(|(path, _)| ("striped", web.url(path))));
    lines.push(("striped", closed.clone()));
    lines.push(("../outside", web.url("/3.jpg")));
    let work = Work::new(&lines);
    let options = [
        "--allow-private",
        "--timeout",
        "3",
        "--attempts",
        "2",
        "--max-megabytes",
        "2",
    ];
    let said = work.fetch(&options).ended_with(3);
    let document = said.json();
    assert_eq!(document["kept"], good.len(), "{said:?}");
    let kinds: BTreeMap<&str, &str> = document["left_out"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|left| Some((left["url"].as_str()?, left["kind"].as_str()?)))
        .collect();
    for (path, kind) in bad {
        assert_eq!(kinds.get(&web.url(path)[..]), Some(&kind), "{path}");
    }
    assert_eq!(kinds[&closed[..]], "dead");
    assert_eq!(kinds.values().filter(|kind| **kind == "invalid").count(), 1);
    for left_out in document["left_out"].as_array().expect("a list") {
        assert!(
            said.stderr.contains(&format!("line {}:", left_out["line"])),
            "{left_out}"
        );
    }

    let ledger = work.ledger();
    assert_eq!(work.images(), ledger.keys().cloned().collect::<Vec<_>>());
    let mut sides = Vec::new();
    for (path, line) in &ledger {
        let bytes = std::fs::read(path).expect("an image");
        assert_eq!(line["sha256"], shared::files::sha256_hex(&bytes));
        let image = image::load_from_memory(&bytes).expect("decodable");
        sides.push(image.width().max(image.height()));
    }
    assert_eq!(sides.iter().max(), Some(&1000));
    assert_eq!(
        (web.asked("/3.jpg"), web.asked("/busy.jpg"), web.asked("/reset.jpg")),
        (0, 2, 2)
    );

    // The second time, only what may have recovered is asked again.
    let asked = web.total();
    let again = work.fetch(&options).ended_with(3).json();
    assert_eq!(
        (&again["kept"], &again["known"]),
        (&Value::from(0), &Value::from(good.len()))
    );
    assert_eq!(
        again["left_out"].as_array().map(Vec::len),
        document["left_out"].as_array().map(Vec::len)
    );
    assert_eq!(web.total() - asked, 3, "the drip twice, and what was too large");
}

#[test]
fn a_list_may_be_an_address_itself() {
    let web = Web::start(|path, before, stream| match path {
        "/urls.tsv" => {
            let list = format!("dotted\thttp://{}/1.jpg\n", stream.local_addr().expect("an address"));
            answer(stream, "200 OK", &[], list.as_bytes());
        }
        _ => misbehave(path, before, stream),
    });
    let mut work = Work::new(&[]);
    work.urls = web.url("/urls.tsv");
    assert_eq!(work.fetch(&["--allow-private"]).ended_with(0).json()["kept"], 1);
    assert_eq!(work.images().len(), 1);
}

#[test]
fn a_copy_is_kept_once() {
    let web = Web::start(misbehave);
    let work = Work::new(&[("dotted", web.url("/1.jpg")), ("striped", web.url("/copy.jpg"))]);
    let said = work.fetch(&["--allow-private", "--jobs", "1"]).ended_with(3).json();
    assert_eq!(
        (&said["kept"], &said["left_out"][0]["kind"]),
        (&Value::from(1), &Value::from("duplicate"))
    );
    assert_eq!(work.images().len(), 1);
}

#[test]
fn a_copy_takes_the_place_of_an_image_that_was_removed() {
    let web = Web::start(misbehave);
    let work = Work::new(&[("dotted", web.url("/1.jpg")), ("striped", web.url("/copy.jpg"))]);
    work.fetch(&["--allow-private", "--jobs", "1"]).ended_with(3);
    // Its label was wrong.
    for image in work.images() {
        std::fs::remove_file(image).expect("removed");
    }
    std::fs::write(&work.urls, format!("striped\t{}\n", web.url("/copy.jpg"))).expect("a list");
    work.fetch(&["--allow-private"]).ended_with(0);
    assert_eq!(work.images().len(), 1);
}

#[test]
fn a_slow_host_does_not_hold_up_the_others() {
    const COUNT: u32 = 8;
    let (answered, held_up) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (Arc::clone(&answered), Arc::clone(&held_up));
    let web = Web::start(move |path, _, stream| {
        let (answered, held_up) = &counts;
        if path.starts_with("/slow") {
            // It answers when the other host has given everything.
            let asked = Instant::now();
            while answered.load(Ordering::SeqCst) < COUNT {
                if asked.elapsed() > Duration::from_secs(20) {
                    held_up.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        answer(stream, "200 OK", &[], &jpeg(number(path), 80, 60));
        if path.starts_with("/fast") {
            answered.fetch_add(1, Ordering::SeqCst);
        }
    });
    let slow = |index: u32| web.url(&format!("/slow/{index}.jpg"));
    let fast = |index: u32| web.url(&format!("/fast/{}.jpg", COUNT + index));
    let lines: Vec<_> = (0..COUNT)
        .flat_map(|index| [slow(index), fast(index).replace("127.0.0.1", "localhost")])
        .map(|url| ("dotted", url))
        .collect();
    let work = Work::new(&lines);
    let options = ["--allow-private", "--jobs", "3", "--per-host", "1"];
    let said = work.fetch(&options).ended_with(0).json();
    assert_eq!(said["kept"], 2 * COUNT);
    assert_eq!(held_up.load(Ordering::SeqCst), 0);
}

#[test]
fn who_wants_to_be_left_alone_does_not_hold_up_the_others() {
    const COUNT: u32 = 4;
    let answered = AtomicU32::new(0);
    let web = Web::start(move |path, _, stream| {
        // It is busy until the other host has given everything.
        if path.starts_with("/busy") && answered.load(Ordering::SeqCst) < COUNT {
            return answer(stream, "429 Too Many Requests", &[("retry-after", "1")], b"");
        }
        if path.starts_with("/free") {
            answered.fetch_add(1, Ordering::SeqCst);
        }
        answer(stream, "200 OK", &[], &jpeg(number(path), 80, 60));
    });
    let free = (1..=COUNT).map(|index| web.url(&format!("/free/{index}.jpg")).replace("127.0.0.1", "localhost"));
    let lines: Vec<_> = std::iter::once(web.url("/busy/9.jpg"))
        .chain(free)
        .map(|url| ("dotted", url))
        .collect();
    let options = ["--allow-private", "--jobs", "1", "--attempts", "5"];
    let said = Work::new(&lines).fetch(&options).ended_with(0).json();
    assert_eq!(said["kept"], COUNT + 1);
}

#[test]
fn a_list_of_copies_alone_is_no_failure() {
    let web = Web::start(misbehave);
    let work = Work::new(&[("dotted", web.url("/1.jpg"))]);
    work.fetch(&["--allow-private"]).ended_with(0);
    std::fs::write(&work.urls, format!("dotted\t{}\n", web.url("/copy.jpg"))).expect("a list");
    // The second time, the ledger knows it.
    for _ in 0..2 {
        let said = work.fetch(&["--allow-private"]).ended_with(3);
        assert_eq!(said.json()["left_out"][0]["kind"], "duplicate", "{said:?}");
        assert!(!said.stderr.contains("no address gave an image"), "{said:?}");
    }
}

#[test]
fn a_class_that_differs_by_case_from_a_folder_that_is_there_is_refused() {
    let web = Web::start(misbehave);
    let work = Work::new(&[("dotted", web.url("/1.jpg"))]);
    work.fetch(&["--allow-private"]).ended_with(0);
    std::fs::write(&work.urls, format!("Dotted\t{}\n", web.url("/2.jpg"))).expect("a list");
    let said = work.fetch(&["--allow-private"]).ended_with(1);
    assert!(said.stderr.contains("differ only in upper and lower case"), "{said:?}");
    assert_eq!(web.total(), 1);
    assert_eq!(work.images().len(), 1);
}

#[test]
fn a_list_cannot_reach_into_the_network_it_is_fetched_in() {
    let web = Web::start(misbehave);
    let port = web
        .url("/")
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0x7f000001",
        "2130706433",
        "[::ffff:127.0.0.1]",
    ];
    let lines: Vec<_> = hosts
        .iter()
        .map(|host| ("dotted", format!("http://{host}:{port}/1.jpg")))
        .collect();
    let work = Work::new(&lines);
    let said = work.fetch(&[]).ended_with(1);
    assert!(said.stderr.contains("no address gave an image"), "{said:?}");
    let said = said.json();
    let left_out = said["left_out"].as_array().expect("a list");
    // Three of the six are spellings of one address.
    assert_eq!(left_out.len(), 4);
    assert!(left_out.iter().all(|left| left["kind"] == "refused"), "{left_out:?}");
    assert_eq!(web.total(), 0);

    // Whoever allows it gets it, also where an older ledger calls it refused for good.
    let url = format!("http://127.0.0.1:{port}/1.jpg");
    let line = serde_json::json!({ "url": url, "outcome": "left-out", "kind": "refused", "reason": "private" });
    std::fs::write(work.data().join(".ikat/provenance.jsonl"), format!("{line}\n")).expect("a ledger");
    let said = work.fetch(&["--allow-private", "--attempts", "1"]).ended_with(3).json();
    assert_eq!(said["kept"], 1, "{said}");
}

#[test]
fn what_was_too_large_is_fetched_once_more_is_allowed() {
    let pixels = image::RgbImage::from_fn(700, 700, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let bitmap = encoded(pixels, image::ImageFormat::Bmp);
    let web = Web::start(move |path, _, stream| match path {
        "/large.bmp" => answer(stream, "200 OK", &[], &bitmap),
        _ => answer(stream, "200 OK", &[], &jpeg(1, 80, 60)),
    });
    let work = Work::new(&[("dotted", web.url("/large.bmp")), ("dotted", web.url("/1.jpg"))]);
    let said = work
        .fetch(&["--allow-private", "--max-megabytes", "1"])
        .ended_with(3)
        .json();
    assert_eq!(said["left_out"][0]["kind"], "too-large", "{said}");
    let said = work.fetch(&["--allow-private"]).ended_with(0).json();
    assert_eq!((&said["kept"], &said["known"]), (&Value::from(1), &Value::from(1)));
}

#[test]
fn killed_it_goes_on_where_it_was() {
    const COUNT: u32 = 60;
    let web = Web::start(|path, _, stream| {
        std::thread::sleep(Duration::from_millis(60));
        answer(stream, "200 OK", &[], &jpeg(number(path), 300, 200));
    });
    let lines: Vec<_> = (0..COUNT)
        .map(|index| ("dotted", web.url(&format!("/{index}.jpg"))))
        .collect();
    let work = Work::new(&lines);
    let options = ["--allow-private", "--jobs", "4", "--per-host", "4"];
    for enough in [6, 25] {
        let mut command = work.command(&options);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running::start(&mut command);
        wait_until("some images", || work.images().len() >= enough);
        // Dropping kills with SIGKILL.
        drop(running);
        let ledger = work.ledger();
        for path in work.images().iter().filter(|path| !is_temporary(path)) {
            let bytes = std::fs::read(path).expect("an image");
            assert_eq!(
                ledger[path]["sha256"],
                shared::files::sha256_hex(&bytes),
                "whole under its final name"
            );
        }
    }
    work.fetch(&options).ended_with(0);
    let images: Vec<_> = work.images().into_iter().filter(|path| !is_temporary(path)).collect();
    assert_eq!(images.len(), COUNT as usize);
    // Only what was under way when it was killed is asked for again.
    assert!(web.total() <= COUNT as usize + 2 * 4, "{} requests", web.total());
}

#[test]
fn on_an_interruption_it_says_that_it_goes_on() {
    let web = Web::start(|path, _, stream| {
        std::thread::sleep(Duration::from_millis(100));
        answer(stream, "200 OK", &[], &jpeg(number(path), 80, 60));
    });
    let lines: Vec<_> = (0..100)
        .map(|index| ("dotted", web.url(&format!("/{index}.jpg"))))
        .collect();
    let work = Work::new(&lines);
    let mut command = work.command(&["--allow-private", "--jobs", "1"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    wait_until("an image", || !work.images().is_empty());
    running.signal("-INT");
    let mut told = String::new();
    running.take_stderr().read_to_string(&mut told).expect("text");
    assert!(told.contains("goes on where it was"), "{told}");
}

/// What a killed program was writing.
fn is_temporary(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(".ikat-"))
}

#[test]
fn what_is_wrong_with_this_machine_ends_it_at_once() {
    let web = Web::start(misbehave);
    let lines: Vec<_> = (0..9)
        .map(|index| ("dotted", web.url(&format!("/{index}.jpg"))))
        .collect();
    let work = Work::new(&lines);
    std::fs::create_dir(work.data()).expect("a folder");
    std::fs::write(work.data().join("dotted"), "in the way").expect("written");
    let said = work.fetch(&["--allow-private", "--jobs", "1"]).ended_with(1);
    assert!(said.stderr.contains("dotted"), "{said:?}");
    assert_eq!(web.total(), 1);
}

#[test]
fn without_a_network_it_says_so_and_lists_nothing() {
    let alone = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]);
        command
    };
    if !alone().arg("true").status().is_ok_and(|status| status.success()) {
        tell("SKIPPED: this system gives no command a network of its own (unshare)");
        return;
    }
    let lines: Vec<_> = (0..9)
        .map(|index| ("dotted", format!("http://{index}.invalid/1.jpg")))
        .collect();
    let work = Work::new(&lines);
    let said = say(&mut run_by(alone(), &work.command(&["--attempts", "1"]))).ended_with(1);
    assert!(said.stderr.contains("goes on where it was"), "{said:?}");
    assert!(!said.stderr.contains("line 1:"), "{said:?}");
    // Who allows private networks may be in one without names of the internet.
    let options = ["--attempts", "1", "--allow-private"];
    let said = say(&mut run_by(alone(), &work.command(&options))).ended_with(1);
    assert_eq!(said.json()["left_out"].as_array().map(Vec::len), Some(9), "{said:?}");
}

#[test]
fn a_list_that_is_none_says_so() {
    let work = Work::new(&[]);
    let said = work.fetch(&[]).ended_with(1);
    assert!(said.stderr.contains("the list is empty"), "{said:?}");
    std::fs::write(&work.urls, "http://a.example/no-label.jpg\n").expect("a list");
    let said = work.fetch(&[]).ended_with(1);
    assert!(said.stderr.contains("a label, a tab and an address"), "{said:?}");
}
