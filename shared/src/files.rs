//! Files that appear whole or not at all, locks, the hash that names contents, and the error that names a file.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// How the names of files begin that are not finished.
pub const UNFINISHED: &str = ".ikat-";
/// How they end.
pub const TEMPORARY: &str = ".tmp";

/// What the file system said of a file or a folder.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct FileError {
    /// Which one.
    pub path: PathBuf,
    /// What it said.
    pub source: io::Error,
}

/// Names the file that an operation failed on.
pub fn at(path: &Path) -> impl Fn(io::Error) -> FileError + Copy {
    move |source| FileError {
        path: path.to_path_buf(),
        source,
    }
}

/// The SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The 32 bytes that 64 hexadecimal digits stand for: a SHA-256, or a key of that length.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(16 * digit(pair[0])? + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// A file that one program at a time has, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct LockedFile(File);

/// Opens the file at `path`, which is made with its folders where it is missing, and locks it; `None` where another
/// program has it.
///
/// # Errors
/// Whatever the file system answers.
pub fn try_lock(path: &Path) -> io::Result<Option<LockedFile>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(LockedFile(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Drop for LockedFile {
    /// A child process that another thread is starting has the file open too until it becomes its own program: closing
    /// alone would leave the lock to it.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

/// Where this user's programs keep what can be obtained again, in a folder of our own; `None` without a home folder.
pub fn user_cache() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(etcetera::BaseStrategy::cache_dir(&strategy).join("ikat"))
}

/// Writes `bytes` to a temporary file beside `path`, flushes it to disk and renames it to `path`,
/// creating parent folders as needed. A reader sees the old contents or the new, never a part.
///
/// # Errors
/// Whatever the file system answers; `path` is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// A file that is written piece by piece under a temporary name and gets its own when it is finished. Dropped before
/// that, nothing remains of it.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl AtomicFile {
    /// Begins the file that will be at `path`, creating parent folders as needed.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn create(path: &Path) -> io::Result<Self> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)?;
        let file = temporary(folder)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// Flushes the file to disk and gives it its name, replacing what had it.
    ///
    /// # Errors
    /// Whatever the file system answers; what had the name is then untouched.
    pub fn finish(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }

    /// As [`Self::finish`], but replaces nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where something has the name, or whatever the file system answers.
    pub(crate) fn finish_new(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

/// `path` without links, as much of it as there is.
///
/// # Errors
/// Where it is empty, or relative to a working folder that is gone.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    let place = std::path::absolute(path)?;
    let found = place.ancestors().find_map(|there| {
        let rest = place.strip_prefix(there).ok()?;
        Some(there.canonicalize().ok()?.join(rest))
    });
    Ok(found.unwrap_or(place))
}

/// Whether a file of this name is only being written, or was when its program was killed.
pub fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(UNFINISHED.as_bytes()) && name.ends_with(TEMPORARY.as_bytes())
}

/// A new file of a temporary name in `folder`, which is removed where it gets no other. It is an ordinary file, for
/// whom the umask leaves, and an error says nothing of its name, which nobody knows.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let open = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
    tempfile::Builder::new()
        .prefix(UNFINISHED)
        .suffix(TEMPORARY)
        .make_in(folder, open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one_of_abc() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn an_error_names_its_file_and_comes_from_the_system() {
        let error = at(Path::new("in/model.json"))(io::Error::other("disk full"));
        assert_eq!(error.to_string(), "in/model.json: disk full");
        let source = std::error::Error::source(&error).expect("a cause");
        assert_eq!(source.to_string(), "disk full");
    }

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("new/model.json");
        write_atomically(&path, b"one").expect("first write");
        write_atomically(&path, b"two").expect("second write");
        assert_eq!(std::fs::read(&path).expect("readable"), b"two");
        let names: Vec<_> = std::fs::read_dir(path.parent().expect("parent"))
            .expect("listable")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names, ["model.json"]);
    }

    #[test]
    fn an_unfinished_file_is_known_by_its_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = AtomicFile::create(&folder.path().join("model.json")).expect("begun");
        let mut entries = std::fs::read_dir(folder.path()).expect("listable");
        let entry = entries.next().expect("the file").expect("entry");
        assert!(is_unfinished(&entry.file_name()), "{entry:?}");
        drop(file);
        for name in ["model.json", "photo.tmp", ".ikat-live.json.lock"] {
            assert!(!is_unfinished(OsStr::new(name)), "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_error_says_nothing_of_the_temporary_name() {
        // Nobody may make a file there, whoever runs the tests.
        let error = write_atomically(Path::new("/proc/model.json"), b"one").expect_err("no place for files");
        assert!(error.raw_os_error().is_some(), "{error}");
        assert!(!error.to_string().contains(".ikat-"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_may_be_read_by_whom_the_umask_leaves() {
        use std::os::unix::fs::PermissionsExt;
        const AGAIN: &str = "IKAT_TEST_UMASK";
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ours, ordinary) = (folder.path().join("ours"), folder.path().join("ordinary"));
        write_atomically(&ours, b"one").expect("written");
        std::fs::write(&ordinary, b"one").expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode();
        assert_eq!(mode(&ours), mode(&ordinary));
        // The umask belongs to the process: once more in one that has another.
        if std::env::var_os(AGAIN).is_none() {
            let output = std::process::Command::new("sh")
                .args(["-c", "umask 027; exec \"$0\" \"$@\""])
                .arg(std::env::current_exe().expect("this test"))
                .args(["--exact", "files::tests::a_file_may_be_read_by_whom_the_umask_leaves"])
                .env(AGAIN, "1")
                .output()
                .expect("a shell");
            assert!(output.status.success(), "{output:?}");
        }
    }
}
