//! The commands that look after a data set, on real photos.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use end_to_end::program::{say, trainer};
use end_to_end::{files_below, shared_data, subset};
use serde_json::Value;

/// Two classes of real photos in a folder of one's own.
fn photos(count: usize) -> Option<tempfile::TempDir> {
    let source = shared_data("clothing_small")?;
    let folder = tempfile::tempdir().expect("a folder");
    subset(&source, folder.path(), &["hat", "shoes"], count);
    Some(folder)
}

fn images(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(folder);
    files.retain(|path| !path.starts_with(folder.join(".ikat")));
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("a file"));
    files.into_iter().map(read).collect()
}

/// A smaller, softer copy of a photo under another name.
fn copy(from: &Path, to: &Path, share: u32) {
    let image = image::open(from).expect("an image");
    let (width, height) = (image.width() * share / 100, image.height() * share / 100);
    let smaller = image.resize_exact(width, height, image::imageops::FilterType::Triangle);
    smaller.to_rgb8().save(to).expect("saved");
}

fn first(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a class")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.swap_remove(0)
}

#[test]
fn copies_are_set_aside_and_come_back() {
    let Some(folder) = photos(12) else { return };
    let data = folder.path();
    let (hat, shoes) = (first(&data.join("hat")), first(&data.join("shoes")));
    copy(&hat, &data.join("hat/zz-small.png"), 60);
    copy(&shoes, &data.join("hat/zz-mislabelled.jpg"), 70);
    let before = images(data);

    let text = data.display().to_string();
    let arguments = ["data", "dedupe", "--json", "--data", &text, "--no-features"];
    let dry = say(trainer(&arguments).arg("--dry-run")).ended_with(0).json();
    assert_eq!(images(data), before);
    assert_eq!((&dry["moved"], &dry["quarantine"]), (&Value::from(2), &Value::Null));

    let document = say(&mut trainer(&arguments)).ended_with(0).json();
    let groups = document["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 2, "{document}");
    let path = |value: &Value| data.join(value["path"].as_str().expect("a path"));
    assert_eq!(groups[0]["conflict"], true, "different labels come first");
    assert_eq!(path(&groups[0]["kept"]), shoes);
    assert_eq!(path(&groups[0]["copies"][0]), data.join("hat/zz-mislabelled.jpg"));
    assert_eq!(path(&groups[1]["kept"]), hat);
    assert_eq!(path(&groups[1]["copies"][0]), data.join("hat/zz-small.png"));
    assert_eq!(images(data).len(), before.len() - 2);

    // What is set aside is no part of the data set any more.
    let again = say(&mut trainer(&arguments)).ended_with(0).json();
    assert_eq!(again["moved"], 0);

    let restored = say(&mut trainer(&[
        "data",
        "dedupe",
        "--json",
        "--data",
        &text,
        "--restore",
    ]))
    .ended_with(0);
    assert_eq!(restored.json()["restored"], 2);
    assert_eq!(images(data), before);
    let nothing = say(&mut trainer(&["data", "dedupe", "--data", &text, "--restore"])).ended_with(1);
    assert!(nothing.stderr.contains("there is none"), "{nothing:?}");
}

#[test]
fn a_missing_copy_is_told_with_its_quarantine() {
    let folder = tempfile::tempdir().expect("a folder");
    let quarantine = folder.path().join(".ikat/quarantine/20260101T000000Z");
    std::fs::create_dir_all(quarantine.join("c")).expect("a folder");
    std::fs::write(quarantine.join("c/r.png"), "").expect("a file");
    let journal = "{\"path\":\"c/q.png\"}\n{\"path\":\"c/r.png\"}\n";
    std::fs::write(quarantine.join("moves.jsonl"), journal).expect("a journal");
    let text = folder.path().to_string_lossy().into_owned();
    for back in ["1 file is back", "0 files are back"] {
        let told = say(&mut trainer(&["data", "dedupe", "--data", &text, "--restore"])).ended_with(3);
        assert!(told.stdout.contains(back), "{told:?}");
        let advice = "c/q.png is missing from .ikat/quarantine/20260101T000000Z: put it there and run --restore \
                      20260101T000000Z, or delete that folder";
        assert!(told.stdout.contains(advice), "{told:?}");
    }
    assert!(folder.path().join("c/r.png").exists());
}

#[cfg(unix)]
#[test]
fn a_quarantine_in_which_a_file_stays_is_not_said_to_be_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let quarantine = folder.path().join(".ikat/quarantine/20260101T000000Z");
    std::fs::create_dir_all(quarantine.join("c")).expect("a folder");
    std::fs::write(quarantine.join("c/r.png"), "the only one").expect("a file");
    let journal = "{\"path\":\"c/q.png\"}\n{\"path\":\"c/r.png\"}\n";
    std::fs::write(quarantine.join("moves.jsonl"), journal).expect("a journal");
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("c")).expect("a link");
    let text = folder.path().to_string_lossy().into_owned();
    let told = say(&mut trainer(&["data", "dedupe", "--data", &text, "--restore"])).ended_with(3);
    assert!(told.stdout.contains("c/q.png is missing from"), "{told:?}");
    assert!(told.stdout.contains("c/r.png stays in"), "{told:?}");
    assert!(!told.stdout.contains("delete"), "{told:?}");
}

