//! Features as rows, and trainings on them: what `--data` gives, whoever computed them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use end_to_end::colours::{self, library};
use end_to_end::program::{Said, program, say, trainer};
use end_to_end::seaweedfs::SeaweedFs;
use end_to_end::web::{Web, answer};
use end_to_end::{encoded, files_below, root, tool};
use serde_json::Value;
use shared::network::{Network, Outputs, Runtime, Tensor};
use trainer::features::SharedNetwork;

/// Side of the network's input: small, so that the tests are quick.
const RESOLUTION: &str = "64";
/// Images of each class.
const COUNT: u32 = 16;

/// A data set of three textures in a folder of its own, with a file that is no image.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        for (class, period) in [("dotted-wide", 9), ("dotted", 5), ("striped", 3)] {
            for number in 0..COUNT {
                let inside = if number % 4 == 0 { "in/" } else { "" };
                place.write(
                    &format!("photos/{class}/{inside}{number:02}.png"),
                    &texture(period, number),
                );
            }
        }
        // Large enough that the decoder leaves pixels out that the network has no use for.
        let small = image::load_from_memory(&texture(5, 3)).expect("a picture");
        let large = small.resize(1600, 1600, image::imageops::FilterType::Triangle);
        place.write("photos/dotted/large.jpg", &encoded(large, image::ImageFormat::Jpeg));
        place.write("photos/striped/none.png", b"no image");
        place
    }

    fn write(&self, name: &str, contents: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, contents).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The files of the data set, not in the order of a folder.
    fn files(&self) -> Vec<String> {
        let files = files_below(&self.path("photos")).into_iter();
        let mut files: Vec<String> = files.map(|path| path.display().to_string()).collect();
        files.sort_by_key(|path| path.bytes().rev().collect::<Vec<_>>());
        files
    }

    fn train(&self, from: [&str; 2], out: &str) -> Command {
        let mut command = trainer(&[
            "train",
            "--json",
            "--resolution",
            RESOLUTION,
            "--seed",
            "5",
            "--folds",
            "3",
        ]);
        command.args(from).args(["--out", &self.text(out)]);
        command
    }
}

/// A picture of 48 x 48 pixels whose dots or stripes repeat after `period` pixels, each unlike the others.
fn texture(period: u32, number: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(48, 48, |x, y| {
        let spot = if period == 3 {
            (x + y + number).is_multiple_of(3)
        } else {
            (x + number) % period < 2 && (y + 2 * number) % period < 2
        };
        let noise = ((x * 31 + y * 17) ^ (number * 7919)) % 61;
        let level = if spot { 190 + noise } else { noise };
        let level = u8::try_from(level).unwrap_or(u8::MAX);
        image::Rgb([level, u8::try_from(number * 9).unwrap_or(0), level / 2])
    });
    encoded(picture, image::ImageFormat::Png)
}

/// Pipes `input` through `trainer featurize --stdin`.
fn featurize(input: &[u8], arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let mut command = trainer(&["featurize", "--stdin", "--resolution", RESOLUTION]);
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let said = child.wait_with_output().expect("its output").into();
    // It may end before it has read everything.
    let _ = writer.join().expect("no panic");
    said
}

fn rows(said: &Said) -> Vec<Value> {
    let lines = said.stdout.lines();
    lines.map(|line| serde_json::from_str(line).expect("a row")).collect()
}

/// Asserts that two runs are the same but for times and places.
fn assert_same(place: &Place, expected: &Said, found: &Said, out: &str) {
    let (mut expected, mut found) = (expected.json(), found.json());
    assert_eq!(expected["version"], found["version"]);
    for document in [&mut expected, &mut found] {
        document["metrics"]["seconds"] = Value::Null;
    }
    assert_eq!(expected["metrics"], found["metrics"]);
    assert_eq!(expected["skipped"], found["skipped"]);
    let read = |out: &str, name: &str| std::fs::read(place.path(out).join(name)).expect(name);
    for name in [
        "predictions.csv",
        "split.tsv",
        "bundle/manifest.json",
        "bundle/svm.json",
        "bundle/golden/golden.json",
    ] {
        assert_eq!(read("plain", name), read(out, name), "{name}");
    }
    let fingerprint = |out: &str| {
        let record: Value = serde_json::from_slice(&read(out, "run.json")).expect("JSON");
        record["data"]["fingerprint"].clone()
    };
    assert_eq!(fingerprint("plain"), fingerprint(out));
    let pictures = |out: &str| {
        String::from_utf8_lossy(&read(out, "report.html"))
            .matches("data:image/jpeg")
            .count()
    };
    assert_eq!(pictures("plain"), pictures(out));
}

