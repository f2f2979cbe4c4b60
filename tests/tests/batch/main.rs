//! Scoring many images: on this machine's cores, and by a Step Functions Distributed Map.

mod state_machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use end_to_end::colours::{self, COLOURS, library};
use end_to_end::program::{Running, Said, say, trainer};
use end_to_end::seaweedfs::SeaweedFs;
use end_to_end::{encoded, wait_until};
use serde_json::Value;

/// A folder with a bundle, images and a cache of its own.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = colours::bundle("all");
        bundle.write(&folder.path().join("bundle")).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `count` images in `images/`, in folders of a hundred; gives the label that each should get.
    fn images(&self, count: usize) -> BTreeMap<String, String> {
        let pictures = COLOURS.map(|(_, colour)| colours::png(colour));
        (0..count)
            .map(|number| {
                let path = self.path(&format!("images/{:02}/{number:05}.png", number / 100));
                write(&path, &pictures[number % 3]);
                (path.display().to_string(), label(number))
            })
            .collect()
    }

    fn local(&self, input: &str, output: &str) -> Command {
        let mut command = trainer(&["batch", "--local", "--json", "--bundle", &self.text("bundle")]);
        command
            .args(["--input", input, "--output", output])
            .env("IKAT_CACHE", self.path("cache"))
            .env("ORT_DYLIB_PATH", library());
        command
    }

    /// The journal of the only job.
    fn journal(&self) -> Option<PathBuf> {
        let jobs = std::fs::read_dir(self.path("cache/batch")).ok()?;
        jobs.flatten().map(|job| job.path().join("journal.jsonl")).next()
    }
}

fn label(number: usize) -> String {
    format!("all-{}", COLOURS[number % 3].0)
}

fn write(path: &Path, contents: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, contents).expect("written");
}

/// The columns `keys` and `values` of a table; every key must be there once.
fn columns(text: &str, key: &str, value: &str) -> BTreeMap<String, String> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let place = |name| header.iter().position(|column| *column == name).expect("a column");
    let (key, value) = (place(key), place(value));
    let mut found = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let before = found.insert(fields[key].to_owned(), fields[value].to_owned());
        assert_eq!(before, None, "{line} is there twice");
    }
    found
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Asserts that the output in `folder` has these labels and nothing else, in both of its forms.
fn assert_labels(folder: &Path, expected: &BTreeMap<String, String>) {
    assert_eq!(&columns(&read(folder, "results.csv"), "item", "label"), expected);
    let mut found = BTreeMap::new();
    for line in read(folder, "results.jsonl").lines() {
        let result: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| result[name].as_str().expect("a text").to_owned();
        assert_eq!(result["scores"].as_object().map(serde_json::Map::len), Some(3));
        assert_eq!(found.insert(text("item"), text("label")), None);
    }
    assert_eq!(&found, expected);
}

#[test]
fn five_thousand_images_get_one_result_each() {
    let place = Place::new();
    let expected = place.images(5000);
    let command = || place.local(&place.text("images"), &place.text("out"));
    let said = say(&mut command()).ended_with(0);
    assert_labels(&place.path("out"), &expected);
    assert_eq!(read(&place.path("out"), "failures.csv"), "item,code,message,passing\n");
    let summary: Value = serde_json::from_str(&read(&place.path("out"), "job.json")).expect("JSON");
    assert_eq!(said.json(), summary);
    assert_eq!(
        [&summary["images"], &summary["succeeded"], &summary["failed"]],
        [5000, 5000, 0]
    );
    assert_eq!(summary["labels"]["all-red"], 1667);
    let version = columns(&read(&place.path("out"), "results.csv"), "item", "version");
    assert!(
        version
            .values()
            .all(|version| *version == summary["models"][0]["version"])
    );
    assert!(place.journal().is_none(), "what was kept for a resumption is gone");

    // Again: nothing is scored. Another job: nothing is overwritten.
    let again = say(command().arg("--quiet")).ended_with(0);
    assert_eq!(again.json(), summary);
    assert!(again.stderr.contains("already"), "{again:?}");
    let other = say(&mut place.local(&place.text("images/00"), &place.text("out"))).ended_with(1);
    assert!(other.stderr.contains("another job"), "{other:?}");
    assert_labels(&place.path("out"), &expected);
}

#[test]
fn a_job_that_is_killed_goes_on_where_it_was() {
    let place = Place::new();
    // Large enough that the job takes seconds.
    let large = |colour| {
        let picture = image::RgbImage::from_pixel(1500, 1500, image::Rgb(colour));
        encoded(picture, image::ImageFormat::Png)
    };
    let pictures = COLOURS.map(|(_, colour)| large(colour));
    let mut expected = BTreeMap::new();
    for number in 0..600 {
        let path = place.path(&format!("images/{number:03}.png"));
        write(&path, &pictures[number % 3]);
        expected.insert(path.display().to_string(), label(number));
    }
    let lines = || {
        let journal = place.journal().and_then(|path| std::fs::read_to_string(path).ok());
        journal.map_or(0, |text| text.lines().count())
    };
    let mut before = 0;
    for kill in 1..=2 {
        let running = Running::start(&mut place.local(&place.text("images"), &place.text("out")));
        wait_until("the job", || lines() > before + 40);
        // It holds its lock and goes no further, however long the second one takes.
        running.signal("-STOP");
        let second = say(&mut place.local(&place.text("images"), &place.text("out"))).ended_with(1);
        assert!(second.stderr.contains("another trainer"), "{second:?}");
        // SIGKILL.
        drop(running);
        let now = lines();
        assert!(now > before && now < 600, "{kill}: {now}");
        before = now;
        assert!(!place.path("out/results.csv").exists());
    }
    let said = say(&mut place.local(&place.text("images"), &place.text("out"))).ended_with(0);
    let note = format!("Going on after {before} of 600 images");
    assert!(said.stderr.contains(&note), "{note}: {said:?}");
    assert_labels(&place.path("out"), &expected);
}

