//! Opening what a path or address on the command line names.

use std::path::{Path, PathBuf};

use shared::bundle::{Bundle, MANIFEST};
use shared::store::{Location, ObjectStore, StoreError};

use super::failure::Failure;

/// The bundle in `path`, which is a bundle folder or a run that holds one.
pub fn bundle(path: &Path) -> Result<Bundle, Failure> {
    let folder = bundle_folder(path);
    Bundle::read(&folder).map_err(|error| {
        Failure::hinted(
            &error,
            format!(
                "{} should be a run, or the bundle in it, made by `trainer train`",
                path.display()
            ),
        )
    })
}

fn bundle_folder(path: &Path) -> PathBuf {
    let inside = path.join("bundle");
    if !path.join(MANIFEST).exists() && inside.join(MANIFEST).exists() {
        inside
    } else {
        path.to_path_buf()
    }
}

/// The store that `text` names: `s3://bucket/prefix` or a folder.
pub async fn store(text: &str) -> Result<ObjectStore, StoreError> {
    ObjectStore::connect(&Location::parse(text)?).await
}

/// A tokio runtime for one command's network work.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work))
}
