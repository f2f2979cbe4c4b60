//! Which images a job is about: all of a folder, of a part of a bucket, or of a list.
//!
//! They are written to a file before anything is scored: so the length of a job is known, and its images do not have to
//! be kept in memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use image::ImageFormat;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::files::{FileError, at};
use shared::store::{Location, S3Store};

use super::BatchError;
use super::new_file::NewFile;
use crate::dataset::walk;

/// Endings of lists.
const LISTS: [&str; 4] = ["csv", "jsonl", "tsv", "txt"];
/// Columns or members that hold the place of an image, the first that there is.
const PLACES: [&str; 9] = [
    "item",
    "s3",
    "path",
    "file_name",
    "filename",
    "file",
    "url",
    "image",
    "key",
];
/// Longest line of a list, in bytes.
const MOST_BYTES: u64 = 1 << 20;

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
        let mut list = List::create(file)?;
        match self {
            Self::Folder(root) => walk(root, &mut |path| list.add(&address(path)))?,
            Self::List(path) => list.read(path, &path.display().to_string(), path.parent())?,
            Self::ListInBucket { bucket, key } => {
                let place = format!("s3://{bucket}/{key}");
                let copy = copy_beside(file, key);
                let store = S3Store::connect(bucket, "").await?;
                if !store.download(key, &copy).await? {
                    return Err(BatchError::Input {
                        input: place,
                        reason: "there is no such object".to_owned(),
                    });
                }
                list.read(&copy, &place, None)?;
                std::fs::remove_file(&copy).map_err(at(&copy))?;
            }
            Self::Prefix { bucket, prefix } => {
                let store = S3Store::connect(bucket, "").await?;
                let mut after = None;
                loop {
                    let page = store.page(prefix, after).await?;
                    // Consoles make empty objects like these to show folders.
                    for key in page.keys.iter().filter(|key| !key.ends_with('/')) {
                        list.add(&format!("s3://{bucket}/{key}"))?;
                    }
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
        }
        if list.count == 0 {
            return Err(BatchError::Empty(self.canonical()));
        }
        list.finish()
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

fn is_list(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    LISTS.iter().any(|list| ending.eq_ignore_ascii_case(list))
}

/// Where a copy of the list `key` is kept while `file` is made of it: beside that, whatever the list's ending, so that
/// a copy is never taken for it.
fn copy_beside(file: &Path, key: &str) -> PathBuf {
    let ending = Path::new(key).extension().and_then(|ending| ending.to_str());
    file.with_extension(format!("list.{}", ending.unwrap_or_default()))
}

/// The file that grows, and what is in it.
struct List {
    path: PathBuf,
    file: NewFile,
    seen: HashSet<[u8; 16]>,
    count: u64,
}

impl List {
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

    /// Adds what the list at `path`, called `name`, names; paths are relative to `folder`.
    fn read(&mut self, path: &Path, name: &str, folder: Option<&Path>) -> Result<(), BatchError> {
        let file = BufReader::new(File::open(path).map_err(at(path))?);
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "csv" => self.table(file, b',', name, folder),
            "tsv" => self.table(file, b'\t', name, folder),
            "jsonl" => self.lines(file, name, folder, json_place),
            _ => self.lines(file, name, folder, |line| Ok(line.to_owned())),
        }
    }

    fn lines(
        &mut self,
        mut file: impl BufRead,
        name: &str,
        folder: Option<&Path>,
        place: impl Fn(&str) -> Result<String, String>,
    ) -> Result<(), BatchError> {
        let mut bytes = Vec::new();
        for line in 1.. {
            let wrong = |reason: String| BatchError::List {
                list: name.to_owned(),
                line,
                reason,
            };
            bytes.clear();
            let read = std::io::Read::take(&mut file, MOST_BYTES).read_until(b'\n', &mut bytes);
            match read.map_err(|error| wrong(error.to_string()))? {
                0 => break,
                length if length as u64 == MOST_BYTES => return Err(wrong("the line is too long".to_owned())),
                _ => {}
            }
            let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
            let text = if line == 1 {
                text.trim_start_matches('\u{feff}')
            } else {
                text
            };
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() {
                let place = place(text).and_then(|place| resolved(&place, folder));
                self.add(&place.map_err(wrong)?)?;
            }
        }
        Ok(())
    }

    fn table(
        &mut self,
        mut file: impl BufRead,
        delimiter: u8,
        name: &str,
        folder: Option<&Path>,
    ) -> Result<(), BatchError> {
        let beginning = file.fill_buf().map_err(at(Path::new(name)))?;
        let by_semicolon = delimiter == b',' && is_parted_by_semicolons(beginning);
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if by_semicolon { b';' } else { delimiter })
            .has_headers(false)
            .flexible(true)
            .from_reader(file);
        let mut columns = None;
        let mut record = csv::StringRecord::new();
        loop {
            let wrong = |line: u64, reason: String| BatchError::List {
                list: name.to_owned(),
                line,
                reason,
            };
            let more = reader.read_record(&mut record).map_err(|error| {
                let line = error.position().map_or(0, csv::Position::line);
                wrong(line, error.to_string())
            })?;
            if !more {
                return Ok(());
            }
            let line = record.position().map_or(0, csv::Position::line);
            let columns = if let Some(columns) = &columns {
                columns
            } else {
                let (found, is_header) = Columns::of(&record);
                let found = columns.insert(found);
                if is_header {
                    continue;
                }
                found
            };
            let place = columns.place(&record).and_then(|place| resolved(&place, folder));
            self.add(&place.map_err(|reason| wrong(line, reason))?)?;
        }
    }
}

