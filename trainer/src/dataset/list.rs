//! Data sets whose labels stand in a list beside the images: CSV, TSV, or `metadata.jsonl`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use shared::files::at;

use super::scan::holds_made;
use super::{Dataset, DatasetError, Item, Skipped};

/// Lists that a folder of images is read by without being told, as Hugging Face's `imagefolder` has them.
const NAMES: [&str; 2] = ["metadata.jsonl", "metadata.csv"];
/// Columns that hold the path, the first that there is.
const PATHS: [&str; 5] = ["path", "file_name", "filename", "file", "image"];
/// Columns that hold the label, the first that there is.
const LABELS: [&str; 3] = ["label", "class", "category"];
/// Largest list, in bytes.
const MOST_BYTES: u64 = 1 << 30;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// Columns `path` and `label`, parted by commas.
    Csv,
    /// Columns `path` and `label`, parted by tabs.
    Tsv,
    /// A JSON object with `file_name` and `label` per line.
    MetadataJsonl,
}

impl ListFormat {
    /// By the file's ending.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "jsonl" => Some(Self::MetadataJsonl),
            _ => None,
        }
    }

    fn delimiter(self) -> u8 {
        if self == Self::Tsv { b'\t' } else { b',' }
    }
}

/// The list that the data set at `path` is read by: `path` itself where it is a file, or the list in a folder that has
/// fewer than two class folders; those of runs and published models are none.
pub fn list_of(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_path_buf());
    }
    list_in(path, 2)
}

/// The list in a folder that has fewer than so many class folders.
pub(crate) fn list_in(folder: &Path, classes: usize) -> Option<PathBuf> {
    let list = NAMES.iter().map(|name| folder.join(name)).find(|list| list.is_file())?;
    let entries = fs::read_dir(folder).ok()?.flatten();
    let folders = entries.filter(|entry| {
        let path = entry.path();
        path.is_dir() && !entry.file_name().to_string_lossy().starts_with('.') && !holds_made(&path)
    });
    (folders.count() < classes).then_some(list)
}

/// Sees that the labels of the data set at `path` are class folders, as whoever changes these relies on.
///
/// # Errors
/// [`DatasetError::Listed`].
pub(crate) fn check_folders(path: &Path) -> Result<(), DatasetError> {
    list_of(path).map_or(Ok(()), |list| Err(DatasetError::Listed(list)))
}

/// Whether a file within a data set's folder is a list rather than a stray image.
pub(super) fn is_list(name: &Path) -> bool {
    ListFormat::of(name).is_some()
}

/// Reads the data set that a list names. Paths are relative to the list's folder and stay in it.
pub(super) fn read(list: &Path) -> Result<Dataset, DatasetError> {
    let wrong = |line: usize, reason: &str| DatasetError::SplitFile {
        path: list.to_path_buf(),
        line,
        reason: reason.to_owned(),
    };
    let format = ListFormat::of(list).ok_or_else(|| DatasetError::NoFolder(list.to_path_buf()))?;
    if fs::metadata(list).map_err(at(list))?.len() > MOST_BYTES {
        return Err(wrong(1, "the list is too large"));
    }
    let text = String::from_utf8(fs::read(list).map_err(at(list))?).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        wrong(line, "it is not UTF-8: save the list in that encoding")
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let rows = match format {
        ListFormat::MetadataJsonl => lines_of_json(text),
        ListFormat::Csv | ListFormat::Tsv => table(text, format.delimiter()),
    };
    let rows = rows.map_err(|(line, reason)| wrong(line, &reason))?;
    let root = match list.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let first = rows.first().map(|row| row.line);
    let dataset = dataset(root, rows);
    if dataset.classes.is_empty() {
        return Err(match (first, dataset.skipped.first()) {
            (Some(line), Some(Skipped { path, reason })) => {
                let named = if path.as_os_str().is_empty() {
                    String::new()
                } else {
                    format!("{}: ", path.display())
                };
                wrong(line, &format!("{named}{reason}, and no other line names an image"))
            }
            _ => wrong(1, "it names no image"),
        });
    }
    dataset.check_case()?;
    Ok(dataset)
}

/// What a line says.
struct Row {
    /// Which one, from 1.
    line: usize,
    path: String,
    label: String,
}
/// Line and what is wrong with it.
type Wrong = (usize, String);

