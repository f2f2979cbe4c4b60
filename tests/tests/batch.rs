//! Scoring many images: on this machine's cores, and by a Step Functions Distributed Map.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use end_to_end::colours::{self, COLOURS, library};
use end_to_end::lambda::Lambda;
use end_to_end::program::{Running, Said, say, trainer};
use end_to_end::seaweedfs::SeaweedFs;
use end_to_end::step_functions::StepFunctions;
use end_to_end::{root, wait_until};
use serde_json::{Value, json};
use trainer::publish::publish;

/// A folder with a bundle, images and a cache of its own.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = colours::bundle("all");
        for (name, contents) in &bundle.files {
            write(&folder.path().join("bundle").join(name), contents);
        }
        write(&folder.path().join("bundle/manifest.json"), &bundle.manifest.to_json());
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
    let again = say(&mut command()).ended_with(0);
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
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture = image::RgbImage::from_pixel(1500, 1500, image::Rgb(colour));
        picture.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
        bytes.into_inner()
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
        say(Command::new("kill").args(["-STOP", &running.id().to_string()])).ended_with(0);
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
        (place.text("images/empty.png"), "unsupported_format"),
        (place.text("images/none.png"), "not_found"),
        ("http://127.0.0.1:9/1.png".to_owned(), "forbidden"),
        ("ftp://example.com/1.png".to_owned(), "bad_request"),
        ("s3://only-a-bucket".to_owned(), "bad_request"),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(item, code)| (item, code.to_owned())).into();
    assert_eq!(failures, expected);
    assert_eq!([&said.json()["succeeded"], &said.json()["failed"]], [4, 7]);

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
    let instead = format!("trainer batch --local --input {images}");
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

/// A deployed stack: images in a bucket, the scoring function as Lambda runs it, and a state machine over it.
struct Stack {
    server: SeaweedFs,
    machine: StepFunctions,
    runtime: tokio::runtime::Runtime,
    expected: BTreeMap<String, String>,
}

impl Stack {
    /// With `count` images in `s3://photos/in/`; `disturb` may answer instead of the function, given the number of
    /// the invocation and the event.
    fn start(count: usize, disturb: impl Fn(usize, &Value) -> Option<Value> + Send + Sync + 'static) -> Option<Self> {
        let server = SeaweedFs::start()?;
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let expected = runtime.block_on(async {
            let models = server.store("models", "").await;
            publish(&models, &colours::bundle("all"), "colours")
                .await
                .expect("published");
            server.create_bucket("results").await;
            let photos = server.store("photos", "").await;
            let mut expected = BTreeMap::new();
            let mut writes = tokio::task::JoinSet::new();
            for number in 0..count {
                let key = format!("in/{number:05}.png");
                expected.insert(format!("s3://photos/{key}"), label(number));
                if writes.len() == 16 {
                    writes.join_next().await;
                }
                let (photos, image) = (photos.clone(), colours::png(COLOURS[number % 3].1));
                writes.spawn(async move { photos.put(&key, image.into(), None).await.expect("written") });
            }
            writes.join_all().await;
            expected
        });
        let library = library().display().to_string();
        let environment = server.environment();
        let mut environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        environment.extend([("IKAT_ALLOWED_BUCKETS", "photos"), ("ORT_DYLIB_PATH", &library)]);
        environment.push(("IKAT_MODEL", "s3://models/colours"));
        let lambda = Lambda::start(&environment)?;
        let invocations = AtomicUsize::new(0);
        let machine = StepFunctions::start(server.client(), move |event| {
            let number = invocations.fetch_add(1, Ordering::SeqCst);
            disturb(number, event).unwrap_or_else(|| lambda.invoke(event).1)
        });
        Some(Self {
            server,
            machine,
            runtime,
            expected,
        })
    }

    fn batch(&self, place: &Place, input: &str, output: &str) -> Command {
        let mut command = trainer(&["batch", "--json"]);
        command
            .args(["--input", input, "--output", output, "--concurrency", "7"])
            .env("IKAT_CACHE", place.path("cache"))
            .env("IKAT_STATE_MACHINE", StepFunctions::STATE_MACHINE)
            .envs(self.server.environment())
            .env("AWS_ENDPOINT_URL_SFN", self.machine.endpoint());
        command
    }

