//! From the bytes of an image file to upright RGB pixels.
//!
//! The format is told from the content, never from a file's name. Sizes are checked against
//! [`Limits`] from the header, before anything is allocated for the pixels.

mod cut_short;
mod decode;
mod format;
mod heic;
mod reduced;
mod resize;

pub use decode::{decode, decode_to_fit, probe};
pub use format::Format;
pub use resize::letterbox;

use serde::Serialize;

/// Changes whenever the same bytes may give other pixels than before: what was computed from pixels is then stale.
pub const REVISION: u32 = 8;

/// Decoded pixels: 8-bit RGB, rows top to bottom, upright.
pub type RgbImage = ::image::RgbImage;

/// What an image may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Largest encoded size in bytes.
    pub max_bytes: usize,
    /// Largest width times height, in pixels.
    pub max_pixels: u64,
    /// Largest memory that the pixels may take, in bytes; a decoder may hold one and a half times as much beside them.
    pub max_allocation: u64,
}

impl Default for Limits {
    /// 64 MiB encoded, 100 megapixels, 512 MiB of pixels while decoding.
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_pixels: 100_000_000,
            max_allocation: 512 << 20,
        }
    }
}

/// Why bytes did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// More encoded bytes than [`Limits::max_bytes`].
    #[error("the image has {bytes} bytes, more than the limit of {limit}")]
    TooManyBytes {
        /// Size of the input.
        bytes: usize,
        /// The limit it broke.
        limit: usize,
    },
    /// The content is no image format that is read here.
    #[error("not an image of a supported format (JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC)")]
    UnsupportedFormat,
    /// The header promises more pixels than [`Limits::max_pixels`].
    #[error("the image is {width} x {height} pixels, more than the limit of {limit} pixels")]
    TooManyPixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit it broke.
        limit: u64,
    },
    /// Width or height is zero.
    #[error("the image has no pixels ({width} x {height})")]
    Empty {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
    },
    /// The data is damaged, cut short, or uses a feature that the decoder lacks.
    #[error("the image cannot be decoded: {reason}")]
    Undecodable {
        /// What the decoder said.
        reason: String,
    },
}
