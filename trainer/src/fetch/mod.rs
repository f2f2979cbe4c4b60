//! From a list of addresses to class folders: most addresses of an old list are dead, and that is no failure.
//!
//! Whatever a server sends is taken for an image only once it is decoded. Every image gets a line in the provenance
//! ledger of the data set before it appears, whole, under its final name; so a fetch that was killed goes on where it
//! was, and asks for nothing again that it has. A list from the web must not reach into the network that this runs
//! in: addresses that resolve to private ranges are refused unless they are allowed.

mod address;
mod ledger;
pub(crate) mod list;
mod transfer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use serde::{Deserialize, Serialize};
use shared::files::{self, FileError, at};
use shared::image::{Limits, decode, probe};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;

pub use ledger::{Credits, Ledger, LedgerError, Origin, Provenance};
pub use list::{Entry, parse};
pub use transfer::{Downloader, TransferError};

use crate::dataset::{DatasetError, FolderLock, check_folders, check_labels, read};
use crate::progress::{Progress, stage};
use crate::threads::lock;

/// Quality of images that are encoded again, of 100.
const QUALITY: u8 = 92;
/// A name that is there wherever names of the internet can be looked up at all (RFC 2606).
const KNOWN_NAME: &str = "example.org";

/// How images are fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Images whose longer side has more pixels are scaled down to it.
    pub max_side: u32,
    /// What an image may cost.
    pub limits: Limits,
    /// Addresses asked at once.
    pub jobs: usize,
    /// Addresses of one host asked at once.
    pub per_host: usize,
    /// Bounds one attempt, connection to last byte.
    pub timeout: Duration,
    /// How often an address is asked that did not answer properly, at least 1.
    pub attempts: u32,
    /// Whether addresses in private ranges are asked.
    pub allow_private: bool,
    /// Whether addresses are asked again that were found dead before.
    pub retry_dead: bool,
}

/// What became of a list.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Outcome {
    /// Number of images that are new.
    pub kept: usize,
    /// Number of addresses whose image was there already.
    pub known: usize,
    /// Addresses without an image that is kept, in the order of the list.
    pub left_out: Vec<LeftOut>,
    /// The provenance ledger.
    #[serde(serialize_with = "crate::dataset::as_text")]
    pub ledger: PathBuf,
}

/// An address without an image that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Line of the list, or place among what a search found, from 1.
    pub line: usize,
    /// The address, or the line where it holds none.
    pub url: String,
    /// What is the matter.
    pub kind: Kind,
    /// Why, for people to read.
    pub reason: String,
}

/// What is the matter with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The line is no label and address.
    Invalid,
    /// Nobody answers, or what was there is gone.
    Dead,
    /// What was sent is no readable image.
    Corrupt,
    /// What was sent has more bytes than are taken.
    TooLarge,
    /// The image belongs to another address or class.
    Duplicate,
    /// The address may not be asked.
    Refused,
}

/// Why a list could not be fetched at all.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The data set's folder, or labels that cannot name class folders in it.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The HTTP client.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// There is no network.
    #[error(
        "no name of the internet can be looked up, not even {}: connect this machine, and run the same command again, \
         which goes on where it was; addresses in a private network need --allow-private",
        KNOWN_NAME
    )]
    Offline,
    /// An image cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Fetches `entries` into the class folders of `data`; `left_out` is what of their list is none.
