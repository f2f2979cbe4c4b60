//! The layout of published models, and how to read one.
//!
//! `NAME/versions/VERSION/` holds the files of a bundle and never changes; `NAME/live.json` ([`Live`])
//! names the version that is served and the hash of its manifest, which in turn holds the hash of
//! every file. So a reader that starts at `live.json` gets what was published or an error.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::source::Source;
use super::{Object, ObjectStore, StoreError, rfc3339};
use crate::bundle::{
    Bundle, BundleError, FileEntry, MANIFEST, MAX_MANIFEST_BYTES, MODEL, Manifest, SIGNATURE, SIGNATURE_BYTES,
    TrustedKeys,
};

/// Name of the file that says which version is served.
pub const LIVE: &str = "live.json";
/// The newest form of `live.json` that this version reads and writes.
pub const LIVE_SCHEMA_VERSION: u32 = 1;

/// The largest `live.json` that is read, in bytes.
const MAX_LIVE_BYTES: u64 = 64 << 10;
/// The most that the files of one bundle may have together, in bytes, as they are held in memory.
const MAX_BUNDLE_BYTES: u64 = 4 << 30;
/// The largest network that is fetched before its manifest has come, in bytes.
const LARGEST_AHEAD: u64 = 64 << 20;
/// How many files are fetched at once.
const PARALLEL: usize = 8;

/// `live.json`: which version of a model is served.
///
/// Readers ignore fields they do not know, so that a later form can add to it without a new schema as
/// long as `version` keeps its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Form of this file, [`LIVE_SCHEMA_VERSION`] for those written now.
    pub schema_version: u32,
    /// The version that is served.
    pub version: String,
    /// SHA-256 of that version's `manifest.json`, 64 hexadecimal digits.
    pub manifest_sha256: String,
    /// A second version that answers for a share of the images, while it is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// The version that was served before, if any.
    pub previous: Option<String>,
    /// When this file was written, RFC 3339 in UTC.
    pub published_at: String,
}

/// A version on trial beside the one that is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The version.
    pub version: String,
    /// SHA-256 of its `manifest.json`, 64 hexadecimal digits.
    pub manifest_sha256: String,
    /// Share of the images that it answers for, above 0 and below 1.
    pub share: f64,
}

impl Canary {
    /// Whether `share` can be one.
    pub fn is_share(share: f64) -> bool {
        share > 0.0 && share < 1.0
    }
}

impl Live {
    /// The form that is written now.
    pub fn new(version: &str, manifest_sha256: &str, previous: Option<&str>) -> Self {
        Self {
            schema_version: LIVE_SCHEMA_VERSION,
            version: version.to_owned(),
            manifest_sha256: manifest_sha256.to_owned(),
            canary: None,
            previous: previous.map(str::to_owned),
            published_at: rfc3339(SystemTime::now()),
        }
    }

    /// The JSON form, for people to read.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("live.json has a JSON form")
    }

    fn from_json(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Schema {
            schema_version: u32,
        }
        let Schema { schema_version } = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
        if schema_version > LIVE_SCHEMA_VERSION {
            return Err(format!(
                "it has schema version {schema_version}; this program reads up to {LIVE_SCHEMA_VERSION}: update it"
            ));
        }
        let live: Self = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
        if !is_name(&live.version) {
            return Err(damaged(&format!("{:?} is not a version", live.version)));
        }
        if let Some(canary) = &live.canary {
            if !is_name(&canary.version) {
                return Err(damaged(&format!("{:?} is not a version", canary.version)));
            }
            if !Canary::is_share(canary.share) {
                return Err(damaged(&format!(
                    "its canary has a share of {}, not between 0 and 1",
                    canary.share
                )));
            }
        }
        Ok(live)
    }
}

/// What is wrong with a `live.json`, and the way out of it.
fn damaged(what: &dyn fmt::Display) -> String {
    format!(
        "{what}; put an earlier state of it back, or remove it and make a version live with `trainer rollback --version`"
    )
}

