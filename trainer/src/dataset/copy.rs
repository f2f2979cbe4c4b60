//! A data set as a new folder of class folders.

use std::fs;
use std::path::Path;

use shared::files;

use super::{Dataset, DatasetError, Skipped, vacant};
use crate::progress::Progress;

/// Copies every image into the class folders of `out`, which must be empty; a name that two images of a class have gets
/// a number. Gives the number of copies and what could not be read.
///
/// # Errors
/// [`DatasetError::File`] where `out` is not empty or cannot be written, [`DatasetError::FolderName`] where a label cannot
/// name a folder.
pub fn copy_to_folders(
    dataset: &Dataset,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(usize, Vec<Skipped>), DatasetError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| DatasetError::File { path, source }
    };
    if let Some(label) = dataset.classes.iter().find(|label| !crate::fetch::is_label(label)) {
        return Err(DatasetError::FolderName(label.clone()));
    }
    fs::create_dir_all(out).map_err(failed(out))?;
    if fs::read_dir(out).map_err(failed(out))?.next().is_some() {
        return Err(failed(out)(std::io::ErrorKind::DirectoryNotEmpty.into()));
    }
    let mut skipped = Vec::new();
    progress.begin("Copying", dataset.items.len() as u64);
    for item in &dataset.items {
        let folder = out.join(&dataset.classes[item.class]);
        let name = item.path.file_name().unwrap_or(item.path.as_os_str());
        let target = vacant(&folder.join(name), Path::exists);
        match fs::read(dataset.root.join(&item.path)) {
            Ok(bytes) => files::write_atomically(&target, &bytes).map_err(failed(&target))?,
            Err(error) => skipped.push(Skipped {
                path: item.path.clone(),
                reason: error.to_string(),
            }),
        }
        progress.advance(1);
    }
    progress.end();
    Ok((dataset.items.len() - skipped.len(), skipped))
}
