//! A data set as a new folder of class folders.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use shared::files::{at, write_atomically};

use super::relocate::numbered;
use super::{Dataset, DatasetError, Skipped};
use crate::progress::{Progress, stage};

/// Copies every image into the class folders of `out`, which must be empty; a name that two images of a class have gets
/// a number. Gives the number of copies and what could not be read.
///
/// # Errors
/// [`DatasetError::File`] where `out` is not empty or cannot be written, [`DatasetError::FolderName`] where a label
/// cannot name a folder.
pub fn copy_to_folders(
    dataset: &Dataset,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(usize, Vec<Skipped>), DatasetError> {
    if let Some(label) = dataset.classes.iter().find(|label| !crate::fetch::is_label(label)) {
        return Err(DatasetError::FolderName(label.clone()));
    }
    fs::create_dir_all(out).map_err(at(out))?;
    if fs::read_dir(out).map_err(at(out))?.next().is_some() {
        return Err(at(out)(std::io::ErrorKind::DirectoryNotEmpty.into()).into());
    }
    let mut skipped = Vec::new();
    // The last number of each name that was taken: counted from the start each time, many would take forever.
    let mut numbers: HashMap<PathBuf, u32> = HashMap::new();
    let _stage = stage(progress, "Copying", Some(dataset.items.len() as u64));
    for item in &dataset.items {
        let folder = out.join(&dataset.classes[item.class]);
        let name = item.path.file_name().unwrap_or(item.path.as_os_str());
        let wanted = folder.join(name);
        let mut target = wanted.clone();
        while target.exists() {
            let number = numbers.entry(wanted.clone()).or_insert(1);
            *number += 1;
            target = numbered(&wanted, *number);
        }
        match fs::read(dataset.root.join(&item.path)) {
            Ok(bytes) => write_atomically(&target, &bytes).map_err(at(&target))?,
            Err(error) => skipped.push(Skipped {
                path: item.path.clone(),
                reason: error.to_string(),
            }),
        }
        progress.advance(1);
    }
    Ok((dataset.items.len() - skipped.len(), skipped))
}

#[cfg(test)]
mod tests {
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
}
