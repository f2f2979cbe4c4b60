//! A data set as a new folder of class folders.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::relocate::numbered;
use super::{Dataset, DatasetError, Skipped, hidden_below, is_label};
use crate::destination::NewFolder;
use crate::progress::{Progress, stage};

/// Copies every image into the class folders of `out`, which must be empty or not there, and appears whole; a name that
/// two images of a class have gets a number. Gives the number of copies and what could not be read.
///
/// # Errors
/// [`DatasetError::Destination`] where `out` is not empty, [`DatasetError::File`] where it cannot be written, and
/// [`DatasetError::FolderName`] where a label cannot name a folder.
pub fn copy_to_folders(
    dataset: &Dataset,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(usize, Vec<Skipped>), DatasetError> {
    if let Some(label) = dataset.classes.iter().find(|label| !is_label(label)) {
        return Err(DatasetError::FolderName(label.clone()));
    }
    let copies = NewFolder::begin(out)?;
    let mut skipped = Vec::new();
    // The last number of each name that was taken: counted from the start each time, many would take forever.
    let mut numbers: HashMap<PathBuf, u32> = HashMap::new();
    let _stage = stage(progress, "Copying", Some(dataset.items.len() as u64));
    for item in &dataset.items {
        let name = item.path.file_name().unwrap_or(item.path.as_os_str());
        let wanted = Path::new(&dataset.classes[item.class]).join(name);
        let mut target = wanted.clone();
        while copies.holds(&target) {
            let number = numbers.entry(wanted.clone()).or_insert(1);
            *number += 1;
            target = numbered(&wanted, *number);
        }
        let bytes = if hidden_below(&wanted) {
            Err("in a class folder, a file of this name is passed over".to_owned())
        } else {
            fs::read(dataset.root.join(&item.path)).map_err(|error| error.to_string())
        };
        match bytes {
            Ok(bytes) => copies.write(&target, &bytes)?,
            Err(reason) => skipped.push(Skipped {
                path: item.path.clone(),
                reason,
            }),
        }
        progress.advance(1);
    }
    copies.finish(None)?;
    Ok((dataset.items.len() - skipped.len(), skipped))
}

#[cfg(test)]
mod tests {
    use shared::files::write_atomically;

    use super::*;
    use crate::progress::Silent;

    #[test]
    fn images_of_one_name_get_numbers_that_are_not_taken() {
        let data = tempfile::tempdir().expect("a folder");
        for path in ["a/1-2.jpg", "a/1.jpg", "a/in/1.jpg", "a/on/1.jpg", "b/in/1.jpg"] {
            write_atomically(&data.path().join(path), path.as_bytes()).expect("written");
        }
        let dataset = Dataset::scan(data.path()).expect("a data set");
        let out = tempfile::tempdir().expect("a folder");
        let (copied, skipped) = copy_to_folders(&dataset, out.path(), &Silent).expect("copied");
        assert_eq!((copied, skipped), (5, Vec::new()));
        for (path, original) in [
            ("a/1.jpg", "a/1.jpg"),
            ("a/1-2.jpg", "a/1-2.jpg"),
            ("a/1-3.jpg", "a/in/1.jpg"),
            ("a/1-4.jpg", "a/on/1.jpg"),
            ("b/1.jpg", "b/in/1.jpg"),
        ] {
            assert_eq!(fs::read_to_string(out.path().join(path)).expect(path), original);
        }
    }

    #[test]
    fn what_would_be_passed_over_among_the_copies_is_listed() {
        let (data, place) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let list = data.path().join("labels.csv");
        fs::write(&list, "path,label\n.1.jpg,a\n.in/2.jpg,a\n").expect("written");
        for path in [".1.jpg", ".in/2.jpg"] {
            write_atomically(&data.path().join(path), b"").expect("written");
        }
        let dataset = Dataset::scan(&list).expect("a data set");
        let out = place.path().join("out");
        let (copied, skipped) = copy_to_folders(&dataset, &out, &Silent).expect("copied");
        assert_eq!((copied, skipped.len(), &*skipped[0].path), (1, 1, Path::new(".1.jpg")));
        assert_eq!(Dataset::scan(&out).expect("a data set").items.len(), copied);
    }

    #[test]
    fn of_copies_that_cannot_all_be_written_none_is_there() {
        let (data, place) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        // With a number it would be too long.
        let name = "x".repeat(255);
        for folder in ["a/in", "a/on"] {
            write_atomically(&data.path().join(folder).join(&name), b"").expect("written");
        }
        let dataset = Dataset::scan(data.path()).expect("a data set");
        let out = place.path().join("out");
        let error = copy_to_folders(&dataset, &out, &Silent).expect_err("the second has no name");
        let copy = out.join("a").join(format!("{name}-2"));
        assert!(error.to_string().starts_with(&copy.display().to_string()), "{error}");
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
    }
}
