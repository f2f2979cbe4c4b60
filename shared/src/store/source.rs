//! The model that a scorer is told to serve: found once, then asked again and again which versions are
//! wanted, and for any of them whole.

use std::path::{Path, PathBuf};

use super::versions::{LIVE, VersionError, VersionRef, live, load_version};
use super::{Location, ObjectStore, off_the_executor};
use crate::bundle::{Bundle, MANIFEST, TrustedKeys, folder_in, read_manifest};
use crate::files::sha256_hex;

/// A published model, or a plain bundle in a folder.
#[derive(Debug, Clone)]
pub struct Source {
    kind: Kind,
    pinned: Option<String>,
    trusted: TrustedKeys,
}

#[derive(Debug, Clone)]
enum Kind {
    Published { store: ObjectStore, name: String },
    Bundle(PathBuf),
}

/// The versions that should answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The live one, or the one that is pinned.
    pub live: VersionRef,
    /// One on trial, with its share of the images.
    pub canary: Option<(VersionRef, f64)>,
}

impl Source {
    /// What `model` names: `s3://BUCKET/PREFIX/NAME` or a folder, either `STORE/NAME` as published, a plain
    /// bundle or a run with its bundle inside. With a version `pinned`, that one alone should answer, and a folder
    /// where nothing is published yet is taken too. It gives away only what one of `trusted` has signed, where there
    /// are any.
    ///
    /// # Errors
    /// [`VersionError::NoModel`], or what keeps the store from being reached.
    pub async fn find(model: &str, pinned: Option<&str>, trusted: TrustedKeys) -> Result<Self, VersionError> {
        let of = |kind| Self {
            kind,
            pinned: pinned.map(str::to_owned),
            trusted,
        };
        let (location, name) = match Location::parse(model)? {
            Location::S3 { prefix, .. } if prefix.is_empty() => {
                return Err(VersionError::Unnamed(model.to_owned()));
            }
            Location::S3 { bucket, prefix } => {
                let (prefix, name) = prefix.rsplit_once('/').unwrap_or(("", &prefix));
                let prefix = prefix.to_owned();
                (Location::S3 { bucket, prefix }, name.to_owned())
            }
            Location::Folder(folder) => {
                let bundle = folder_in(&folder);
                if bundle.join(MANIFEST).is_file() {
                    return Ok(of(Kind::Bundle(bundle)));
                }
                let no_model = || VersionError::NoModel {
                    folder: folder.display().to_string(),
                };
                // The name of "." or "a/.." is known only once the links are followed.
                let folder = folder.canonicalize().map_err(|_| no_model())?;
                let (Some(root), Some(name)) = (folder.parent(), folder.file_name().and_then(|name| name.to_str()))
                else {
                    return Err(no_model());
                };
                if pinned.is_none() && !folder.join(LIVE).is_file() {
                    return Err(no_model());
                }
                (Location::Folder(root.to_owned()), name.to_owned())
            }
        };
        let store = ObjectStore::connect(&location).await?;
        Ok(of(Kind::Published { store, name }))
    }

    /// Which versions should answer now.
    pub async fn wanted(&self) -> Result<Wanted, VersionError> {
        let live = match (&self.kind, &self.pinned) {
            (_, Some(pinned)) => VersionRef::named(pinned),
            (Kind::Bundle(folder), None) => in_bundle(folder.clone(), self.trusted.clone()).await?,
            (Kind::Published { store, name }, None) => {
                let live = live(store, name).await?;
                let canary = live.canary.as_ref().map(|canary| {
                    let reference = VersionRef::of(&canary.version, &canary.manifest_sha256);
                    (reference, canary.share)
                });
                let live = live.reference();
                return Ok(Wanted { live, canary });
            }
        };
        Ok(Wanted { live, canary: None })
    }

    /// A version whole, every file compared with its hash.
    pub async fn load(&self, version: &VersionRef) -> Result<Bundle, VersionError> {
        match &self.kind {
            Kind::Published { store, name } => load_version(store, name, version, &self.trusted).await,
            Kind::Bundle(folder) => read_bundle(folder, &version.version, &self.trusted).await,
        }
    }
}

/// The version of `model` that is live, or the `pinned` one, whole: [`Source`] in one step.
pub async fn open(model: &str, pinned: Option<&str>) -> Result<Bundle, VersionError> {
    let source = Source::find(model, pinned, TrustedKeys::default()).await?;
    let wanted = source.wanted().await?;
    source.load(&wanted.live).await
}

async fn in_bundle(folder: PathBuf, trusted: TrustedKeys) -> Result<VersionRef, VersionError> {
    let path = folder.join(MANIFEST);
    let place = path.display().to_string();
    let damaged = |source| VersionError::Bundle { place, source };
    let (manifest, json, _) = off_the_executor(move || read_manifest(&folder, &trusted))
        .await
        .map_err(damaged)?;
    Ok(VersionRef::of(&manifest.version, &sha256_hex(&json)))
}

async fn read_bundle(folder: &Path, version: &str, trusted: &TrustedKeys) -> Result<Bundle, VersionError> {
    let place = folder.display().to_string();
    let (path, trusted) = (folder.to_owned(), trusted.clone());
    let bundle = off_the_executor(move || Bundle::read(&path, &trusted))
        .await
        .map_err(|source| VersionError::Bundle {
            place: place.clone(),
            source,
        })?;
    if bundle.manifest.version == version {
        return Ok(bundle);
    }
    Err(VersionError::OtherVersion {
        folder: place,
        found: bundle.manifest.version,
        pinned: version.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_model_that_is_not_there_is_named_with_what_is_looked_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for model in [folder.path().to_owned(), folder.path().join("none")] {
            let model = model.display().to_string();
            let error = open(&model, None).await.expect_err("nothing there").to_string();
            assert!(
                error.contains(&model) && error.contains(MANIFEST) && error.contains(LIVE),
                "{error}"
            );
        }
        let error = open("s3://bucket", None).await.expect_err("no model").to_string();
        assert!(
            error.contains("names no model") && error.contains("s3://BUCKET/PREFIX/NAME"),
            "{error}"
        );
        assert!(!error.contains("path of a folder"), "{error}");
    }
}
