//! The model that a scorer is told to serve: found once, then asked again and again which versions are
//! wanted, and for any of them whole.

use std::path::{Path, PathBuf};

use super::versions::{LIVE, VersionError, live, load_version};
use super::{Location, ObjectStore, off_the_executor};
use crate::bundle::{Bundle, MANIFEST, TrustedKeys, read_manifest};
use crate::files::sha256_hex;

/// A published model, or a plain bundle in a folder.
#[derive(Debug, Clone)]
pub struct Source {
    kind: Kind,
    trusted: TrustedKeys,
}

#[derive(Debug, Clone)]
enum Kind {
    Published { store: ObjectStore, name: String },
    Bundle(PathBuf),
}

/// One version, and how to tell that it is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRef {
    /// Its name: the hash of its contents.
    pub version: String,
    /// SHA-256 of its manifest, where it is known.
    pub manifest_sha256: Option<String>,
}

impl VersionRef {
    /// The version of this name, whatever the hash of its manifest is.
    pub fn named(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            manifest_sha256: None,
        }
    }

    /// The version of this name whose manifest has this SHA-256.
    pub fn of(version: &str, manifest_sha256: &str) -> Self {
        Self {
            manifest_sha256: Some(manifest_sha256.to_owned()),
            ..Self::named(version)
        }
    }
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
    /// bundle or a run with its bundle inside. A folder where nothing is published yet is taken where a version is
    /// `pinned`.
    ///
    /// # Errors
    /// [`VersionError::NoModel`], or what keeps the store from being reached.
    pub async fn find(model: &str, pinned: Option<&str>) -> Result<Self, VersionError> {
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
                let inside = folder.join("bundle");
                for bundle in [&folder, &inside] {
                    if bundle.join(MANIFEST).is_file() {
                        return Ok(Self::of(Kind::Bundle(bundle.clone())));
                    }
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
        Ok(Self::of(Kind::Published { store, name }))
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            trusted: TrustedKeys::default(),
        }
    }

    /// The same, giving away only what one of these keys has signed, where there are any.
    #[must_use]
    pub fn trusting(self, trusted: TrustedKeys) -> Self {
        Self { trusted, ..self }
    }

    /// Which versions should answer now; with one `pinned`, that one alone.
    ///
    /// # Errors
    /// See [`VersionError`].
    pub async fn wanted(&self, pinned: Option<&str>) -> Result<Wanted, VersionError> {
        let live = match (&self.kind, pinned) {
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
    ///
    /// # Errors
    /// See [`VersionError`].
    pub async fn load(&self, version: &VersionRef) -> Result<Bundle, VersionError> {
        match &self.kind {
            Kind::Published { store, name } => load_version(store, name, version, &self.trusted).await,
            Kind::Bundle(folder) => read_bundle(folder, &version.version, &self.trusted).await,
        }
    }
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
