//! The split as a file that people can read and change: a line per image, columns parted by tabs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use shared::files;

use super::path_text::{escape, unescape};
use super::{Dataset, DatasetError, Side, Split};

const HEADER: &str = "path\tclass\tside\tgroup";

impl Split {
    /// Writes [`Self::to_text`] to a file.
    ///
    /// # Errors
    /// [`DatasetError::File`].
    pub fn save(&self, path: &Path) -> Result<(), DatasetError> {
        files::write_atomically(path, self.to_text().as_bytes()).map_err(|source| DatasetError::File {
            path: path.to_path_buf(),
            source,
        })
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

    /// Reads a split and applies it to `dataset`. Images that it does not name are on no side; images that it names
    /// and the data set lacks (they may have been unreadable) are passed over.
    ///
    /// # Errors
    /// [`DatasetError::SplitFile`] with the line, or [`DatasetError::File`].
    pub fn load(path: &Path, dataset: &Dataset) -> Result<Self, DatasetError> {
        let groups: Vec<usize> = (0..dataset.items.len()).collect();
        let sides = read(path)?;
        Ok(Self::of(dataset, &groups, |_, item| match &sides {
            Named::Sides(sides) => sides.get(&item.path).copied(),
            Named::Test(test) => Some(if test.contains(&item.path) {
                Side::Test
            } else {
                Side::Train
            }),
        }))
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
                reason: "the file names no image of this data set for the test; write paths below the data folder, \
                         such as striped/1.jpg"
                    .to_owned(),
            });
        }
        Ok(split)
    }
}

/// What a file says.
enum Named {
    /// The side of each image.
    Sides(BTreeMap<PathBuf, Side>),
    /// The test images.
    Test(BTreeSet<PathBuf>),
}

fn read(path: &Path) -> Result<Named, DatasetError> {
    let text = std::fs::read_to_string(path).map_err(|source| DatasetError::File {
        path: path.to_path_buf(),
        source,
    })?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let wrong = |line: usize, reason: &str| DatasetError::SplitFile {
        path: path.to_path_buf(),
        line: line + 1,
        reason: reason.to_owned(),
    };
    let mut lines = lines.peekable();
    if lines.next_if(|(_, line)| *line == HEADER).is_none() {
        let mut test = BTreeSet::new();
        for (number, line) in lines {
            test.insert(unescape(line).ok_or_else(|| wrong(number, "a backslash that begins no \\xNN"))?);
        }
        return Ok(Named::Test(test));
    }
    let mut sides = BTreeMap::new();
    for (number, line) in lines {
        let columns: Vec<&str> = line.split('\t').collect();
        let [image, _, side, ..] = columns[..] else {
            return Err(wrong(number, "path, class and side are expected, parted by tabs"));
        };
        let image = unescape(image).ok_or_else(|| wrong(number, "a backslash that begins no \\xNN"))?;
        let side = match side {
            "train" => Side::Train,
            "test" => Side::Test,
            _ => return Err(wrong(number, "the side must be train or test")),
        };
        if sides.insert(image, side).is_some_and(|earlier| earlier != side) {
            return Err(wrong(number, "this image stands on both sides"));
        }
    }
    Ok(Named::Sides(sides))
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