/// Whether a CSV begins with a header as spreadsheets write it where the comma parts the decimals of a number.
fn is_parted_by_semicolons(beginning: &[u8]) -> bool {
    let line = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let fields: Vec<&str> = line.trim_start_matches('\u{feff}').split(';').collect();
    fields.len() > 1 && !line.contains(',') && Columns::of(&fields.into()).1
}

/// Which columns of a table name an image.
enum Columns {
    /// One holds its place.
    Place(usize),
    /// One holds the bucket, another the key.
    Object(usize, usize),
    /// Without a header, the first holds its place. That of the first record is told where it may be a header.
    First(Option<String>),
    /// As in the manifests of S3 Batch Operations and S3 Inventory: bucket, then key in the encoding of addresses. The
    /// bucket is told where the first record may be a header: without one, the others name the same.
    Manifest(Option<String>),
}

impl Columns {
    /// Reads the first record: the columns, and whether it is a header.
    fn of(record: &csv::StringRecord) -> (Self, bool) {
        let find = |name: &str| record.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
        if let (Some(bucket), Some(key)) = (find("bucket"), find("key")) {
            return (Self::Object(bucket, key), true);
        }
        if let Some(place) = PLACES.iter().find_map(|name| find(name)) {
            return (Self::Place(place), true);
        }
        if record.len() > 1 && is_in_bucket(&record[0], &record[1]) {
            let may_be_header = !is_path(&record[1]);
            (Self::Manifest(may_be_header.then(|| record[0].to_owned())), false)
        } else {
            let first = record.get(0).filter(|first| !is_path(first));
            (Self::First(first.map(str::to_owned)), false)
        }
    }

    fn place(&self, record: &csv::StringRecord) -> Result<String, String> {
        let field = |column: usize| match record.get(column) {
            Some(field) if !field.is_empty() => Ok(field),
            _ => Err(format!("there is nothing in column {}", column + 1)),
        };
        match self {
            Self::Place(column) => Ok(field(*column)?.to_owned()),
            Self::Object(bucket, key) => Ok(format!("s3://{}/{}", field(*bucket)?, field(*key)?)),
            Self::First(first) => match first {
                Some(first) if is_path(field(0)?) => Err(headed("this is a path, unlike", first)),
                _ => Ok(field(0)?.to_owned()),
            },
            Self::Manifest(first) => {
                let bucket = field(0)?;
                if let Some(first) = first.as_deref().filter(|first| *first != bucket) {
                    return Err(headed(&format!("{bucket:?} is not the bucket of"), first));
                }
                let key = field(1)?.replace('+', " ");
                let key = percent_decode_str(&key).decode_utf8();
                Ok(format!("s3://{bucket}/{}", key.map_err(|error| error.to_string())?))
            }
        }
    }
}

/// What is `wrong` with the `first` line of a table, which may be a header, and what to do.
fn headed(wrong: &str, first: &str) -> String {
    let names = PLACES.join(", ");
    format!(
        "{wrong} the first line, {first:?}: if that is a header, call the column of images one of {names}, or two \
         columns bucket and key"
    )
}

/// Whether a text looks like a path or an address rather than like the name of a column.
fn is_path(text: &str) -> bool {
    text.contains(['/', '\\', '.'])
}

/// Whether a line without a header begins with a bucket and a key, and not with a file and its label. The names of both
/// may have a dot.
fn is_in_bucket(first: &str, second: &str) -> bool {
    let is_file = first.contains('.') && (ImageFormat::from_path(first).is_ok() || !is_path(second));
    !first.contains(['/', '\\']) && !is_file
}

/// A string, an object with the image's place, or one with bucket and key.
fn json_place(line: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let member = |name: &str| {
        let object = value.as_object()?;
        let found = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.as_str())
    };
    if let (Some(bucket), Some(key)) = (member("bucket"), member("key")) {
        return Ok(format!("s3://{bucket}/{key}"));
    }
    let place = PLACES.iter().find_map(|name| member(name));
    place.map(str::to_owned).ok_or_else(|| {
        format!(
            "it names no image: give one of {}, or bucket and key",
            PLACES.join(", ")
        )
    })
}