#[test]
fn each_line_becomes_a_row_in_its_place() {
    let place = Place::new();
    let picture = texture(5, 1);
    let web = Web::start({
        let picture = picture.clone();
        move |path, _, stream| match path {
            "/1.png" => answer(stream, "200 OK", &[], &picture),
            _ => answer(stream, "404 Not Found", &[], b""),
        }
    });
    let file = place.text("photos/dotted/01.png");
    let mut input = format!(
        "{file}\n\n{}\tdotted\r\n{}\n{}\nfile://{file}\nftp://example.com/1.png\n",
        web.url("/1.png"),
        place.text("photos/striped/none.png"),
        web.url("/2.png"),
    )
    .into_bytes();
    input.extend(b"\xff.png\n/does/not/exist.png\tx\n");
    input.extend(vec![b'x'; 1 << 17]);
    input.extend(b"\n");
    input.extend(file.as_bytes());

    let said = featurize(&input, &["--allow-private", "--threads", "3"], &[]).ended_with(3);
    let found = rows(&said);
    let codes: Vec<&str> = found
        .iter()
        .map(|row| row["error"]["code"].as_str().unwrap_or(""))
        .collect();
    let expected = [
        "",
        "",
        "unsupported_format",
        "not_found",
        "",
        "bad_request",
        "bad_request",
        "not_found",
        "bad_request",
        "",
    ];
    assert_eq!(codes, expected, "{said:?}");
    assert_eq!(found[0]["item"], file);
    assert_eq!(
        (&found[1]["item"], &found[1]["label"]),
        (&web.url("/1.png").into(), &"dotted".into())
    );
    assert_eq!(found[7]["label"], "x");
    for same in [1, 4, 9] {
        for name in ["network", "sha256", "dhash", "features"] {
            assert_eq!(found[0][name], found[same][name], "{same} {name}");
        }
    }
    assert_eq!(found[0]["features"].as_array().map(Vec::len), Some(1280));
    assert!(said.stderr.contains("10 rows; 6 of them"), "{said:?}");

    // Images as arguments; addresses in private networks are not asked unless that is allowed.
    let said = say(&mut trainer(&[
        "featurize",
        "--resolution",
        RESOLUTION,
        &file,
        &web.url("/1.png"),
    ]))
    .ended_with(3);
    let plain = rows(&said);
    assert_eq!(plain[0], found[0]);
    assert_eq!(plain[1]["error"]["code"], "forbidden");
    let said = featurize(file.as_bytes(), &["--quiet"], &[]).ended_with(0);
    assert_eq!((said.stderr.as_str(), rows(&said)), ("", vec![found[0].clone()]));
    let said = featurize(format!("{file}\n/none.png\n").as_bytes(), &["--json"], &[]).ended_with(3);
    let document = said.json();
    assert_eq!((document.as_array().map(Vec::len), &document[0]), (Some(2), &found[0]));
    say(&mut trainer(&["featurize"])).ended_with(2);

    // Nothing at all is a failure, unless it may be a part of more.
    let said = say(&mut trainer(&["featurize", "/none.png"])).ended_with(1);
    assert_eq!(rows(&said)[0]["error"]["code"], "not_found");
    assert!(said.stderr.contains("the rows say why"), "{said:?}");
    featurize(b"/none.png\n", &[], &[]).ended_with(3);

    // What a data set keeps beside its images is none of it, whether it is there or not.
    let aside = place.text("photos/.ikat/excluded/dotted/01.png");
    let said = featurize(format!("{aside}\n{file}\n").as_bytes(), &[], &[]).ended_with(0);
    assert_eq!(rows(&said), found[..1]);
    assert!(said.stderr.contains("Passed over 1 file in a folder .ikat"), "{said:?}");
}

