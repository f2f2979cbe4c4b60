//! Images that a request names instead of bringing them.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use super::error::ServiceError;

/// An image in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Reference {
    /// Name of the bucket.
    pub bucket: String,
    /// Key of the object, as it is.
    pub key: String,
    /// A version of the object instead of the newest.
    pub version: Option<String>,
}

impl S3Reference {
    /// Reads `s3://BUCKET/KEY`.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        let parts = text.strip_prefix("s3://").and_then(|address| address.split_once('/'));
        let (bucket, key) = parts.unwrap_or_default();
        Self::new(bucket, key)
    }

    /// The object that an item of a batch names: `{"s3": "s3://BUCKET/KEY"}` or its text alone, or bucket and key,
    /// where `common` is the bucket of items that name none; `None` where the item brings its image, or names none.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn of_item(item: &Value, common: Option<&str>) -> Option<Result<Self, ServiceError>> {
        let member = |names: [&str; 2]| names.into_iter().find_map(|name| item[name].as_str());
        if let Some(text) = item.as_str().or_else(|| member(["s3", "S3"])) {
            return Some(Self::parse(text));
        }
        if item["image"].is_string() {
            return None;
        }
        let key = member(["key", "Key"])?;
        Some(match member(["bucket", "Bucket"]).or(common) {
            Some(bucket) => Self::new(bucket, key),
            None => Err(ServiceError::bad_request(
                "the item has a key and no bucket: name it in the item, or as bucket in the batch input",
            )),
        })
    }

    /// Whether an item of a listing is one of the empty objects by which consoles show folders.
    pub fn is_folder(item: &Value) -> bool {
        item["Key"].as_str().is_some_and(|key| key.ends_with('/'))
    }

    /// The newest version of the object at `key`.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn new(bucket: &str, key: &str) -> Result<Self, ServiceError> {
        if bucket.is_empty() || !is_key(key) {
            return Err(ServiceError::bad_request(
                "an S3 reference has the form s3://bucket/key, with a key of at most 1024 bytes",
            ));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version: None,
        })
    }
}

/// Keys that S3 takes, less those with which some servers leave their folder.
fn is_key(key: &str) -> bool {
    let dots = key.split('/').any(|part| matches!(part, "." | ".."));
    (1..=1024).contains(&key.len()) && !dots && !key.contains(char::is_control)
}

impl fmt::Display for S3Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3://{}/{}", self.bucket, self.key)
    }
}

/// The buckets, or the parts of them, that a deployment reads images from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedBuckets(Vec<(String, String)>);

impl AllowedBuckets {
    /// Reads a list like `photos,archive/2026`: names of buckets, each with a folder or without, separated by commas.
    pub fn parse(list: &str) -> Self {
        let entries = list.split(',').map(|entry| entry.trim().trim_start_matches("s3://"));
        let entries = entries.filter(|entry| !entry.is_empty()).map(|entry| {
            let (bucket, prefix) = entry.split_once('/').unwrap_or((entry, ""));
            let prefix = prefix.trim_end_matches('/');
            let prefix = if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            };
            (bucket.to_owned(), prefix)
        });
        Self(entries.collect())
    }

    /// Whether an image may be read.
    pub fn allows(&self, reference: &S3Reference) -> bool {
        self.0
            .iter()
            .any(|(bucket, prefix)| *bucket == reference.bucket && reference.key.starts_with(prefix.as_str()))
    }

    /// Whether no image may be.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where the images come from that requests name.
pub trait References: Send + Sync {
    /// The images in the order of `references`, or why there is none. Called, and the iterator used, on a
    /// thread that may wait.
    fn fetch(&self, references: Vec<S3Reference>) -> Box<dyn Iterator<Item = Result<Bytes, ServiceError>> + '_>;
}

/// Of a deployment that allows no bucket.
pub(super) struct NoReferences;

impl References for NoReferences {
    fn fetch(&self, references: Vec<S3Reference>) -> Box<dyn Iterator<Item = Result<Bytes, ServiceError>> + '_> {
        Box::new(references.into_iter().map(|reference| Err(not_allowed(&reference))))
    }
}

/// The refusal of an image outside the allowed buckets.
pub fn not_allowed(reference: &S3Reference) -> ServiceError {
    let message = format!(
        "this deployment does not read {reference}: send the image as {{\"image\": \"<base64>\"}}, or let the \
         deployment's IKAT_ALLOWED_BUCKETS and its role allow the bucket {}",
        reference.bucket
    );
    ServiceError::new(super::ErrorCode::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_one_form() {
        let reference = S3Reference::parse("s3://photos/2026/a b+ä.jpg").expect("a reference");
        assert_eq!(
            (reference.bucket.as_str(), reference.key.as_str()),
            ("photos", "2026/a b+ä.jpg")
        );
        for text in [
            "",
            "photos/1.jpg",
            "s3://photos",
            "s3://photos/",
            "s3:///1.jpg",
            "https://photos/1.jpg",
            "s3://photos/in/../out/1.jpg",
            "s3://photos/a\nb",
            &format!("s3://photos/{}", "a".repeat(1025)),
        ] {
            S3Reference::parse(text).expect_err(text);
        }
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        let allowed = AllowedBuckets::parse(" photos, s3://archive/2026/ ,,");
        for (text, expected) in [
            ("s3://photos/any/1.jpg", true),
            ("s3://archive/2026/1.jpg", true),
            ("s3://archive/2026-secret/1.jpg", false),
            ("s3://archive/2025/1.jpg", false),
            ("s3://photos2/1.jpg", false),
            ("s3://photo/1.jpg", false),
        ] {
            let reference = S3Reference::parse(text).expect(text);
            assert_eq!(allowed.allows(&reference), expected, "{text}");
        }
        assert!(AllowedBuckets::parse("").is_empty());
    }
}
