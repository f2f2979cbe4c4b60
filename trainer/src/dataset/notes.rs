//! What a user should know of a data set that is read as it was given, and may be meant otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::{By, Dataset, Item, Split, SplitParameters, escape, list_in};
use crate::counted::{counted, listed, listed_with};

/// Most pictures that a note names, and most classes of each.
const NAMED: usize = 3;

/// Names of the parts that data sets come in, the one to train on first.
const PARTS: [&[&str]; 3] = [
    &["train", "training"],
    &["test", "testing"],
    &["val", "valid", "validation"],
];

impl Dataset {
    /// A note where the class folders look like something else, parts of a data set or data sets, or where there is but
    /// one, so that a list is read.
    pub fn note(&self) -> Option<String> {
        let note = self.parts_note().or_else(|| self.level_note());
        note.or_else(|| self.list_note())
    }

    /// The images, by their rows, of each picture that stands in more than one class; near-duplicates have the same
    /// group.
    pub fn conflicts(&self, groups: &[usize]) -> Vec<Vec<usize>> {
        let mut rows_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, group) in groups.iter().enumerate() {
            rows_of.entry(*group).or_default().push(row);
        }
        let class = |row: &usize| self.items[*row].class;
        let rows_of = rows_of.into_values();
        rows_of
            .filter(|rows| rows.iter().any(|row| class(row) != class(&rows[0])))
            .collect()
    }

    /// A note where pictures stand in more than one class.
    pub(crate) fn conflict_note(&self, groups: &[usize]) -> Option<String> {
        let conflicts = self.conflicts(groups);
        let named = conflicts.iter().map(|rows| {
            // One of each class.
            let mut classes = BTreeSet::new();
            let items = rows.iter().map(|row| &self.items[*row]);
            let items = items.filter(|item| classes.insert(item.class));
            let paths: Vec<String> = items.map(|item| escape(&item.path)).collect();
            listed(&paths, NAMED)
        });
        let named = listed_with("; ", &named.collect::<Vec<_>>(), NAMED);
        let what = counted(conflicts.len(), "image stands", "images stand");
        (!conflicts.is_empty()).then(|| format!(
            "{what} in more than one class, as it is or as a near copy: {named}. `trainer data audit` lists all such images; \
             keep each in one class, by hand or with `trainer data dedupe`."
        ))
    }

    /// A note where no class folder has an image of its own, but only folders that have.
    fn level_note(&self) -> Option<String> {
        let first = self.root.join(self.classes.first()?);
        let is_deeper = |item: &Item| item.path.starts_with(&self.classes[item.class]) && item.subfolder().is_some();
        (!self.items.is_empty() && self.items.iter().all(is_deeper)).then(|| {
            format!(
                "No class folder holds images of its own, only folders with images: if those are the classes, give --data {}.",
                first.display()
            )
        })
    }

    /// A note where a list in the folder is read although there is a folder of one of its classes, as where the other
    /// folders were removed. Whether the folder was named, or a list in it, is not known here.
    fn list_note(&self) -> Option<String> {
        let list = list_in(&self.root, 2)?;
        let folder = self.classes.iter().find(|class| self.root.join(class).is_dir())?;
        Some(format!(
            "Where --data names {}, {} says what the images are, as {folder} is the only class folder there; two of them \
             would count in place of the list.",
            self.root.display(),
            list.display()
        ))
    }

    /// A note where all class folders have the names of parts of a data set.
    fn parts_note(&self) -> Option<String> {
        let parts = self.classes.iter().map(|class| Some((part(class)?, class.as_str())));
        let mut parts = parts.collect::<Option<Vec<_>>>()?;
        parts.sort_unstable();
        let [(_, first), (_, second), ..] = parts[..] else {
            return None;
        };
        // In a list they are labels, which name no folder.
        let mut items = self.items.iter();
        if !items.all(|item| item.path.starts_with(&self.classes[item.class])) {
            return None;
        }
        let names: Vec<&str> = parts.iter().map(|(_, name)| *name).collect();
        Some(format!(
            "The folders {} look like parts of a data set, not like classes: give --data {}, and evaluate on {}.",
            names.join(" and "),
            self.root.join(first).display(),
            self.root.join(second).display()
        ))
    }
}

/// The place in [`PARTS`] of what `class` names, if it is there.
fn part(class: &str) -> Option<usize> {
    let class = class.to_lowercase();
    PARTS.iter().position(|names| names.contains(&class.as_str()))
}

