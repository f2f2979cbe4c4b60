//! The cache folder: files that were verified, appear whole, and are fetched by one program at a time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use shared::files::{LockedFile, at, hex, try_lock, user_cache};

use super::SetupError;
use crate::progress::{Progress, stage};

/// How the names of temporary folders begin.
const TEMPORARY: &str = ".ikat-setup-";
/// Bytes that the files of a kind that were used last may take together.
pub(crate) const KEPT: u64 = 8 << 30;
/// A file that was opened or written since may be in use.
const MAYBE_IN_USE: Duration = Duration::from_hours(24);
/// The time between two looks at whether another program has done.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// A folder for what was downloaded or computed; deleting it costs only time.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache folder, by the platform's convention.
    ///
    /// # Errors
    /// [`SetupError::NoHome`].
    pub fn locate() -> Result<Self, SetupError> {
        let root = user_cache().ok_or(SetupError::NoHome)?;
        Ok(Self { root })
    }

    /// A cache in a folder of one's own.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file `name` below the folder, if it has the hash, or else what `make` makes. `make` gets an empty
    /// temporary folder and gives the path of the file that it made there.
    pub(crate) fn file(
        &self,
        name: &Path,
        sha256: &str,
        progress: &dyn Progress,
        make: impl FnOnce(&Path) -> Result<PathBuf, SetupError>,
    ) -> Result<PathBuf, SetupError> {
        self.files(&[(name, sha256)], progress, |folder| Ok(vec![make(folder)?]))?;
        Ok(self.root.join(name))
    }

    /// As [`Self::file`] for several that are made together.
    pub(crate) fn files(
        &self,
        wanted: &[(&Path, &str)],
        progress: &dyn Progress,
        make: impl FnOnce(&Path) -> Result<Vec<PathBuf>, SetupError>,
    ) -> Result<(), SetupError> {
        let all_there = || -> Result<bool, SetupError> {
            for (name, sha256) in wanted {
                if !has_hash(&self.root.join(name), sha256)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if all_there()? {
            return Ok(());
        }
        fs::create_dir_all(&self.root).map_err(at(&self.root))?;
        let _lock = self.lock(progress)?;
        // Another program may have made them while this one waited.
        if all_there()? {
            return Ok(());
        }
        self.clear_leftovers();
        let folder = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&self.root)
            // The error itself names the temporary folder.
            .map_err(|error| at(&self.root)(error.kind().into()))?;
        let first = wanted
            .first()
            .map_or_else(|| self.root.clone(), |(name, _)| self.root.join(name));
        let made = make(folder.path()).map_err(|error| error.outside(folder.path(), &first))?;
        for ((name, sha256), made) in wanted.iter().zip(made) {
            let path = self.root.join(name);
            let found = hash(&made).map_err(at(&path))?;
            if found != *sha256 {
                return Err(SetupError::Hash {
                    name: name.display().to_string(),
                    found,
                    expected: (*sha256).to_owned(),
                });
            }
            let parent = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(parent).map_err(at(parent))?;
            File::open(&made).and_then(|file| file.sync_all()).map_err(at(&path))?;
            fs::rename(&made, &path).map_err(at(&path))?;
        }
        Ok(())
    }
}

impl Cache {
    /// The right to add files, until it is dropped. Another program may have it for minutes, while it obtains some.
    fn lock(&self, progress: &dyn Progress) -> Result<LockedFile, SetupError> {
        let path = self.root.join("setup.lock");
        let attempt = || try_lock(&path).map_err(at(&path));
        if let Some(lock) = attempt()? {
            return Ok(lock);
        }
        let _stage = stage(progress, "Waiting for another trainer that fills the same cache", None);
        loop {
            std::thread::sleep(BETWEEN_LOOKS);
            if let Some(lock) = attempt()? {
                return Ok(lock);
            }
        }
    }

