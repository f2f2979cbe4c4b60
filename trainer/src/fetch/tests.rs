use super::*;
use crate::progress::Silent;

fn entry(label: &str, url: &str) -> Entry {
    parse(&format!("{label}\t{url}")).expect("a list").0.remove(0)
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
fn labels_are_told_apart_from_the_class_folders_that_are_there() {
    let data = tempfile::tempdir().expect("a folder");
    for folder in ["dotted", ".Striped"] {
        std::fs::create_dir(data.path().join(folder)).expect("a folder");
    }
    std::fs::write(data.path().join("LIST"), "").expect("a file");
    let check = |label: &str| check_labels(&[entry(label, "http://a.example/1")], data.path());
    for label in ["dotted", "striped", "list"] {
        check(label).expect("a folder of its own");
    }
    let error = check("Dotted").expect_err("the same folder on some systems");
    assert!(matches!(error, FetchError::Labels(_)), "{error}");
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
            page: None,
            licence: None,
            creator: None,
            attribution: None,
        });
        ledger.append(url, &origin).expect("a line");
    }
    drop(ledger);
    let options = Options {
        max_side: 1000,
        limits: Limits::default(),
        jobs: 1,
        per_host: 1,
        timeout: Duration::from_secs(1),
        attempts: 1,
        allow_private: false,
        retry_dead: false,
    };
    let outcome = fetch(&list, &[], data.path(), &options, &Silent).await.expect("known");
    assert_eq!((outcome.kept, outcome.known), (0, 2));
    let told: Vec<_> = outcome.left_out.iter().map(|left_out| left_out.url.as_str()).collect();
    assert_eq!(told, ["http://a.example/1"], "{:?}", outcome.left_out);
    assert!(outcome.left_out[0].reason.contains("dotted/1.jpg"));
}
