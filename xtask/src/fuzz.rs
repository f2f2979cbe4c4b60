//! Fuzzing that is guided by coverage: `tests/src/bin/fuzz.rs` with every branch of every package counted.

use std::collections::HashSet;
use std::env;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{HELP, cargo, root, run};

/// What counts branches and compares, on the stable toolchain; `fuzzing` makes decoders forgive wrong checksums.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing";
/// Most bytes of an input that is committed, and most inputs that are added at once.
const SMALL: u64 = 1024;
const FEW: usize = 24;

/// What is asked for.
struct Wanted {
    seconds: u32,
    target: Option<String>,
    keep: bool,
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut wanted = Self {
            seconds: 60,
            target: None,
            keep: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // None at all would be for ever.
                "--seconds" => wanted.seconds = arguments.next()?.parse::<u32>().ok().filter(|seconds| *seconds > 0)?,
                "--target" => wanted.target = Some(arguments.next()?),
                "--keep" => wanted.keep = true,
                _ => return None,
            }
        }
        Some(wanted)
    }
}

/// Feeds each target for so long, as many at once as there are cores, from what is committed and what earlier runs left
/// in `target/corpus`. What makes one panic, hang or swell is left in `target/fuzz`, and is the end.
pub fn fuzz() -> Result<(), String> {
    let wanted = Wanted::read(env::args().skip(2)).ok_or(HELP)?;
    let mut targets = targets()?;
    if let Some(target) = &wanted.target {
        let known = targets.join(", ");
        targets.retain(|name| name == target);
        if targets.is_empty() {
            return Err(format!("there is no target {target}: the targets are {known}"));
        }
    }
    let program = build()?;
    let (program, wanted) = (program.as_path(), &wanted);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    for together in targets.chunks(cores) {
        std::thread::scope(|scope| -> Result<(), String> {
            let fed: Vec<_> = together
                .iter()
                .map(|target| scope.spawn(move || feed(program, target, wanted)))
                .collect();
            for target in fed {
                target.join().map_err(|_| "the feeding of a target panicked")??;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn feed(program: &Path, target: &str, wanted: &Wanted) -> Result<(), String> {
    let (committed, grown) = (root().join("tests/corpus").join(target), corpus(target)?);
    let fuzzer = || {
        let mut command = Command::new(program);
        command.env("IKAT_FUZZ_TARGET", target).current_dir(root());
        command
    };
    run(fuzzer()
        .arg(format!("-max_total_time={}", wanted.seconds))
        .arg(format!("-artifact_prefix=target/fuzz/{target}-"))
        .args(["-max_len=65536", "-timeout=10", "-rss_limit_mb=1024"])
        .args(["-verbosity=0", "-print_final_stats=1"])
        .args([&grown, &committed]))?;
    if wanted.keep {
        keep(&mut fuzzer(), &committed, &grown)?;
    }
    Ok(())
}

/// Copies to `committed` those small inputs of `grown` that reach the most of what nothing there reaches.
fn keep(fuzzer: &mut Command, committed: &Path, grown: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", grown.display());
    // What each input reaches is said in the notes of a merge, whose own result is of no use: it has thousands of
    // inputs.
    let (notes, merged) = (grown.with_extension("notes"), grown.with_extension("merged"));
    let _ = std::fs::remove_file(&notes);
    std::fs::create_dir_all(&merged).map_err(failed)?;
    run(fuzzer
        .args(["-set_cover_merge=1", "-use_counters=0", "-verbosity=0"])
        .arg(format!("-merge_control_file={}", notes.display()))
        .args([&merged, committed, grown]))?;
    std::fs::remove_dir_all(&merged).map_err(failed)?;
    let notes = std::fs::read_to_string(&notes).map_err(failed)?;
    let paths: Vec<&Path> = notes
        .lines()
        .filter(|line| line.starts_with('/'))
        .map(Path::new)
        .collect();
    let mut candidates = Vec::new();
    let mut reached: HashSet<&str> = HashSet::new();
    for line in notes.lines().filter_map(|line| line.strip_prefix("FT ")) {
        let mut features = line.split(' ');
        let number: Option<usize> = features.next().and_then(|number| number.parse().ok());
        let Some(path) = number.and_then(|number| paths.get(number)) else {
            return Err(format!("the notes of libFuzzer have another form: {line}"));
        };
        if path.starts_with(committed) {
            reached.extend(features);
        } else if std::fs::metadata(path).map_err(failed)?.len() <= SMALL {
            candidates.push((path, features.collect::<HashSet<&str>>()));
        }
    }
    for _ in 0..FEW {
        let gain = |features: &HashSet<&str>| features.difference(&reached).count();
        let best = candidates.iter().max_by_key(|(_, features)| gain(features));
        let Some((path, features)) = best.filter(|(_, features)| gain(features) > 0) else {
            break;
        };
        // A hash, of which a part is plenty.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        std::fs::copy(path, committed.join(name.chars().take(12).collect::<String>())).map_err(failed)?;
        reached.extend(features);
    }
    Ok(())
}

/// Every target has a corpus.
fn targets() -> Result<Vec<String>, String> {
    let folder = root().join("tests/corpus");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let entries = std::fs::read_dir(&folder).map_err(failed)?;
    let names = entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>, String>>()?;
    names.sort();
    Ok(names)
}

fn corpus(target: &str) -> Result<PathBuf, String> {
    let folder = root().join("target/corpus").join(target);
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// Apart from other builds, since every dependency is built anew: that takes ten minutes, once.
fn build() -> Result<PathBuf, String> {
    let host = host()?;
    run(cargo()
        .env("RUSTFLAGS", RUSTFLAGS)
        // For a target of its own, so that what runs while building counts nothing.
        .args([
            "build",
            "--workspace",
            "--profile",
            "fuzz",
            "--locked",
            "--target",
            &host,
        ])
        .args(["--features", "end-to-end/libfuzzer", "--bin", "fuzz"])
        .args([Path::new("--target-dir"), &root().join("target/fuzz")]))?;
    Ok(root().join("target/fuzz").join(host).join("fuzz/fuzz"))
}

fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| format!("rustc -vV did not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc does not name its host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Option<(u32, Option<String>, bool)> {
        let wanted = Wanted::read(arguments.iter().map(|argument| (*argument).to_owned()))?;
        Some((wanted.seconds, wanted.target, wanted.keep))
    }

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        assert_eq!(read(&[]), Some((60, None, false)));
        let all = ["--keep", "--target", "svm", "--seconds", "5"];
        assert_eq!(read(&all), Some((5, Some("svm".to_owned()), true)));
        for wrong in [
            &["--seconds"][..],
            &["--seconds", "0"],
            &["--seconds", "x"],
            &["svm"],
            &["--target"],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_targets_are_the_folders_of_the_corpus() {
        let targets = targets().expect("the corpus");
        assert!(targets.len() > 4 && targets.contains(&"svm".to_owned()), "{targets:?}");
    }
}
