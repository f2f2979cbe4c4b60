//! The split as a file that people can read and change: a line per image, columns parted by tabs.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use shared::files::{at, write_atomically};

use super::list::plain;
use super::path_text::{escape, unescape};
use super::{Dataset, DatasetError, Side, Skipped, Split};

const HEADER: &str = "path\tclass\tside\tgroup";

impl Split {
    /// Writes [`Self::to_text`] to a file.
    ///
    /// # Errors
    /// [`DatasetError::File`].
    pub fn save(&self, path: &Path) -> Result<(), DatasetError> {
        Ok(write_atomically(path, self.to_text().as_bytes()).map_err(at(path))?)
    }

    /// The split as lines: path, class, side, near-duplicate group. In a path, a tab, a line break, a backslash, and
    /// bytes that are not Unicode are written as `\xNN`.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for entry in &self.entries {
            let side = match entry.side {
                Some(Side::Train) => "train",
                Some(Side::Test) => "test",
                None => continue,
            };
            let columns = [
                escape(&entry.path),
                escape(Path::new(&entry.class)),
                side.into(),
                entry.group.to_string(),
            ];
            text.push_str(&columns.join("\t"));
            text.push('\n');
        }
        text
    }

    /// Reads a split and applies it to `dataset`. Images that it does not name are on no side; names of images that the
    /// data set lacks are in [`Self::unknown`], but for those that it has left out itself.
    ///
    /// # Errors
    /// [`DatasetError::SplitFile`] with the line, or where it names no image of the data set; [`DatasetError::File`].
    pub fn load(path: &Path, dataset: &Dataset) -> Result<Self, DatasetError> {
        let groups: Vec<usize> = (0..dataset.items.len()).collect();
        let named = read(path)?;
        let images: HashSet<&PathBuf> = dataset.items.iter().map(|item| &item.path).collect();
        let left_out: HashSet<&PathBuf> = dataset.skipped.iter().map(|skipped| &skipped.path).collect();
        let unknown = named.sides.iter().filter(|(name, _)| !images.contains(name));
        let unknown: Vec<(&PathBuf, &Side)> = unknown.collect();
        if !named.sides.is_empty() && unknown.len() == named.sides.len() {
            return Err(DatasetError::SplitFile {
                path: path.to_path_buf(),
                line: 1,
                reason: "the file names no image of this data set; write paths below the data folder, such as \
                         striped/1.jpg"
                    .to_owned(),
            });
        }
        let mut split = Self::of(dataset, &groups, |_, item| {
            named.sides.get(&item.path).copied().or(named.others)
        });
        let unknown = unknown.into_iter().filter(|(name, _)| !left_out.contains(name));
        split.unknown.extend(unknown.map(|(name, side)| {
            let reason = format!("{} names it, and the data set has no such image", path.display());
            let path = name.clone();
            (*side, Skipped { path, reason })
        }));
        Ok(split)
    }

    /// A split by a file that names the test images (the others are trained on), or by an earlier split.
    pub(super) fn dedicated(path: &Path, dataset: &Dataset, groups: &[usize]) -> Result<Self, DatasetError> {
        let mut split = Self::load(path, dataset)?;
        for (entry, group) in split.entries.iter_mut().zip(groups) {
            entry.group = *group;
        }
        if split.test_rows().is_empty() {
            return Err(DatasetError::SplitFile {
                path: path.to_path_buf(),
                line: 1,
                reason: "the file names no image of this data set for the test".to_owned(),
            });
        }
        Ok(split)
    }
}

/// What a file says.
struct Named {
    /// The side of each image that it names.
    sides: BTreeMap<PathBuf, Side>,
    /// The side of the others.
    others: Option<Side>,
}

