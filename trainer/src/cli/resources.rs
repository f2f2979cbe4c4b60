//! Options about the machine: threads, limits, the runtime library.

use std::num::NonZero;
use std::path::Path;

use shared::bundle::MANIFEST;
use shared::files::{self, at};
use shared::image::Limits;
use shared::network::Runtime;

use super::Session;
use super::failure::Failure;
use super::values;
use crate::destination::{self, Claim, DestinationError};
use crate::device::Device;
use crate::runs::{self, RECORD};
use crate::setup::{self, Cache};
use crate::training::Workplace;

/// What a command may use of the machine. The heading of options before these is none of theirs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = None::<&str>)]
pub struct Resources {
    /// Images worked on at once [default: number of cores]
    #[arg(long, value_name = "N", value_parser = values::count::<NonZero<usize>>)]
    threads: Option<NonZero<usize>>,
    /// Largest image that is read, in megapixels
    #[arg(long, value_name = "MEGAPIXELS", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=2000))]
    max_megapixels: u64,
}

/// Checks that a file or folder can be made at `path`, or in a folder that is there, so that no work is done whose
/// result has no place; `hint` says what to do where it cannot. Nothing of the check stays.
pub fn writable(path: &Path, hint: &str) -> Result<(), Failure> {
    let place = std::path::absolute(path)?;
    let mut folders = place.ancestors().skip(usize::from(!place.is_dir()));
    let folder = folders.find(|ancestor| ancestor.exists()).unwrap_or(&place);
    tempfile::tempfile_in(folder).map_err(|error| Failure::hinted(&at(path)(error), hint))?;
    Ok(())
}

/// Refuses a file that is there already; another place is chosen with `option`.
pub fn check_new(path: &Path, option: &str) -> Result<(), Failure> {
    if path.exists() {
        let error = DestinationError::Exists(path.to_path_buf());
        return Err(Failure::hinted(&error, format!("choose another file with {option}")));
    }
    Ok(())
}

/// Writes what came out to the file at `path`, whose place is chosen with `option`.
pub fn save(path: &Path, bytes: &[u8], option: &str) -> Result<(), Failure> {
    files::write_atomically(path, bytes)
        .map_err(|error| Failure::hinted(&at(path)(error), format!("choose another place with {option}")))
}

/// Refuses a run or a bundle, to which nothing is ever added; another folder is chosen with `option`.
pub fn check_changeable(folder: &Path, option: &str) -> Result<(), Failure> {
    if folder.join(RECORD).exists() || folder.join(MANIFEST).exists() {
        return Err(Failure::usage(format!(
            "{} is a run or a bundle, which never changes: choose another folder with {option}",
            folder.display()
        )));
    }
    Ok(())
}

/// Refuses a folder for runs, copies or events within that of the images, `data`, unless that is a list; another folder
/// is chosen with `option`.
pub fn check_outside(folder: &Path, data: &Path, option: &str) -> Result<(), Failure> {
    if data.is_dir() && files::real_path(folder)?.starts_with(files::real_path(data)?) {
        return Err(Failure::usage(format!(
            "{} lies in the folder of the images: choose another folder with {option}",
            folder.display()
        )));
    }
    Ok(())
}

/// The right to write a run to `out`, where that folder was named and holds nothing.
pub fn claim(out: Option<&Path>, cache: &Cache) -> Result<Option<Claim>, Failure> {
    let Some(out) = out else {
        writable(&Path::new(runs::FOLDER).join("run"), "choose a folder with --out")?;
        return Ok(None);
    };
    claim_folder(out, cache, "choose another folder with --out, or none").map(Some)
}

/// The right to write to `folder`; `hint` says what to do where it holds something or cannot be written.
pub fn claim_folder(folder: &Path, cache: &Cache, hint: &str) -> Result<Claim, Failure> {
    writable(folder, hint)?;
    let claim = Claim::acquire(folder, &cache.root().join("locks"))?;
    destination::check_vacant(folder).map_err(|error| Failure::hinted(&error, hint))?;
    Ok(claim)
}

impl Resources {
    /// What an image may cost.
    pub fn limits(&self) -> Limits {
        let (default, max_pixels) = (Limits::default(), self.max_megapixels * 1_000_000);
        if max_pixels <= default.max_pixels {
            return Limits { max_pixels, ..default };
        }
        // Of the usual kind all are read: three bytes a pixel, and twice that to turn a picture upright.
        Limits {
            max_pixels,
            max_allocation: 6 * max_pixels,
            ..default
        }
    }

    /// The runtime library, obtained first where it is not there yet.
    pub fn runtime(cache: &Cache, session: &Session) -> Result<Runtime, Failure> {
        Self::runtime_for(&Device::Cpu, cache, session)
    }

    /// The runtime library for networks that run on `device`.
    pub fn runtime_for(device: &Device, cache: &Cache, session: &Session) -> Result<Runtime, Failure> {
        let obtain = if device.named_cards().is_empty() {
            setup::runtime_library
        } else {
            setup::cuda_runtime_library
        };
        let candidates = match std::env::var_os(shared::network::library::VARIABLE) {
            Some(named) if !named.is_empty() => Vec::new(),
            _ => vec![obtain(cache, &session.progress)?],
        };
        Ok(Runtime::load(&candidates)?)
    }

    /// Images worked on at once.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        self.threads.unwrap_or(cores).get()
    }

    /// The workplace of a training or an evaluation.
    pub fn workplace<'a>(&self, runtime: &'a Runtime, cache: &Cache, session: &'a Session) -> Workplace<'a> {
        Workplace {
            runtime,
            features: cache.root().join("features"),
            checkpoints: cache.root().join("refinements"),
            events: None,
            device: Device::Auto,
            threads: self.threads(),
            progress: &session.progress,
        }
    }
}
