//! HEIC, as phones keep their photos: one picture of HEVC or a grid of them, in a HEIF container (ISO/IEC 23008-12).
//!
//! A container tells which pictures it has and how large they are, in any number and in any words, of which none need be
//! true. So what may cost time or memory is bounded before it is done: how much the container says at all, how many
//! bytes are taken for pictures, and how large each of them may turn out.

use ::image::error::{DecodingError, ImageFormatHint, LimitError, LimitErrorKind};
use ::image::metadata::Orientation;
use ::image::{ColorType, ImageDecoder, ImageError as CodecError, ImageResult};
use heifer::color::{ColorParams, frame_to_rgba_sized};
use heifer::heifer_hevc_dec::decoder::{DecodeOptions, decode_picture};
use heifer::heifer_isobmff::boxes::{ColorInfo, Property};
use heifer::heifer_isobmff::{BoxIter, HeifFile, ItemId};

use super::Limits;

/// Most bytes of a container's description, whose entries are looked for one by one. That of a photo of a grid of 48
/// pictures takes 5 KiB, and a colour profile may take hundreds.
const MAX_DESCRIPTION: usize = 512 << 10;
/// Most pictures in a grid. Phones make them of 512 x 512 pixels.
const MAX_TILES: usize = 4096;
/// Bytes that decoding takes for each pixel of one coded picture: three planes of 16 bits, as much again while they are
/// filtered, and the colours. They may be as many as a decoder may hold beside the pixels.
const BYTES_PER_CODED_PIXEL: u64 = 16;
/// What says of another picture that it is the first one's transparency.
const ALPHA: [&str; 2] = [
    "urn:mpeg:hevc:2015:auxid:1",
    "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
];

/// The main picture of a file, whose container has been read.
pub(super) struct HeicDecoder<'a> {
    file: HeifFile<'a>,
    picture: Picture,
    alpha: Option<Picture>,
    crop: Crop,
    orientation: Orientation,
    /// Size of the file, in bytes.
    size: usize,
    limits: Limits,
}

/// Pictures of HEVC that lie side by side, row after row.
struct Picture {
    tiles: Vec<ItemId>,
    columns: u32,
    /// Width and height of each.
    tile: (u32, u32),
    /// Width and height of what is shown of them.
    size: (u32, u32),
}

/// The part of a picture that is shown.
#[derive(Clone, Copy)]
struct Crop {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl<'a> HeicDecoder<'a> {
    /// Reads the container.
    pub(super) fn new(bytes: &'a [u8], limits: &Limits) -> ImageResult<Self> {
        let description = BoxIter::new(bytes).filter_map(Result::ok);
        let largest = description
            .filter(|part| part.header.box_type.0 == *b"meta")
            .map(|part| part.content.len());
        if largest.max().unwrap_or(0) > MAX_DESCRIPTION {
            return Err(damaged("its description is too long"));
        }
        let file = HeifFile::parse(bytes).map_err(damaged)?;
        let id = file.primary_id;
        let picture = Picture::of(&file, id)?;
        let alpha = alpha(&file, id)?;
        if alpha.as_ref().is_some_and(|alpha| alpha.size != picture.size) {
            return Err(damaged("its transparency has another size than the picture"));
        }
        let (crop, orientation) = transformations(&file, id, picture.size)?;
        Ok(Self {
            size: bytes.len(),
            limits: *limits,
            file,
            picture,
            alpha,
            crop,
            orientation,
        })
    }

