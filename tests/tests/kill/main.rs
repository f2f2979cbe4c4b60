//! Whatever the trainer does can be cut off at any moment, and running it again makes it whole.
//!
//! `IKAT_KILLS` says how many kills each operation must survive (few, where nothing is said), `IKAT_SEED` from which
//! number their moments are drawn.

mod annotate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use end_to_end::bundles::{bundle, noise};
use end_to_end::dice::Dice;
use end_to_end::program::{Running, say_within};
use end_to_end::web::{Web, answer};
use end_to_end::workshop::{Workshop, picture};
use end_to_end::{files_below, wait_until};
use serde_json::Value;
use trainer::runs::Record;

const CI_KILLS: usize = 2;

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// The moments of the kills of what is called `name`.
fn dice(name: &str) -> Dice {
    let seed = number("IKAT_SEED").unwrap_or(1) as u64;
    let salt = name
        .bytes()
        .fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Dice::at(noise(salt, 8).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)) | 1)
}

/// Files by their path below a folder. What is only being written has a temporary name.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn tree(root: &Path) -> Tree {
    let inside = |path: PathBuf| path.strip_prefix(root).expect("inside").to_path_buf();
    let is_temporary = |path: &Path| path.extension().is_some_and(|extension| extension == "tmp");
    let mut files: Vec<PathBuf> = files_below(root).into_iter().map(inside).collect();
    files.retain(|path| !path.ancestors().any(is_temporary));
    let read = |path: PathBuf| (path.clone(), std::fs::read(root.join(path)).expect("a file"));
    files.into_iter().map(read).collect()
}

/// The files of the class folders.
fn classes(workshop: &Workshop) -> Tree {
    let mut files = tree(&workshop.path("data"));
    files.retain(|path, _| !path.starts_with(".ikat"));
    files
}

/// Something that can be cut off.
trait Operation {
    const NAME: &'static str;
    /// A place where nothing was done yet.
    fn fresh(&self) -> Workshop;
    fn command(&self, workshop: &Workshop) -> Command;
    /// What must hold whenever it was cut off.
    fn check(&self, workshop: &Workshop);
    /// Whether there is nothing left to do.
    fn is_done(&self, _: &Workshop) -> bool {
        false
    }
    /// What came of it: the same after any number of kills as after none.
    fn outcome(&self, workshop: &Workshop) -> Tree;
}

fn survive<T: Operation>(operation: &T) {
    let finish = |workshop: &Workshop| {
        if !operation.is_done(workshop) {
            say_within(120, &operation.command(workshop)).ended_with(0);
        }
        operation.check(workshop);
        operation.outcome(workshop)
    };
    let whole = operation.fresh();
    let begun = Instant::now();
    let expected = finish(&whole);
    let duration = begun.elapsed();
    drop(whole);

    let name = T::NAME;
    let mut dice = dice(name);
    let wanted = number("IKAT_KILLS").unwrap_or(CI_KILLS);
    let (mut kills, mut places) = (0, 0);
    while kills < wanted {
        let workshop = operation.fresh();
        places += 1;
        // The same work is cut off up to three times.
        for _ in 0..=(dice.share() * 3.0) as usize {
            if operation.is_done(&workshop) {
                break;
            }
            let mut command = operation.command(&workshop);
            let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
            std::thread::sleep(duration.mul_f64(dice.share()));
            let ended = running.exit_code();
            drop(running);
            if let Some(code) = ended {
                assert_eq!(code, 0, "{name} failed without being killed");
                break;
            }
            kills += 1;
            operation.check(&workshop);
        }
        let outcome = finish(&workshop);
        assert_same(name, &outcome, &expected);
    }
    #[allow(clippy::print_stdout)] // For RELIABILITY.md.
    {
        println!(
            "{name}: {kills} kills in {places} places, {duration:?} uninterrupted, every result as without a kill"
        );
    }
}

fn assert_same(name: &str, found: &Tree, expected: &Tree) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(found), names(expected), "{name}");
    for (path, bytes) in found {
        assert!(bytes == &expected[path], "{name}: {} differs", path.display());
    }
}

const ADDRESSES: usize = 24;

struct Fetch(Web);

impl Fetch {
    fn image(number: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.png");
        picture(&path, number % 3, number as u64);
        std::fs::read(path).expect("a file")
    }
}

impl Operation for Fetch {
    const NAME: &'static str = "fetch";

    fn fresh(&self) -> Workshop {
        let workshop = Workshop::new(0);
        let lines: Vec<String> = (0..ADDRESSES)
            .map(|number| format!("class-{}\t{}", number % 4, self.0.url(&format!("/{number}.png"))))
            .collect();
        std::fs::write(workshop.path("urls.tsv"), lines.join("\n")).expect("a list");
        workshop
    }

