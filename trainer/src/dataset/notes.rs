//! What a user should know of a data set that is read as it was given, and may be meant otherwise.

use super::{By, Dataset, SplitParameters};

/// Names of the parts that data sets come in, the one to train on first.
const PARTS: [&[&str]; 3] = [
    &["train", "training"],
    &["test", "testing"],
    &["val", "valid", "validation"],
];

impl Dataset {
    /// A note where all class folders have the names of parts of a data set.
    pub fn note(&self) -> Option<String> {
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
    /// A note where subfolders of `dataset` are to be kept together, and it has none.
    pub fn note(&self, dataset: &Dataset) -> Option<String> {
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
