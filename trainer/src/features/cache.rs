//! The feature cache: an append-only file of fixed-size records, one per image content.
//!
//! A record is found by the SHA-256 of the encoded image, so that renaming or moving an image costs
//! nothing; the file is named by everything else that the features depend on. A process that is
//! killed leaves at most one incomplete record at the end, which the next writer cuts off; several
//! processes may append at once, each under a lock. Records carry a checksum, and one that does not
//! match is computed anew.
//!
//! Networks come and go, a refined one with every training. Of their caches those used last are kept.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use shared::files::{at, sha256_hex};
use shared::image::REVISION;
use shared::network::NetworkError;
use shared::preprocessing::Preprocessing;

use super::FeatureError;
use crate::dataset::HASH_REVISION;
use crate::device::Device;
use crate::float_bytes::{from_bytes, to_bytes};
use crate::setup::{KEPT, keep_latest};
use crate::threads::lock;

const MAGIC: &[u8; 12] = b"ikat-feat-01";
const HEADER: u64 = 16;
const HASH: usize = 32;
const EXTENSION: &str = "features";

/// Everything besides the image that its features depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey(String);

impl CacheKey {
    /// The key for a network (by the hash of its ONNX file) and the way pixels are decoded and prepared for it.
    ///
    /// # Panics
    /// Never: preprocessing has a JSON form.
    pub fn new(network_sha256: &str, preprocessing: &Preprocessing) -> Self {
        let preprocessing = serde_json::to_string(preprocessing).expect("preprocessing has a JSON form");
        Self(
            sha256_hex(format!("{REVISION} {HASH_REVISION} {network_sha256} {preprocessing}").as_bytes())[..24]
                .to_owned(),
        )
    }

    /// The key for what is computed on `device`: CUDA cards round otherwise than a processor.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        if device.named_cards().is_empty() {
            self
        } else {
            Self(format!("{}-cuda", self.0))
        }
    }

    /// As text: hexadecimal digits, and where they are for, if not for the processor.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is kept of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// SHA-256 of the encoded image.
    pub image: [u8; HASH],
    /// Difference hash of the decoded pixels, 256 bits.
    pub dhash: [u8; HASH],
    /// The network's vector.
    pub features: Vec<f32>,
}

/// The records of one network and preprocessing.
pub struct FeatureCache {
    path: PathBuf,
    file: Mutex<File>,
    size: usize,
    /// Offset of the record of each image.
    offsets: HashMap<[u8; HASH], u64>,
}

impl FeatureCache {
    /// Opens the cache for `key` in `folder`, or makes it, for vectors of `size` features.
    ///
    /// # Errors
    /// [`FeatureError::File`], or [`FeatureError::Foreign`] where the file holds something else.
    pub fn open(folder: &Path, key: &CacheKey, size: usize) -> Result<Self, FeatureError> {
        let path = folder.join(format!("{}.{EXTENSION}", key.0));
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at(&path))?;
        if !begin(&mut file, size).map_err(at(&path))? {
            return Err(FeatureError::Foreign { path, size });
        }
        // Its time says when it was used last; a file that keeps its own is only removed early.
        let _ = file.set_modified(SystemTime::now());
        keep_latest(folder, KEPT, &is_cache);
        let offsets = index(&file, record_length(size)).map_err(at(&path))?;
        Ok(Self {
            file: Mutex::new(file),
            path,
            size,
            offsets,
        })
    }

    /// The record of an image that was in the cache when it was opened.
    ///
    /// # Errors
    /// [`FeatureError::File`]; a damaged record is `None`.
    pub fn get(&self, image: &[u8; HASH]) -> Result<Option<Record>, FeatureError> {
        let Some(offset) = self.offsets.get(image) else {
            return Ok(None);
        };
        let mut bytes = vec![0; record_length(self.size)];
        let mut file = lock(&self.file);
        file.seek(SeekFrom::Start(*offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(at(&self.path))?;
        Ok(decode(&bytes).filter(|record| record.image == *image))
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`FeatureError::File`], or [`FeatureError::Network`] where the vector has another length than the others.
    pub fn append(&self, record: &Record) -> Result<(), FeatureError> {
        if record.features.len() != self.size {
            let reason = format!(
                "it gave {} features of an image in place of {}",
                record.features.len(),
                self.size
            );
            return Err(NetworkError::Run(reason).into());
        }
        let mut file = lock(&self.file);
        Ok(append(&mut file, &encode(record)).map_err(at(&self.path))?)
    }
}

fn is_cache(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// Writes the header of a new file; false where the file is something else.
fn begin(file: &mut File, size: usize) -> io::Result<bool> {
    file.lock()?;
    let mut expected = MAGIC.to_vec();
    expected.extend(u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    let result = (|| {
        let length = file.metadata()?.len();
        if length < HEADER {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&expected)?;
            return Ok(true);
        }
        let mut header = [0; HEADER as usize];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut header)?;
        Ok(header[..] == expected[..])
    })();
    file.unlock()?;
    result
}

fn index(file: &File, length: usize) -> io::Result<HashMap<[u8; HASH], u64>> {
    let complete = (file.metadata()?.len() - HEADER) / length as u64;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(HEADER))?;
    let mut offsets = HashMap::new();
    for row in 0..complete {
        let mut hash = [0; HASH];
        reader.read_exact(&mut hash)?;
        reader.seek_relative((length - HASH) as i64)?;
        offsets.insert(hash, HEADER + row * length as u64);
    }
    Ok(offsets)
}

