//! `live.json`, which says what is served.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{VersionError, VersionRef, is_name, live_key};
use crate::store::{Object, ObjectStore, rfc3339};

/// The newest form of `live.json` that this version reads and writes.
const LIVE_SCHEMA_VERSION: u32 = 1;

/// The largest `live.json` that is read, in bytes.
const MAX_LIVE_BYTES: u64 = 64 << 10;

/// `live.json`: which version of a model is served.
///
/// Readers ignore fields they do not know, so that a later form can add to it without a new schema as
/// long as `version` keeps its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Form of this file, the newest one for those written now.
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

    /// The version that is served.
    pub fn reference(&self) -> VersionRef {
        VersionRef::of(&self.version, &self.manifest_sha256)
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