    fn command(&self, workshop: &Workshop) -> Command {
        let fetch = ["data", "fetch", "--json", "--urls", "urls.tsv", "--data", "data"];
        workshop.trainer(&[&fetch[..], &["--allow-private", "--jobs", "3"]].concat())
    }

    fn check(&self, workshop: &Workshop) {
        for (path, bytes) in classes(workshop) {
            let whole = (0..ADDRESSES).any(|number| Self::image(number) == bytes);
            assert!(whole, "{} is no image that was served", path.display());
        }
    }

    fn outcome(&self, workshop: &Workshop) -> Tree {
        let mut outcome = classes(workshop);
        assert_eq!(outcome.len(), ADDRESSES);
        // The last line of each address counts, and speaks of the image.
        let ledger = std::fs::read_to_string(workshop.path("data/.ikat/provenance.jsonl")).expect("a ledger");
        let mut last = BTreeMap::new();
        for line in ledger.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            last.insert(line["url"].to_string(), line);
        }
        for line in last.values() {
            let path = line["path"].as_str().unwrap_or_else(|| panic!("{line}"));
            assert!(outcome.contains_key(Path::new(path)), "{line}");
        }
        outcome.insert("addresses".into(), last.len().to_string().into_bytes());
        outcome
    }
}

#[test]
fn fetching() {
    survive(&Fetch(Web::start(|path, _, stream| {
        let number = path
            .trim_matches(|letter: char| !letter.is_ascii_digit())
            .parse()
            .unwrap_or(0);
        std::thread::sleep(Duration::from_millis(3));
        answer(
            stream,
            "200 OK",
            &[("content-type", "image/png")],
            &Fetch::image(number),
        );
    })));
}

struct Dedupe {
    original: Tree,
}

impl Dedupe {
    fn lay_out() -> Workshop {
        let workshop = Workshop::new(25);
        for path in classes(&workshop).keys() {
            let original = workshop.path("data").join(path);
            std::fs::copy(&original, original.with_extension("copy.png")).expect("a copy");
        }
        workshop
    }
}

impl Operation for Dedupe {
    const NAME: &'static str = "dedupe";

    fn fresh(&self) -> Workshop {
        Self::lay_out()
    }

    fn command(&self, workshop: &Workshop) -> Command {
        workshop.trainer(&["data", "dedupe", "--no-features", "--data", "data"])
    }

    /// Every file is under its name or in quarantine.
    fn check(&self, workshop: &Workshop) {
        let all = tree(&workshop.path("data"));
        for (path, bytes) in &self.original {
            let kept = all
                .iter()
                .any(|(place, contents)| place.ends_with(path) && contents == bytes);
            assert!(kept, "{} is lost", path.display());
        }
    }

    fn outcome(&self, workshop: &Workshop) -> Tree {
        let outcome = classes(workshop);
        // One quarantine after the other comes back, until everything is as it was.
        let restore = ["data", "dedupe", "--data", "data", "--restore"];
        while say_within(60, &workshop.trainer(&restore)).code == 0 {}
        assert_same("what was restored", &classes(workshop), &self.original);
        outcome
    }
}

#[test]
fn setting_copies_aside() {
    survive(&Dedupe {
        original: classes(&Dedupe::lay_out()),
    });
}

struct Export;

impl Operation for Export {
    const NAME: &'static str = "export";

    fn fresh(&self) -> Workshop {
        Workshop::new(25)
    }

    fn command(&self, workshop: &Workshop) -> Command {
        workshop.trainer(&[
            "data", "export", "--data", "data", "--format", "folder", "--out", "copies",
        ])
    }

    /// The copies are all there, or none is.
    fn check(&self, workshop: &Workshop) {
        if self.is_done(workshop) {
            assert_same("what was copied", &tree(&workshop.path("copies")), &classes(workshop));
        }
    }

    fn is_done(&self, workshop: &Workshop) -> bool {
        workshop.path("copies").exists()
    }

    fn outcome(&self, workshop: &Workshop) -> Tree {
        let entries = std::fs::read_dir(workshop.path(".")).expect("a folder").flatten();
        let mut names = entries.map(|entry| entry.file_name().display().to_string());
        assert!(names.all(|name| !name.starts_with(".ikat-")), "something is left");
        tree(&workshop.path("copies"))
    }
}

#[test]
fn copying_a_data_set() {
    survive(&Export);
}

/// A run is there whole or not at all.
fn check_run(workshop: &Workshop) {
    let run = workshop.path("run");
    if run.exists() {
        let record = Record::load(&run).expect("a finished run");
        assert_eq!(record.changed_files(&run), Vec::<PathBuf>::new());
    }
}

/// What of a run does not depend on the time.
fn run_files(workshop: &Workshop) -> Tree {
    let mut files = tree(&workshop.path("run"));
    files.retain(|path, _| {
        path.starts_with("bundle") || path.ends_with("split.tsv") || path.ends_with("predictions.csv")
    });
    assert!(files.len() > 4);
    files
}

