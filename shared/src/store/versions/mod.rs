//! The layout of published models, and how to read one.
//!
//! `NAME/versions/VERSION/` holds the files of a bundle and never changes; `NAME/live.json` ([`Live`])
//! names the version that is served and the hash of its manifest, which in turn holds the hash of
//! every file. So a reader that starts at `live.json` gets what was published or an error.

mod alias;
mod error;
mod load;

pub use alias::{Canary, Live, find_live, live};
pub use error::VersionError;
pub use load::{load_version, manifest, signature};

/// Name of the file that says which version is served.
pub const LIVE: &str = "live.json";
/// Name of the folder that holds all versions of a model.
pub const VERSIONS: &str = "versions";

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
    format!("{name}/{VERSIONS}")
}

/// Key of a file of a version.
pub fn file_key(name: &str, version: &str, file: &str) -> String {
    format!("{name}/{VERSIONS}/{version}/{file}")
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
}
