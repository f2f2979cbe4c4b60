//! Small and middle-sized copies of images for a browser, the small ones kept.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use shared::files::{sha256_hex, write_atomically};
use shared::image::Limits;

use crate::dataset::read;
use crate::setup::keep_newest;
use crate::small_copy::{decoded, jpeg};

/// Longest side of a thumbnail, in pixels.
const SMALL: u32 = 224;
/// Longest side of a picture to look at closely, in pixels.
const LARGE: u32 = 1600;
const QUALITY: u8 = 80;
/// Thumbnails that one start leaves for the next at most: some hundreds of megabytes.
const MOST_KEPT: usize = 50_000;

/// Copies for a browser, always JPEG: what is sent is what was decoded here, never a file as it is.
#[derive(Debug, Clone)]
pub struct Thumbnails {
    folder: PathBuf,
    limits: Limits,
}

impl Thumbnails {
    /// Keeps the small ones in `folder`, where of earlier ones only the latest stay.
    pub fn new(folder: PathBuf, limits: Limits) -> Self {
        keep_newest(&folder, MOST_KEPT, &|_: &Path| true);
        Self { folder, limits }
    }

    /// The thumbnail of an image file.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub fn small(&self, path: &Path) -> Result<Vec<u8>, String> {
        let kept = self.folder.join(format!("{}.jpg", identity(path)?));
        if let Ok(jpeg) = fs::read(&kept) {
            return Ok(jpeg);
        }
        let jpeg = self.copy(path, SMALL)?;
        // A thumbnail that cannot be kept is made again.
        let _ = write_atomically(&kept, &jpeg);
        Ok(jpeg)
    }

    /// The image to look at closely.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub fn large(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.copy(path, LARGE)
    }

    fn copy(&self, path: &Path, side: u32) -> Result<Vec<u8>, String> {
        let bytes = read(path, self.limits).map_err(|error| error.to_string())?;
        let image = decoded(&bytes, &self.limits, side).map_err(|error| error.to_string())?;
        jpeg(&image, side, QUALITY).map_err(|error| error.to_string())
    }
}

/// Changes when the file does. Of the name alone nothing follows: another file may have it tomorrow.
fn identity(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let (length, number) = (metadata.len(), number(&metadata));
    let text = format!("{SMALL} {length} {modified:?} {number} {}", path.display());
    Ok(sha256_hex(text.as_bytes())[..32].to_owned())
}

/// Which file has the name now: those of an archive may have one time, and some formats one length.
#[cfg(unix)]
fn number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn another_picture_that_takes_a_name_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let thumbnails = Thumbnails::new(folder.path().join("kept"), Limits::default());
        let paths = ["1.bmp", "2.bmp"].map(|name| folder.path().join(name));
        for (path, value) in paths.iter().zip([10, 200]) {
            let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([value; 3]));
            picture.save(path).expect("saved");
            let file = fs::File::options().write(true).open(path).expect("a file");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).expect("a time");
        }
        let [dark, bright] = paths
            .each_ref()
            .map(|path| thumbnails.small(path).expect("a thumbnail"));
        assert_ne!(dark, bright);
        fs::rename(&paths[1], &paths[0]).expect("moved");
        assert_eq!(thumbnails.small(&paths[0]).expect("a thumbnail"), bright);
    }

    #[test]
    fn of_earlier_thumbnails_the_latest_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, seconds) in [("b", 3), ("c", 1), ("a", 2)] {
            let file = fs::File::create(folder.path().join(name)).expect("a file");
            let made = UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_modified(made).expect("a time");
        }
        let names = || -> Vec<String> {
            let entries = fs::read_dir(folder.path()).expect("a folder");
            let names = entries.map(|entry| entry.expect("an entry").file_name().display().to_string());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let keep = |folder: &Path, most| keep_newest(folder, most, &|_: &Path| true);
        keep(folder.path(), 3);
        assert_eq!(names(), ["a", "b", "c"]);
        keep(folder.path(), 2);
        assert_eq!(names(), ["a", "b"]);
        keep(&folder.path().join("none"), 0);
    }
}