fn lines_of_json(text: &str) -> Result<Vec<Row>, Wrong> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let wrong = |reason: String| (number + 1, reason);
            let object: Value = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            let field = |names: &[&str]| {
                names.iter().find_map(|name| match &object[*name] {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                })
            };
            let path = field(&PATHS).ok_or_else(|| wrong("it has no file_name".to_owned()))?;
            let label = field(&LABELS).ok_or_else(|| wrong("it has no label".to_owned()))?;
            let line = number + 1;
            Ok(Row { line, path, label })
        })
        .collect()
}

fn table(text: &str, delimiter: u8) -> Result<Vec<Row>, Wrong> {
    let first = text
        .split(['\n', '\r'])
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    // As spreadsheets write a CSV where the comma parts the decimals of a number.
    let by_semicolon = delimiter == b',' && first.contains(';') && !first.contains(',');
    let delimiter = if by_semicolon { b';' } else { delimiter };
    let mut lines = Lines { text, line: 1, byte: 0 };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| (1, error.to_string()))?.clone();
    let column = |names: &[&str]| {
        let index = names.iter().find_map(|name| {
            header
                .iter()
                .position(|column| column.trim().eq_ignore_ascii_case(name))
        });
        index.ok_or_else(|| (1, format!("no column is named {}", names.join(", "))))
    };
    let (path, label) = (column(&PATHS)?, column(&LABELS)?);
    reader
        .records()
        .map(|record| {
            let record = record.map_err(|error| {
                let reason = match error.kind() {
                    csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                        format!("the number of its columns is {len}, and that of the header {expected_len}")
                    }
                    _ => error.to_string(),
                };
                (lines.at(error.position()), reason)
            })?;
            Ok(Row {
                line: lines.at(record.position()),
                path: record[path].to_owned(),
                label: record[label].to_owned(),
            })
        })
        .collect()
}

/// Counts lines as editors do.
struct Lines<'a> {
    text: &'a str,
    /// The line, from 1, in which `byte` is.
    line: usize,
    byte: usize,
}

impl Lines<'_> {
    /// The line of the row at `position`, which may be the end of the line before it.
    fn at(&mut self, position: Option<&csv::Position>) -> usize {
        let bytes = self.text.as_bytes();
        let start = position.map_or(self.byte, |position| position.byte() as usize);
        let rest = bytes.get(start..).unwrap_or_default();
        let start = start + rest.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let passed = bytes.get(self.byte..start).unwrap_or_default();
        self.line += passed.split(|byte| *byte == b'\n').count() - 1;
        self.byte = start;
        self.line
    }
}

/// The path without the `./` that programs like `find` begin it with.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn dataset(root: PathBuf, rows: Vec<Row>) -> Dataset {
    let mut skipped = Vec::new();
    let mut seen = HashSet::new();
    let mut of_class: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for Row { path: text, label, .. } in rows {
        let path = plain(Path::new(&text));
        // Spaces around a label are slips, and would make another class of it.
        let label = label.trim();
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        let reason = if path.as_os_str().is_empty() {
            "it has no path"
        } else if !inside {
            "it must lead down from the list's folder, neither absolute nor with .."
        } else if label.is_empty() {
            "it has no label"
        } else if label.contains(['\n', '\r']) {
            "its label has several lines, as behind a quote that nothing closes"
        } else if text.contains('\\') && fs::symlink_metadata(root.join(&path)).is_err() {
            "there is no such file: folders are parted by / in a list"
        } else if fs::metadata(root.join(&path)).is_ok_and(|found| !found.is_file()) {
            // Opening a pipe would wait for whoever writes to it.
            "not an ordinary file"
        } else if !seen.insert(path.clone()) {
            "it is listed twice; the first label counts"
        } else {
            of_class.entry(label.to_owned()).or_default().push(path);
            continue;
        };
        skipped.push(Skipped {
            path,
            reason: reason.to_owned(),
        });
    }
    let classes: Vec<String> = of_class.keys().cloned().collect();
    let mut items: Vec<Item> = of_class
        .into_values()
        .enumerate()
        .flat_map(|(class, paths)| paths.into_iter().map(move |path| Item { path, class }))
        .collect();
    items.sort_by(|a, b| a.path.cmp(&b.path));
    Dataset {
        root,
        classes,
        items,
        skipped,
    }
}