///
/// # Errors
/// See [`FetchError`]; an address at fault is listed in [`Outcome::left_out`].
pub async fn fetch(
    entries: &[Entry],
    left_out: &[LeftOut],
    data: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, FetchError> {
    check_folders(data)?;
    let _lock = FolderLock::acquire(data)?;
    check_labels(entries.iter().map(|entry| entry.label.as_str()), data)?;
    let ledger = Ledger::open(data)?;
    let downloader = Downloader::new(
        options.timeout,
        options.attempts,
        options.per_host,
        options.allow_private,
    )?;
    let present = present(&ledger, data, options.limits);
    let known_contents = ledger
        .images()
        .filter(|image| present.contains(&image.path))
        .map(|image| (image.source_sha256.clone(), image.path.clone()));
    let work = Work {
        data,
        options,
        downloader,
        jobs: Semaphore::new(options.jobs.max(1)),
        answered: AtomicBool::new(false),
        decoders: Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get)),
        contents: Mutex::new(known_contents.collect()),
        tally: Mutex::new(Tally::default()),
        progress,
    };
    let (mut outcome, pending) = work.sort_out(entries, &ledger, &present);
    let (work, ledger) = (&work, &Mutex::new(ledger));
    let _stage = stage(progress, "Fetching", Some(pending.len() as u64));
    // Only what is its host's turn waits for a job, so that a slow host does not hold up the others.
    let hosts = by_host(&pending).into_values().map(|entries| {
        stream::iter(entries)
            .map(move |entry| work.in_turn(entry, ledger))
            .buffer_unordered(options.per_host.max(1))
    });
    // What is wrong with this machine is wrong for every other address too: the first error ends it.
    let fetched: Vec<Option<LeftOut>> = stream::select_all(hosts).try_collect().await?;
    outcome.kept = fetched.iter().filter(|left_out| left_out.is_none()).count();
    outcome.left_out.extend(fetched.into_iter().flatten());
    outcome.left_out.extend_from_slice(left_out);
    outcome.left_out.sort_by_key(|left_out| left_out.line);
    Ok(outcome)
}

/// The entries of each host.
fn by_host<'e>(entries: &[&'e Entry]) -> BTreeMap<&'e str, Vec<&'e Entry>> {
    let mut hosts: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for &entry in entries {
        let host = entry.url.host_str().unwrap_or_default();
        hosts.entry(host).or_default().push(entry);
    }
    hosts
}

/// The images of the ledger that the data set has, by their path there: under that name, or moved to another within its
/// folder. Of a fetch that was killed, the ledger may know images that never came.
fn present(ledger: &Ledger, data: &Path, limits: Limits) -> HashSet<PathBuf> {
    let (here, elsewhere): (Vec<_>, Vec<_>) = ledger.images().partition(|image| data.join(&image.path).is_file());
    let mut present: HashSet<PathBuf> = here.into_iter().map(|image| image.path.clone()).collect();
    if !elsewhere.is_empty() {
        let contents = contents(data, &present, limits);
        let moved = elsewhere.into_iter().filter(|image| contents.contains(&image.sha256));
        present.extend(moved.map(|image| image.path.clone()));
    }
    present
}