#[cfg(unix)]
#[test]
fn the_only_file_behind_a_link_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    for class in ["hat", "shoes"] {
        std::fs::create_dir(data.join(class)).expect("a class");
    }
    let drawn = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * y % 251) as u8, (6 * x) as u8, 9]));
    drawn.save(data.join("hat/1.png")).expect("saved");
    std::os::unix::fs::symlink("hat", data.join("cap")).expect("a link");
    std::os::unix::fs::symlink("../hat/1.png", data.join("shoes/1.png")).expect("a link");
    let before = images(data);
    let text = data.display().to_string();
    let arguments = ["data", "dedupe", "--json", "--no-features", "--data", &text];
    for conflicts in ["keep-best", "set-aside"] {
        let document = say(trainer(&arguments).args(["--conflicts", conflicts]))
            .ended_with(0)
            .json();
        assert_eq!(document["moved"], 0, "{document}");
        assert_eq!(document["groups"][0]["kept"]["path"], "hat/1.png");
        assert_eq!(document["groups"][0]["copies"][0]["fixed"], true);
        assert_eq!(images(data), before);
    }
}

#[test]
fn a_network_sees_that_a_crop_shows_the_same() {
    let Some(folder) = photos(8) else { return };
    let data = folder.path();
    let hat = first(&data.join("hat"));
    let image = image::open(&hat).expect("an image");
    let (width, height) = (image.width(), image.height());
    let crop = image.crop_imm(width / 25, height / 25, width - width / 12, height - height / 12);
    crop.to_rgb8().save(data.join("hat/zz-crop.png")).expect("saved");

    let text = data.display().to_string();
    let arguments = [
        "data",
        "dedupe",
        "--json",
        "--data",
        &text,
        "--dry-run",
        "--similarity",
        "0.85",
    ];
    let hashed = say(trainer(&arguments).arg("--no-features")).ended_with(0).json();
    assert_eq!(hashed["moved"], 0, "{hashed}");
    let seen = say(&mut trainer(&arguments)).ended_with(0).json();
    assert_eq!(seen["moved"], 1, "{seen}");
    assert_eq!(seen["groups"][0]["copies"][0]["path"], "hat/zz-crop.png");
}

#[test]
fn what_a_list_names_is_not_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("labels.csv");
    std::fs::write(&list, "path,label\n1.png,hat\n2.png,hat\n").expect("a list");
    for name in ["1.png", "2.png"] {
        let drawn = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * y % 251) as u8, 0, 9]));
        drawn.save(folder.path().join(name)).expect("saved");
    }
    let text = list.display().to_string();
    let arguments = ["data", "dedupe", "--json", "--no-features", "--data", &text];
    let said = say(&mut trainer(&arguments)).ended_with(1);
    assert!(
        said.stderr.contains("lists the labels") && said.stderr.contains("--dry-run"),
        "{said:?}"
    );
    let dry = say(trainer(&arguments).arg("--dry-run")).ended_with(0).json();
    assert_eq!(dry["moved"], 1, "{dry}");
}