/// A training of the network's features alone, or of the network itself.
struct Training<const REFINES: bool>;

impl<const REFINES: bool> Operation for Training<REFINES> {
    const NAME: &'static str = if REFINES { "refine" } else { "featurize and train" };

    fn fresh(&self) -> Workshop {
        Workshop::new(if REFINES { 12 } else { 40 })
    }

    fn command(&self, workshop: &Workshop) -> Command {
        if !REFINES {
            return workshop.train("data", "run");
        }
        let mut command = workshop.train_by("convolutional.onnx", "data", "run");
        command.args([
            "--classifier",
            "dnn",
            "--epochs",
            "6",
            "--views",
            "2",
            "--trained",
            "all",
            "--device",
            "cpu",
        ]);
        command
    }

    fn check(&self, workshop: &Workshop) {
        check_run(workshop);
    }

    fn is_done(&self, workshop: &Workshop) -> bool {
        workshop.path("run").exists()
    }

    fn outcome(&self, workshop: &Workshop) -> Tree {
        run_files(workshop)
    }
}

#[test]
fn training() {
    survive(&Training::<false>);
}

#[test]
fn refining() {
    survive(&Training::<true>);
}

struct Publish;

impl Publish {
    fn live(workshop: &Workshop) -> Value {
        let json = std::fs::read(workshop.path("store/textures/live.json")).expect("a live version, always");
        serde_json::from_slice(&json).expect("JSON")
    }
}

impl Operation for Publish {
    const NAME: &'static str = "publish";

    fn fresh(&self) -> Workshop {
        let workshop = Workshop::new(0);
        for (name, seed) in [("old", 1), ("new", 2)] {
            bundle(seed, 4 << 20).write(&workshop.path(name)).expect("written");
        }
        let publish = workshop.trainer(&["publish", "--bundle", "old", "--to", "store"]);
        say_within(60, &publish).ended_with(0);
        workshop
    }

    fn command(&self, workshop: &Workshop) -> Command {
        workshop.trainer(&["publish", "--bundle", "new", "--to", "store"])
    }

    /// The old version is live or the new one, and whichever it is, it is whole.
    fn check(&self, workshop: &Workshop) {
        let live = Self::live(workshop);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let model = workshop.path("store/textures").display().to_string();
        let loaded = runtime
            .block_on(shared::store::source::open(&model, None))
            .expect("a whole version");
        assert_eq!(live["version"], loaded.manifest.version.as_str());
        assert!(
            [bundle(1, 4 << 20), bundle(2, 4 << 20)]
                .iter()
                .any(|bundle| bundle.manifest.version == loaded.manifest.version)
        );
    }

    fn outcome(&self, workshop: &Workshop) -> Tree {
        let mut live = Self::live(workshop);
        live.as_object_mut().expect("an object").remove("published_at");
        let mut files = tree(&workshop.path("store"));
        files.insert("textures/live.json".into(), live.to_string().into_bytes());
        files
    }
}

#[test]
fn publishing() {
    survive(&Publish);
}

#[test]
fn two_trainers_do_not_share_a_folder() {
    let workshop = Workshop::new(3);
    let page = annotate::Page::open(&workshop);
    let fetch = [
        "data",
        "fetch",
        "--allow-private",
        "--urls",
        "urls.tsv",
        "--data",
        "data",
    ];
    std::fs::write(workshop.path("urls.tsv"), "red\thttp://127.0.0.1:9/1.png\n").expect("a list");
    let dedupe = ["data", "dedupe", "--no-features", "--data", "data"];
    for arguments in [&fetch[..], &dedupe, &["annotate", "--data", "data"]] {
        let said = say_within(60, &workshop.trainer(arguments)).ended_with(1);
        assert!(
            said.stderr.contains("another trainer is changing data") && said.stderr.contains("wait until"),
            "{arguments:?}: {said:?}"
        );
    }
    drop(page);
    say_within(60, &workshop.trainer(&dedupe)).ended_with(0);
}

#[test]
fn two_trainings_do_not_write_one_run() {
    let workshop = Workshop::new(12);
    let mut first = workshop.train_by("convolutional.onnx", "data", "run");
    first.args([
        "--classifier",
        "dnn",
        "--epochs",
        "10000",
        "--trained",
        "all",
        "--device",
        "cpu",
    ]);
    let mut first = Running::start(first.stdout(Stdio::null()).stderr(Stdio::null()));
    wait_until("the first to begin", || workshop.path("cache/features").exists());
    let second = say_within(60, &workshop.train("data", "run")).ended_with(1);
    assert!(second.stderr.contains("another trainer is writing run"), "{second:?}");
    assert_eq!(first.exit_code(), None, "the first was over before the second came");
    drop(first);
    // The right ends with the process, however that ended.
    say_within(60, &workshop.train("data", "run")).ended_with(0);
    check_run(&workshop);
}