    /// Hands each row of each decoded picture to `place`: column and row of its first pixel, and 8-bit RGBA.
    fn decode(&self, picture: &Picture, mut place: impl FnMut(u32, u32, &[u8])) -> ImageResult<()> {
        let too_large = |kind| Err(CodecError::Limits(LimitError::from_kind(kind)));
        // Little may be shown of a large picture.
        let (width, height) = picture.size;
        if u64::from(width).saturating_mul(height.into()) > self.limits.max_pixels {
            return too_large(LimitErrorKind::DimensionError);
        }
        let (width, height) = picture.tile;
        // A picture is coded in blocks of up to 64 x 64 pixels, so that it may be larger than what is shown of it.
        let coded = |side: u32| u64::from(side).next_multiple_of(64);
        let max_pixels = coded(width).saturating_mul(coded(height));
        if max_pixels.saturating_mul(BYTES_PER_CODED_PIXEL) > self.limits.max_allocation.saturating_mul(3) / 2 {
            return too_large(LimitErrorKind::InsufficientMemory);
        }
        let options = DecodeOptions {
            max_pixels,
            ..DecodeOptions::default()
        };
        let mut taken = 0;
        for (number, tile) in (0..).zip(&picture.tiles) {
            taken += self.file.item_data(*tile).map_err(damaged)?.len();
            if taken > self.size {
                return Err(damaged("its pictures share their bytes"));
            }
            let stream = self.file.hevc_bitstream(*tile).map_err(damaged)?;
            let frame = decode_picture(&stream, options).map_err(damaged)?;
            if frame.widths[0] < width || frame.heights[0] < height {
                return Err(damaged("a picture in it is smaller than it says"));
            }
            let told = properties(&self.file, *tile)?.find_map(|property| match property {
                Property::Color(ColorInfo::Nclx { matrix, full_range, .. }) => Some(ColorParams {
                    matrix: *matrix,
                    full_range: *full_range,
                }),
                _ => None,
            });
            let colors = told.unwrap_or_else(|| ColorParams::from_frame(&frame));
            let pixels = frame_to_rgba_sized::<u8>(&frame, colors, width, height).data;
            let (left, top) = (number % picture.columns * width, number / picture.columns * height);
            for (row, line) in (top..picture.size.1).zip(pixels.chunks_exact(width as usize * 4)) {
                place(left, row, line);
            }
        }
        Ok(())
    }
}

impl Picture {
    /// The picture that an item of a container is.
    fn of(file: &HeifFile, id: ItemId) -> ImageResult<Self> {
        let sized = |item| match file.image_size(item).map_err(damaged)? {
            Some((width, height)) if width > 0 && height > 0 => Ok((width, height)),
            _ => Err(damaged("it does not say how large a picture in it is")),
        };
        let of_type = |item| file.item(item).map(|found| found.item_type).map_err(damaged);
        match &of_type(id)?.0 {
            b"hvc1" => {
                let size = sized(id)?;
                Ok(Self {
                    tiles: vec![id],
                    columns: 1,
                    tile: size,
                    size,
                })
            }
            b"grid" => {
                let grid = file.grid(id).map_err(damaged)?;
                let tiles = file.referenced_items(id, b"dimg").to_vec();
                let (columns, rows) = (u32::from(grid.columns), u32::from(grid.rows));
                let all = tiles.len() as u64 == u64::from(columns) * u64::from(rows) && !tiles.is_empty();
                if !all || tiles.len() > MAX_TILES {
                    return Err(damaged(format!(
                        "a grid of {columns} x {rows} pictures with {}",
                        tiles.len()
                    )));
                }
                let tile = sized(tiles[0])?;
                let size = (grid.output_width, grid.output_height);
                let covers = |count: u32, tile: u32, whole: u32| {
                    let (count, tile) = (u64::from(count), u64::from(tile));
                    ((count - 1) * tile..=count * tile).contains(&u64::from(whole))
                };
                if !covers(columns, tile.0, size.0) || !covers(rows, tile.1, size.1) {
                    return Err(damaged("the grid is not as large as its pictures together"));
                }
                for item in &tiles {
                    if of_type(*item)?.0 != *b"hvc1" || sized(*item)? != tile {
                        return Err(damaged("the pictures of the grid are of different kinds"));
                    }
                }
                Ok(Self {
                    tiles,
                    columns,
                    tile,
                    size,
                })
            }
            _ => Err(damaged(format!("a picture of the type {}", of_type(id)?))),
        }
    }
}

/// The picture whose brightness is the opacity of another one.
fn alpha(file: &HeifFile, id: ItemId) -> ImageResult<Option<Picture>> {
    for item in file.referencing_items(id, b"auxl") {
        let is_alpha =
            |property: &Property| matches!(property, Property::AuxiliaryType(kind) if ALPHA.contains(&kind.as_str()));
        if properties(file, item)?.any(is_alpha) {
            return Picture::of(file, item).map(Some);
        }
    }
    Ok(None)
}

/// The part of a picture of this size that is shown, and how it is turned then.
fn transformations(file: &HeifFile, id: ItemId, (width, height): (u32, u32)) -> ImageResult<(Crop, Orientation)> {
    let mut crop = Crop {
        left: 0,
        top: 0,
        width,
        height,
    };
    // Any sequence of turns and flips is some turns, counted anticlockwise, and then at most one flip to the side.
    let (mut turns, mut flipped) = (0_u8, false);
    for property in properties(file, id)? {
        match property {
            Property::Rotation(more) if flipped => turns = (turns + 4 - more % 4) % 4,
            Property::Rotation(more) => turns = (turns + more) % 4,
            Property::Mirror(upside_down) => {
                flipped = !flipped;
                turns = (turns + 2 * u8::from(*upside_down)) % 4;
            }
            Property::CleanAperture {
                width,
                height,
                horiz_offset,
                vert_offset,
            } => {
                if (turns, flipped) != (0, false) {
                    return Err(damaged("it is cut after it was turned"));
                }
                (crop.left, crop.width) = cut(crop.left, crop.width, *width, *horiz_offset)?;
                (crop.top, crop.height) = cut(crop.top, crop.height, *height, *vert_offset)?;
            }
            _ => {}
        }
    }
    let orientation = match (turns, flipped) {
        (1, false) => Orientation::Rotate270,
        (2, false) => Orientation::Rotate180,
        (3, false) => Orientation::Rotate90,
        (0, true) => Orientation::FlipHorizontal,
        (1, true) => Orientation::Rotate270FlipH,
        (2, true) => Orientation::FlipVertical,
        (3, true) => Orientation::Rotate90FlipH,
        _ => Orientation::NoTransforms,
    };
    Ok((crop, orientation))
}

/// What a clean aperture leaves of a side: where it begins and how long it is. `part` is its length and `offset` how far
/// its middle is from that of the whole, as fractions (ISO/IEC 14496-12, 12.1.4).
fn cut(start: u32, length: u32, part: (u32, u32), offset: (i32, u32)) -> ImageResult<(u32, u32)> {
    if part.1 == 0 || offset.1 == 0 {
        return Err(damaged("it is cut at no place"));
    }
    let part = f64::from(part.0) / f64::from(part.1);
    let middle = f64::from(offset.0) / f64::from(offset.1) + f64::from(length) / 2.0;
    let begin = (middle - part / 2.0).round().clamp(0.0, f64::from(length));
    let end = (begin + part.round()).clamp(begin, f64::from(length));
    Ok((start + begin as u32, (end - begin) as u32))
}

fn properties<'a>(file: &'a HeifFile, id: ItemId) -> ImageResult<impl Iterator<Item = &'a Property>> {
    file.item_properties(id).map_err(damaged)
}