impl SplitParameters {
    /// What a user should know of `dataset` before it is divided.
    pub fn notes(&self, dataset: &Dataset) -> Vec<String> {
        let folders = match self.by {
            // Who says so knows of the folders within the classes.
            By::Subdir => dataset.parts_note(),
            By::Filename => dataset.note(),
        };
        folders.into_iter().chain(self.note(dataset)).collect()
    }

    /// What a user should know of `split`, where a file of the user's own made it: images that it does not name, and
    /// near-duplicates that it puts on both sides.
    pub(crate) fn file_notes(&self, dataset: &Dataset, groups: &[usize], split: &Split) -> Vec<String> {
        let Some(file) = &self.dedicated else {
            return Vec::new();
        };
        let file = file.display();
        let name = |row: usize| escape(&dataset.items[row].path);
        let mut notes = Vec::new();
        let sides = split.sides().enumerate();
        let unnamed: Vec<String> = sides
            .filter(|(_, side)| side.is_none())
            .map(|(row, _)| name(row))
            .collect();
        if !unnamed.is_empty() {
            let what = counted(unnamed.len(), "image is", "images are");
            let names = listed(&unnamed, NAMED);
            notes.push(format!(
                "{what} neither trained on nor tested with, for want of a line in {file}: {names}."
            ));
        }
        let leaking: Vec<String> = split.leaking(groups).into_iter().map(name).collect();
        if self.group && !leaking.is_empty() {
            let what = counted(leaking.len(), "test image has", "test images have");
            let names = listed(&leaking, NAMED);
            notes.push(format!(
                "{what} a near-duplicate among the training images, as {file} has it, so that the figures flatter: \
                 {names}. `trainer data audit --split` lists them all."
            ));
        }
        notes
    }