#[test]
fn a_training_on_rows_is_the_training_on_the_images() {
    let place = Place::new();
    let plain = say(&mut place.train(["--data", &place.text("photos")], "plain")).ended_with(3);

    // Two processes with a part each, one image in both.
    let files = place.files();
    assert_eq!(files.len(), 3 * COUNT as usize + 2);
    for (name, part) in [("part-00000", &files[..20]), ("part-00001", &files[19..])] {
        let said = featurize(part.join("\n").as_bytes(), &[], &[]);
        place.write(&format!("rows/{name}"), said.stdout.as_bytes());
    }
    place.write("rows/_SUCCESS", b"");
    place.write("rows/.part-00000.crc", b"\0\0");
    let rows = place.text("rows");
    let found = say(&mut place.train(["--features", &rows], "found")).ended_with(3);
    assert_same(&place, &plain, &found, "found");

    // The features of another resolution, and rows that are not all there.
    let mut other = trainer(&[
        "train",
        "--features",
        &rows,
        "--resolution",
        "96",
        "--out",
        &place.text("x"),
    ]);
    let said = say(&mut other).ended_with(1);
    assert!(said.stderr.contains("another network"), "{said:?}");
    let mut refined = place.train(["--features", &rows], "x");
    let said = say(refined.args(["--classifier", "dnn"])).ended_with(2);
    assert!(said.stderr.contains("--data"), "{said:?}");
    // There is nothing to choose, and what is for a choice has no effect.
    let mut chosen = place.train(["--features", &rows], "chosen");
    let said = say(chosen.args(["--classifier", "auto", "--time-limit", "5", "--epochs", "3"])).ended_with(3);
    assert_same(&place, &plain, &said, "chosen");
    for told in [
        "--time-limit is for --classifier auto on images alone",
        "svm has no use for --epochs",
    ] {
        assert!(said.stderr.contains(told), "{said:?}");
    }
    place.write("rows/part-00002", b"{\"item\":\"x\"}\n");
    let said = say(&mut place.train(["--features", &rows], "x")).ended_with(1);
    assert!(said.stderr.contains("part-00002, line 1"), "{said:?}");
    std::fs::create_dir(place.path("rows/_temporary")).expect("a folder");
    let said = say(&mut place.train(["--features", &rows], "x")).ended_with(1);
    assert!(said.stderr.contains("not finished"), "{said:?}");
    let said = say(&mut trainer(&["train", "--out", &place.text("x")])).ended_with(2);
    assert!(said.stderr.contains("--features"), "{said:?}");
}

#[test]
fn images_and_rows_may_lie_in_buckets() {
    let Some(server) = SeaweedFs::start() else { return };
    let place = Place::new();
    let plain = say(&mut place.train(["--data", &place.text("photos")], "plain")).ended_with(3);
    let root = place.text("photos");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut lines = String::new();
    let store = runtime.block_on(async {
        let store = server.store("archive", "").await;
        for file in place.files() {
            let key = file.strip_prefix(&root).expect("within").trim_start_matches('/');
            let (class, _) = key.split_once('/').expect("a class");
            lines.extend(["s3://archive/all/photos/", key, "\t", class, "\n"]);
            let bytes = std::fs::read(&file).expect("a file");
            let key = format!("all/photos/{key}");
            store.put(&key, bytes.into(), None).await.expect("written");
        }
        store
    });
    let said = featurize(lines.as_bytes(), &[], &server.environment()).ended_with(3);
    runtime.block_on(async {
        for (number, part) in said.stdout.lines().collect::<Vec<_>>().chunks(10).enumerate() {
            let key = format!("rows/2026/part-{number:05}");
            store
                .put(&key, part.join("\n").into_bytes().into(), None)
                .await
                .expect("written");
        }
    });
    let mut command = place.train(["--features", "s3://archive/rows/2026/"], "found");
    let found = say(command.envs(server.environment())).ended_with(3);
    assert_same(&place, &plain, &found, "found");
}

