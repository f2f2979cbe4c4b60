//! Reading image files of bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use shared::image::{ImageError, Limits};

/// The bytes of a file that is not larger than the limits allow.
pub(crate) fn read(path: &Path, limits: Limits) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    if size > limits.max_bytes as u64 {
        let error = ImageError::TooManyBytes {
            bytes: size as usize,
            limit: limits.max_bytes,
        };
        return Err(error.to_string());
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(limits.max_bytes as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}
