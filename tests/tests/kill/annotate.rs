//! The annotation page, which is told step by step what to move.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use end_to_end::program::Running;
use end_to_end::workshop::{Workshop, picture};
use serde_json::{Value, json};

use super::{CI_KILLS, classes, dice, number};

/// The annotation page: a program that is told step by step what to move.
pub struct Page {
    _trainer: Running,
    address: String,
    token: String,
}

impl Page {
    pub fn open(workshop: &Workshop) -> Self {
        let (running, first) = Running::start_and_listen(&mut workshop.trainer(&["annotate", "--data", "data"]));
        let (address, token) = first
            .trim_start_matches("http://")
            .split_once("/?token=")
            .expect("an address");
        Self {
            _trainer: running,
            address: address.to_owned(),
            token: token.to_owned(),
        }
    }

    fn send(address: &str, token: &str, path: &str, body: &Value) -> Option<Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(address).ok()?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nx-ikat-token: {token}\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then_some(())?;
        serde_json::from_str(body).ok()
    }
}

/// Step `number`: four pictures get another class.
fn step(number: usize) -> (Vec<(String, &'static str)>, &'static str) {
    const CLASSES: [&str; 3] = ["red", "green", "blue"];
    let from = CLASSES[number % 3];
    let names = (0..4)
        .map(|index| (format!("{from}-{}", (number / 3) * 4 + index), from))
        .collect();
    (names, CLASSES[(number + 1) % 3])
}

const STEPS: usize = 18;

/// Where every picture is after so many steps.
fn after(steps: usize) -> BTreeMap<String, &'static str> {
    let mut places: BTreeMap<String, &'static str> = (0..STEPS).flat_map(|number| step(number).0).collect();
    for number in 0..steps {
        let (names, to) = step(number);
        for (name, _) in names {
            places.insert(name, to);
        }
    }
    places
}

fn places(workshop: &Workshop) -> BTreeMap<String, String> {
    let files = classes(workshop);
    let places: BTreeMap<String, String> = files
        .keys()
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, path.parent().expect("a class").display().to_string())
        })
        .collect();
    assert_eq!(
        places.len(),
        files.len(),
        "a picture is there twice: {files:?}",
        files = files.keys()
    );
    places
}

fn same(found: &BTreeMap<String, String>, expected: &BTreeMap<String, &'static str>) -> bool {
    found.len() == expected.len()
        && found
            .iter()
            .all(|(name, class)| expected.get(name) == Some(&class.as_str()))
}

fn annotate_from(first: usize, address: &str, token: &str) -> usize {
    let mut done = first;
    while done < STEPS {
        let (names, to) = step(done);
        let images: Vec<String> = names.iter().map(|(name, from)| format!("{from}/{name}.png")).collect();
        let body = json!({ "images": images, "label": to });
        match Page::send(address, token, "/api/relabel", &body) {
            Some(reply) => assert_eq!(reply["moved"].as_array().map(Vec::len), Some(4), "{reply}"),
            None => return done,
        }
        done += 1;
    }
    done
}

#[test]
fn annotating() {
    let fresh = || {
        let workshop = Workshop::new(0);
        for number in 0..STEPS {
            for (index, (name, class)) in step(number).0.iter().enumerate() {
                picture(
                    &workshop.path(&format!("data/{class}/{name}.png")),
                    0,
                    (number * 4 + index) as u64,
                );
            }
        }
        workshop
    };
    let workshop = fresh();
    let contents: BTreeSet<Vec<u8>> = classes(&workshop).into_values().collect();
    let page = Page::open(&workshop);
    let begun = Instant::now();
    assert_eq!(annotate_from(0, &page.address, &page.token), STEPS);
    let duration = begun.elapsed();
    assert!(same(&places(&workshop), &after(STEPS)));
    drop(page);

    let mut dice = dice("annotate");
    let wanted = number("IKAT_KILLS").unwrap_or(CI_KILLS);
    let (mut kills, mut rounds) = (0, 0);
    while kills < wanted {
        let workshop = fresh();
        rounds += 1;
        let mut done = 0;
        while done < STEPS {
            let page = Page::open(&workshop);
            let (address, token) = (page.address.clone(), page.token.clone());
            let user = std::thread::spawn(move || annotate_from(done, &address, &token));
            std::thread::sleep(duration.mul_f64(dice.share()));
            let running = !user.is_finished();
            drop(page);
            let acknowledged = user.join().expect("no panic");
            assert!(running || acknowledged == STEPS, "a step failed without a kill");
            kills += usize::from(running);
            // Opened again, it carries out what it had written down, and forgets nothing that it confirmed.
            let page = Page::open(&workshop);
            let found = places(&workshop);
            done = [acknowledged, acknowledged + 1]
                .into_iter()
                .find(|steps| same(&found, &after(*steps)))
                .unwrap_or_else(|| panic!("after {acknowledged} steps: {found:?}"));
            drop(page);
            let now: BTreeSet<Vec<u8>> = classes(&workshop).into_values().collect();
            assert!(now == contents, "a picture is lost or changed");
        }
        // Every step can still be taken back.
        let page = Page::open(&workshop);
        let mut revision = 1;
        for _ in 0..STEPS {
            let undone = Page::send(
                &page.address,
                &page.token,
                "/api/undo",
                &json!({ "revision": revision }),
            );
            revision = undone.expect("a step to undo")["revision"].as_u64().expect("a number");
        }
        assert!(same(&places(&workshop), &after(0)));
    }
    println!("annotate: {kills} kills in {rounds} places, {duration:?} uninterrupted, every step kept and undone");
}
