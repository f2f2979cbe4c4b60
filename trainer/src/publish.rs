//! Brings a bundle to a store and decides which version is served.
//!
//! The order makes it safe to be interrupted anywhere and to be run by several people at once: the
//! files of a version go up first, its manifest when all of them are there, and `live.json` last, by a
//! conditional write on the state it had before anything else was done. So readers see the old version
//! or the new one, and of two publishers one is told that it lost.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use shared::bundle::{Bundle, BundleError, FileEntry, MANIFEST, Manifest, SIGNATURE, TrustedKeys};
use shared::files::sha256_hex;
use shared::store::versions::{self, Canary, Live, VersionError, file_key, live_key};
use shared::store::{Condition, ObjectStore, StoreError, rfc3339};

/// How many files go up or are looked at at once.
const PARALLEL: usize = 4;

/// What is served after [`publish`], [`publish_canary`] or [`rollback`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Published {
    /// The version that is live now.
    pub version: String,
    /// The version on trial beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// The version whose trial ended by this, without becoming live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_trial: Option<String>,
    /// The version that was live before it, for going back.
    pub previous: Option<String>,
}

/// One version in a store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionInfo {
    /// Hash of its contents.
    pub version: String,
    /// Whether it is served.
    pub live: bool,
    /// Share of the images that it answers for while it is on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_share: Option<f64>,
    /// Whether its manifest and all files are there with the right sizes.
    pub complete: bool,
    /// What it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When its manifest was written, RFC 3339 in UTC, where the store tells.
    pub created: Option<String>,
    /// Accuracy on the test part, 0 to 1, where the manifest has it.
    pub accuracy: Option<f64>,
}

/// One model in a store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// The version that is live, where that can be told.
    pub version: Option<String>,
    /// The version on trial beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// When this was decided, RFC 3339 in UTC.
    pub published_at: Option<String>,
    /// Why it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Why nothing was published. Whatever was live before still is.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The store or what it holds.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The bundle is damaged.
    #[error("the bundle cannot be published: {0}")]
    Bundle(#[from] BundleError),
    /// Something else lies where a file of this version belongs.
    #[error(
        "{place} has other contents than the bundle's file, although versions never change: it was damaged or \
         written by another program; remove it and publish again"
    )]
    Occupied {
        /// Where.
        place: String,
    },
    /// Somebody else published or rolled back at the same time.
    #[error(
        "nothing has changed for version {version}: somebody else published or rolled back in the meantime, and the \
         live version is {winner}; look at it with `trainer versions`, then give the same command again if it is \
         still to be done"
    )]
    Lost {
        /// The version that was to become live.
        version: String,
        /// What is live now.
        winner: String,
    },
    /// The share of a version on trial cannot be one.
    #[error("{0} is not a share: give a number above 0 and below 1, for example 0.1 for a tenth of the images")]
    Share(f64),
    /// A trial needs something to be compared with.
    #[error("no version of {name} is live yet, and a trial runs beside one: publish this one without --canary")]
    NothingLive {
        /// Of which model.
        name: String,
    },
    /// The version on trial is the live one.
    #[error("version {version} is live already: a trial needs another version")]
    AlreadyLive {
        /// Which version.
        version: String,
    },
    /// There is nothing to go back to.
    #[error("version {live} of {name} is the first that was published: name the version to go back to")]
    NoPrevious {
        /// Of which model.
        name: String,
        /// What is live.
        live: String,
    },
    /// The version cannot be made live.
    #[error("version {version} of {name} is not complete: {problem}; publish its bundle again, or choose another")]
    Incomplete {
        /// Of which model.
        name: String,
        /// Which version.
        version: String,
        /// What it lacks.
        problem: String,
    },
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        Self::Version(error.into())
    }
}

/// Uploads `bundle` as a version of `name` and makes it live, which ends a trial. Doing it again does no
/// harm: what is already there with the same contents is left alone.
///
/// # Errors
/// See [`PublishError`]; the version that was live stays so.
pub async fn publish(store: &ObjectStore, bundle: &Bundle, name: &str) -> Result<Published, PublishError> {
    let before = versions::find_live(store, name).await?;
    let hash = upload_version(store, bundle, name).await?;
    make_live(store, name, &bundle.manifest.version, &hash, before).await
}