fn append(file: &mut File, record: &[u8]) -> io::Result<()> {
    file.lock()?;
    let result = (|| {
        let length = file.metadata()?.len();
        let end = length - (length - HEADER) % record.len() as u64;
        file.seek(SeekFrom::Start(end))?;
        file.write_all(record)
    })();
    file.unlock()?;
    result
}

/// Image hash, difference hash, features, checksum.
fn record_length(size: usize) -> usize {
    2 * HASH + 4 * size + 4
}

fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record_length(record.features.len()));
    bytes.extend(record.image);
    bytes.extend(record.dhash);
    bytes.extend(to_bytes(&record.features));
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let (contents, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(contents) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (image, rest) = contents.split_first_chunk::<HASH>()?;
    let (dhash, rest) = rest.split_first_chunk::<HASH>()?;
    Some(Record {
        image: *image,
        dhash: *dhash,
        features: from_bytes(rest),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key() -> CacheKey {
        CacheKey("k".to_owned())
    }

    fn record(number: u8) -> Record {
        Record {
            image: [number; HASH],
            dhash: [!number; HASH],
            features: vec![f32::from(number), -0.5, 1e-30],
        }
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let folder = tempfile::tempdir().expect("folder");
        let cache = FeatureCache::open(folder.path(), &key(), 3).expect("new");
        assert_eq!(cache.get(&[1; HASH]).expect("readable"), None);
        for number in 0..5 {
            cache.append(&record(number)).expect("appended");
        }
        let cache = FeatureCache::open(folder.path(), &key(), 3).expect("again");
        for number in 0..5 {
            assert_eq!(cache.get(&[number; HASH]).expect("readable"), Some(record(number)));
        }
    }

    #[test]
    fn a_record_cut_short_at_any_byte_is_dropped_and_written_again() {
        let folder = tempfile::tempdir().expect("folder");
        let cache = FeatureCache::open(folder.path(), &key(), 3).expect("new");
        cache.append(&record(1)).expect("appended");
        cache.append(&record(2)).expect("appended");
        let whole = std::fs::read(&cache.path).expect("readable");
        for cut in 1..=record_length(3) {
            std::fs::write(&cache.path, &whole[..whole.len() - cut]).expect("writable");
            let again = FeatureCache::open(folder.path(), &key(), 3).expect("opens");
            assert_eq!(again.get(&[1; HASH]).expect("readable"), Some(record(1)));
            assert_eq!(again.get(&[2; HASH]).expect("readable"), None);
            again.append(&record(2)).expect("appended");
            assert_eq!(std::fs::read(&cache.path).expect("readable"), whole);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().expect("folder");
        let cache = FeatureCache::open(folder.path(), &key(), 3).expect("new");
        cache.append(&record(1)).expect("appended");
        let mut bytes = std::fs::read(&cache.path).expect("readable");
        let last = bytes.len() - 6;
        bytes[last] ^= 4;
        std::fs::write(&cache.path, bytes).expect("writable");
        let again = FeatureCache::open(folder.path(), &key(), 3).expect("opens");
        assert_eq!(again.get(&[1; HASH]).expect("readable"), None);
    }

    #[test]
    fn a_vector_of_another_length_is_refused_and_harms_no_other() {
        let folder = tempfile::tempdir().expect("folder");
        let cache = FeatureCache::open(folder.path(), &key(), 3).expect("new");
        let mut long = record(1);
        long.features.push(0.0);
        let error = cache.append(&long).expect_err("too long").to_string();
        assert!(error.contains("4 features of an image in place of 3"), "{error}");
        cache.append(&record(2)).expect("appended");
        let again = FeatureCache::open(folder.path(), &key(), 3).expect("opens");
        assert_eq!(again.get(&[2; HASH]).expect("readable"), Some(record(2)));
    }

    #[test]
    fn opening_is_using() {
        let folder = tempfile::tempdir().expect("folder");
        let open = || FeatureCache::open(folder.path(), &key(), 3).expect("opens");
        let long_ago = SystemTime::now() - Duration::from_hours(72);
        let first = open();
        let file = first.file.lock().expect("a file");
        file.set_modified(long_ago).expect("its time");
        drop(open());
        keep_latest(folder.path(), 0, &is_cache);
        assert!(first.path.exists());
        file.set_modified(long_ago).expect("its time");
        keep_latest(folder.path(), 0, &is_cache);
        assert!(!first.path.exists());
    }

    #[test]
    fn a_cache_of_another_size_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        drop(FeatureCache::open(folder.path(), &key(), 3).expect("new"));
        assert!(matches!(
            FeatureCache::open(folder.path(), &key(), 4),
            Err(FeatureError::Foreign { .. })
        ));
    }
}
