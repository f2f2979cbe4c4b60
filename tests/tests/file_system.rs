//! What file systems have that nobody expects: odd names, places that may not be read or written, full disks.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

use end_to_end::program::{Said, program, reason, run_by, say, say_within, skipped};
use end_to_end::workshop::{Workshop, picture};
use end_to_end::{colours, installed, shared_data, tell};

#[test]
fn odd_paths_are_read_or_listed_by_every_command() {
    use std::os::unix::ffi::OsStrExt;

    let Some(nasty) = shared_data("nasty") else { return };
    let workshop = Workshop::new(8);
    let data = workshop.path("data");
    let made = say(Command::new("bash")
        .arg(nasty.join("make_odd_paths.sh"))
        .arg(nasty.join("00_good_cat.jpg"))
        .arg(&data));
    made.ended_with(0);
    std::fs::create_dir(data.join(std::ffi::OsStr::from_bytes(b"class\xff"))).expect("a folder");
    std::os::unix::fs::symlink("..", data.join("nested/inner/around")).expect("a link");
    std::os::unix::fs::symlink(&data, data.join("nested/all")).expect("a link");
    // The names are what matters; the pictures must not be copies of each other, which would stay together.
    let mut number = 100;
    for folder in ["class a", "nested/inner"] {
        for entry in std::fs::read_dir(data.join(folder)).expect("a folder").flatten() {
            if entry.file_type().expect("a type").is_file() {
                picture(&entry.path(), 0, number);
                number += 1;
            }
        }
    }
    for number in 200..206 {
        picture(&data.join(format!("nested/{number}.png")), 1, number);
    }

    let expected = |list: &[(String, String)]| {
        for path in ["class a/broken_link.jpg", "class a/loop.jpg"] {
            assert!(!reason(list, path).is_empty());
        }
        assert!(reason(list, "class a/fifo.jpg").contains("not an ordinary file"));
        assert!(reason(list, "empty class").contains("empty class folder"));
        assert!(reason(list, "loose_in_root.jpg").contains("not in a class folder"));
        assert!(reason(list, "class\\xff").contains("Unicode"));
        assert!(reason(list, "nested/inner/around").contains("leads back into itself"));
        for path in ["class a/with space.jpg", "class a/new\nline.jpg", "nested/inner/x.jpg"] {
            assert!(list.iter().all(|(name, _)| name != path), "{path} is readable");
        }
    };
    let document = say_within(120, &workshop.train("data", "run")).ended_with(3).json();
    expected(&skipped(&document));
    assert_eq!(document["metrics"]["classes"].as_array().map(Vec::len), Some(5));
    for file in ["predictions.csv", "split.tsv", "report.html"] {
        assert!(workshop.path("run").join(file).is_file(), "{file}");
    }
    for command in [
        &["data", "split"][..],
        &["data", "audit", "--backbone", "colours.onnx"],
        &["data", "dedupe", "--no-features", "--dry-run"],
    ] {
        let arguments = [command, &["--quiet", "--json", "--data", "data"]].concat();
        let said = say_within(60, &workshop.trainer(&arguments)).ended_with(3);
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
        assert!(
            said.stderr.contains("broken_link.jpg"),
            "the list is what the exit code is for: {said:?}"
        );
    }
    // The split that was written is read again, odd names and all, its own among them.
    let split = workshop.path("run").join(std::ffi::OsStr::from_bytes(b"split\xff.tsv"));
    std::fs::copy(workshop.path("run/split.tsv"), &split).expect("a copy");
    let mut evaluate = workshop.trainer(&["evaluate", "--json", "--bundle", "run", "--data", "data"]);
    evaluate.args(["--out", "again", "--split"]).arg(&split);
    let again = say_within(60, &evaluate).ended_with(3).json();
    let parameters = std::fs::read_to_string(workshop.path("again/parameters.json")).expect("parameters");
    assert!(parameters.contains(r"split\\xff.tsv"), "{parameters}");
    assert_eq!(again["confusion"], document["metrics"]["confusion"]);
    assert_eq!(again["test_count"], document["metrics"]["test_count"]);
}

