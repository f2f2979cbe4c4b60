//! Large objects go up in parts: several at once, each repeated by itself where it fails, and visible
//! only when all have come.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use std::io::SeekFrom;
use std::path::PathBuf;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::s3::condition_headers;
use super::s3_error::explain;
use super::{Condition, S3Store, StoreError};
use crate::files::at;

/// Size of each part but the last, in bytes.
const PART_BYTES: usize = 8 << 20;
/// How many parts are under way at once.
const PARALLEL: usize = 4;

/// What goes up.
pub(super) enum Contents {
    /// Held in memory.
    Memory(Bytes),
    /// In a file, read part by part.
    File {
        /// Where it is.
        path: PathBuf,
        /// In bytes.
        size: usize,
    },
}

impl Contents {
    fn size(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File { size, .. } => *size,
        }
    }

    /// The part of at most [`PART_BYTES`] from `start`.
    async fn part(&self, start: usize) -> Result<Bytes, StoreError> {
        let length = PART_BYTES.min(self.size() - start);
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(start..start + length)),
            Self::File { path, .. } => {
                let mut part = vec![0; length];
                let read = async {
                    let mut file = tokio::fs::File::open(path).await?;
                    file.seek(SeekFrom::Start(start as u64)).await?;
                    file.read_exact(&mut part).await
                };
                read.await.map_err(at(path))?;
                Ok(part.into())
            }
        }
    }
}

impl S3Store {
    /// Uploads `contents` in parts; the condition is checked when they are put together.
    pub(super) async fn put_in_parts(
        &self,
        key: &str,
        contents: &Contents,
        condition: Option<Condition>,
    ) -> Result<String, StoreError> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .customize()
            .config_override(self.settings(0))
            .send()
            .await
            .map_err(|error| explain(self, key, "begin to write it", &error))?;
        let upload = begun.upload_id.unwrap_or_default();
        let result = self.upload_and_complete(key, &upload, contents, condition).await;
        if result.is_err() {
            self.abandon(key, &upload).await;
        }
        result
    }

    async fn upload_and_complete(
        &self,
        key: &str,
        upload: &str,
        contents: &Contents,
        condition: Option<Condition>,
    ) -> Result<String, StoreError> {
        let parts: Vec<_> = (0..contents.size())
            .step_by(PART_BYTES)
            .zip(1..)
            .map(|(start, number)| async move {
                let part = contents.part(start).await?;
                self.upload_part(key, upload, number, part).await
            })
            .collect();
        let parts: Vec<CompletedPart> = stream::iter(parts).buffered(PARALLEL).try_collect().await?;
        let (if_match, if_none_match) = condition_headers(condition);
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(upload)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .customize()
            // The server may put the parts together before it answers.
            .config_override(self.settings(contents.size()))
            .send()
            .await;
        let error = match completed {
            Ok(completed) => return Ok(completed.e_tag.unwrap_or_default()),
            Err(error) => error,
        };
        // Nobody else knows of this upload: one that is gone was put together by an attempt whose answer got lost.
        if is_gone(&error)
            && let Ok(Some(found)) = self.look(key).await
            && found.content_length() == Some(contents.size() as i64)
        {
            return Ok(found.e_tag.unwrap_or_default());
        }
        Err(explain(self, key, "write it", &error))
    }

    async fn upload_part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        part: Bytes,
    ) -> Result<CompletedPart, StoreError> {
        let size = part.len();
        let answer = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(upload)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(part))
            .customize()
            .config_override(self.settings(size * PARALLEL))
            .send()
            .await
            .map_err(|error| explain(self, key, "write a part of it", &error))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .build())
    }

    /// Frees the space of the parts. Where this fails too, a lifecycle rule of the bucket has to.
    async fn abandon(&self, key: &str, upload: &str) {
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(upload)
            .customize()
            .config_override(self.settings(0))
            .send()
            .await;
        if let Err(error) = aborted
            && !is_gone(&error)
        {
            let reason = explain(self, key, "remove the parts of it", &error);
            tracing::warn!(upload, %reason, "parts of an unfinished upload remain in the bucket");
        }
    }
}

/// Whether the server knows nothing of the upload (any more).
fn is_gone<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.code() == Some("NoSuchUpload")
}