impl Dataset {
    /// The data set as a list whose paths begin with `below`. Paths that are no Unicode cannot stand in one; they are
    /// given beside it.
    pub fn to_list(&self, format: ListFormat, below: &Path) -> (Vec<u8>, Vec<Skipped>) {
        let mut skipped = Vec::new();
        let mut rows: Vec<(String, &str)> = Vec::new();
        for item in &self.items {
            match below.join(&item.path).to_str() {
                Some(path) => rows.push((path.to_owned(), &self.classes[item.class])),
                None => skipped.push(Skipped {
                    path: item.path.clone(),
                    reason: "its name is no Unicode, and a list is".to_owned(),
                }),
            }
        }
        let list = match format {
            ListFormat::MetadataJsonl => {
                let line = |(path, label): (String, &str)| {
                    format!("{}\n", serde_json::json!({ "file_name": path, "label": label }))
                };
                rows.into_iter().map(line).collect::<Vec<_>>().concat().into_bytes()
            }
            ListFormat::Csv | ListFormat::Tsv => {
                let mut writer = csv::WriterBuilder::new()
                    .delimiter(format.delimiter())
                    .from_writer(Vec::new());
                // Writing to memory does not fail.
                let _ = writer.write_record(["path", "label"]);
                for (path, label) in rows {
                    let _ = writer.write_record([path.as_str(), label]);
                }
                writer.into_inner().unwrap_or_default()
            }
        };
        (list, skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn found(dataset: &Dataset) -> Vec<(String, &str)> {
        let item = |item: &Item| (item.path.display().to_string(), dataset.classes[item.class].as_str());
        dataset.items.iter().map(item).collect()
    }

    #[test]
    fn the_three_forms_say_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let csv = "\u{feff}id,Path,Label\n1,\"in/a, b.jpg\",dotted\n2,x.jpg,striped\n";
        let tsv = "label\tfilename\ndotted\t./in/a, b.jpg\nstriped\tx.jpg\n";
        let jsonl = "\u{feff}{\"file_name\":\"x.jpg\",\"label\":\"striped\",\"width\":3}\n\n{\"file_name\":\"in/a, b.jpg\",\"label\":\"dotted\"}\n";
        for (name, text) in [("a.csv", csv), ("b.TSV", tsv), ("metadata.jsonl", jsonl)] {
            let dataset = Dataset::scan(&write(folder.path(), name, text)).expect("a data set");
            assert_eq!(dataset.root, folder.path());
            assert_eq!(
                found(&dataset),
                [("in/a, b.jpg".to_owned(), "dotted"), ("x.jpg".to_owned(), "striped")],
                "{name}"
            );
        }
        // The folder is read by its metadata.jsonl, as long as it has no class folders.
        assert_eq!(Dataset::scan(folder.path()).expect("a data set").items.len(), 2);
        for class in ["a", "b"] {
            fs::create_dir(folder.path().join(class)).expect("a folder");
            write(&folder.path().join(class), "1.jpg", "");
        }
        let folders = Dataset::scan(folder.path()).expect("a data set");
        assert_eq!(
            (&folders.classes[..], &folders.skipped[..]),
            (&["a".to_owned(), "b".to_owned()][..], &[][..])
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = [("a/1,\"2\".jpg", "polka, dots"), ("b/\u{1f600}\nx.jpg", "<b>")];
        let before = dataset(
            folder.path().to_path_buf(),
            rows.map(|(path, label)| Row {
                line: 1,
                path: path.to_owned(),
                label: label.to_owned(),
            })
            .into(),
        );
        for (name, format) in [
            ("a.csv", ListFormat::Csv),
            ("a.tsv", ListFormat::Tsv),
            ("a.jsonl", ListFormat::MetadataJsonl),
        ] {
            let (list, skipped) = before.to_list(format, Path::new(""));
            assert!(skipped.is_empty());
            let path = folder.path().join(name);
            fs::write(&path, list).expect("written");
            assert_eq!(Dataset::scan(&path).expect("a data set"), before, "{name}");
        }
    }

    #[test]
    fn spaces_around_names_and_labels_make_no_other_class() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "path, label\n1.jpg, dotted\n2.jpg,dotted \n3.jpg,polka dots\n";
        let dataset = Dataset::scan(&write(folder.path(), "a.csv", text)).expect("a data set");
        assert_eq!(dataset.classes, ["dotted", "polka dots"]);
    }

    #[test]
    fn a_list_in_another_encoding_is_told_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("a.csv");
        for (bytes, line) in [
            (&b"path,label\n1.jpg,hat\n2.jpg,Gr\xf6\xdfe\n"[..], 3),
            (&b"\xff\xfep\0a\0t\0h\0"[..], 1),
        ] {
            fs::write(&list, bytes).expect("written");
            let error = Dataset::scan(&list).expect_err("no UTF-8").to_string();
            assert!(error.contains(&format!("line {line}: it is not UTF-8")), "{error}");
        }
    }