fn damaged(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CodecError {
    CodecError::Decoding(DecodingError::new(ImageFormatHint::Name("HEIC".to_owned()), reason))
}

impl ImageDecoder for HeicDecoder<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.crop.width, self.crop.height)
    }

    fn color_type(&self) -> ColorType {
        if self.alpha.is_some() {
            ColorType::Rgba8
        } else {
            ColorType::Rgb8
        }
    }

    /// The container's; its Exif may tell another one, which does not count.
    fn orientation(&mut self) -> ImageResult<Orientation> {
        Ok(self.orientation)
    }

    fn read_image(self, buffer: &mut [u8]) -> ImageResult<()> {
        let channels = usize::from(self.color_type().channel_count());
        let crop = self.crop;
        // Where the pixels of a row go that begins at this column and row: so many are left out, the others follow.
        let mut place = |left: u32, row: u32, line: &[u8], write: fn(&mut [u8], &[u8])| {
            let Some(row) = row.checked_sub(crop.top).filter(|row| *row < crop.height) else {
                return;
            };
            let outside = crop.left.saturating_sub(left) as usize;
            let column = left.saturating_sub(crop.left).min(crop.width);
            let begin = (row as usize * crop.width as usize + column as usize) * channels;
            let end = (row as usize + 1) * crop.width as usize * channels;
            let pixels = line.chunks_exact(4).skip(outside);
            for (target, pixel) in buffer[begin..end].chunks_exact_mut(channels).zip(pixels) {
                write(target, pixel);
            }
        };
        self.decode(&self.picture, |left, row, line| {
            place(left, row, line, |target, pixel| {
                target[..3].copy_from_slice(&pixel[..3]);
            });
        })?;
        match &self.alpha {
            Some(alpha) => self.decode(alpha, |left, row, line| {
                place(left, row, line, |target, pixel| target[3] = pixel[0]);
            }),
            None => Ok(()),
        }
    }

    fn read_image_boxed(self: Box<Self>, buffer: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buffer)
    }
}