#[test]
fn images_at_fault_are_listed_and_the_rest_is_scored() {
    let place = Place::new();
    let good = place.images(4);
    let red = colours::png(COLOURS[0].1);
    for (name, contents) in [
        ("cut.png", &red[..red.len() / 2]),
        ("text.jpg", b"not an image"),
        ("empty.png", b""),
    ] {
        write(&place.path(&format!("images/{name}")), contents);
    }
    let list: Vec<String> = good
        .keys()
        .cloned()
        .chain(
            [
                "images/cut.png",
                "images/text.jpg",
                "images/empty.png",
                "images/none.png",
            ]
            .map(str::to_owned),
        )
        .chain(
            [
                "http://127.0.0.1:9/1.png",
                "ftp://example.com/1.png",
                "s3://only-a-bucket",
            ]
            .map(str::to_owned),
        )
        .collect();
    write(&place.path("list.txt"), list.join("\n").as_bytes());
    let said = say(&mut place.local(&place.text("list.txt"), &place.text("out"))).ended_with(3);
    assert_labels(&place.path("out"), &good);
    let failures = columns(&read(&place.path("out"), "failures.csv"), "item", "code");
    let expected = [
        (place.text("images/cut.png"), "undecodable_image"),
        (place.text("images/text.jpg"), "unsupported_format"),
        (place.text("images/empty.png"), "undecodable_image"),
        (place.text("images/none.png"), "not_found"),
        ("http://127.0.0.1:9/1.png".to_owned(), "forbidden"),
        ("ftp://example.com/1.png".to_owned(), "bad_request"),
        ("s3://only-a-bucket".to_owned(), "bad_request"),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(item, code)| (item, code.to_owned())).into();
    assert_eq!(failures, expected);
    assert_eq!([&said.json()["succeeded"], &said.json()["failed"]], [4, 7]);

    // What failed for good is not tried again by the same command, which says how it can be.
    let again = say(&mut place.local(&place.text("list.txt"), &place.text("out"))).ended_with(3);
    let only_failed = format!("with {} as the input", place.text("out/failures.csv"));
    assert!(again.stderr.contains(&only_failed), "{again:?}");

    // Killed while the files were written: the summary says that they are not complete.
    let summary = read(&place.path("out"), "job.json");
    let unfinished = summary.replace("\"complete\": true", "\"complete\": false");
    assert_ne!(unfinished, summary);
    write(&place.path("out/job.json"), unfinished.as_bytes());
    write(&place.path("out/results.csv"), b"item,lab");
    say(&mut place.local(&place.text("list.txt"), &place.text("out"))).ended_with(3);
    assert_labels(&place.path("out"), &good);
    assert_eq!(read(&place.path("out"), "job.json"), summary);

    // What failed is a list too; not one of these can be scored.
    let said = say(&mut place.local(&place.text("out/failures.csv"), &place.text("again"))).ended_with(1);
    assert!(said.stderr.contains("none of the images"), "{said:?}");
    assert_eq!(
        columns(&read(&place.path("again"), "failures.csv"), "item", "code"),
        expected
    );

    for (arguments, part) in [(&["--local"][..], "--bundle"), (&[], "--state-machine")] {
        let mut command = trainer(&["batch", "--input", &place.text("images"), "--output", &place.text("x")]);
        let said: Said = say(command.args(arguments)).ended_with(2);
        assert!(said.stderr.contains(part), "{said:?}");
    }
}

