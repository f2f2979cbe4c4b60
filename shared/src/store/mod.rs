//! The place where bundles are published: a folder or an S3 bucket behind the same few operations.
//!
//! A published model lies at `NAME/versions/VERSION/...`, written once, and `NAME/live.json` names the
//! version that is served. That file is the only one that ever changes, by a conditional write.

use bytes::Bytes;

/// A store's contents at one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The contents.
    pub bytes: Bytes,
    /// Names this state of the object, for [`Condition::Unchanged`].
    pub etag: String,
}

/// When a write may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Only where nothing is at the key yet.
    Absent,
    /// Only where the object is still in the state that this etag names.
    Unchanged(String),
}
