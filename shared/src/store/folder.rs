//! A store in a folder: for one machine, for tests, and for a bucket that something else synchronizes.
//!
//! Writes are atomic among threads and processes. What is only ever created ([`Condition::Absent`])
//! needs no lock, as the file system creates a name once; what changes is compared and replaced under
//! an advisory lock on a file beside it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Condition, Object, ObjectInfo, StoreError, off_the_executor};
use crate::files::{AtomicFile, UNFINISHED, at, sha256_hex, write_atomically};

/// How the names of lock files and unfinished files begin, which no key may use.
pub(super) const RESERVED: &str = UNFINISHED;

/// A folder whose files are the objects. The etag is the SHA-256 of the contents.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// The store in `root`, which is created by the first write.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the object of `key` lies. Keys are checked before they come here.
    pub(super) fn path(&self, key: &str) -> PathBuf {
        key.split('/').fold(self.root.clone(), |path, name| path.join(name))
    }

    pub(super) async fn get(&self, key: &str, limit: u64) -> Result<Option<Object>, StoreError> {
        let path = self.path(key);
        off_the_executor(move || {
            let Some(bytes) = read(&path, limit)? else {
                return Ok(None);
            };
            let sha256 = sha256_hex(&bytes);
            Ok(Some(Object {
                bytes: bytes.into(),
                etag: sha256.clone(),
                sha256,
            }))
        })
        .await
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let path = self.path(key);
        off_the_executor(move || match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(ObjectInfo {
                size: metadata.len(),
                modified: metadata.modified().ok(),
            })),
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(StoreError::File(at(&path)(error))),
        })
        .await
    }

    pub(super) async fn put(
        &self,
        key: &str,
        bytes: Bytes,
        condition: Option<Condition>,
    ) -> Result<String, StoreError> {
        let path = self.path(key);
        off_the_executor(move || {
            match condition {
                Some(Condition::Absent) => create(&path, &bytes)?,
                Some(Condition::Unchanged(etag)) => replace(&path, &bytes, Some(&etag))?,
                None => replace(&path, &bytes, None)?,
            }
            Ok(sha256_hex(&bytes))
        })
        .await
    }

    pub(super) async fn upload(&self, key: &str, from: &Path) -> Result<(), StoreError> {
        let path = self.path(key);
        let from = from.to_path_buf();
        off_the_executor(move || {
            let mut source = File::open(&from).map_err(at(&from))?;
            let mut file = AtomicFile::create(&path).map_err(at(&path))?;
            io::copy(&mut source, &mut file).map_err(at(&path))?;
            Ok(file.finish().map_err(at(&path))?)
        })
        .await
    }

    pub(super) async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path(prefix);
        off_the_executor(move || {
            let mut names = Vec::new();
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if is_absent(&error) => return Ok(names),
                Err(error) => return Err(StoreError::File(at(&path)(error))),
            };
            for entry in entries {
                let entry = entry.map_err(at(&path))?;
                if entry.path().is_dir() {
                    // A name that is not text is none that this store has written.
                    names.extend(entry.file_name().into_string().ok());
                }
            }
            names.sort();
            Ok(names)
        })
        .await
    }
}

/// Creates the file with all its contents, or finds that the name is taken.
fn create(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = AtomicFile::create(path).map_err(at(path))?;
    file.write_all(bytes).map_err(at(path))?;
    file.finish_new().map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => condition_failed(path),
        _ => StoreError::File(at(path)(error)),
    })
}

/// Replaces the file under its lock, where `etag` names its present contents.
fn replace(path: &Path, bytes: &[u8], etag: Option<&str>) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(at(folder))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lock_path = folder.join(format!("{RESERVED}{name}.lock"));
    // The file stays: removing it would let two writers hold the locks of two different files.
    let lock = File::options()
        .create(true)
        .append(true)
        .open(&lock_path)
        .map_err(at(&lock_path))?;
    lock.lock().map_err(at(&lock_path))?;
    if let Some(etag) = etag {
        let unchanged = read(path, u64::MAX)?.is_some_and(|present| sha256_hex(&present) == etag);
        if !unchanged {
            return Err(condition_failed(path));
        }
    }
    Ok(write_atomically(path, bytes).map_err(at(path))?)
}