#[test]
fn a_spark_cluster_computes_the_same_rows() {
    let Some(spark) = tool("spark-submit") else { return };
    let place = Place::new();
    let plain = say(&mut place.train(["--data", &place.text("photos")], "plain")).ended_with(3);
    let files = place.files();
    place.write("images.txt", files.join("\n").as_bytes());
    let mut command = Command::new(&spark);
    command
        .args([
            "--master",
            "local-cluster[2,1,1024]",
            "--conf",
            "spark.ui.enabled=false",
        ])
        .args([
            "--conf",
            "spark.driver.host=127.0.0.1",
            "--conf",
            "spark.driver.bindAddress=127.0.0.1",
        ])
        .arg(root().join("infra/featurize_spark.py"))
        .args(["--images", &place.text("images.txt"), "--output", &place.text("rows")])
        .args([
            "--images-per-task",
            "10",
            "--trainer",
            &program("trainer").display().to_string(),
        ])
        .args(["--", "--resolution", RESOLUTION])
        .env("ORT_DYLIB_PATH", library())
        .env("PYSPARK_PYTHON", spark.with_file_name("python"))
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    let said = say(&mut command).ended_with(3);
    assert!(said.stdout.contains("50 rows; 1 of them"), "{said:?}");

    let own = featurize(files.join("\n").as_bytes(), &[], &[]).ended_with(3);
    let mut parts = 0;
    let mut spread = Vec::new();
    for entry in std::fs::read_dir(place.path("rows")).expect("rows") {
        let path = entry.expect("an entry").path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("part-"))
        {
            parts += 1;
            let text = std::fs::read_to_string(path).expect("a part");
            spread.extend(text.lines().map(str::to_owned));
        }
    }
    assert_eq!((parts, spread.len()), (5, files.len()));
    let expected: BTreeSet<&str> = own.stdout.lines().collect();
    assert_eq!(spread.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    let found = say(&mut place.train(["--features", &place.text("rows")], "found")).ended_with(3);
    assert_same(&place, &plain, &found, "found");
}

#[test]
fn a_card_that_cannot_be_had_is_named_with_the_way_out() {
    let place = Place::new();
    let image = place.files().remove(0);
    let for_processors = library().display().to_string();
    let processor_alone = [("ORT_DYLIB_PATH", for_processors.as_str())];
    let said = featurize(image.as_bytes(), &["--device", "cuda:1"], &processor_alone).ended_with(1);
    // Where there is a card, the library says why it is of no use.
    for part in ["the device cuda:1 cannot be used", "--device cpu"] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    let mut command = place.train(["--data", &place.text("photos")], "run");
    let said = say(command.args(["--device", "cuda:1"]).envs(processor_alone)).ended_with(1);
    assert!(
        said.stderr.contains("the device cuda:1 cannot be used"),
        "{}",
        said.stderr
    );
    assert!(!place.path("run").exists());
}

#[test]
fn a_network_that_threads_share_says_what_their_own_would() {
    let runtime = Runtime::load(std::slice::from_ref(library())).expect("the library");
    let load = || Box::new(runtime.network(&colours::network(), 1).expect("a network"));
    let shared = SharedNetwork::new(load(), 4).expect("a thread");
    std::thread::scope(|scope| {
        for thread in 0..8_u16 {
            let (mut shared, mut own) = (shared.clone(), load());
            scope.spawn(move || {
                for number in 0..20_u16 {
                    let value = |index: u16| f32::from(index % 251 + number * 7 + thread);
                    let image = Tensor::new([1, 3, 32, 32], (0..3 * 32 * 32).map(value).collect());
                    let [one, other] = [&mut shared as &mut dyn Network, own.as_mut()]
                        .map(|network| network.run(&image, Outputs::VectorsAndMap).expect("a vector"));
                    assert_eq!(one, other);
                }
            });
        }
    });
}