/// The command as run by a user who owns nothing here; `None` where this test cannot.
fn as_nobody(command: Command) -> Option<Command> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !root {
        return Some(command);
    }
    // Nothing is unreadable for root.
    let mut user = Command::new(installed("setpriv")?);
    user.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    Some(run_by(user, &command))
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };

    let workshop = Workshop::new(8);
    // Another user must reach the library and the folder, and write into the cache.
    std::fs::copy(colours::library(), workshop.path("libonnxruntime.so")).expect("a copy");
    std::fs::create_dir(workshop.path("cache")).expect("a folder");
    std::fs::create_dir(workshop.path("runs")).expect("a folder");
    mode(&workshop.path("."), 0o755);
    mode(&workshop.path("cache"), 0o777);
    mode(&workshop.path("runs"), 0o777);
    mode(&workshop.path("libonnxruntime.so"), 0o644);
    let as_other = |mut command: Command| {
        command.env("ORT_DYLIB_PATH", workshop.path("libonnxruntime.so"));
        as_nobody(command)
    };

    let secret = workshop.path("data/red/000.png");
    mode(&secret, 0);
    let Some(train) = as_other(workshop.train("data", "runs/one")) else {
        return;
    };
    let document = say_within(60, &train).ended_with(3).json();
    let list = skipped(&document);
    assert!(
        reason(&list, "red/000.png")
            .to_lowercase()
            .contains("permission denied"),
        "{list:?}"
    );
    assert_eq!(list.len(), 1);

    mode(&workshop.path("data/red"), 0);
    let train = as_other(workshop.train("data", "runs/two")).expect("as before");
    let document = say_within(60, &train).ended_with(3).json();
    let list = skipped(&document);
    assert!(
        reason(&list, "red").to_lowercase().contains("permission denied"),
        "{list:?}"
    );
    mode(&workshop.path("data/red"), 0o755);

    mode(&workshop.path("runs"), 0o555);
    let train = as_other(workshop.train("data", "runs/three")).expect("as before");
    let said = say_within(60, &train).ended_with(1);
    assert!(
        said.stderr.contains("runs") && said.stderr.to_lowercase().contains("permission denied"),
        "{said:?}"
    );

    // Commands that would change a data set say so where they may not; the others do not need to.
    mode(&workshop.path("data"), 0o555);
    let dedupe = ["data", "dedupe", "--no-features", "--data", "data"];
    let dedupe = as_other(workshop.trainer(&dedupe)).expect("as before");
    let said = say_within(60, &dedupe).ended_with(1);
    assert!(
        said.stderr.contains("data/.ikat") && said.stderr.to_lowercase().contains("permission denied"),
        "{said:?}"
    );
    let audit = [
        "data",
        "audit",
        "--json",
        "--data",
        "data",
        "--backbone",
        "colours.onnx",
    ];
    let audit = as_other(workshop.trainer(&audit)).expect("as before");
    say_within(60, &audit).ended_with(3);
    let publish = ["publish", "--bundle", "runs/one", "--to", "runs/store"];
    let publish = as_other(workshop.trainer(&publish)).expect("as before");
    let said = say_within(60, &publish).ended_with(1);
    assert!(
        said.stderr.contains("runs/store") && said.stderr.to_lowercase().contains("permission denied"),
        "{said:?}"
    );
    // Whoever runs this could not remove them else.
    for folder in ["data", "runs"] {
        mode(&workshop.path(folder), 0o755);
    }
}

/// A file system of a few hundred kilobytes that goes away with the test.
#[cfg(target_os = "linux")]
struct SmallDisk(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(path: std::path::PathBuf, kilobytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a folder");
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        tell("SKIPPED: mounting a small file system is not allowed here");
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes all the room that is left.
#[cfg(target_os = "linux")]
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    while file.write_all(&[0; 512]).is_ok() {}
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_nothing_is_half_there() {
    let workshop = Workshop::new(8);
    let full = |said: &Said, place: &str| {
        assert!(
            said.stderr.contains(place) && said.stderr.contains("No space left"),
            "{}",
            said.stderr
        );
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    };
    say_within(60, &workshop.train("data", "whole")).ended_with(0);
    let Some(disk) = SmallDisk::mount(workshop.path("disk"), 40) else {
        return;
    };
    let said = say_within(60, &workshop.train("data", "disk/run")).ended_with(1);
    full(&said, "disk");
    let left: Vec<_> = std::fs::read_dir(workshop.path("disk"))
        .expect("a folder")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");

    // A store that is full keeps what is live.
    fill(&workshop.path("disk/ballast"));
    let publish = ["publish", "--bundle", "whole", "--to", "disk/store", "--name", "model"];
    full(&say_within(60, &workshop.trainer(&publish)).ended_with(1), "disk/store");
    assert!(!workshop.path("disk/store/model/live.json").exists());
    std::fs::remove_file(workshop.path("disk/ballast")).expect("removed");

    // A cache that is full.
    let mut train = workshop.train("data", "run");
    fill(&workshop.path("disk/ballast"));
    full(
        &say_within(60, train.env("IKAT_CACHE", workshop.path("disk/cache"))).ended_with(1),
        "disk/cache",
    );
    assert!(!workshop.path("run").exists());
    std::fs::remove_file(workshop.path("disk/ballast")).expect("removed");

    // With room, everything goes on.
    drop(disk);
    say_within(60, &workshop.train("data", "disk/run")).ended_with(0);
    say_within(60, &workshop.trainer(&publish)).ended_with(0);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_printed_is_a_failure() {
    let workshop = Workshop::new(2);
    let mut command = Command::new("bash");
    let program = program("trainer").display().to_string();
    command.args([
        "-c",
        &format!("'{program}' data dedupe --no-features --dry-run --json --data data > /dev/full"),
    ]);
    command.current_dir(workshop.path("."));
    let said = say(&mut command).ended_with(1);
    assert!(said.stderr.contains("No space left"), "{said:?}");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

#[test]
fn a_run_fills_an_empty_folder_however_it_is_named() {
    let workshop = Workshop::new(8);
    for folder in ["here", "disk"] {
        std::fs::create_dir(workshop.path(folder)).expect("a folder");
    }
    std::os::unix::fs::symlink(workshop.path("disk"), workshop.path("link")).expect("a link");
    let text = |name: &str| workshop.path(name).display().to_string();
    let mut here = workshop.train_by(&text("colours.onnx"), &text("data"), ".");
    say_within(60, here.current_dir(workshop.path("here"))).ended_with(0);
    say_within(60, &workshop.train("data", "link")).ended_with(0);
    for folder in ["here", "disk"] {
        assert!(workshop.path(folder).join("run.json").is_file(), "{folder}");
    }
}