    #[test]
    fn semicolons_part_columns_where_no_comma_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let dataset = |text: &str| Dataset::scan(&write(folder.path(), "a.csv", text));
        for text in [
            "path;label\na, b.jpg;dotted\n",
            "\npath;label\na, b.jpg;dotted\n",
            "path;label\ra, b.jpg;dotted\r",
        ] {
            let read = dataset(text).expect("a data set");
            assert_eq!(found(&read), [("a, b.jpg".to_owned(), "dotted")], "{text:?}");
        }
        let read = dataset("path,label;1,label\nx.jpg,no,dotted\n").expect("a data set");
        assert_eq!(found(&read), [("x.jpg".to_owned(), "dotted")]);
    }

    #[test]
    fn a_quote_that_nothing_closes_takes_no_images_away_unsaid() {
        let folder = tempfile::tempdir().expect("a folder");
        let csv = "path,label\n1.jpg,hat\n2.jpg,\"hat\n3.jpg,dress\n4.jpg,dress\n";
        for (name, text) in [("a.csv", csv.to_owned()), ("a.tsv", csv.replace(',', "\t"))] {
            let dataset = Dataset::scan(&write(folder.path(), name, &text)).expect("a data set");
            assert_eq!(found(&dataset), [("1.jpg".to_owned(), "hat")]);
            let [left_out] = &dataset.skipped[..] else {
                panic!("{dataset:?}")
            };
            assert!(
                left_out.path == Path::new("2.jpg") && left_out.reason.contains("quote"),
                "{left_out:?}"
            );
        }
    }

    #[test]
    fn a_list_without_an_image_says_why_and_in_which_line() {
        let folder = tempfile::tempdir().expect("a folder");
        for (text, expected) in [
            (
                "path,label\n/etc/passwd,hat\n",
                "line 2: /etc/passwd: it must lead down",
            ),
            (
                "path,label\r\n\r\n../1.jpg,hat\r\n",
                "line 3: ../1.jpg: it must lead down",
            ),
            ("path,label\r\n,hat\r\n", "line 2: it has no path"),
            (
                "path,label\r\n1.jpg,hat\r\n2.jpg\r\n",
                "line 3: the number of its columns is 1",
            ),
            ("path,label\n", "line 1: it names no image"),
        ] {
            let error = Dataset::scan(&write(folder.path(), "a.csv", text)).expect_err("no image");
            assert!(error.to_string().contains(expected), "{text:?}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn backslashes_between_folders_are_told_but_a_name_may_have_one() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a\\2.jpg"), "").expect("a file");
        let list = write(folder.path(), "a.csv", "path,label\na\\1.jpg,hat\na\\2.jpg,hat\n");
        let dataset = Dataset::scan(&list).expect("a data set");
        assert_eq!((dataset.items.len(), dataset.skipped.len()), (1, 1));
        assert!(dataset.skipped[0].reason.contains("parted by /"), "{dataset:?}");
        let list = write(folder.path(), "b.csv", "path,label\na\\1.jpg,hat\n");
        let error = Dataset::scan(&list).expect_err("no image").to_string();
        assert!(error.contains("line 2: a\\1.jpg: there is no such file"), "{error}");
    }

    #[test]
    fn what_is_no_ordinary_file_is_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("a")).expect("a folder");
        let list = write(folder.path(), "a.csv", "path,label\na,hat\na/1.jpg,hat\n");
        let dataset = Dataset::scan(&list).expect("a data set");
        assert_eq!(found(&dataset), [("a/1.jpg".to_owned(), "hat")]);
        assert_eq!(dataset.skipped[0].reason, "not an ordinary file");
    }

    #[test]
    fn lines_at_fault_are_listed_or_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "path,label\n../x.jpg,a\n/etc/passwd,a\n1.jpg,a\n./1.jpg,b\n2.jpg,\n";
        let dataset = Dataset::scan(&write(folder.path(), "a.csv", text)).expect("a data set");
        assert_eq!((dataset.items.len(), dataset.skipped.len()), (1, 4));
        for (name, text, line) in [
            ("b.csv", "name,label\nx,y\n", 1),
            ("c.csv", "path,label\nx\n", 2),
            (
                "d.jsonl",
                "{\"file_name\":\"x\",\"label\":\"a\"}\n{\"file_name\":\"x\"}\n",
                2,
            ),
            ("e.tsv", "path\tlabel\n", 1),
        ] {
            match Dataset::scan(&write(folder.path(), name, text)) {
                Err(DatasetError::SplitFile { line: found, .. }) => assert_eq!(found, line, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(matches!(
            Dataset::scan(&write(folder.path(), "f.txt", "x")),
            Err(DatasetError::NoFolder(_))
        ));
    }
}