/// Uploads `bundle` as a version of `name` and lets it answer for a `share` of the images, beside the live
/// version. It replaces another version on trial.
///
/// # Errors
/// See [`PublishError`]; what was live stays so.
pub async fn publish_canary(
    store: &ObjectStore,
    bundle: &Bundle,
    name: &str,
    share: f64,
) -> Result<Published, PublishError> {
    if !Canary::is_share(share) {
        return Err(PublishError::Share(share));
    }
    let version = &bundle.manifest.version;
    let (live, etag) = match versions::find_live(store, name).await? {
        None => return Err(PublishError::NothingLive { name: name.to_owned() }),
        Some((live, _)) if live.version == *version => {
            return Err(PublishError::AlreadyLive {
                version: version.clone(),
            });
        }
        Some(before) => before,
    };
    let trial = live.canary.map(|canary| canary.version);
    let canary = Canary {
        version: version.clone(),
        manifest_sha256: upload_version(store, bundle, name).await?,
        share,
    };
    let after = Live {
        canary: Some(canary),
        ..Live::new(&live.version, &live.manifest_sha256, live.previous.as_deref())
    };
    let published = write_live(store, name, version, after, Condition::Unchanged(etag)).await?;
    Ok(published.ending(trial))
}

/// Uploads every file, then the signature if there is one, the manifest last; gives the manifest's SHA-256.
async fn upload_version(store: &ObjectStore, bundle: &Bundle, name: &str) -> Result<String, PublishError> {
    let manifest = Bytes::from(verified_manifest(bundle)?);
    let version = &bundle.manifest.version;

    let uploads: Vec<_> = bundle
        .files
        .iter()
        .map(|(file, contents)| upload(store, file_key(name, version, file), contents.clone()))
        .collect();
    stream::iter(uploads)
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    if let Some(problem) = missing_file(store, name, &bundle.manifest).await? {
        return Err(incomplete(name, version, problem));
    }
    if let Some(signature) = &bundle.signature {
        sign(store, &file_key(name, version, SIGNATURE), signature).await?;
    }
    let hash = sha256_hex(&manifest);
    upload(store, file_key(name, version, MANIFEST), manifest).await?;
    Ok(hash)
}

/// Makes another version live: `to`, or the one that was live before. A second rollback without `to`
/// therefore takes the first one back. While a version is on trial, a rollback without `to` ends the trial
/// and leaves the live version as it is. One of `trusted` must have signed what becomes live, where there are any.
///
/// # Errors
/// [`PublishError::NoPrevious`], [`VersionError::NoVersion`], [`PublishError::Incomplete`], [`PublishError::Lost`], or
/// what the store says; the version that was live stays so.
pub async fn rollback(
    store: &ObjectStore,
    name: &str,
    to: Option<&str>,
    trusted: &TrustedKeys,
) -> Result<Published, PublishError> {
    let before = versions::find_live(store, name).await?;
    let version = match (to, &before) {
        (Some(version), _) => version.to_owned(),
        (None, None) => {
            return Err(PublishError::Version(VersionError::NotPublished {
                place: store.place(&live_key(name)),
                name: name.to_owned(),
            }));
        }
        (None, Some((live, _))) if live.canary.is_some() => live.version.clone(),
        (None, Some((live, _))) => live.previous.clone().ok_or_else(|| PublishError::NoPrevious {
            name: name.to_owned(),
            live: live.version.clone(),
        })?,
    };
    let (manifest, json) = match versions::manifest(store, name, &version, None).await {
        Ok(found) => found,
        Err(error @ (VersionError::Store(_) | VersionError::Name(_) | VersionError::NoVersion { .. })) => {
            return Err(error.into());
        }
        Err(error) => return Err(incomplete(name, &version, error.to_string())),
    };
    if let Some(problem) = missing_file(store, name, &manifest).await? {
        return Err(incomplete(name, &version, problem));
    }
    let hash = sha256_hex(&json);
    // Where a trial ends, nothing becomes live that was not.
    let is_live = |(live, _): &(Live, String)| live.version == version && live.manifest_sha256 == hash;
    if !before.as_ref().is_some_and(is_live) {
        versions::signature(store, name, &version, &json, trusted).await?;
    }
    make_live(store, name, &version, &hash, before).await
}