/// Why a published model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name cannot be one.
    #[error(
        "{0:?} is not a name: use letters, digits, dots, underscores and hyphens, beginning with a letter or digit"
    )]
    Name(String),
    /// A store is named, and no model in it.
    #[error("{0:?} names no model: write s3://BUCKET/PREFIX/NAME, or s3://BUCKET/NAME where there is no prefix")]
    Unnamed(String),
    /// No version is live.
    #[error("{place} does not exist: no version of {name} is published there")]
    NotPublished {
        /// Where `live.json` would be.
        place: String,
        /// Of which model.
        name: String,
    },
    /// `live.json` is damaged.
    #[error("{place} is not valid: {reason}")]
    Live {
        /// Where it is.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing lies where a version that was asked for by its name would be.
    #[error(
        "there is no version {version} of {name} in {store}: `trainer versions --to {store} --name {name}` lists those \
         there are"
    )]
    NoVersion {
        /// The version.
        version: String,
        /// Of which model.
        name: String,
        /// Where it was looked for.
        store: String,
    },
    /// A file of the version may not be read. That is also what S3 says of one that is not there, to whoever may not list.
    #[error("version {version} of {name} is not there, not whole, or may not be read: {source}")]
    Withheld {
        /// The version.
        version: String,
        /// Of which model.
        name: String,
        /// What the store says of the file.
        source: Box<StoreError>,
    },
    /// A file of the version is not there.
    #[error("{place} is missing: this version was not published completely, or part of it was removed")]
    Missing {
        /// Where the file would be.
        place: String,
    },
    /// The manifest is not the one that was made live.
    #[error("{place} is damaged: {reason}")]
    Manifest {
        /// Where it is.
        place: String,
        /// How one can tell.
        reason: String,
    },
    /// A file differs from the manifest, or the manifest is not one.
    #[error("{place}: {source}")]
    Bundle {
        /// Where it is.
        place: String,
        /// What is wrong.
        source: BundleError,
    },
    /// The folder is neither a bundle nor a published model.
    #[error(
        "{folder} holds neither {MANIFEST} (a bundle) nor {LIVE} (a published model): give the folder of a run's \
         bundle, or STORE/NAME as published"
    )]
    NoModel {
        /// What was given.
        folder: String,
    },
    /// The folder is a bundle, but not of the wanted version.
    #[error("{folder} holds version {found}, not {pinned} as asked for")]
    OtherVersion {
        /// What was given.
        folder: String,
        /// The version it holds.
        found: String,
        /// The version asked for.
        pinned: String,
    },
}

impl VersionError {
    /// The same for whoever calls the scoring function: see [`StoreError::for_callers`].
    #[must_use]
    pub fn for_callers(self) -> Self {
        match self {
            Self::Store(error) => Self::Store(error.for_callers()),
            Self::Withheld { version, name, source } => Self::Withheld {
                version,
                name,
                source: Box::new(source.for_callers()),
            },
            error => error,
        }
    }
}

/// Whether `text` may name a model or a version: it is a single part of a key and of a path.
pub fn is_name(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-'))
}

/// Key of `live.json`.
pub fn live_key(name: &str) -> String {
    format!("{name}/{LIVE}")
}

/// Key of the folder that holds all versions.
pub fn versions_key(name: &str) -> String {
    format!("{name}/versions")
}

/// Key of a file of a version.
pub fn file_key(name: &str, version: &str, file: &str) -> String {
    format!("{name}/versions/{version}/{file}")
}

/// Which version of `name` is live.
///
/// # Errors
/// [`VersionError::NotPublished`] where none is; see [`find_live`] for the others.
pub async fn live(store: &ObjectStore, name: &str) -> Result<Live, VersionError> {
    let found = find_live(store, name).await?;
    found.map(|(live, _)| live).ok_or_else(|| VersionError::NotPublished {
        place: store.place(&live_key(name)),
        name: name.to_owned(),
    })
}

/// Which version of `name` is live, if any, and the etag for replacing `live.json`.
///
/// # Errors
/// [`VersionError::Name`], [`VersionError::Live`] or what the store says.
pub async fn find_live(store: &ObjectStore, name: &str) -> Result<Option<(Live, String)>, VersionError> {
    if !is_name(name) {
        return Err(VersionError::Name(name.to_owned()));
    }
    let key = live_key(name);
    let Some(Object { bytes, etag, .. }) = store.get(&key, MAX_LIVE_BYTES).await? else {
        return Ok(None);
    };
    let live = Live::from_json(&bytes).map_err(|reason| VersionError::Live {
        place: store.place(&key),
        reason,
    })?;
    Ok(Some((live, etag)))
}

/// The manifest of a version, and its bytes as they were published.
///
/// # Errors
/// [`VersionError::Missing`] where it is not there, [`VersionError::Manifest`] where it is not the one
/// of this version or has not the expected hash.
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
        return Err(VersionError::Missing { place: place() });
    };
    if expected_sha256.is_some_and(|expected| expected != object.sha256) {
        return Err(VersionError::Manifest {
            place: place(),
            reason: format!("its hash is not the one in {LIVE}"),
        });
    }
    Ok(object.bytes)
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

/// Fetches a version whole and compares every file with its manifest, and the manifest with
/// `manifest_sha256` where that is known. Without it the version itself, the hash of the manifest's
/// contents, is the check. One of `trusted` must have signed the manifest, where there are any; nothing else is then
/// fetched or looked into before that is known.
///
/// # Errors
/// Whatever is off with any file, naming it; never a part of a bundle.
pub async fn load_version(
    store: &ObjectStore,
    name: &str,
    version: &str,
    manifest_sha256: Option<&str>,
    trusted: &TrustedKeys,
) -> Result<Bundle, VersionError> {
    let fetched = fetch_version(store, name, version, manifest_sha256, trusted).await;
    fetched.map_err(|error| match error {
        VersionError::Store(source @ StoreError::Denied { .. }) => VersionError::Withheld {
            version: version.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        },
        error => error,
    })
}