/// The SHA-256 of every file below a folder that can be read and is no larger than an image may be, but for the `known`
/// ones, which may be very many.
fn contents(root: &Path, known: &HashSet<PathBuf>, limits: Limits) -> HashSet<String> {
    let is_known = |path: &Path| path.strip_prefix(root).is_ok_and(|path| known.contains(path));
    let mut found = HashSet::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                // What was only being written is nothing yet.
                Ok(kind) if kind.is_file() && !files::is_unfinished(&entry.file_name()) => {
                    let path = entry.path();
                    if !is_known(&path) {
                        found.extend(read(&path, limits).map(|bytes| files::sha256_hex(&bytes)));
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// What the addresses that are asked at once share.
struct Work<'a> {
    data: &'a Path,
    options: &'a Options,
    downloader: Downloader,
    /// Addresses that may be asked at once.
    jobs: Semaphore,
    /// Whether any of them has answered.
    answered: AtomicBool,
    /// As many as there are cores: pixels take many times the memory of the bytes that they are decoded from.
    decoders: Semaphore,
    /// Where each content is that was sent before.
    contents: Mutex<HashMap<String, PathBuf>>,
    tally: Mutex<Tally>,
    progress: &'a dyn Progress,
}

/// Counts for whoever watches.
#[derive(Default)]
struct Tally {
    kept: usize,
    left_out: BTreeMap<Kind, usize>,
}

/// An image ready to be written.
struct Picture {
    bytes: Vec<u8>,
    extension: &'static str,
    width: u32,
    height: u32,
}

impl Work<'_> {
    /// What the ledger, of whose images these are `present`, tells of `entries`, and which of them are to be asked.
    fn sort_out<'e>(
        &self,
        entries: &'e [Entry],
        ledger: &Ledger,
        present: &HashSet<PathBuf>,
    ) -> (Outcome, Vec<&'e Entry>) {
        let mut outcome = Outcome {
            ledger: ledger.path().to_path_buf(),
            ..Outcome::default()
        };
        let mut pending = Vec::new();
        for entry in entries {
            match ledger.of(&entry.url) {
                // What was moved since is where its owner wants it.
                Some(Origin::Image(image)) if image.label != entry.label && self.data.join(&image.path).is_file() => {
                    let reason = format!(
                        "it was fetched as {}: move it if the label has changed",
                        image.path.display()
                    );
                    outcome.left_out.push(entry.left_out(Kind::Duplicate, reason));
                }
                Some(Origin::Image(image)) if present.contains(&image.path) => outcome.known += 1,
                Some(Origin::LeftOut {
                    kind,
                    reason,
                    source_sha256,
                }) if !self.options.retry_dead && !kind.depends_on_options() && self.has(source_sha256.as_deref()) => {
                    outcome.left_out.push(entry.left_out(*kind, reason.clone()));
                }
                _ => pending.push(entry),
            }
        }
        (outcome, pending)
    }

    /// Whether the image is there that a copy with this content is one of, where that is known.
    fn has(&self, source_sha256: Option<&str>) -> bool {
        source_sha256.is_none_or(|content| lock(&self.contents).contains_key(content))
    }

    /// Fetches one address once there is a job for it. Until then it takes hardly any memory: there may be many hosts.
    async fn in_turn(&self, entry: &Entry, ledger: &Mutex<Ledger>) -> Result<Option<LeftOut>, FetchError> {
        let _job = self.jobs.acquire().await;
        Box::pin(self.one(entry, ledger)).await
    }

    /// Fetches one address; what it is left out for, if it is.
    async fn one(&self, entry: &Entry, ledger: &Mutex<Ledger>) -> Result<Option<LeftOut>, FetchError> {
        let found = self.keep(entry, ledger).await;
        let left_out = match found {
            Ok(()) => None,
            Err(Miss::Local(error)) => return Err(error),
            Err(Miss::Remote {
                kind,
                reason,
                for_good,
                source_sha256,
            }) => {
                if for_good {
                    let origin = Origin::LeftOut {
                        kind,
                        reason: reason.clone(),
                        source_sha256,
                    };
                    lock(ledger).append(&entry.url, &origin)?;
                }
                Some(entry.left_out(kind, reason))
            }
        };
        let mut tally = lock(&self.tally);
        match &left_out {
            None => tally.kept += 1,
            Some(left_out) => *tally.left_out.entry(left_out.kind).or_default() += 1,
        }
        self.progress.status(&tally.text());
        self.progress.advance(1);
        Ok(left_out)
    }

    async fn keep(&self, entry: &Entry, ledger: &Mutex<Ledger>) -> Result<(), Miss> {
        let most_bytes = self.options.limits.max_bytes;
        let got = self.downloader.get(&entry.url, most_bytes, Some(&self.jobs)).await;
        match &got {
            Err(TransferError::UnknownName(_)) => {
                if self.is_offline().await {
                    return Err(Miss::Local(FetchError::Offline));
                }
            }
            // What may not be asked was not.
            Err(TransferError::Unreachable(_) | TransferError::Private { .. }) => {}
            _ => self.answered.store(true, Ordering::Relaxed),
        }
        let body = got?;
        let source_sha256 = files::sha256_hex(&body);
        let refused = |kind, reason, source_sha256| Miss::Remote {
            kind,
            reason,
            for_good: true,
            source_sha256,
        };
        let picture = self.picture(body).await;
        let picture = picture.map_err(|reason| refused(Kind::Corrupt, reason, None))?;
        let path = Path::new(&entry.label).join(format!("{}.{}", entry.file_name(), picture.extension));
        // Whoever comes first has the content; the others are duplicates of it, also at the same moment.
        let mut contents = lock(&self.contents);
        let first = contents.entry(source_sha256.clone()).or_insert_with(|| path.clone());
        if *first != path {
            let reason = format!("the same file as {}", first.display());
            return Err(refused(Kind::Duplicate, reason, Some(source_sha256)));
        }
        drop(contents);
        let origin = Origin::Image(Provenance {
            label: entry.label.clone(),
            path: path.clone(),
            sha256: files::sha256_hex(&picture.bytes),
            source_sha256,
            width: picture.width,
            height: picture.height,
            time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            credits: entry.credits.clone(),
        });
        let path = self.data.join(path);
        lock(ledger)
            .append(&entry.url, &origin)
            .map_err(|error| Miss::Local(error.into()))?;
        // A data set without its ledger may have the image, perhaps as its owner has changed it.
        if path.is_file() {
            return Ok(());
        }
        files::write_atomically(&path, &picture.bytes).map_err(|error| Miss::Local(at(&path)(error).into()))
    }

    /// Whether nobody has answered and no name can be looked up.
    async fn is_offline(&self) -> bool {
        !self.answered.load(Ordering::Relaxed) && tokio::net::lookup_host((KNOWN_NAME, 0)).await.is_err()
    }

    /// What is kept of the bytes of an image, once it is its turn.
    async fn picture(&self, bytes: Vec<u8>) -> Result<Picture, String> {
        let _turn = self.decoders.acquire().await;
        let (limits, max_side) = (self.options.limits, self.options.max_side);
        tokio::task::spawn_blocking(move || picture(bytes, limits, max_side))
            .await
            .unwrap_or_else(|_| Err("its decoder failed".to_owned()))
    }
}

