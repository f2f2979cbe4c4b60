//! Lists of images in the forms that people and programs write: a path or an address a line, tables, lines of JSON.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde_json::Value;
use shared::files::at;
use shared::image::Format;

use super::BatchError;

/// Endings of lists.
pub(super) const ENDINGS: [&str; 4] = ["csv", "jsonl", "tsv", "txt"];
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

/// A list of images.
pub(super) struct List<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// What its paths are relative to; `None` where it is in a bucket and names addresses alone.
    pub folder: Option<&'a Path>,
}

impl List<'_> {
    /// Gives what the list at `path` names to `take`, line by line.
    ///
    /// # Errors
    /// Those of `take`, [`BatchError::List`] and [`BatchError::File`].
    pub fn read(&self, path: &Path, take: impl FnMut(&str) -> Result<(), BatchError>) -> Result<(), BatchError> {
        let file = BufReader::new(File::open(path).map_err(at(path))?);
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "csv" => self.table(file, b',', take),
            "tsv" => self.table(file, b'\t', take),
            "jsonl" => self.lines(file, json_place, take),
            _ => self.lines(file, |line| Ok(line.to_owned()), take),
        }
    }

    fn lines(
        &self,
        mut file: impl BufRead,
        place: impl Fn(&str) -> Result<String, String>,
        mut take: impl FnMut(&str) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let mut bytes = Vec::new();
        for line in 1.. {
            let wrong = |reason: String| self.wrong(line, reason);
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
                let place = place(text).and_then(|place| resolved(&place, self.folder));
                take(&place.map_err(wrong)?)?;
            }
        }
        Ok(())
    }

    fn table(
        &self,
        mut file: impl BufRead,
        delimiter: u8,
        mut take: impl FnMut(&str) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let beginning = file.fill_buf().map_err(at(Path::new(self.name)))?;
        let by_semicolon = delimiter == b',' && is_parted_by_semicolons(beginning);
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if by_semicolon { b';' } else { delimiter })
            .has_headers(false)
            .flexible(true)
            .from_reader(file);
        let mut columns = None;
        let mut record = csv::StringRecord::new();
        loop {
            let more = reader.read_record(&mut record).map_err(|error| {
                let line = error.position().map_or(0, csv::Position::line);
                self.wrong(line, error.to_string())
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
            let place = columns.place(&record).and_then(|place| resolved(&place, self.folder));
            take(&place.map_err(|reason| self.wrong(line, reason))?)?;
        }
    }

    fn wrong(&self, line: u64, reason: String) -> BatchError {
        BatchError::List {
            list: self.name.to_owned(),
            line,
            reason,
        }
    }
}

/// Whether a file is a list, by its ending.
pub(super) fn is_list(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|list| ending.eq_ignore_ascii_case(list))
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
    let is_file = first.contains('.') && (Format::from_path(Path::new(first)).is_some() || !is_path(second));
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
pub(super) fn address(path: &Path) -> String {
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

    fn listed(path: &Path) -> Result<Vec<String>, BatchError> {
        let (name, folder) = (&path.display().to_string(), path.parent());
        let mut items = Vec::new();
        List { name, folder }.read(path, |item| {
            items.push(item.to_owned());
            Ok(())
        })?;
        Ok(items)
    }

    #[test]
    fn a_list_is_read_in_any_of_its_forms() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = |name: &str| folder.path().join(name).display().to_string();
        for (name, text, expected) in [
            (
                "a.txt",
                "\u{feff}s3://b/1 2.jpg\r\n\n1.jpg\n",
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
            assert_eq!(listed(&path).expect(name), expected, "{name}");
        }
    }

    #[test]
    fn a_line_that_names_nothing_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text, line) in [
            ("a.jsonl", "\"x\"\n{}\n", 2),
            ("b.jsonl", "nonsense\n", 1),
            ("c.csv", "bucket,key\nb,k\nb\n", 3),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            let error = listed(&path).expect_err(name);
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
            let error = listed(&path).expect_err(text).to_string();
            assert!(
                error.contains("line 2") && error.contains("one of item, s3, path"),
                "{error}"
            );
        }
    }
}
