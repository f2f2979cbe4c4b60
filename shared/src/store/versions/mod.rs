//! The layout of published models, and how to read one.
//!
//! `NAME/versions/VERSION/` holds the files of a bundle and never changes; `NAME/live.json` ([`Live`])
//! names the version that is served and the hash of its manifest, which in turn holds the hash of
//! every file. So a reader that starts at `live.json` gets what was published or an error.

mod alias;
mod error;
mod load;

use crate::bundle::Bundle;
use crate::store::Source;

pub use alias::{Canary, LIVE_SCHEMA_VERSION, Live, find_live, live};
pub use error::VersionError;
pub use load::{load_version, manifest, signature};

/// Name of the file that says which version is served.
pub const LIVE: &str = "live.json";

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
    use crate::bundle::MANIFEST;

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