    /// A note where subfolders of `dataset` are to be kept together, and it has none.
    fn note(&self, dataset: &Dataset) -> Option<String> {
        let is_drawn_by_folder = self.by == By::Subdir && self.dedicated.is_none();
        let mut items = dataset.items.iter();
        (is_drawn_by_folder && !items.any(|item| item.subfolder().is_some())).then(|| {
            "The subfolders of classes are to be kept together (--by subdir): no class has subfolders, so that each \
             image counts alone."
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;

    fn dataset(paths: &[&str]) -> Dataset {
        let class = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        let mut classes: Vec<String> = paths.iter().map(|path| class(path)).collect();
        classes.sort();
        classes.dedup();
        let items = paths.iter().map(|path| Item {
            path: path.into(),
            class: classes.binary_search(&class(path)).expect("a class"),
        });
        Dataset {
            root: "nested".into(),
            items: items.collect(),
            classes,
            skipped: Vec::new(),
        }
    }

    #[test]
    fn parts_of_a_data_set_are_no_classes() {
        let note = dataset(&["test/dotted/1.jpg", "train/dotted/1.jpg"]).note();
        assert_eq!(
            note.expect("a note"),
            "The folders train and test look like parts of a data set, not like classes: give --data nested/train, and \
             evaluate on nested/test."
        );
        let note = dataset(&["Testing/1.jpg", "TRAIN/1.jpg", "validation/1.jpg"]).note();
        assert!(note.is_some_and(|note| note.contains("--data nested/TRAIN, and evaluate on nested/Testing")));
        for paths in [
            &["train/1.jpg"][..],
            &["bus/1.jpg", "train/1.jpg"],
            &["dotted/1.jpg", "test/1.jpg", "train/1.jpg"],
        ] {
            assert_eq!(dataset(paths).note(), None, "{paths:?}");
        }
        let mut listed = dataset(&["test/1.jpg", "train/1.jpg"]);
        listed.items[0].path = "images/1.jpg".into();
        assert_eq!(listed.note(), None);
    }

    #[test]
    fn a_folder_one_level_too_high_is_told() {
        let deep = dataset(&["one/hat/1.jpg", "one/shoes/1.jpg", "two/1/2/3.jpg"]);
        let note = deep.note().expect("a note");
        assert!(note.contains("No class folder holds images of its own") && note.ends_with("give --data nested/one."));
        for paths in [&["one/hat/1.jpg", "two/1.jpg"][..], &["one/1.jpg", "two/1.jpg"]] {
            assert_eq!(dataset(paths).note(), None, "{paths:?}");
        }
        let by = |by| SplitParameters {
            by,
            ..SplitParameters::default()
        };
        assert_eq!(by(By::Filename).notes(&deep), [note]);
        assert_eq!(by(By::Subdir).notes(&deep), [] as [String; 0]);
    }

    #[test]
    fn a_list_that_is_read_since_class_folders_are_gone_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("metadata.csv");
        std::fs::write(&list, "path,label\nimages/1.jpg,hat\nimages/2.jpg,shoes\n").expect("written");
        let note = || Dataset::scan(folder.path()).expect("a data set").note();
        std::fs::create_dir(folder.path().join("images")).expect("a folder");
        assert_eq!(note(), None);
        std::fs::rename(folder.path().join("images"), folder.path().join("hat")).expect("renamed");
        let told = note().expect("a note");
        assert!(
            told.contains("metadata.csv says what the images are, as hat is the only"),
            "{told}"
        );
        std::fs::create_dir(folder.path().join("shoes")).expect("a folder");
        std::fs::write(folder.path().join("hat/1.jpg"), "").expect("written");
        assert_eq!(note(), None, "folders count");
    }

    #[test]
    fn a_picture_in_two_classes_is_told_with_its_paths() {
        let both = dataset(&["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg"]);
        assert_eq!(both.conflicts(&[0, 1, 1, 0, 2]), [vec![0, 3]]);
        let note = both.conflict_note(&[0, 1, 1, 0, 2]).expect("a note");
        assert!(note.starts_with("1 image stands in more than one class"), "{note}");
        assert!(
            note.contains("copy: a/1.jpg, b/1.jpg. ") && note.contains("data dedupe"),
            "{note}"
        );
        let note = both.conflict_note(&[0, 1, 1, 0, 1]).expect("a note");
        assert!(note.starts_with("2 images stand"), "{note}");
        assert!(note.contains("copy: a/1.jpg, b/1.jpg; a/2.jpg, b/2.jpg. "), "{note}");
        let note = both.conflict_note(&[0; 5]).expect("a note");
        assert!(note.contains("copy: a/1.jpg, b/1.jpg. "), "{note}");
        assert_eq!(both.conflict_note(&[0, 0, 0, 1, 1]), None);
        let paths: Vec<String> = (0..8_usize)
            .map(|number| format!("{}/{number}.jpg", ["a", "b"][number % 2]))
            .collect();
        let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        paths.sort_unstable();
        let note = dataset(&paths)
            .conflict_note(&[0, 1, 2, 3, 0, 1, 2, 3])
            .expect("a note");
        assert!(note.contains("a/4.jpg, b/5.jpg and 1 more. "), "{note}");
    }

    #[test]
    fn what_a_file_parts_or_leaves_out_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("test.txt");
        let dataset = dataset(&["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]);
        let parameters = SplitParameters {
            dedicated: Some(file.clone()),
            ..SplitParameters::default()
        };
        let notes = |parameters: &SplitParameters, groups: &[usize]| {
            let split = Split::new(&dataset, groups, parameters).expect("a split");
            parameters.file_notes(&dataset, groups, &split)
        };
        std::fs::write(&file, "a/2.jpg\nb/2.jpg\n").expect("written");
        let told = notes(&parameters, &[0, 0, 1, 2]);
        assert!(
            told[0].starts_with("1 test image has a near-duplicate among"),
            "{told:?}"
        );
        assert!(told.len() == 1 && told[0].contains("flatter: a/2.jpg. "), "{told:?}");
        let none: [String; 0] = [];
        assert_eq!(notes(&parameters, &[0, 1, 2, 1]), none, "both are for the test");
        let asked_for = SplitParameters {
            group: false,
            ..parameters.clone()
        };
        assert_eq!(notes(&asked_for, &[0, 0, 1, 2]), none);

        let split = "path\tclass\tside\tgroup\na/1.jpg\ta\ttrain\t0\nb/1.jpg\tb\ttest\t1\n";
        std::fs::write(&file, split).expect("written");
        let told = notes(&parameters, &[0, 1, 2, 3]);
        assert!(told[0].starts_with("2 images are neither trained on"), "{told:?}");
        assert!(told.len() == 1 && told[0].ends_with(": a/2.jpg, b/2.jpg."), "{told:?}");
    }

    #[test]
    fn subfolders_are_missed_where_they_are_to_be_kept_together() {
        let by = |by| SplitParameters {
            by,
            ..SplitParameters::default()
        };
        let (flat, deep) = (dataset(&["a/1.jpg", "b/2.jpg"]), dataset(&["a/1.jpg", "b/in/2.jpg"]));
        assert!(
            by(By::Subdir)
                .note(&flat)
                .is_some_and(|note| note.contains("no class has subfolders"))
        );
        assert_eq!(by(By::Subdir).note(&deep), None);
        assert_eq!(by(By::Filename).note(&flat), None);
    }
}
