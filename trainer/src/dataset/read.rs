//! Reading image files of bounded size.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use shared::image::{ImageError, Limits};

/// Why a file has not been read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file system said no.
    #[error(transparent)]
    File(#[from] io::Error),
    /// It is larger than the limits allow.
    #[error(transparent)]
    TooLarge(ImageError),
}

/// The bytes of a file that is not larger than the limits allow.
pub(crate) fn read(path: &Path, limits: Limits) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > limits.max_bytes as u64 {
        return Err(ReadError::TooLarge(ImageError::TooManyBytes {
            bytes: size as usize,
            limit: limits.max_bytes,
        }));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(limits.max_bytes as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
