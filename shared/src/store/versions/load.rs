//! Versions as they were published, each compared with its manifest.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{LIVE, VersionError, VersionRef, file_key, is_name, versions_key};
use crate::bundle::{
    Bundle, FileEntry, MANIFEST, MAX_MANIFEST_BYTES, MODEL, Manifest, SIGNATURE, SIGNATURE_BYTES, TrustedKeys,
};
use crate::store::{Object, ObjectStore, StoreError};

/// The most that the files of one bundle may have together, in bytes, as they are held in memory.
const MAX_BUNDLE_BYTES: u64 = 4 << 30;
/// The largest network that is fetched before its manifest has come, in bytes.
const LARGEST_AHEAD: u64 = 64 << 20;
/// How many files are fetched at once.
const PARALLEL: usize = 8;

/// The manifest of a version, and its bytes as they were published.
///
/// # Errors
/// [`VersionError::NoVersion`] or [`VersionError::Missing`] where it is not there, [`VersionError::Manifest`] where it
/// is not the one of this version or has not the expected hash.
pub async fn manifest(
    store: &ObjectStore,
    name: &str,
    version: &str,
    expected_sha256: Option<&str>,
) -> Result<(Manifest, Bytes), VersionError> {
    let json = manifest_json(store, name, version, expected_sha256).await?;
    Ok((read_manifest(store, name, version, &json)?, json))
}

/// The bytes of a version's manifest, which have the expected hash.
async fn manifest_json(
    store: &ObjectStore,
    name: &str,
    version: &str,
    expected_sha256: Option<&str>,
) -> Result<Bytes, VersionError> {
    for part in [name, version] {
        if !is_name(part) {
            return Err(VersionError::Name(part.to_owned()));
        }
    }
    let key = file_key(name, version, MANIFEST);
    let place = || store.place(&key);
    let Some(object) = store.get(&key, MAX_MANIFEST_BYTES).await? else {
        let missing = VersionError::Missing { place: place() };
        return Err(match expected_sha256 {
            Some(_) => missing,
            None => absence(store, name, version, missing).await,
        });
    };
    if expected_sha256.is_some_and(|expected| expected != object.sha256) {
        return Err(VersionError::Manifest {
            place: place(),
            reason: format!("its hash is not the one in {LIVE}"),
        });
    }
    Ok(object.bytes)
}

/// What to say of a version that is `missing` its manifest: that there is none, where the store tells that nothing of
/// it is there.
async fn absence(store: &ObjectStore, name: &str, version: &str, missing: VersionError) -> VersionError {
    match store.folders(&versions_key(name)).await {
        Ok(all) if all.iter().all(|one| one != version) => VersionError::NoVersion {
            version: version.to_owned(),
            name: name.to_owned(),
            store: store.to_string(),
        },
        _ => missing,
    }
}

/// The manifest whose bytes are `json`, if it is the one of this version.
fn read_manifest(store: &ObjectStore, name: &str, version: &str, json: &[u8]) -> Result<Manifest, VersionError> {
    let place = || store.place(&file_key(name, version, MANIFEST));
    let manifest = Manifest::from_json(json).map_err(|source| VersionError::Bundle { place: place(), source })?;
    if manifest.version != version {
        return Err(VersionError::Manifest {
            place: place(),
            reason: format!("it is the manifest of version {}", manifest.version),
        });
    }
    let total = manifest
        .files
        .values()
        .fold(0_u64, |total, entry| total.saturating_add(entry.size));
    if total > MAX_BUNDLE_BYTES {
        return Err(VersionError::Manifest {
            place: place(),
            reason: format!("its files would have {total} bytes"),
        });
    }
    Ok(manifest)
}

