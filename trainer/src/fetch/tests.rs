use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;
use crate::progress::Silent;

fn entry(label: &str, url: &str) -> Entry {
    parse(&format!("{label}\t{url}")).expect("a list").0.remove(0)
}

fn options() -> Options {
    Options {
        max_side: 1000,
        limits: Limits::default(),
        jobs: 2,
        per_host: 2,
        timeout: Duration::from_secs(20),
        attempts: 1,
        allow_private: true,
        retry_dead: false,
    }
}

/// The address of a server that answers so many requests with this body.
fn server(body: Vec<u8>, requests: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().take(requests) {
            let mut stream = stream.expect("a client");
            assert!(stream.read(&mut [0; 1024]).expect("a request") > 0);
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let answer = [head.as_bytes(), &body[..]].concat();
            stream.write_all(&answer).expect("a client that reads");
        }
    });
    format!("http://{address}")
}

#[test]
fn names_are_plain_and_differ_for_each_address() {
    let name = |url: &str| entry("a", url).file_name();
    assert!(name("http://a.example/pretty%20dress.final.jpg?x=1").starts_with("pretty20dressfinal-"));
    assert_ne!(name("http://a.example/1.jpg"), name("http://b.example/1.jpg"));
    assert_eq!(name("http://a.example/").len(), 10);
    assert!(
        name("http://a.example/..%2f..%2fetc")
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
    );
}

#[test]
fn large_pictures_become_smaller_and_others_stay_as_they_are() {
    let encode = |width, height| {
        let mut png = std::io::Cursor::new(Vec::new());
        image::DynamicImage::new_rgb8(width, height)
            .write_to(&mut png, image::ImageFormat::Png)
            .expect("encoded");
        png.into_inner()
    };
    let small = encode(40, 30);
    let kept = picture(small.clone(), Limits::default(), 40).expect("a picture");
    assert_eq!(
        (kept.bytes, kept.extension, kept.width, kept.height),
        (small, "png", 40, 30)
    );
    let scaled = picture(encode(80, 20), Limits::default(), 40).expect("a picture");
    assert_eq!((scaled.extension, scaled.width, scaled.height), ("jpg", 40, 10));
    assert!(picture(b"<html>".to_vec(), Limits::default(), 40).is_err());
}

#[test]
fn a_moved_image_is_looked_for_in_no_file_that_is_larger_than_one() {
    let data = tempfile::tempdir().expect("a folder");
    for (name, contents) in [("film", "abcd"), ("image", "abc"), ("known", "ab")] {
        std::fs::write(data.path().join(name), contents).expect("written");
    }
    let limits = Limits {
        max_bytes: 3,
        ..Limits::default()
    };
    let found = contents(data.path(), &HashSet::from(["known".into()]), limits);
    assert_eq!(found, HashSet::from([files::sha256_hex(b"abc")]));
}

#[tokio::test]
async fn no_class_folders_are_made_beside_a_list_that_the_data_set_is_read_by() {
    let data = tempfile::tempdir().expect("a folder");
    std::fs::write(data.path().join("metadata.jsonl"), "").expect("a list");
    let list = [entry("dotted", "http://a.example/1.jpg")];
    let refused = fetch(&list, &[], data.path(), &options(), &Silent).await;
    assert!(
        matches!(&refused, Err(FetchError::Dataset(DatasetError::Listed(_)))),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_dir(data.path()).expect("a folder").count(), 1);
}

#[tokio::test]
async fn a_label_that_was_changed_since_is_told_unless_the_image_was_moved() {
    let data = tempfile::tempdir().expect("a folder");
    let list = [
        entry("striped", "http://a.example/1"),
        entry("striped", "http://a.example/2"),
        entry("dotted", "http://a.example/3"),
    ];
    let mut ledger = Ledger::open(data.path()).expect("a ledger");
    for (entry, place) in list.iter().zip(["dotted/1.jpg", "striped/2.jpg", "dotted/3.jpg"]) {
        let (place, url) = (Path::new(place), &entry.url);
        files::write_atomically(&data.path().join(place), url.as_str().as_bytes()).expect("written");
        let origin = Origin::Image(Provenance {
            label: "dotted".to_owned(),
            path: Path::new("dotted").join(place.file_name().expect("a name")),
            sha256: files::sha256_hex(url.as_str().as_bytes()),
            source_sha256: String::new(),
            width: 1,
            height: 1,
            time: String::new(),
            credits: Credits::default(),
        });
        ledger.append(url, &origin).expect("a line");
    }
    drop(ledger);
    let outcome = fetch(&list, &[], data.path(), &options(), &Silent).await;
    let outcome = outcome.expect("known");
    assert_eq!((outcome.kept, outcome.known), (0, 2));
    let told: Vec<_> = outcome.left_out.iter().map(|left_out| left_out.url.as_str()).collect();
    assert_eq!(told, ["http://a.example/1"], "{:?}", outcome.left_out);
    assert!(outcome.left_out[0].reason.contains("dotted/1.jpg"));
}

#[tokio::test]
async fn an_image_that_was_changed_is_not_written_over_where_the_ledger_is_lost() {
    let mut png = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(4, 3)
        .write_to(&mut png, image::ImageFormat::Png)
        .expect("encoded");
    let server = server(png.into_inner(), 2);
    let data = tempfile::tempdir().expect("a folder");
    let list = [entry("dotted", &format!("{server}/1.png"))];
    let fetch = async || {
        let outcome = fetch(&list, &[], data.path(), &options(), &Silent).await;
        assert_eq!(outcome.expect("fetched").kept, 1);
    };
    fetch().await;
    let image = data.path().join(format!("dotted/{}.png", list[0].file_name()));
    std::fs::write(&image, "cropped").expect("written");
    std::fs::remove_dir_all(data.path().join(crate::dataset::OWN_FOLDER)).expect("removed");
    fetch().await;
    assert_eq!(std::fs::read(&image).expect("there"), b"cropped");
}

#[tokio::test]
async fn what_two_addresses_send_in_the_place_of_images_is_a_copy_of_nothing() {
    let server = server(b"for sale".to_vec(), 2);
    let data = tempfile::tempdir().expect("a folder");
    let ledger = Mutex::new(Ledger::open(data.path()).expect("a ledger"));
    let options = options();
    let work = Work {
        data: data.path(),
        downloader: Downloader::new(options.timeout, 1, 2, true).expect("a client"),
        options: &options,
        jobs: Semaphore::new(2),
        answered: AtomicBool::new(false),
        decoders: Semaphore::new(0),
        contents: Mutex::default(),
        tally: Mutex::default(),
        progress: &Silent,
    };
    let entries = ["1.jpg", "2.jpg"].map(|name| entry("dotted", &format!("{server}/{name}")));
    // Both have come before one of them is looked at.
    let decoding = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        work.decoders.add_permits(1);
    };
    let (one, other, ()) = tokio::join!(
        work.keep(&entries[0], &ledger),
        work.keep(&entries[1], &ledger),
        decoding
    );
    for outcome in [one, other] {
        assert!(matches!(
            outcome,
            Err(Miss::Remote {
                kind: Kind::Corrupt,
                ..
            })
        ));
    }
}