    /// Removes the temporary folders of programs that were killed: whoever holds the lock is alone here.
    fn clear_leftovers(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                // What cannot be removed is only in the way of nobody.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Removes the files of a kind in `folder` that were used before those that take `most` bytes, but none that may be in
/// use. Whoever has one open all the same goes on with it, and what that adds is lost. One that cannot be removed
/// stays.
pub(crate) fn keep_latest(folder: &Path, most: u64, is_of_kind: &dyn Fn(&Path) -> bool) {
    let mut bytes = 0_u64;
    for (used, path, length) in oldest_first(folder, is_of_kind).iter().rev() {
        bytes = bytes.saturating_add(*length);
        if bytes > most && used.elapsed().is_ok_and(|age| age > MAYBE_IN_USE) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the files of a kind in `folder` but for so many that were changed last. One that cannot be removed is only a
/// file too many.
pub(crate) fn keep_newest(folder: &Path, most: usize, is_of_kind: &dyn Fn(&Path) -> bool) {
    let files = oldest_first(folder, is_of_kind);
    for (_, path, _) in &files[..files.len().saturating_sub(most)] {
        let _ = fs::remove_file(path);
    }
}

/// The files of a kind in `folder` with the times of their last change and their lengths.
fn oldest_first(folder: &Path, is_of_kind: &dyn Fn(&Path) -> bool) -> Vec<(SystemTime, PathBuf, u64)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_kind = entries.filter(|entry| is_of_kind(&entry.path()));
    let dated = of_kind.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some((metadata.modified().ok()?, entry.path(), metadata.len()))
    });
    let mut files: Vec<_> = dated.collect();
    files.sort_unstable();
    files
}

fn has_hash(path: &Path, sha256: &str) -> Result<bool, SetupError> {
    match hash(path) {
        Ok(found) => Ok(found == sha256),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(path)(error).into()),
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use shared::files::sha256_hex;

    use super::*;
    use crate::progress::Silent;

    /// Tells which stages begin.
    struct Stages(Sender<String>);

    impl Progress for Stages {
        fn begin(&self, stage: &str, _: Option<u64>) {
            self.0.send(stage.to_owned()).expect("a listener");
        }

        fn advance(&self, _: u64) {}
        fn end(&self) {}
        fn note(&self, _: &str) {}
    }

    #[test]
    fn who_waits_for_another_program_says_so() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(root.path());
        let (told, stages) = channel();
        let told = Stages(told);
        let make = |folder: &Path| {
            let path = folder.join("made");
            fs::write(&path, "made").map_err(at(&path))?;
            Ok(path)
        };
        std::thread::scope(|scope| {
            let other = cache.lock(&Silent).expect("free");
            let call = scope.spawn(|| cache.file(Path::new("file"), &sha256_hex(b"made"), &told, make));
            let stage = stages.recv_timeout(Duration::from_mins(1)).expect("it says so");
            assert!(stage.contains("another trainer"), "{stage}");
            drop(other);
            let file = call.join().expect("no panic").expect("made");
            assert!(file.is_file());
        });
    }

    #[test]
    fn the_files_used_last_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let used = |name: &str, days: u64| {
            fs::write(path(name), [0; 10]).expect("written");
            let file = File::options().write(true).open(path(name)).expect("a file");
            let age = Duration::from_hours(24 * days) + Duration::from_mins(1);
            file.set_modified(SystemTime::now() - age).expect("its time");
        };
        let names = ["today.kind", "recent.kind", "old.kind", "oldest.kind", "oldest.other"];
        for (name, days) in names.into_iter().zip([0, 2, 3, 4, 5]) {
            used(name, days);
        }
        let there = || names.map(|name| path(name).exists());
        let is_of_kind = |path: &Path| path.extension().is_some_and(|extension| extension == "kind");
        keep_latest(folder.path(), 30, &is_of_kind);
        assert_eq!(there(), [true, true, true, false, true]);
        keep_latest(folder.path(), 0, &is_of_kind);
        assert_eq!(there(), [true, false, false, false, true], "one may be in use");
    }

    #[test]
    fn an_error_names_what_was_wanted_and_no_temporary_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(root.path());
        let wanted = Path::new("runtime/library.so");
        let said = |make: &dyn Fn(&Path) -> Result<PathBuf, SetupError>| {
            let error = cache.file(wanted, "00", &Silent, make).expect_err("not made");
            let text = error.to_string();
            assert!(!text.contains(TEMPORARY), "{text}");
            text
        };
        let named = root.path().join(wanted).display().to_string();
        let full = said(&|folder: &Path| Err(at(&folder.join("unpacked"))(io::ErrorKind::StorageFull.into()).into()));
        assert!(full.starts_with(&named), "{full}");
        let missing = said(&|folder: &Path| Ok(folder.join("never-made")));
        assert!(missing.starts_with(&named), "{missing}");
        let hollow = said(&|folder: &Path| {
            Err(SetupError::Archive {
                path: folder.join("package.whl"),
                file: "library.so".to_owned(),
                reason: "it is not there".to_owned(),
            })
        });
        assert_eq!(hollow, "package.whl does not hold library.so: it is not there");
    }
}