    /// Copies the output at `prefix` in the bucket of results to `folder`.
    fn fetch(&self, prefix: &str, folder: &Path) {
        download(&self.runtime, &self.server, prefix, folder);
    }
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

#[test]
fn a_state_machine_scores_five_thousand_images_whatever_breaks() {
    let place = Place::new();
    // Every seventh invocation fails and may be tried again; one batch fails whatever is done.
    let disturb = |number: usize, event: &Value| {
        let broken = event["Items"][0]["Key"] == "in/00200.png";
        let error = |kind: &str| Some(json!({ "errorType": kind, "errorMessage": "broken on purpose" }));
        match number {
            _ if broken => error("Runtime.ExitError"),
            _ if number.is_multiple_of(7) => error("StorageUnavailable"),
            _ => None,
        }
    };
    let Some(stack) = Stack::start(5000, disturb) else {
        return;
    };
    let command = || stack.batch(&place, "s3://photos/in/", "s3://results/2026");

    // The trainer is killed, then the execution breaks down twice, then it succeeds.
    stack.machine.break_down_after(60);
    let running = Running::start(&mut command());
    wait_until("the execution", || stack.machine.batches() > 5);
    drop(running);
    let said = say(&mut command()).ended_with(1);
    assert!(
        said.stderr.contains("Joining") && said.stderr.contains("broken on purpose"),
        "{said:?}"
    );
    assert!((5..250).contains(&stack.machine.batches()));
    stack.machine.break_down_after(150);
    say(&mut command()).ended_with(1);
    let said = say(&mut command()).ended_with(3);
    assert!(said.stderr.contains("Taking up again"), "{said:?}");
    assert_eq!(
        (
            stack.machine.asked("StartExecution"),
            stack.machine.asked("RedriveExecution")
        ),
        (1, 2)
    );

    let out = place.path("out");
    stack.fetch("2026", &out);
    let (failed, good): (BTreeMap<_, _>, BTreeMap<_, _>) = stack
        .expected
        .clone()
        .into_iter()
        .partition(|(item, _)| ("s3://photos/in/00200.png".."s3://photos/in/00220.png").contains(&item.as_str()));
    assert_eq!((good.len(), failed.len()), (4980, 20));
    assert_labels(&out, &good);
    let failures = columns(&read(&out, "failures.csv"), "item", "code");
    assert!(failures.keys().eq(failed.keys()));
    assert!(read(&out, "failures.csv").contains("Runtime.ExitError: broken on purpose"));
    let document = said.json();
    assert_eq!(
        [
            &document["images"],
            &document["succeeded"],
            &document["failed"],
            &document["passing"]
        ],
        [5000, 4980, 20, 20]
    );

    // Again: nothing is asked of the state machine.
    let asked = stack.machine.asked("DescribeExecution");
    let again = say(&mut command()).ended_with(3);
    assert_eq!(
        (again.json(), stack.machine.asked("DescribeExecution")),
        (document, asked)
    );
    // The template's state machine finds what it needs in the execution's input.
    assert_input_is_complete(&stack.machine.inputs()[0], "ScorePrefix:", "ScoreList:");
}

#[test]
fn a_state_machine_scores_a_list() {
    let place = Place::new();
    let Some(stack) = Stack::start(60, |_, _| None) else {
        return;
    };
    let expected = &stack.expected;
    let mut list: Vec<&str> = expected.keys().map(String::as_str).collect();
    list.push("s3://photos/in/none.png");
    write(&place.path("list.txt"), list.join("\n").as_bytes());
    let list = place.text("list.txt");
    say(&mut stack.batch(&place, &list, "s3://results/list")).ended_with(3);
    stack.fetch("list", &place.path("out"));
    assert_labels(&place.path("out"), expected);
    let failures = columns(&read(&place.path("out"), "failures.csv"), "item", "code");
    assert_eq!(
        failures.into_iter().collect::<Vec<_>>(),
        [("s3://photos/in/none.png".to_owned(), "not_found".to_owned())]
    );
    assert_input_is_complete(&stack.machine.inputs()[0], "ScoreList:", "Outputs:");

    // The results of this machine's cores are the same, but for the times.
    let mut local = place.local(&list, &place.text("local"));
    say(local.envs(stack.server.environment())).ended_with(3);
    for name in ["results.csv", "failures.csv"] {
        assert_eq!(
            read(&place.path("local"), name),
            read(&place.path("out"), name),
            "{name}"
        );
    }

    // What a state machine cannot read or is not there is told of before anything is started.
    write(&place.path("mixed.txt"), b"s3://photos/in/00000.png\n1.png\n");
    let arn = StepFunctions::STATE_MACHINE;
    for (input, output, machine, part) in [
        (place.text("mixed.txt"), "s3://results/x", arn, "--local"),
        (place.text("bundle"), "s3://results/x", arn, "--local"),
        ("s3://photos/in/".to_owned(), "elsewhere", arn, "--local"),
        (
            "s3://photos/in/".to_owned(),
            "s3://results/x",
            &arn.replace("ikat", "other"),
            "other-batch",
        ),
    ] {
        let mut command = stack.batch(&place, &input, output);
        let said = say(command.current_dir(place.path("")).env("IKAT_STATE_MACHINE", machine)).ended_with(1);
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
    assert_eq!(stack.machine.inputs().len(), 1);

    // Mended, the list is read again.
    write(&place.path("mixed.txt"), b"s3://photos/in/00000.png\n");
    say(&mut stack.batch(&place, &place.text("mixed.txt"), "s3://results/x")).ended_with(0);
    assert_eq!(stack.machine.inputs().len(), 2);

    // The same command joins an execution that found nothing, whatever is there by now.
    let said = say(&mut stack.batch(&place, "s3://photos/none/", "s3://results/none")).ended_with(1);
    assert!(said.stderr.contains("choose another output"), "{said:?}");
}

/// Asserts that the part of the template between these words asks for nothing that `input` lacks.
fn assert_input_is_complete(input: &Value, from: &str, to: &str) {
    let template = std::fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    let part = template
        .split_once(&format!("          {from}\n"))
        .expect("its state")
        .1;
    let part = part.split(to).next().unwrap_or_default();
    let mut asked = 0;
    for path in part.split_whitespace().filter_map(|word| word.strip_prefix("$.")) {
        let pointer = format!("/{}", path.replace('.', "/"));
        if path != "Payload" {
            assert!(input.pointer(&pointer).is_some(), "{path} is not in {input}");
            asked += 1;
        }
    }
    assert!(asked >= 4, "{asked}");
}