/// How a list names a file: by its path, or by its `file://` address where the path is no Unicode.
fn address(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => Url::from_file_path(path).map_or_else(|()| path.to_string_lossy().into_owned(), String::from),
    }
}

/// An address as it is; a path from the list's folder.
fn resolved(place: &str, folder: Option<&Path>) -> Result<String, String> {
    if place.contains("://") {
        return Ok(place.to_owned());
    }
    match folder {
        Some(folder) => Ok(address(&folder.join(place))),
        None => Err(format!("a list in a bucket names addresses; {place:?} is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn listed(input: &str) -> Result<Vec<String>, BatchError> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("items");
        let count = Input::parse(input)?.list(&file).await?;
        let items: Vec<String> = items(&file)?.collect::<Result<_, _>>()?;
        assert_eq!(count, items.len() as u64);
        Ok(items)
    }

    #[tokio::test]
    async fn a_list_is_read_in_any_of_its_forms() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = |name: &str| folder.path().join(name).display().to_string();
        for (name, text, expected) in [
            (
                "a.txt",
                "\u{feff}s3://b/1 2.jpg\r\n\n1.jpg\n1.jpg\n",
                vec!["s3://b/1 2.jpg".to_owned(), here("1.jpg")],
            ),
            (
                "b.csv",
                "item,code\n\"s3://b/1,2.jpg\",not_found\nx/1.jpg,\n",
                vec!["s3://b/1,2.jpg".to_owned(), here("x/1.jpg")],
            ),
            (
                "c.csv",
                "photos,in/a%20b+c%2B.jpg,version\n",
                vec!["s3://photos/in/a b c+.jpg".to_owned()],
            ),
            (
                "c2.csv",
                "\"my.photos\",\"in/a.jpg\"\n",
                vec!["s3://my.photos/in/a.jpg".to_owned()],
            ),
            (
                "c3.csv",
                "photos,0a1b\nphotos,in/a.jpg\n",
                vec!["s3://photos/0a1b".to_owned(), "s3://photos/in/a.jpg".to_owned()],
            ),
            (
                "c4.csv",
                "photos,a.jpg\nscans,b.jpg\n",
                vec!["s3://photos/a.jpg".to_owned(), "s3://scans/b.jpg".to_owned()],
            ),
            ("d.csv", "x/1.jpg\nx/2.jpg\n", vec![here("x/1.jpg"), here("x/2.jpg")]),
            ("d2.csv", "1.JPG,a/b.c\n2.JPG,d\n", vec![here("1.JPG"), here("2.JPG")]),
            ("d3.csv", "scan.0001,red\n", vec![here("scan.0001")]),
            (
                "e.tsv",
                "Bucket\tKey\nphotos\ta+b.jpg\n",
                vec!["s3://photos/a+b.jpg".to_owned()],
            ),
            ("e.csv", "\u{feff}Path;Label\r\n1, 2.jpg;x\r\n", vec![here("1, 2.jpg")]),
            ("f.csv", "1;2.jpg\n", vec![here("1;2.jpg")]),
            ("f2.csv", "0a1b\n2c3d\n", vec![here("0a1b"), here("2c3d")]),
            (
                "f.jsonl",
                "\"http://example.com/1\"\n{\"file_name\":\"2.jpg\",\"label\":\"x\"}\n{\"Bucket\":\"b\",\"Key\":\"k\"}\n",
                vec!["http://example.com/1".to_owned(), here("2.jpg"), "s3://b/k".to_owned()],
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            assert_eq!(
                listed(&path.display().to_string()).await.expect(name),
                expected,
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn a_line_that_names_nothing_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text, line) in [
            ("a.jsonl", "\"x\"\n{}\n", 2),
            ("b.jsonl", "nonsense\n", 1),
            ("c.csv", "bucket,key\nb,k\nb\n", 3),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            let error = listed(&path.display().to_string()).await.expect_err(name);
            assert!(error.to_string().contains(&format!("line {line}")), "{error}");
        }
        for text in [
            "photo,label\n1.jpg,red\n",
            "id,photo\n1,x/1.jpg\n",
            "label,photo\nred,1.jpg\n",
            "photo\n1.jpg\n",
            "photo;label\n1.jpg;red\n",
        ] {
            let path = folder.path().join("unknown.csv");
            std::fs::write(&path, text).expect("written");
            let error = listed(&path.display().to_string()).await.expect_err(text).to_string();
            assert!(
                error.contains("line 2") && error.contains("one of item, s3, path"),
                "{error}"
            );
        }
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
        for ending in LISTS {
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
