//! Opening what a path or address on the command line names.

use std::path::{Path, PathBuf};

use shared::bundle::{Bundle, BundleError, MANIFEST, TrustedKeys, TrustedKeysError, folder_in};
use shared::store::versions::VERSIONS;
use shared::store::{Location, ObjectStore, StoreError};

use super::failure::Failure;
use crate::runs::RECORD;

/// A bundle on this machine.
#[derive(Debug, clap::Args)]
pub struct BundleArguments {
    /// A run or the bundle in it
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    trust: TrustArguments,
}

/// Whose bundles are taken.
#[derive(Debug, clap::Args)]
pub struct TrustArguments {
    /// Take only a bundle that one of these keys has signed: public keys as `trainer keygen` prints them, with commas
    /// between them
    #[arg(long, value_name = "KEYS", value_parser = trusted)]
    trusted_key: Option<TrustedKeys>,
}

impl BundleArguments {
    /// The bundle, if whoever is trusted has signed it.
    pub fn read(&self) -> Result<Bundle, Failure> {
        self.trust.read(&self.bundle)
    }

    /// The folder of the run that it lies in, if it lies in one.
    pub fn run(&self) -> Option<PathBuf> {
        let bundle = self.bundle.canonicalize().ok()?;
        let mut folders = bundle.ancestors().take(2);
        folders
            .find(|folder| folder.join(RECORD).is_file())
            .map(Path::to_path_buf)
    }

    /// The bundle, whoever has signed it.
    pub fn read_any(&self) -> Result<Bundle, Failure> {
        read_bundle(&self.bundle, &TrustedKeys::default())
    }

    /// The keys of which one must have signed it, if there are any.
    pub fn trusted(&self) -> TrustedKeys {
        self.trust.trusted()
    }
}

impl TrustArguments {
    /// The bundle at `path`, or in the run there, if whoever is trusted has signed it.
    pub fn read(&self, path: &Path) -> Result<Bundle, Failure> {
        read_bundle(path, &self.trusted())
    }

    /// The keys of which one must have signed what is taken, if there are any.
    pub fn trusted(&self) -> TrustedKeys {
        self.trusted_key.clone().unwrap_or_default()
    }
}

fn read_bundle(path: &Path, trusted: &TrustedKeys) -> Result<Bundle, Failure> {
    if matches!(path.try_exists(), Ok(false)) {
        return Err(Failure::failed(format!(
            "{} does not exist: give a run, or the bundle in it, made by `trainer train`",
            path.display()
        )));
    }
    let versions = path.join(VERSIONS);
    if versions.is_dir() && !path.join(MANIFEST).exists() {
        return Err(Failure::failed(format!(
            "{} is a published model: give one of its versions, a folder in {}",
            path.display(),
            versions.display()
        )));
    }
    let folder = folder_in(path);
    Bundle::read(&folder, trusted).map_err(|error| match error {
        _ if !folder.join(MANIFEST).exists() => Failure::hinted(
            &error,
            format!(
                "{} should be a run, or the bundle in it, made by `trainer train`",
                path.display()
            ),
        ),
        BundleError::Missing(_) | BundleError::Damaged { .. } | BundleError::Manifest(_) => Failure::hinted(
            &error,
            format!(
                "{} was damaged after it was written: take another copy of it, or train again",
                path.display()
            ),
        ),
        error => Failure::from(error),
    })
}

fn trusted(text: &str) -> Result<TrustedKeys, TrustedKeysError> {
    TrustedKeys::parse(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_where_a_bundle_should_be_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let refusal = |name: &str| {
            let path = folder.path().join(name);
            let read = read_bundle(&path, &TrustedKeys::default());
            read.map(drop).expect_err("no bundle").text()
        };
        assert!(refusal("nowhere").contains("does not exist"));
        std::fs::create_dir_all(folder.path().join("store/photos/versions/1234")).expect("a folder");
        let published = refusal("store/photos");
        assert!(
            published.contains("is a published model") && published.contains("versions"),
            "{published}"
        );
        assert!(refusal("store").contains("should be a run"));
        for (file, contents) in [("store/file", "x"), ("damaged/manifest.json", "{")] {
            shared::files::write_atomically(&folder.path().join(file), contents.as_bytes()).expect("written");
        }
        assert!(refusal("store/file").contains("should be a run"));
        let damaged = refusal("damaged");
        assert!(
            damaged.contains("take another copy") && !damaged.contains("should be a run"),
            "{damaged}"
        );
    }
}