/// All models in the store that have a live version, by name; one whose `live.json` is damaged with that problem.
///
/// # Errors
/// What the store says.
pub async fn models(store: &ObjectStore) -> Result<Vec<ModelInfo>, PublishError> {
    let found = store.folders("").await?;
    let looks: Vec<_> = found
        .into_iter()
        .filter(|name| versions::is_name(name))
        .map(|name| model(store, name))
        .collect();
    let models: Vec<Option<ModelInfo>> = stream::iter(looks).buffered(PARALLEL).try_collect().await?;
    Ok(models.into_iter().flatten().collect())
}

async fn model(store: &ObjectStore, name: String) -> Result<Option<ModelInfo>, PublishError> {
    let (live, problem) = match versions::find_live(store, &name).await {
        Ok(None) => return Ok(None),
        Ok(Some((live, _))) => (Some(live), None),
        Err(error @ (VersionError::Live { .. } | VersionError::Store(StoreError::TooLarge { .. }))) => {
            (None, Some(error.to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some(ModelInfo {
        name,
        version: live.as_ref().map(|live| live.version.clone()),
        canary: live.as_ref().and_then(|live| live.canary.clone()),
        published_at: live.map(|live| live.published_at),
        problem,
    }))
}

/// All versions of `name` in the store, oldest first, half-published ones among them.
///
/// # Errors
/// [`VersionError`] where the store does not answer or `name` cannot be one. A damaged version is none:
/// it is listed with its problem.
pub async fn versions(store: &ObjectStore, name: &str) -> Result<Vec<VersionInfo>, PublishError> {
    let served = versions::find_live(store, name).await?;
    let live = served.as_ref().map(|(live, _)| live);
    let found = store.folders(&versions::versions_key(name)).await?;
    let inspections: Vec<_> = found
        .into_iter()
        .filter(|version| versions::is_name(version))
        .map(|version| inspect(store, name, version, live))
        .collect();
    let mut list: Vec<VersionInfo> = stream::iter(inspections).buffered(PARALLEL).try_collect().await?;
    list.sort_by(|a, b| (&a.created, &a.version).cmp(&(&b.created, &b.version)));
    Ok(list)
}

async fn inspect(
    store: &ObjectStore,
    name: &str,
    version: String,
    live: Option<&Live>,
) -> Result<VersionInfo, PublishError> {
    let (problem, accuracy) = match versions::manifest(store, name, &version, None).await {
        Ok((manifest, _)) => (
            missing_file(store, name, &manifest).await?,
            manifest.metrics.get("accuracy").copied(),
        ),
        Err(VersionError::Store(error)) => return Err(error.into()),
        Err(error) => (Some(error.to_string()), None),
    };
    let written = store.head(&file_key(name, &version, MANIFEST)).await?;
    let canary = live.and_then(|live| live.canary.as_ref());
    Ok(VersionInfo {
        live: live.is_some_and(|live| live.version == version),
        canary_share: canary
            .filter(|canary| canary.version == version)
            .map(|canary| canary.share),
        complete: problem.is_none(),
        problem,
        created: written.and_then(|info| info.modified).map(rfc3339),
        accuracy,
        version,
    })
}

/// The manifest as it is published, after comparing it with the files in memory.
fn verified_manifest(bundle: &Bundle) -> Result<Vec<u8>, BundleError> {
    let json = bundle.manifest.to_json();
    let manifest = Manifest::from_json(&json)?;
    for (file, entry) in &manifest.files {
        let contents = bundle.files.get(file);
        let contents = contents.ok_or_else(|| BundleError::Missing(file.clone()))?;
        entry.verify(file, contents)?;
    }
    match bundle.files.keys().find(|file| !manifest.files.contains_key(*file)) {
        Some(file) => Err(BundleError::Manifest(format!("it does not list {file}"))),
        None => Ok(json),
    }
}

/// Writes a file of a version where it is not there yet.
async fn upload(store: &ObjectStore, key: String, contents: Bytes) -> Result<(), PublishError> {
    if store.head(&key).await?.is_none() {
        match store.put(&key, contents.clone(), Some(Condition::Absent)).await {
            // Another publisher of the same version, or an attempt of ours whose answer got lost.
            Err(StoreError::ConditionFailed { .. }) => {}
            result => return result.map(|_| ()).map_err(PublishError::from),
        }
    }
    let present = match store.get(&key, contents.len() as u64).await {
        Err(StoreError::TooLarge { .. }) => None,
        result => result?,
    };
    let same = present.is_some_and(|present| FileEntry::of(&contents).verify(&key, &present.bytes).is_ok());
    if same {
        Ok(())
    } else {
        Err(PublishError::Occupied {
            place: store.place(&key),
        })
    }
}

/// Writes the signature of a version, over another one too: it is no part of what the version is named by, and keys
/// change.
async fn sign(store: &ObjectStore, key: &str, signature: &Bytes) -> Result<(), PublishError> {
    let present = match store.get(key, signature.len() as u64).await {
        Err(StoreError::TooLarge { .. }) => None,
        result => result?,
    };
    if present.is_none_or(|present| present.bytes != *signature) {
        store.put(key, signature.clone(), None).await?;
    }
    Ok(())
}

/// The first file of `manifest` that is not there with its size, `None` where all are.
async fn missing_file(store: &ObjectStore, name: &str, manifest: &Manifest) -> Result<Option<String>, StoreError> {
    let looks: Vec<_> = manifest
        .files
        .iter()
        .map(|(file, entry)| look(store, file_key(name, &manifest.version, file), entry.size))
        .collect();
    let problems: Vec<Option<String>> = stream::iter(looks).buffered(PARALLEL).try_collect().await?;
    Ok(problems.into_iter().flatten().next())
}

async fn look(store: &ObjectStore, key: String, size: u64) -> Result<Option<String>, StoreError> {
    Ok(match store.head(&key).await? {
        None => Some(format!("{} is missing", store.place(&key))),
        Some(info) if info.size != size => Some(format!(
            "{} has {} bytes where its manifest says {size}",
            store.place(&key),
            info.size
        )),
        Some(_) => None,
    })
}

/// Replaces `live.json` if it is still as it was `before`.
async fn make_live(
    store: &ObjectStore,
    name: &str,
    version: &str,
    manifest_sha256: &str,
    before: Option<(Live, String)>,
) -> Result<Published, PublishError> {
    let trial = before.as_ref().and_then(|(live, _)| live.canary.as_ref());
    let trial = trial.map(|canary| canary.version.clone());
    let (previous, condition) = match before {
        Some((live, _))
            if live.version == version && live.manifest_sha256 == manifest_sha256 && live.canary.is_none() =>
        {
            return Ok(live.into());
        }
        // The same version with another manifest was never served whole: going back to it is no use.
        Some((live, etag)) if live.version == version => (live.previous, Condition::Unchanged(etag)),
        Some((live, etag)) => (Some(live.version), Condition::Unchanged(etag)),
        None => (None, Condition::Absent),
    };
    let after = Live::new(version, manifest_sha256, previous.as_deref());
    Ok(write_live(store, name, version, after, condition).await?.ending(trial))
}

/// Writes `live.json` for the sake of `version` where `condition` holds.
async fn write_live(
    store: &ObjectStore,
    name: &str,
    version: &str,
    after: Live,
    condition: Condition,
) -> Result<Published, PublishError> {
    match store
        .put(&live_key(name), after.to_json().into(), Some(condition))
        .await
    {
        Ok(_) => Ok(after.into()),
        Err(StoreError::ConditionFailed { .. }) => match versions::find_live(store, name).await? {
            // Our own write went through and its answer got lost on the way.
            Some((present, _)) if present == after => Ok(after.into()),
            present => Err(PublishError::Lost {
                version: version.to_owned(),
                winner: present.map_or_else(|| "none".to_owned(), |(present, _)| present.version),
            }),
        },
        Err(error) => Err(error.into()),
    }
}

impl From<Live> for Published {
    fn from(live: Live) -> Self {
        Self {
            version: live.version,
            canary: live.canary,
            ended_trial: None,
            previous: live.previous,
        }
    }
}

impl Published {
    /// The same, telling of the version that was on `trial` before, unless it is served now.
    fn ending(self, trial: Option<String>) -> Self {
        let canary = self.canary.as_ref().map(|canary| &canary.version);
        let ended_trial = trial.filter(|version| *version != self.version && Some(version) != canary);
        Self { ended_trial, ..self }
    }
}

fn incomplete(name: &str, version: &str, problem: String) -> PublishError {
    PublishError::Incomplete {
        name: name.to_owned(),
        version: version.to_owned(),
        problem,
    }
}
