//! Which images a job is about: all of a folder, of a part of a bucket, or of a list.
//!
//! They are written to a file before anything is scored: so the length of a job is known, and its images do not have to
//! be kept in memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::files::{FileError, at};
use shared::store::{Location, S3Store};

use super::BatchError;
use super::list::{List, address, is_list};
use super::new_file::NewFile;
use crate::dataset::walk;

/// Where the images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// In a folder and those below it.
    Folder(PathBuf),
    /// Named by a list on this machine.
    List(PathBuf),
    /// Named by a list in a bucket.
    ListInBucket {
        /// The bucket.
        bucket: String,
        /// The list.
        key: String,
    },
    /// The objects of a bucket whose keys begin with a prefix.
    Prefix {
        /// The bucket.
        bucket: String,
        /// Any text, as S3 takes it.
        prefix: String,
    },
}

impl Input {
    /// Reads what a user gave: `s3://bucket/prefix`, the address of a list in a bucket, a folder or a list. Paths
    /// become absolute, so that they name the same images from whatever folder the job is taken up again.
    ///
    /// # Errors
    /// [`BatchError::Input`] where nothing is there, and [`BatchError::Store`].
    pub fn parse(text: &str) -> Result<Self, BatchError> {
        if let Some(address) = text.strip_prefix("s3://") {
            let (bucket, key) = address.split_once('/').unwrap_or((address, ""));
            Location::parse(&format!("s3://{bucket}"))?;
            let (bucket, key) = (bucket.to_owned(), key.to_owned());
            return Ok(if is_list(Path::new(&key)) {
                Self::ListInBucket { bucket, key }
            } else {
                Self::Prefix { bucket, prefix: key }
            });
        }
        let wrong = |reason: &str| BatchError::Input {
            input: text.to_owned(),
            reason: reason.to_owned(),
        };
        let path = std::path::absolute(text).map_err(|error| wrong(&error.to_string()))?;
        if path.is_dir() {
            Ok(Self::Folder(path))
        } else if !path.exists() {
            Err(wrong("there is no such folder or file"))
        } else if is_list(&path) {
            Ok(Self::List(path))
        } else {
            Err(wrong("it is no folder, and its ending is not that of a list"))
        }
    }

