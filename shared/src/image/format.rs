//! The formats that are read.

use std::path::Path;

use ::image::ImageFormat;

/// An image format that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP.
    WebP,
    /// GIF.
    Gif,
    /// TIFF.
    Tiff,
    /// BMP.
    Bmp,
    /// HEIC: pictures of HEVC in a HEIF container, as phones keep them.
    Heic,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Jpeg,
        Self::Png,
        Self::WebP,
        Self::Gif,
        Self::Tiff,
        Self::Bmp,
        Self::Heic,
    ];

    /// The format of a file with these contents.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if is_heic(bytes) {
            return Some(Self::Heic);
        }
        ::image::guess_format(bytes).ok().and_then(Self::of_codec)
    }

    /// The format that the extension of a file's name stands for, in capitals or not.
    pub fn from_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "heic" | "heif" | "hif" => Some(Self::Heic),
            other => ImageFormat::from_extension(other).and_then(Self::of_codec),
        }
    }

    /// The usual extension of a file's name, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
            Self::Heic => "heic",
        }
    }

    /// By what name `image` reads it; HEIC it does not read.
    pub(super) fn codec(self) -> Option<ImageFormat> {
        match self {
            Self::Jpeg => Some(ImageFormat::Jpeg),
            Self::Png => Some(ImageFormat::Png),
            Self::WebP => Some(ImageFormat::WebP),
            Self::Gif => Some(ImageFormat::Gif),
            Self::Tiff => Some(ImageFormat::Tiff),
            Self::Bmp => Some(ImageFormat::Bmp),
            Self::Heic => None,
        }
    }

    fn of_codec(codec: ImageFormat) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.codec() == Some(codec))
    }
}

/// Whether a file's first box, `ftyp`, has a brand of still pictures coded as HEVC (ISO/IEC 23008-12, annex B). AVIF has
/// the same box with other brands.
fn is_heic(bytes: &[u8]) -> bool {
    const BRANDS: [&[u8]; 4] = [b"heic", b"heix", b"heim", b"heis"];
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
        return false;
    };
    let end = (u32::from_be_bytes(*size) as usize).min(bytes.len());
    let Some(content) = bytes.get(8..end).filter(|_| rest.starts_with(b"ftyp")) else {
        return false;
    };
    // The major brand, its version, then the brands that the file is compatible with.
    let brands = content.chunks_exact(4).enumerate().filter(|(place, _)| *place != 1);
    brands.take(64).any(|(_, brand)| BRANDS.contains(&brand))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_stand_for_formats_in_both_directions() {
        for format in Format::ALL {
            let name = format!("photo.{}", format.extension().to_uppercase());
            assert_eq!(Format::from_path(Path::new(&name)), Some(format), "{name}");
        }
        for (name, format) in [
            ("1.jpeg", Some(Format::Jpeg)),
            ("1.heif", Some(Format::Heic)),
            ("1.avif", None),
            ("jpg", None),
        ] {
            assert_eq!(Format::from_path(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_container_is_told_by_its_brands() {
        for (file, format) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], Some(Format::Heic)),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Some(Format::Heic)),
            (b"\0\0\0\x14ftypmif1heicmif1", None),
            (b"\0\0\0\x14ftypmif1\0\0\0\0mif1heic", None),
            (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", None),
            (b"\0\0\0\x08ftyp", None),
            (b"\0\0", None),
        ] {
            assert_eq!(Format::of(file), format, "{file:?}");
        }
    }
}
