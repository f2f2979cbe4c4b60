//! Whether a JPEG has come whole. A decoder fills what is missing with one colour, or leaves it as coarse as the first
//! scans show it, which would be a silently wrong picture.

use ::image::DynamicImage;

const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

/// A JPEG without an end is refused when more than one row in so many is missing.
const MISSING_SHARE: usize = 16;

/// How a JPEG ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With its end marker. What follows belongs to somebody else: a film, a second picture, a camera's notes.
    Marked,
    /// Within the one scan that holds the picture from top to bottom.
    InOnlyScan,
    /// Within a picture that is spread over several scans, as a progressive one is, or before any.
    Elsewhere,
}

/// Whether a good part of a JPEG is missing, which was decoded to `image`. One that lacks little more than its end
/// marker is let pass where the missing rows show.
pub(super) fn jpeg_is_cut_short(bytes: &[u8], image: &DynamicImage) -> bool {
    match end(bytes) {
        End::Marked => false,
        End::InOnlyScan => flat_rows(image) > image.height() as usize / MISSING_SHARE,
        End::Elsewhere => true,
    }
}

/// Walks from marker to marker (ITU-T T.81, annex B). What a segment holds is passed over, as a thumbnail in it has
/// markers of its own.
fn end(bytes: &[u8]) -> End {
    let mut components = None;
    let mut end = End::Elsewhere;
    let mut scans = 0;
    let mut rest = bytes;
    while let Some((marker, after)) = next_marker(rest) {
        rest = after;
        match marker {
            END_OF_IMAGE if scans > 0 => return End::Marked,
            // These stand alone; those below mean nothing, and come where data is damaged.
            ..0xc0 | 0xd0..=END_OF_IMAGE => continue,
            _ => {}
        }
        let Some((length, _)) = rest.split_first_chunk::<2>() else {
            break;
        };
        let length = usize::from(u16::from_be_bytes(*length)).max(2);
        let Some((segment, after)) = rest.split_at_checked(length) else {
            break;
        };
        rest = after;
        match marker {
            // Frames; three numbers among theirs mean something else.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => components = segment.get(7).copied(),
            START_OF_SCAN => {
                scans += 1;
                // All components, each with all its frequencies.
                let is_whole = segment.get(2).copied() == components && segment.ends_with(&[0, 63, 0]);
                end = if scans == 1 && is_whole {
                    End::InOnlyScan
                } else {
                    End::Elsewhere
                };
            }
            _ => {}
        }
    }
    end
}

/// The next marker and what follows it. In a scan's data 0xff is followed by 0 where it is no marker; before a marker
/// it may be repeated.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let at = bytes
        .windows(2)
        .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
    Some((bytes[at + 1], &bytes[at + 2..]))
}

/// Number of the last rows that have the colour of the last pixel throughout.
fn flat_rows(image: &DynamicImage) -> usize {
    let size = usize::from(image.color().bytes_per_pixel());
    let pixels = image.as_bytes();
    let last = &pixels[pixels.len().saturating_sub(size)..];
    pixels
        .chunks_exact(image.width() as usize * size)
        .rev()
        .take_while(|row| row.chunks_exact(size).all(|pixel| pixel == last))
        .count()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ::image::{ImageFormat, RgbImage};

    use super::super::{ImageError, Limits, decode};
    use super::*;

    const PROGRESSIVE: &[u8] = include_bytes!("../../../tests/corpus/image/progressive.jpg");

    /// A picture whose lower half is white.
    fn half_white() -> Vec<u8> {
        let image = RgbImage::from_fn(64, 64, |x, y| {
            ::image::Rgb(if y < 32 {
                [x as u8 * 3, y as u8 * 5, 90]
            } else {
                [255; 3]
            })
        });
        let mut jpeg = Cursor::new(Vec::new());
        image.write_to(&mut jpeg, ImageFormat::Jpeg).expect("encoded");
        jpeg.into_inner()
    }

    fn is_read(bytes: &[u8]) -> bool {
        match decode(bytes, &Limits::default()) {
            Ok(_) => true,
            Err(ImageError::Undecodable { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_follows_the_end_does_not_matter() {
        for trailer in [&b"a film: \xff\xda and more"[..], &[0xff; 9], b"\xff\xd8\xff\xda\0\0"] {
            assert!(is_read(&[&half_white()[..], trailer].concat()), "{trailer:?}");
            assert!(is_read(&[PROGRESSIVE, trailer].concat()), "{trailer:?}");
        }
    }

    #[test]
    fn an_end_within_a_segment_is_none() {
        let whole = half_white();
        let thumbnail = b"\xff\xe1\0\x08\xff\xda\xff\xd9\xff\xd9";
        let scan = whole.windows(2).position(|pair| pair == [0xff, START_OF_SCAN]);
        let data = scan.expect("a scan") + 14;
        let some = data + (whole.len() - data) / 3;
        let cut = [&whole[..2], thumbnail, &whole[2..some]].concat();
        assert_eq!(end(&cut), End::InOnlyScan);
        assert!(!is_read(&cut));
        let whole = [&whole[..2], thumbnail, &whole[2..]].concat();
        assert_eq!(end(&whole), End::Marked);
    }

    #[test]
    fn a_progressive_picture_needs_its_end() {
        assert_eq!(end(PROGRESSIVE), End::Marked);
        for share in [60, 80, 95] {
            let cut = &PROGRESSIVE[..PROGRESSIVE.len() * share / 100];
            assert_eq!(end(cut), End::Elsewhere, "{share} %");
        }
        assert!(!is_read(&PROGRESSIVE[..PROGRESSIVE.len() - 2]));
    }
}