async fn fetch_version(
    store: &ObjectStore,
    name: &str,
    version: &str,
    manifest_sha256: Option<&str>,
    trusted: &TrustedKeys,
) -> Result<Bundle, VersionError> {
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
        let json = match manifest_json(store, name, version, manifest_sha256).await {
            Err(missing @ VersionError::Missing { .. }) if manifest_sha256.is_none() => {
                return Err(absence(store, name, version, missing).await);
            }
            json => json?,
        };
        let signature = signature(store, name, version, &json, trusted).await?;
        let manifest = read_manifest(store, name, version, &json)?;
        let others = manifest.files.iter().filter(|(file, _)| !is_ahead || *file != MODEL);
        let fetches: Vec<_> = others
            .map(|(file, entry)| fetch(store, file_key(name, version, file), file, entry))
            .collect();
        let files: BTreeMap<String, Bytes> = stream::iter(fetches).buffer_unordered(PARALLEL).try_collect().await?;
        Ok::<_, VersionError>((manifest, signature, files))
    };
    let (ahead, (manifest, signature, mut files)) = tokio::try_join!(ahead, rest)?;
    if let (Some(ahead), Some(entry)) = (ahead, manifest.files.get(MODEL)) {
        let (file, bytes) = match ahead {
            Err(StoreError::TooLarge { .. }) => fetch(store, model, MODEL, entry).await?,
            ahead => verified(store, &model, MODEL, entry, ahead?)?,
        };
        files.insert(file, bytes);
    }
    Ok(Bundle {
        manifest,
        files,
        signature,
    })
}

/// What to say of a version that is `missing` its manifest: that there is none, where the store tells that nothing of it
/// is there.
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

/// The version of `model` that is live, or the `pinned` one, whole: [`Source`] in one step.
///
/// # Errors
/// See [`VersionError`].
pub async fn open(model: &str, pinned: Option<&str>) -> Result<Bundle, VersionError> {
    let source = Source::find(model, pinned).await?;
    let wanted = source.wanted(pinned).await?;
    source.load(&wanted.live).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_parts_of_a_path() {
        for name in ["m", "0123456789abcdef", "t-shirts_v1.2"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "-flag",
            "a/b",
            "a b",
            "a\\b",
            "é",
            &"a".repeat(129),
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn live_files_keep_their_form() {
        let live = Live::new("0123456789abcdef", &"a".repeat(64), None);
        assert_eq!(Live::from_json(&live.to_json()), Ok(live));
        let json = r#"{"schema_version":1,"version":"v","manifest_sha256":"aa","previous":"u",
            "published_at":"2026-01-01T00:00:00Z","mirror":{"version":"w","weight":0.1}}"#;
        let live = Live::from_json(json.as_bytes()).expect("a later form that says more");
        assert_eq!((live.version.as_str(), live.previous.as_deref()), ("v", Some("u")));
        let canary = |version: &str, share: &str| {
            let canary =
                format!(r#""canary":{{"version":"{version}","manifest_sha256":"bb","share":{share}}},"mirror""#);
            Live::from_json(json.replace("\"mirror\"", &canary).as_bytes())
        };
        let live = canary("w", "0.25").expect("a version on trial");
        assert!((live.canary.expect("read").share - 0.25).abs() < f64::EPSILON);
        for (version, share) in [("../w", "0.5"), ("w", "0"), ("w", "1"), ("w", "-0.1"), ("w", "1e300")] {
            canary(version, share).expect_err("no canary");
        }
        let newer = json.replace(":1,", ":2,");
        assert!(Live::from_json(newer.as_bytes()).expect_err("newer").contains("update"));
        let outside = json.replace("\"v\"", "\"../v\"");
        assert!(
            Live::from_json(outside.as_bytes())
                .expect_err("outside")
                .contains("version")
        );
    }

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

    #[tokio::test]
    async fn a_manifest_is_not_looked_into_before_its_signature_is() {
        // A key of RFC 8032, which has signed nothing here.
        let key = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
        let trusted = TrustedKeys::parse(key).expect("a key");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let published = folder.path().join("m/versions/v");
        std::fs::create_dir_all(&published).expect("a folder");
        std::fs::write(published.join(MANIFEST), "no manifest").expect("written");
        let store = ObjectStore::Folder(super::super::FolderStore::new(folder.path()));
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
        unsigned(load_version(&store, "m", "v", None, &trusted).await.map(|_| ()));
        let model = published.display().to_string();
        let source = Source::find(&model, None).await.expect("a bundle").trusting(trusted);
        unsigned(source.wanted(None).await.map(|_| ()));
    }
}