    /// As part of the name of a job: the same from whatever folder it is given.
    pub fn canonical(&self) -> String {
        match self {
            Self::Folder(path) | Self::List(path) => address(&path.canonicalize().unwrap_or_else(|_| path.clone())),
            Self::ListInBucket { bucket, key } => format!("s3://{bucket}/{key}"),
            Self::Prefix { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        }
    }

    /// Writes the images to `file`, a JSON string each, every one once; gives their number.
    ///
    /// # Errors
    /// See [`BatchError`]; [`BatchError::Empty`] where there is none.
    pub async fn list(&self, file: &Path) -> Result<u64, BatchError> {
        let mut items = Items::create(file)?;
        match self {
            Self::Folder(root) => walk(root, &mut |path| items.add(&address(path)))?,
            Self::List(path) => {
                let (name, folder) = (&path.display().to_string(), path.parent());
                List { name, folder }.read(path, |item| items.add(item))?;
            }
            Self::ListInBucket { bucket, key } => {
                let name = &format!("s3://{bucket}/{key}");
                let copy = copy_beside(file, key);
                let store = S3Store::connect(bucket, "").await?;
                if !store.download(key, &copy).await? {
                    return Err(BatchError::Input {
                        input: name.clone(),
                        reason: "there is no such object".to_owned(),
                    });
                }
                List { name, folder: None }.read(&copy, |item| items.add(item))?;
                std::fs::remove_file(&copy).map_err(at(&copy))?;
            }
            Self::Prefix { bucket, prefix } => {
                let store = S3Store::connect(bucket, "").await?;
                let mut after = None;
                loop {
                    let page = store.page(prefix, after).await?;
                    // Consoles make empty objects like these to show folders.
                    for key in page.keys.iter().filter(|key| !key.ends_with('/')) {
                        items.add(&format!("s3://{bucket}/{key}"))?;
                    }
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
        }
        if items.count == 0 {
            return Err(BatchError::Empty(self.canonical()));
        }
        items.finish()
    }
}

/// The images of a file that [`Input::list`] wrote, in their order. Where it breaks off or is damaged, an error stands.
pub fn items(file: &Path) -> Result<impl Iterator<Item = Result<String, FileError>> + use<>, FileError> {
    let (path, reader) = (file.to_path_buf(), BufReader::new(File::open(file).map_err(at(file))?));
    let damaged = |number| move |error: serde_json::Error| std::io::Error::other(format!("line {number}: {error}"));
    Ok(reader.lines().zip(1_u64..).map(move |(line, number)| {
        let item = line.and_then(|line| serde_json::from_str::<String>(&line).map_err(damaged(number)));
        item.map_err(at(&path))
    }))
}

/// Where a copy of the list `key` is kept while `file` is made of it: beside that, whatever the list's ending, so that
/// a copy is never taken for it.
fn copy_beside(file: &Path, key: &str) -> PathBuf {
    let ending = Path::new(key).extension().and_then(|ending| ending.to_str());
    file.with_extension(format!("list.{}", ending.unwrap_or_default()))
}

/// The file that grows, and what is in it.
struct Items {
    path: PathBuf,
    file: NewFile,
    seen: HashSet<[u8; 16]>,
    count: u64,
}

impl Items {
    fn create(path: &Path) -> Result<Self, BatchError> {
        Ok(Self {
            path: path.to_path_buf(),
            file: NewFile::create(path)?,
            seen: HashSet::new(),
            count: 0,
        })
    }

    fn add(&mut self, item: &str) -> Result<(), BatchError> {
        let hash = Sha256::digest(item.as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hash[..16]);
        if self.seen.insert(short) {
            self.count += 1;
            writeln!(self.file, "{}", Value::from(item)).map_err(at(&self.path))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<u64, BatchError> {
        self.file.finish()?;
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::list::ENDINGS;

    async fn listed(input: &str) -> Result<Vec<String>, BatchError> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("items");
        let count = Input::parse(input)?.list(&file).await?;
        let items: Vec<String> = items(&file)?.collect::<Result<_, _>>()?;
        assert_eq!(count, items.len() as u64);
        Ok(items)
    }

    #[tokio::test]
    async fn an_image_that_a_list_names_twice_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list.txt");
        std::fs::write(&list, "1.jpg\n2.jpg\n1.jpg\n").expect("written");
        let expected = ["1.jpg", "2.jpg"].map(|name| folder.path().join(name).display().to_string());
        assert_eq!(listed(&list.display().to_string()).await.expect("items"), expected);
    }

    #[tokio::test]
    async fn an_input_without_images_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().join("d.txt");
        std::fs::write(&empty, "\n").expect("written");
        for (input, part) in [
            (empty.display().to_string(), "no image"),
            ("/does/not/exist".to_owned(), "no such"),
        ] {
            let error = listed(&input).await.expect_err("nothing");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_folder_is_gone_through_in_order_and_without_what_systems_leave_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b/2.jpg", "b/1.jpg", "a.jpg", ".hidden/x.jpg", "b/.DS_Store", "c"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "x").expect("written");
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), folder.path().join("b/loop")).expect("a link");
        let expected = ["a.jpg", "b/1.jpg", "b/2.jpg", "c"].map(|name| folder.path().join(name).display().to_string());
        assert_eq!(
            listed(&folder.path().display().to_string()).await.expect("items"),
            expected
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_name_that_is_no_unicode_is_one_that_can_be_read() {
        use std::os::unix::ffi::OsStrExt;

        use shared::image::Limits;

        use crate::image_reader::ImageReader;

        let folder = tempfile::tempdir().expect("a folder");
        let name = std::ffi::OsStr::from_bytes(b"bad \xff%.jpg");
        std::fs::write(folder.path().join(name), "an image").expect("written");
        let items = listed(&folder.path().display().to_string()).await.expect("items");
        assert_eq!(items.len(), 1);
        assert!(
            items[0].starts_with("file:///") && items[0].ends_with("/bad%20%FF%25.jpg"),
            "{items:?}"
        );
        let reader = ImageReader::new(Limits::default(), false).expect("a reader");
        assert_eq!(&reader.read(&items[0]).await.expect("read")[..], b"an image");
    }

    #[test]
    fn the_copy_of_a_list_is_no_list_of_items() {
        let file = Path::new("job/items.jsonl");
        for ending in ENDINGS {
            let copy = copy_beside(file, &format!("in/some.{ending}"));
            assert!(copy != file && copy.parent() == file.parent(), "{copy:?}");
            assert_eq!(copy.extension().and_then(|ending| ending.to_str()), Some(ending));
        }
    }

    #[test]
    fn paths_are_kept_from_the_root() {
        match Input::parse(".").expect("the working folder") {
            Input::Folder(path) => assert_eq!(path, std::env::current_dir().expect("the working folder")),
            other => panic!("{other:?}"),
        }
        assert!(matches!(Input::parse(""), Err(BatchError::Input { .. })));
    }
}
