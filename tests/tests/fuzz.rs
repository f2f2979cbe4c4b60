//! The fuzz targets without a fuzzer: all that is committed in their corpora, and mutations of it.
//!
//! `IKAT_SEED` is the number that the mutations are drawn from. Each target is fed with the same few thousand, so that
//! a failure comes back; `IKAT_FUZZ_SECONDS` is how long to go on instead. `cargo xtask fuzz` is guided by coverage.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use end_to_end::dice::Dice;
use end_to_end::fuzz::TARGETS;
use end_to_end::{root, tell};

/// No input may take longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nor may all of them make the process larger than this, in kilobytes.
const MEMORY: u64 = 600 << 10;
const LONGEST: usize = 64 << 10;
/// Inputs for each target where no time is given.
const INPUTS: u64 = 20_000;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = root().join("tests/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

/// What is being looked at, for whoever watches: since when, by which target.
static CURRENT: Mutex<Option<(Instant, &str, Vec<u8>)>> = Mutex::new(None);

/// Ends the process, which a test cannot do otherwise, where an input is never done with.
fn watch() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let current = CURRENT.lock().expect("no panic");
        if let Some((_, name, input)) = current.as_ref().filter(|(start, ..)| start.elapsed() > 4 * PATIENCE) {
            keep(name, input);
            std::process::exit(101);
        }
    }
}

fn keep(name: &str, input: &[u8]) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.crash"));
    std::fs::write(&kept, input).expect("written");
    tell(&format!(
        "{name} panics, hangs or takes too long; its input is kept as {}",
        kept.display()
    ));
}

/// One to eight changes: bits, bytes, numbers at their ends, parts cut out, doubled, or taken from another input.
fn mutated(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    const ENDS: [u8; 7] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{'];
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(8) {
        let at = dice.below(bytes.len());
        let end = (at + 1 + dice.below(16)).min(bytes.len());
        match dice.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = ENDS[dice.below(ENDS.len())],
            2 if !bytes.is_empty() => bytes[at..end].fill(ENDS[dice.below(ENDS.len())]),
            3 if !bytes.is_empty() => drop(bytes.drain(at..end)),
            4 if !bytes.is_empty() => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            5 => bytes.truncate(at),
            _ => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len());
                let to = (from + 1 + dice.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// The most memory that this process has had in use.
#[cfg(target_os = "linux")]
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

#[cfg(not(target_os = "linux"))]
fn memory() -> u64 {
    0
}

#[test]
fn no_input_makes_a_target_panic_hang_or_swell() {
    std::thread::spawn(watch);
    let seconds = Duration::from_secs(number("IKAT_FUZZ_SECONDS", 0));
    let mut dice = Dice::of(number("IKAT_SEED", 1));
    for (name, target) in TARGETS {
        let seeds = corpus(name);
        let begun = Instant::now();
        let (mut inputs, mut longest) = (0, Duration::ZERO);
        let mut feed = |input: &[u8]| {
            let start = Instant::now();
            *CURRENT.lock().expect("no panic") = Some((start, name, input.to_vec()));
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
                keep(name, input);
                std::panic::resume_unwind(panic);
            }
            longest = longest.max(start.elapsed());
            assert!(
                longest < PATIENCE,
                "{name}: {longest:?} for {} bytes: {:02x?}",
                input.len(),
                &input[..input.len().min(64)]
            );
            inputs += 1;
        };
        for seed in &seeds {
            feed(seed);
        }
        let mut drawn = 0;
        while begun.elapsed() < seconds || (seconds.is_zero() && drawn < INPUTS) {
            feed(&mutated(&seeds, &mut dice));
            drawn += 1;
        }
        println!(
            "{name}: {inputs} inputs, the longest took {longest:?}; memory at most {} MB",
            memory() >> 10
        );
        assert!(memory() < MEMORY, "{name}: {} KB", memory());
    }
}
