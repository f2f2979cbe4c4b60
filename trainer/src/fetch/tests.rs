use super::*;

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
fn hosts_take_turns() {
    let entries = [
        entry("a", "http://x.example/1"),
        entry("a", "http://x.example/2"),
        entry("a", "http://y.example/1"),
    ];
    let in_turn = hosts_in_turn(&entries.iter().collect::<Vec<_>>());
    let urls: Vec<_> = in_turn.iter().map(|entry| entry.url.as_str()).collect();
    assert_eq!(urls, ["http://x.example/1", "http://y.example/1", "http://x.example/2"]);
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