#[cfg(test)]
mod tests {
    use ::image::RgbImage;
    use ::image::imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};
    use heifer::heifer_isobmff::writer::{HeifWriter, ImageSpec};
    use heifer::{EncodeOptions, encode_rgb8};

    use super::super::decode::tests::mean_difference;
    use super::super::{Format, ImageError, decode, probe};
    use super::*;

    /// As libheif 1.23 writes them with x265: [`drawn`], cut to its size by a clean aperture, and the same whose left half
    /// is transparent.
    const LIBHEIF: &[u8] = include_bytes!("../../../tests/corpus/image/libheif.heic");
    const LIBHEIF_ALPHA: &[u8] = include_bytes!("../../../tests/corpus/image/libheif_alpha.heic");

    /// A disc before a gradient.
    fn drawn(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let (across, down) = (x.abs_diff(width / 2), y.abs_diff(height / 2));
            let disc = across.pow(2) + down.pow(2) < (height / 3).pow(2);
            let gradient = |at: u32, side: u32| (at * 255 / (side - 1)) as u8;
            ::image::Rgb([gradient(x, width), gradient(y, height), if disc { 220 } else { 40 }])
        })
    }

    fn encoded(image: &RgbImage) -> Vec<u8> {
        let options = EncodeOptions {
            quality: 95,
            max_threads: 1,
        };
        encode_rgb8(image.width(), image.height(), image, &options).expect("encoded")
    }

    fn read(bytes: &[u8]) -> RgbImage {
        let image = decode(bytes, &Limits::default()).expect("an image");
        let (format, width, height) = probe(bytes, &Limits::default()).expect("a header");
        assert_eq!((format, (width, height)), (Format::Heic, image.dimensions()));
        image
    }

    fn refused(bytes: &[u8], limits: &Limits) -> String {
        decode(bytes, limits).expect_err("refused").to_string()
    }

    /// The file with a property of its pictures, which is not needed, made another one that begins with `value`.
    fn with_property(file: &[u8], kind: [u8; 4], value: u8) -> Vec<u8> {
        let mut file = file.to_vec();
        let places: Vec<usize> = (0..file.len()).filter(|at| file[*at..].starts_with(b"pixi")).collect();
        assert!(!places.is_empty());
        for at in places {
            file[at..at + 4].copy_from_slice(&kind);
            file[at + 4] = value;
        }
        file
    }

    #[test]
    fn what_another_program_has_written_is_read() {
        let original = drawn(66, 50);
        assert!(mean_difference(&read(LIBHEIF), &original) < 4.0);
        let mut half = original;
        for (x, _, pixel) in half.enumerate_pixels_mut() {
            if x < 33 {
                *pixel = ::image::Rgb([255; 3]);
            }
        }
        assert!(mean_difference(&read(LIBHEIF_ALPHA), &half) < 4.0);
    }

    #[test]
    fn a_grid_of_pictures_is_put_together() {
        let original = drawn(700, 530);
        let file = encoded(&original);
        assert_eq!(
            HeicDecoder::new(&file, &Limits::default())
                .expect("a header")
                .picture
                .tiles
                .len(),
            4
        );
        assert!(mean_difference(&read(&file), &original) < 2.0);
    }

    #[test]
    fn pictures_are_turned_as_their_container_says() {
        let file = encoded(&drawn(64, 48));
        let lying = read(&file);
        let turned = |kind, value| read(&with_property(&file, kind, value));
        assert_eq!(turned(*b"irot", 0), lying);
        assert_eq!(turned(*b"irot", 1), rotate270(&lying));
        assert_eq!(turned(*b"irot", 2), rotate180(&lying));
        assert_eq!(turned(*b"irot", 3), rotate90(&lying));
        assert_eq!(turned(*b"imir", 0), flip_vertical(&lying));
        assert_eq!(turned(*b"imir", 1), flip_horizontal(&lying));
    }

    #[test]
    fn what_takes_too_much_is_refused() {
        let file = encoded(&drawn(128, 96));
        let small = Limits {
            max_pixels: 128 * 96 - 1,
            ..Limits::default()
        };
        assert!(matches!(decode(&file, &small), Err(ImageError::TooManyPixels { .. })));
        let little = Limits {
            max_allocation: 128 * 96 * 4,
            ..Limits::default()
        };
        assert!(refused(&file, &little).contains("more memory than allowed"));
        let description = vec![0; MAX_DESCRIPTION + 1];
        let description = [&LIBHEIF[..28], &[0, 8, 0, 9], b"meta", &description].concat();
        assert!(refused(&description, &Limits::default()).contains("description is too long"));
    }

    #[test]
    fn a_large_picture_of_which_little_is_shown_is_refused() {
        // It is coded with 64 rows, of which 50 are shown.
        let small = Limits {
            max_pixels: 66 * 64,
            ..Limits::default()
        };
        assert!(decode(LIBHEIF, &small).is_ok());
        let mut file = LIBHEIF.to_vec();
        let size = (0..file.len())
            .find(|at| file[*at..].starts_with(b"ispe"))
            .expect("a size")
            + 8;
        file[size..size + 8].copy_from_slice(&[0, 0, 4, 0, 0, 0, 4, 0]);
        assert!(refused(&file, &small).contains("size"));
    }

    #[test]
    fn pictures_that_share_their_bytes_are_refused() {
        let one = encoded(&drawn(64, 64));
        let parsed = HeifFile::parse(&one).expect("parsed");
        let data = parsed.item_data(parsed.primary_id).expect("data");
        let slice = [data[4..].to_vec()];
        let config = parsed
            .hevc_config(parsed.primary_id)
            .expect("properties")
            .expect("a configuration");
        let mut writer = HeifWriter::new();
        let tile = writer.add_image(&ImageSpec::new(64, 64, config.clone(), &slice));
        let grid = writer.add_grid(16, 16, 1024, 1024, &[tile; 256], None, None);
        writer.set_primary(grid);
        assert!(refused(&writer.finish(), &Limits::default()).contains("share their bytes"));
    }

    #[test]
    fn a_file_that_is_cut_short_is_refused() {
        for length in [40, 500, LIBHEIF.len() - 1] {
            let error = refused(&LIBHEIF[..length], &Limits::default());
            assert!(error.starts_with("the image cannot be decoded: "), "{error}");
        }
    }

    #[test]
    fn what_has_the_same_container_but_another_code_is_no_heic() {
        let avif = [b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", &LIBHEIF[28..]].concat();
        assert!(matches!(
            decode(&avif, &Limits::default()),
            Err(ImageError::UnsupportedFormat)
        ));
    }
}