#[test]
fn labels_that_were_changed_rank_first() {
    let Some(source) = shared_data("clothing_small") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut classes: Vec<String> = std::fs::read_dir(&source)
        .expect("the set")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("Unicode"))
        .collect();
    classes.sort();
    let names: Vec<&str> = classes.iter().map(String::as_str).collect();
    subset(&source, folder.path(), &names, 120);
    let all: Vec<PathBuf> = images(folder.path()).into_keys().collect();
    // Every twentieth image goes to one of the other classes.
    let mut flipped = Vec::new();
    for (draw, path) in all.iter().skip(7).step_by(20).enumerate() {
        let class = path
            .parent()
            .and_then(Path::file_name)
            .expect("a class")
            .to_string_lossy();
        let others: Vec<&&str> = names.iter().filter(|name| **name != class).collect();
        let to = Path::new(others[draw * 7 % others.len()]).join(format!("flipped-{draw}.jpg"));
        std::fs::rename(path, folder.path().join(&to)).expect("moved");
        flipped.push(to.display().to_string());
    }
    assert_eq!(flipped.len(), all.len() / 20);

    let text = folder.path().display().to_string();
    let audit = say(&mut trainer(&["data", "audit", "--json", "--data", &text]))
        .ended_with(0)
        .json();
    let labels = audit["labels"].as_array().expect("a list");
    assert_eq!(labels.len(), all.len());
    let top = labels.iter().take(all.len() / 10);
    let found = top
        .filter(|doubt| flipped.iter().any(|path| doubt["path"] == path.as_str()))
        .count();
    println!("{found} of {} changed labels are in the first tenth", flipped.len());
    assert!(found * 10 >= flipped.len() * 6, "{found} of {}", flipped.len());
}

#[test]
fn a_split_with_copies_on_both_sides_leaks_by_a_number() {
    let Some(folder) = photos(8) else { return };
    let data = folder.path();
    let hat = first(&data.join("hat"));
    copy(&hat, &data.join("hat/zz-copy.png"), 50);
    std::fs::rename(data.join("hat/zz-copy.png"), data.join("hat/zz-copy.jpg")).expect("renamed");
    std::fs::write(data.join("shoes/broken.jpg"), b"<html>").expect("written");
    std::fs::create_dir_all(data.join(".ikat")).expect("a folder");
    let list = data.join(".ikat/test.txt");
    std::fs::write(&list, "hat/zz-copy.jpg\nshoes/broken.jpg\n").expect("written");
    let (text, list) = (data.display().to_string(), list.display().to_string());
    let mut command = trainer(&["data", "audit", "--json", "--data", &text, "--split", &list]);
    let audit = say(command.args(["--smallest-side", "20000"])).ended_with(3).json();
    assert_eq!(audit["leakage"]["images"], serde_json::json!(["hat/zz-copy.jpg"]));
    assert_eq!(audit["leakage"]["share"], 1.0);
    assert_eq!(audit["wrong_extensions"][0]["path"], "hat/zz-copy.jpg");
    assert_eq!(audit["wrong_extensions"][0]["content"], "png");
    assert_eq!(audit["unreadable"][0]["path"], "shoes/broken.jpg");
    assert_eq!(audit["tiny"].as_array().map(Vec::len), Some(17));
}

#[test]
fn a_list_of_test_images_is_read_as_find_writes_it() {
    let Some(folder) = photos(4) else { return };
    let (data, list) = (folder.path().join("hat"), folder.path().join(".test.txt"));
    let name = first(&data).file_name().expect("a name").to_string_lossy().into_owned();
    let split = |names: &str, out: &str| {
        std::fs::write(&list, names).expect("written");
        let mut command = trainer(&["data", "split", "--json", "--data", ".", "--dedicated", ".test.txt"]);
        say(command.args(["--out", out]).current_dir(folder.path()))
    };
    let said = split(&format!("./hat/{name}\n./nowhere/1.jpg\n"), "split.tsv").ended_with(3);
    assert!(said.stderr.contains("nowhere/1.jpg: .test.txt names it"), "{said:?}");
    let document = said.json();
    assert_eq!(
        (&document["train"], &document["test"]),
        (&Value::from(7), &Value::from(1))
    );
    let said = split("./nowhere/1.jpg\n", "none.tsv").ended_with(1);
    assert!(said.stderr.contains("names no image of this data set"), "{said:?}");
}

#[test]
fn a_data_set_without_a_readable_image_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("labels.csv");
    std::fs::write(&list, "path,label\nhat/1.jpg,hat\nshoes/1.jpg,shoes\n").expect("a list");
    for command in [&["split"][..], &["audit"], &["dedupe", "--dry-run"]] {
        let mut command = trainer(&[&["data"][..], command, &["--data", "labels.csv"]].concat());
        // No network is obtained for nothing.
        command.env("IKAT_CACHE", "no-cache");
        let said = say(command.current_dir(folder.path())).ended_with(1);
        assert!(said.stderr.contains("none of the 2 images could be read"), "{said:?}");
    }
    assert!(!folder.path().join("split.tsv").exists() && !folder.path().join("no-cache").exists());
}