/// The contents of the file, `None` where there is none.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(StoreError::File(at(path)(error))),
    };
    let metadata = file.metadata().map_err(at(path))?;
    if metadata.is_dir() {
        return Ok(None);
    }
    let too_large = |size: u64| StoreError::TooLarge {
        place: path.display().to_string(),
        size,
        limit,
    };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    // A file may grow while it is read.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(at(path))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

/// Nothing is there, or a file is where one of its folders would be.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn condition_failed(path: &Path) -> StoreError {
    StoreError::ConditionFailed {
        place: path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, FolderStore) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = FolderStore::new(folder.path().join("store"));
        (folder, store)
    }

    #[tokio::test]
    async fn what_is_put_is_got_and_reading_creates_nothing() {
        let (_guard, store) = folder();
        assert_eq!(store.get("a/b", 10).await.expect("readable"), None);
        assert!(store.folders("a").await.expect("listable").is_empty());
        assert!(!store.root().exists());
        let etag = store.put("a/b", Bytes::from("text"), None).await.expect("written");
        let object = store.get("a/b", 4).await.expect("readable").expect("there");
        assert_eq!((object.bytes.as_ref(), object.etag), (b"text".as_slice(), etag));
        assert_eq!(store.head("a/b").await.expect("readable").expect("there").size, 4);
        assert_eq!(store.head("a").await.expect("readable"), None);
        assert_eq!(store.get("a/b/c", 4).await.expect("readable"), None);
        store.put("a/c/d", Bytes::new(), None).await.expect("written");
        assert_eq!(store.folders("a").await.expect("listable"), ["c"]);
    }

    #[tokio::test]
    async fn a_file_over_the_limit_is_not_read() {
        let (_guard, store) = folder();
        store.put("a", Bytes::from("text"), None).await.expect("written");
        let error = store.get("a", 3).await.expect_err("too large");
        assert!(
            matches!(error, StoreError::TooLarge { size: 4, limit: 3, .. }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn conditions_hold() {
        let (_guard, store) = folder();
        let put = |text: &'static str, condition| store.put("a", Bytes::from(text), Some(condition));
        let refused = |result: Result<String, StoreError>| matches!(result, Err(StoreError::ConditionFailed { .. }));
        assert!(refused(put("0", Condition::Unchanged(sha256_hex(b"0"))).await));
        let first = put("1", Condition::Absent).await.expect("created");
        assert!(refused(put("2", Condition::Absent).await));
        put("3", Condition::Unchanged(first.clone())).await.expect("replaced");
        assert!(refused(put("4", Condition::Unchanged(first)).await));
        assert_eq!(store.get("a", 9).await.expect("readable").expect("there").bytes, "3");
    }

    #[test]
    fn of_racing_threads_one_wins_each_round() {
        let (_guard, store) = folder();
        let mut condition = Condition::Absent;
        for round in 0..20 {
            let barrier = std::sync::Barrier::new(8);
            let winners: Vec<String> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|thread| {
                        let (path, barrier, condition) = (store.path("n/live.json"), &barrier, &condition);
                        scope.spawn(move || {
                            let bytes = format!("{round}.{thread}");
                            barrier.wait();
                            match condition {
                                Condition::Absent => create(&path, bytes.as_bytes()),
                                Condition::Unchanged(etag) => replace(&path, bytes.as_bytes(), Some(etag)),
                            }
                            .map(|()| bytes)
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .filter_map(|thread| thread.join().expect("no panic").ok())
                    .collect()
            });
            assert_eq!(winners.len(), 1, "round {round}");
            let present = std::fs::read(store.path("n/live.json")).expect("readable");
            assert_eq!(present, winners[0].as_bytes());
            condition = Condition::Unchanged(sha256_hex(&present));
        }
        let left: Vec<_> = std::fs::read_dir(store.path("n"))
            .expect("listable")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "tmp"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