#[test]
fn what_may_pass_is_tried_again_by_the_same_command() {
    let place = Place::new();
    let mut labels = place.images(3);
    write(
        &place.path("list.txt"),
        b"images/00/00000.png\nimages/00/00001.png\ns3://photos/1.png\nimages/none.png\n",
    );
    // Where no region is configured, S3 cannot be asked.
    let job = || {
        let mut command = place.local(&place.text("list.txt"), &place.text("out"));
        command
            .env("AWS_CONFIG_FILE", place.path("none"))
            .env("AWS_EC2_METADATA_DISABLED", "true");
        say(&mut command).ended_with(3)
    };
    let first = job();
    assert_eq!(first.json()["passing"], 1, "{first:?}");
    let again = job();
    assert!(again.stderr.contains("Going on after 2 of 4 images"), "{again:?}");
    assert!(!again.stderr.contains("already"), "{again:?}");
    assert!(!again.stderr.contains("no longer part"), "{again:?}");

    // A list that is another one by now is followed, and what is known of its images is kept.
    write(
        &place.path("list.txt"),
        b"s3://photos/1.png\nimages/00/00001.png\nimages/00/00002.png\n",
    );
    let edited = job();
    assert!(
        edited.stderr.contains("2 images that had a result are no longer part"),
        "{edited:?}"
    );
    assert!(edited.stderr.contains("Going on after 1 of 3 images"), "{edited:?}");
    labels.remove(&place.text("images/00/00000.png"));
    assert_labels(&place.path("out"), &labels);

    // With it goes what failed for another reason, which may be gone by now.
    write(
        &place.path("list.txt"),
        b"s3://photos/1.png\nimages/00/00001.png\nimages/00/00002.png\nimages/late.png\n",
    );
    let missing = job().json();
    assert_eq!([&missing["failed"], &missing["passing"]], [2, 1], "{missing}");
    write(&place.path("images/late.png"), &colours::png(COLOURS[0].1));
    let late = job();
    assert!(late.stderr.contains("Going on after 2 of 4 images"), "{late:?}");
    labels.insert(place.text("images/late.png"), label(0));
    assert_labels(&place.path("out"), &labels);
}

#[test]
fn what_is_no_place_for_results_is_refused_before_any_work() {
    let place = Place::new();
    place.images(2);
    let image = "images/00/00000.png";
    for (output, part) in [
        ("bundle", "never changes"),
        ("images/scores", "folder of the images"),
        (image, "is a file"),
    ] {
        let said = say(&mut place.local(&place.text("images"), &place.text(output))).ended_with(2);
        assert!(said.stderr.contains(part), "{said:?}");
    }
    assert!(!place.path("images/scores").exists() && !place.path("cache/batch").exists());
}

#[test]
fn relative_paths_mean_the_same_from_every_folder() {
    let place = Place::new();
    let expected = place.images(6);
    let from = |folder: &str, input: &str, output: &str| {
        let mut command = place.local(input, output);
        say(command.current_dir(place.path(folder)))
    };
    from(".", "images", "out").ended_with(0);
    assert_labels(&place.path("out"), &expected);
    let again = from("images", ".", &place.text("out")).ended_with(0);
    assert!(again.stderr.contains("already"), "{again:?}");

    // A list names its images from its own folder, and its failures are a list for every folder.
    write(
        &place.path("lists/all.txt"),
        b"../images/00/00000.png\n../images/none.png\n",
    );
    from("lists", "all.txt", "../some").ended_with(3);
    let none = |folder: &str| {
        let failures = columns(&read(&place.path(folder), "failures.csv"), "item", "code");
        assert_eq!(failures.len(), 1);
        let (item, code) = failures.into_iter().next().expect("a failure");
        assert!(
            Path::new(&item).is_absolute() && item.ends_with("images/none.png"),
            "{item}"
        );
        assert_eq!(code, "not_found");
    };
    none("some");
    from(".", "some/failures.csv", "again").ended_with(1);
    none("again");
}

#[test]
fn who_gives_a_folder_to_score_is_sent_here() {
    let place = Place::new();
    place.images(1);
    let images = place.text("images");
    let mut score = trainer(&["score", "--bundle", &place.text("bundle"), &images]);
    score
        .env("IKAT_CACHE", place.path("cache"))
        .env("ORT_DYLIB_PATH", library());
    let said = say(&mut score).ended_with(1);
    // With all that the command asks for.
    let instead = format!("trainer batch --local --bundle BUNDLE --input {images} --output DIR");
    assert!(said.stdout.contains(&instead), "{said:?}");
}

#[test]
fn buckets_are_read_and_written_like_folders() {
    let Some(server) = SeaweedFs::start() else { return };
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut expected = BTreeMap::new();
    runtime.block_on(async {
        let store = server.store("photos", "").await;
        server.create_bucket("results").await;
        for number in 0..1100 {
            let key = format!("in/{number} a+b.png");
            let image = colours::png(COLOURS[number % 3].1);
            store.put(&key, image.into(), None).await.expect("written");
            expected.insert(format!("s3://photos/{key}"), label(number));
        }
        store.put("in/zz.png", "x".into(), None).await.expect("written");
    });
    let mut command = place.local("s3://photos/in/", "s3://results/a/b/");
    let said = say(command.envs(server.environment())).ended_with(3);
    assert_eq!([&said.json()["succeeded"], &said.json()["failed"]], [1100, 1]);
    download(&runtime, &server, "a/b", &place.path("out"));
    assert_labels(&place.path("out"), &expected);
}

fn download(runtime: &tokio::runtime::Runtime, server: &SeaweedFs, prefix: &str, folder: &Path) {
    runtime.block_on(async {
        let client = server.client();
        for name in ["results.csv", "results.jsonl", "failures.csv", "job.json"] {
            let object = client.get_object().bucket("results").key(format!("{prefix}/{name}"));
            let bytes = object.send().await.expect(name).body.collect().await;
            write(&folder.join(name), &bytes.expect("contents").into_bytes());
        }
    });
}