/// Fetches a version whole and compares every file with its manifest, and the manifest with its hash where that is
/// known. Without it the version itself, the hash of the manifest's contents, is the check. One of `trusted` must have
/// signed the manifest, where there are any; nothing else is then fetched or looked into before that is known.
///
/// # Errors
/// Whatever is off with any file, naming it; never a part of a bundle.
pub async fn load_version(
    store: &ObjectStore,
    name: &str,
    reference: &VersionRef,
    trusted: &TrustedKeys,
) -> Result<Bundle, VersionError> {
    let (version, manifest_sha256) = (reference.version.as_str(), reference.manifest_sha256.as_deref());
    let withheld = |error: VersionError| match error {
        VersionError::Store(source @ StoreError::Denied { .. }) => VersionError::Withheld {
            version: version.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        },
        error => error,
    };
    // Every version has a network, the largest of its files: where nobody has to vouch for it, it is on its way while
    // the manifest is, and not looked at before that says what it should be.
    let is_ahead = trusted.is_empty();
    let model = file_key(name, version, MODEL);
    let ahead = async {
        if !is_ahead {
            return Ok(None);
        }
        Ok::<_, VersionError>(Some(store.get(&model, LARGEST_AHEAD).await))
    };
    let rest = async {
        let json = manifest_json(store, name, version, manifest_sha256).await?;
        let signature = signature(store, name, version, &json, trusted).await?;
        let manifest = read_manifest(store, name, version, &json)?;
        let others = manifest.files.iter().filter(|(file, _)| !is_ahead || *file != MODEL);
        let fetches: Vec<_> = others
            .map(|(file, entry)| fetch(store, file_key(name, version, file), file, entry))
            .collect();
        let files: BTreeMap<String, Bytes> = stream::iter(fetches).buffer_unordered(PARALLEL).try_collect().await?;
        Ok::<_, VersionError>((manifest, signature, files))
    };
    let (ahead, (manifest, signature, mut files)) = tokio::try_join!(ahead, rest).map_err(withheld)?;
    if let (Some(ahead), Some(entry)) = (ahead, manifest.files.get(MODEL)) {
        let network = match ahead {
            Err(StoreError::TooLarge { .. }) => fetch(store, model, MODEL, entry).await,
            Err(error) => Err(error.into()),
            Ok(found) => verified(store, &model, MODEL, entry, found),
        };
        let (file, bytes) = network.map_err(withheld)?;
        files.insert(file, bytes);
    }
    Ok(Bundle {
        manifest,
        files,
        signature,
    })
}

/// The signature, where keys are trusted and one of them has signed the manifest, which is `json`.
///
/// # Errors
/// [`VersionError::Bundle`] where none of them has, or what the store says.
pub async fn signature(
    store: &ObjectStore,
    name: &str,
    version: &str,
    json: &[u8],
    trusted: &TrustedKeys,
) -> Result<Option<Bytes>, VersionError> {
    if trusted.is_empty() {
        return Ok(None);
    }
    let key = file_key(name, version, SIGNATURE);
    let found = store.get(&key, SIGNATURE_BYTES as u64).await?;
    let signature = found.map(|object| object.bytes);
    trusted
        .check(json, signature.as_deref())
        .map_err(|source| VersionError::Bundle {
            place: store.place(&key),
            source,
        })?;
    Ok(signature)
}

async fn fetch(
    store: &ObjectStore,
    key: String,
    file: &str,
    entry: &FileEntry,
) -> Result<(String, Bytes), VersionError> {
    let found = store.get(&key, entry.size).await?;
    verified(store, &key, file, entry, found)
}

/// What was found at `key`, if it is what the manifest says.
fn verified(
    store: &ObjectStore,
    key: &str,
    file: &str,
    entry: &FileEntry,
    found: Option<Object>,
) -> Result<(String, Bytes), VersionError> {
    let Some(Object { bytes, sha256, .. }) = found else {
        return Err(VersionError::Missing {
            place: store.place(key),
        });
    };
    entry
        .verify_hashed(file, bytes.len() as u64, &sha256)
        .map_err(|source| VersionError::Bundle {
            place: store.place(key),
            source,
        })?;
    Ok((file.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::BundleError;
    use crate::store::{FolderStore, Source};

    #[tokio::test]
    async fn a_manifest_is_not_looked_into_before_its_signature_is() {
        // A key of RFC 8032, which has signed nothing here.
        let key = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
        let trusted = TrustedKeys::parse(key).expect("a key");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let published = folder.path().join("m/versions/v");
        std::fs::create_dir_all(&published).expect("a folder");
        std::fs::write(published.join(MANIFEST), "no manifest").expect("written");
        let store = ObjectStore::Folder(FolderStore::new(folder.path()));
        let unsigned = |result: Result<(), VersionError>| {
            let error = result.expect_err("nobody vouches for it");
            let found = matches!(
                error,
                VersionError::Bundle {
                    source: BundleError::Unsigned,
                    ..
                }
            );
            assert!(found, "{error}");
        };
        let loaded = load_version(&store, "m", &VersionRef::named("v"), &trusted).await;
        unsigned(loaded.map(|_| ()));
        let model = published.display().to_string();
        let source = Source::find(&model, None, trusted).await.expect("a bundle");
        unsigned(source.wanted().await.map(|_| ()));
    }
}