/// Reads a split, or a list of test images, in which a line that begins with `#` is a comment.
fn read(path: &Path) -> Result<Named, DatasetError> {
    let text = std::fs::read_to_string(path).map_err(at(path))?;
    let wrong = |line: usize, reason: &str| DatasetError::SplitFile {
        path: path.to_path_buf(),
        line: line + 1,
        reason: reason.to_owned(),
    };
    let name = |line: usize, text: &str| match unescape(text) {
        Some(name) => Ok(plain(&name)),
        None => Err(wrong(line, "a backslash that begins no \\xNN; folders are parted by /")),
    };
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let mut lines = lines.filter(|(_, line)| !line.is_empty()).peekable();
    while lines.next_if(|(_, line)| line.starts_with('#')).is_some() {}
    let mut sides = BTreeMap::new();
    if lines.next_if(|(_, line)| *line == HEADER).is_none() {
        for (number, line) in lines.filter(|(_, line)| !line.starts_with('#')) {
            sides.insert(name(number, line)?, Side::Test);
        }
        let others = Some(Side::Train);
        return Ok(Named { sides, others });
    }
    // From the header on a line is never a comment: a class may begin with the same character.
    for (number, line) in lines {
        let columns: Vec<&str> = line.split('\t').collect();
        let [image, _, side, ..] = columns[..] else {
            return Err(wrong(number, "path, class and side are expected, parted by tabs"));
        };
        let side = match side {
            "train" => Side::Train,
            "test" => Side::Test,
            _ => return Err(wrong(number, "the side must be train or test")),
        };
        if sides
            .insert(name(number, image)?, side)
            .is_some_and(|earlier| earlier != side)
        {
            return Err(wrong(number, "this image stands on both sides"));
        }
    }
    Ok(Named { sides, others: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Item, SplitParameters};

    fn dataset(paths: Vec<PathBuf>) -> Dataset {
        let items = paths.into_iter().map(|path| Item { path, class: 0 }).collect();
        Dataset {
            root: "data".into(),
            classes: vec!["odd\tname".to_owned()],
            items,
            skipped: Vec::new(),
        }
    }

    fn paths(skipped: impl Iterator<Item = Skipped>) -> Vec<PathBuf> {
        skipped.map(|skipped| skipped.path).collect()
    }

    #[test]
    fn any_path_survives() {
        let mut paths: Vec<PathBuf> = [
            "plain.jpg",
            "with space.jpg",
            "tab\there.jpg",
            "new\nline.jpg",
            "back\\slash.jpg",
            "\\x41.jpg",
            "日本😀.jpg",
        ]
        .map(PathBuf::from)
        .to_vec();
        paths.extend(unescape("bad\\xff\\xfeutf8.jpg"));
        let dataset = dataset(paths);
        let groups: Vec<usize> = (0..dataset.items.len()).collect();
        let split = Split::new(&dataset, &groups, &SplitParameters::default()).expect("a split");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("split.tsv");
        split.save(&file).expect("saved");
        assert_eq!(Split::load(&file, &dataset).expect("loaded"), split);
    }

    #[test]
    fn a_list_of_test_images_leaves_the_others_to_train_on() {
        let dataset = dataset(["a/1.jpg", "a/2.jpg", "a/3.jpg"].map(PathBuf::from).to_vec());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("test.txt");
        std::fs::write(&file, "# kept for the test\na/2.jpg\n").expect("written");
        let parameters = SplitParameters {
            dedicated: Some(file),
            ..SplitParameters::default()
        };
        let split = Split::new(&dataset, &[0, 0, 0], &parameters).expect("a split");
        assert_eq!((split.train_rows(), split.test_rows()), (vec![0, 2], vec![1]));
    }

    #[test]
    fn names_are_found_as_find_writes_them_and_the_others_are_listed() {
        let mut dataset = dataset(["a/1.jpg", "a/2.jpg"].map(PathBuf::from).to_vec());
        dataset.skipped.push(Skipped {
            path: "a/cut.jpg".into(),
            reason: "it cannot be read".to_owned(),
        });
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("test.txt");
        let load = |text: &str| {
            std::fs::write(&file, text).expect("written");
            Split::load(&file, &dataset)
        };
        for text in ["\u{feff}./a/2.jpg\n", "././a/2.jpg\r\n./a/cut.jpg\n"] {
            let split = load(text).expect("a split");
            assert_eq!((split.train_rows(), split.test_rows()), (vec![0], vec![1]), "{text:?}");
            assert_eq!(split.unknown().next(), None);
        }
        let split = load("a/2.jpg\ndata/a/1.jpg\n").expect("a split");
        assert_eq!(paths(split.unknown()), [Path::new("data/a/1.jpg")]);
        let split = load(&format!(
            "{HEADER}\na/2.jpg\ta\ttest\t0\na/8.jpg\ta\ttrain\t1\na/9.jpg\ta\ttest\t2\n"
        ));
        let split = split.expect("a split");
        assert_eq!(paths(split.unknown()), ["a/8.jpg", "a/9.jpg"].map(PathBuf::from));
        assert_eq!(paths(split.unknown_in_test()), [Path::new("a/9.jpg")]);
        let error = load("data/a/1.jpg\n").expect_err("names nothing").to_string();
        assert!(error.contains("names no image of this data set"), "{error}");
    }

    #[test]
    fn a_class_may_begin_with_the_sign_of_a_comment() {
        let dataset = dataset(["#a/1.jpg", "#a/2.jpg", "#a/3.jpg"].map(PathBuf::from).to_vec());
        let split = Split::new(&dataset, &[0, 1, 2], &SplitParameters::default()).expect("a split");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("split.tsv");
        std::fs::write(&file, format!("# drawn by hand\n{}", split.to_text())).expect("written");
        let sides = |split: &Split| (split.train_rows(), split.test_rows());
        assert_eq!(sides(&Split::load(&file, &dataset).expect("loaded")), sides(&split));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("split.tsv");
        for (lines, expected) in [
            ("a/1.jpg\ta\ttrain\t0\na/2.jpg\ta\tboth\t1\n", "line 3: the side"),
            ("a/1.jpg\ta\n", "line 2: path, class and side"),
            (
                "a/1.jpg\ta\ttrain\t0\na/1.jpg\ta\ttest\t0\n",
                "line 3: this image stands on both",
            ),
            ("a\\1.jpg\ta\ttrain\t0\n", "line 2: a backslash"),
        ] {
            std::fs::write(&file, format!("{HEADER}\n{lines}")).expect("written");
            let error = Split::load(&file, &dataset(Vec::new()))
                .expect_err("a wrong line")
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
