//! Labels as the names of class folders: each of them, and all of them side by side, on every system.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use shared::files::at;

use super::{DatasetError, below};

/// Longest label, in bytes: what every file system takes as the name of a folder.
const LABEL_BYTES: usize = 200;

/// Whether a folder may have this name: one plain component that no system takes for something else.
pub(crate) fn is_label(label: &str) -> bool {
    let plain = |character: char| !character.is_control() && !"/\\".contains(character);
    !label.is_empty()
        && label.len() <= LABEL_BYTES
        && !label.starts_with('.')
        && label.trim() == label
        && label.chars().all(plain)
}

/// Two classes that differ in upper and lower case alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the classes {first:?} and {second:?} differ only in upper and lower case, which not every system tells apart in the \
     names of folders: rename one, or give both the same name"
)]
pub struct CaseClash {
    /// One of them.
    pub first: String,
    /// The other.
    pub second: String,
}

/// Sees that every label gets a class folder of its own on every system.
///
/// # Errors
/// Two that do not.
pub(crate) fn check_case<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<(), CaseClash> {
    match case_clash(labels) {
        None => Ok(()),
        Some((first, second)) => Err(CaseClash {
            first: first.to_owned(),
            second: second.to_owned(),
        }),
    }
}

/// Two of these labels that differ in upper and lower case alone, which not every system tells apart in the names of
/// folders. A label may occur many times.
pub(crate) fn case_clash<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    labels.into_iter().find_map(|label| {
        let first = *seen.entry(label.to_lowercase()).or_insert(label);
        (first != label).then_some((first, label))
    })
}

/// Sees that every class has a folder of its own on every system, also beside the class folders that are there, and
/// that no link leads it out of the data set.
pub(crate) fn check_labels<'a>(labels: impl IntoIterator<Item = &'a str>, data: &Path) -> Result<(), DatasetError> {
    let failed = at(data);
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(data).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_string().ok();
        folders.extend(name.filter(|name| !name.starts_with('.') && entry.path().is_dir()));
    }
    let labels: BTreeSet<&str> = labels.into_iter().collect();
    check_case(folders.iter().map(String::as_str).chain(labels.iter().copied()))?;
    for label in labels {
        let path = data.join(label);
        below(data, &path.join("any")).map_err(at(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::list::ListError;

    #[test]
    fn names_that_lead_elsewhere_are_no_labels() {
        for label in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            ".hidden",
            "a\n",
            " a",
            "a\0b",
            &"x".repeat(201),
        ] {
            assert!(!is_label(label), "{label:?}");
        }
        for label in ["a", "polka dots", "<b>", "Größe", "😀", "x..y"] {
            assert!(is_label(label), "{label:?}");
        }
    }

    #[test]
    fn labels_clash_where_case_alone_tells_them_apart() {
        assert_eq!(case_clash(["a", "b", "a"]), None);
        assert_eq!(case_clash(["Ä", "b", "b", "ä", "B"]), Some(("Ä", "ä")));
        // A list and a folder say it alike.
        let clash = check_case(["Ä", "ä"]).expect_err("a clash");
        let said = [
            clash.to_string(),
            DatasetError::from(clash.clone()).to_string(),
            ListError::from(clash).to_string(),
        ];
        assert!(said[0].starts_with("the classes \"Ä\" and \"ä\" differ"), "{said:?}");
        assert!(said.iter().all(|text| *text == said[0]), "{said:?}");
    }

    #[test]
    fn labels_are_told_apart_from_the_class_folders_that_are_there() {
        let data = tempfile::tempdir().expect("a folder");
        for folder in ["dotted", ".Striped"] {
            std::fs::create_dir(data.path().join(folder)).expect("a folder");
        }
        std::fs::write(data.path().join("LIST"), "").expect("a file");
        let check = |label: &str| check_labels([label], data.path());
        for label in ["dotted", "striped", "list"] {
            check(label).expect("a folder of its own");
        }
        let error = check("Dotted").expect_err("the same folder on some systems");
        assert!(matches!(error, DatasetError::CaseClash(_)), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn no_class_folder_is_a_link_out_of_the_data_set() {
        use std::os::unix::fs::symlink;
        let (data, elsewhere) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        std::fs::create_dir(data.path().join("dotted")).expect("a folder");
        symlink("dotted", data.path().join("spotted")).expect("a link");
        symlink(elsewhere.path(), data.path().join("striped")).expect("a link");
        let check = |label: &str| check_labels([label], data.path());
        for label in ["dotted", "spotted", "leopard"] {
            check(label).expect("a place in the data set");
        }
        let error = check("striped").expect_err("a place elsewhere");
        assert!(
            matches!(&error, DatasetError::File(file) if file.path.ends_with("striped")),
            "{error}"
        );
    }
}