impl Tally {
    fn text(&self) -> String {
        let count = |kind: Kind| self.left_out.get(&kind).copied().unwrap_or(0);
        format!(
            "{} kept, {} dead, {} corrupt, {} duplicate, {} not taken",
            self.kept,
            count(Kind::Dead),
            count(Kind::Corrupt),
            count(Kind::Duplicate),
            count(Kind::TooLarge) + count(Kind::Refused)
        )
    }
}

impl Kind {
    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Dead => "dead",
            Self::Corrupt => "corrupt",
            Self::TooLarge => "too-large",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
        }
    }

    /// Whether another call's options may let the same address give an image.
    fn depends_on_options(self) -> bool {
        matches!(self, Self::TooLarge | Self::Refused)
    }
}

/// Why an address gave no image.
enum Miss {
    /// This machine is at fault: nothing else will succeed either.
    Local(FetchError),
    /// The address is.
    Remote {
        kind: Kind,
        reason: String,
        /// Whether asking again is in vain.
        for_good: bool,
        /// Of a copy, what was sent.
        source_sha256: Option<String>,
    },
}

impl From<TransferError> for Miss {
    fn from(error: TransferError) -> Self {
        let kind = match &error {
            TransferError::Private { .. } => Kind::Refused,
            TransferError::TooLarge { .. } => Kind::TooLarge,
            _ => Kind::Dead,
        };
        Self::Remote {
            kind,
            for_good: error.is_final() && !kind.depends_on_options(),
            reason: error.to_string(),
            source_sha256: None,
        }
    }
}

impl Entry {
    pub(crate) fn left_out(&self, kind: Kind, reason: String) -> LeftOut {
        LeftOut {
            line: self.line,
            url: self.url.to_string(),
            kind,
            reason,
        }
    }

    /// The file's name without its ending: what the address calls it, as far as that is a plain name, and digits that
    /// tell it from every other address.
    fn file_name(&self) -> String {
        let last = self
            .url
            .path_segments()
            .and_then(|mut segments| segments.next_back())
            .unwrap_or_default();
        let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
        let plain: String = stem
            .chars()
            .filter(|character| character.is_ascii_alphanumeric() || "-_".contains(*character))
            .take(40)
            .collect();
        let digits = &files::sha256_hex(self.url.as_str().as_bytes())[..10];
        if plain.is_empty() {
            digits.to_owned()
        } else {
            format!("{plain}-{digits}")
        }
    }
}

/// What is kept of the bytes of an image: themselves, or a smaller copy where it is too large.
fn picture(bytes: Vec<u8>, limits: Limits, max_side: u32) -> Result<Picture, String> {
    let (format, ..) = probe(&bytes, &limits).map_err(|error| error.to_string())?;
    let pixels = decode(&bytes, &limits).map_err(|error| error.to_string())?;
    let (width, height) = pixels.dimensions();
    if width.max(height) <= max_side {
        return Ok(Picture {
            bytes,
            extension: format.extension(),
            width,
            height,
        });
    }
    let small = image::DynamicImage::from(pixels).resize(max_side, max_side, FilterType::Lanczos3);
    let mut jpeg = std::io::Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode_image(&small)
        .map_err(|error| error.to_string())?;
    Ok(Picture {
        bytes: jpeg.into_inner(),
        extension: "jpg",
        width: small.width(),
        height: small.height(),
    })
}

#[cfg(test)]
mod tests;