#[test]
fn an_export_to_a_wrong_place_or_none_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    for class in ["a", "b"] {
        std::fs::create_dir_all(folder.path().join("data").join(class)).expect("a folder");
        std::fs::write(folder.path().join("data").join(class).join("1.jpg"), "a picture").expect("written");
    }
    let export = |more: &[&str]| {
        let mut command = trainer(&[&["data", "export", "--data", "data"][..], more].concat());
        say(command.current_dir(folder.path()))
    };
    // Its copies would be images of one more class.
    let said = export(&["--format", "folder", "--out", "data/all"]).ended_with(2);
    assert!(said.stderr.contains("lies in the folder of the images"), "{said:?}");
    let said = export(&["--out", "nowhere/labels.csv"]).ended_with(1);
    assert!(said.stderr.contains("nowhere: "), "{said:?}");
    // What is read by its ending would be read as another list than it is, or as none.
    for out in ["labels.tsv", "labels.jsonl", "labels"] {
        let said = export(&["--out", out]).ended_with(2);
        assert!(said.stderr.contains("that of labels.csv"), "{said:?}");
        assert!(!folder.path().join(out).exists(), "{out}");
    }
    std::fs::write(folder.path().join("ikat.toml"), "[data-export]\nformat = \"folder\"\n").expect("written");
    let said = export(&[]).ended_with(2);
    assert!(said.stderr.contains("--out"), "{said:?}");
}

#[test]
fn an_export_has_the_images_that_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("old.csv"), "path,label\n1.jpg,hat\n2.jpg,hat\n").expect("a list");
    std::fs::write(at("1.jpg"), "a picture").expect("written");
    let data = at("old.csv").display().to_string();
    let export = || say(&mut trainer(&["data", "export", "--json", "--data", &data]));
    let document = export().ended_with(3).json();
    assert_eq!(document["images"], 1, "{document}");
    let list = std::fs::read_to_string(at("labels.csv")).expect("a list");
    assert_eq!(list, "path,label\n1.jpg,hat\n");
    for name in ["labels.csv", "1.jpg"] {
        std::fs::remove_file(at(name)).expect("removed");
    }
    let said = export().ended_with(1);
    assert!(said.stderr.contains("no image that is there"), "{said:?}");
    assert!(!at("labels.csv").exists());
}

#[test]
fn a_list_trains_as_its_class_folders_do() {
    let Some(folder) = photos(12) else { return };
    let data = folder.path().display().to_string();
    let flat = tempfile::tempdir().expect("a folder");
    let at = |name: &str| flat.path().join(name).display().to_string();
    for (format, name) in [
        ("csv", "labels.csv"),
        ("tsv", "labels.tsv"),
        ("metadata", "metadata.jsonl"),
    ] {
        say(&mut trainer(&["data", "export", "--data", &data, "--format", format])).ended_with(0);
        let again = say(&mut trainer(&["data", "export", "--data", &data, "--format", format])).ended_with(1);
        assert!(again.stderr.contains("never overwritten"), "{again:?}");
        let list = folder.path().join(name).display().to_string();
        let out = at(format);
        let said = say(&mut trainer(&[
            "data", "export", "--json", "--data", &list, "--format", "folder", "--out", &out,
        ]));
        assert_eq!(said.ended_with(0).json()["images"], 24);
        let (copied, original) = (images(Path::new(&out)), images(folder.path()));
        let original: Vec<_> = original
            .iter()
            .filter(|(path, _)| path.parent() != Some(folder.path()))
            .collect();
        assert_eq!(
            copied.values().collect::<Vec<_>>(),
            original.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>()
        );
    }
    let train = |data: &str, out: &str| {
        let out = at(out);
        let command = ["train", "--json", "--name", "x", "--data", data, "--out", &out];
        say(&mut trainer(&command)).ended_with(0).json()
    };
    let by_list = train(&folder.path().join("labels.csv").display().to_string(), "listed");
    let by_folder = train(&data, "folders");
    assert_eq!(by_list["version"], by_folder["version"]);
}
