//! What a JPEG says of itself before its data (ITU-T T.81, annex B): as much as the common kind needs.

use super::entropy::Table;

const START_OF_SCAN: u8 = 0xda;

/// A sequential JPEG of bytes whose components all come in one scan.
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Brightness alone, or brightness and two of colour.
    pub(super) components: Vec<Component>,
    /// Units between restart markers; 0 where there are none.
    pub(super) restart: usize,
    /// Where the data begins.
    pub(super) data: usize,
    pub(super) tables: Tables,
}

/// What is known of a component.
pub(super) struct Component {
    identifier: u8,
    /// Blocks of a unit, across and down.
    pub(super) blocks: (usize, usize),
    /// Which quantization table.
    pub(super) quantization: usize,
    /// Which Huffman tables, for the first coefficient and for the others.
    pub(super) codes: (usize, usize),
}

/// The tables, by their number.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) quantization: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Table>; 4],
    pub(super) ac: [Option<Table>; 4],
}

/// Reads up to the data. `None` for other kinds of JPEG, and for what is damaged.
pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    let mut tables = Tables::default();
    let mut frame: Option<(usize, usize, Vec<Component>)> = None;
    let mut restart = 0;
    for (marker, segment, data) in segments(bytes) {
        match marker {
            0xc0 | 0xc1 if frame.is_none() => frame = Some(read_frame(segment)?),
            0xc4 => read_codes(segment, &mut tables)?,
            0xdb => read_quantization(segment, &mut tables)?,
            0xdd => restart = usize::from(u16::from_be_bytes(*segment.first_chunk()?)),
            START_OF_SCAN => {
                let (width, height, mut components) = frame?;
                read_scan(segment, &mut components)?;
                return Some(Header {
                    width,
                    height,
                    components,
                    restart,
                    data,
                    tables,
                });
            }
            0xee if is_of_other_colours(segment) => return None,
            0xe0..=0xef | 0xfe => {}
            _ => return None,
        }
    }
    None
}

/// Whether Adobe says that the colours are in another form than brightness and two differences.
pub(super) fn has_other_colours(bytes: &[u8]) -> bool {
    let mut header = segments(bytes).take_while(|(marker, ..)| *marker != START_OF_SCAN);
    header.any(|(marker, segment, _)| marker == 0xee && is_of_other_colours(segment))
}

fn is_of_other_colours(segment: &[u8]) -> bool {
    segment.starts_with(b"Adobe") && segment.get(11) != Some(&1)
}

/// The markers from the start on, each with what it holds and where that ends, as far as nothing is between them.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8], usize)> {
    let mut position = 2;
    std::iter::from_fn(move || {
        let filling = bytes.get(position..)?.iter().take_while(|byte| **byte == 0xff).count();
        (filling > 0).then_some(())?;
        position += filling;
        let (&[marker, high, low], _) = bytes.get(position..)?.split_first_chunk()?;
        let end = position + 1 + usize::from(u16::from_be_bytes([high, low]));
        let segment = bytes.get(position + 3..end)?;
        position = end;
        Some((marker, segment, end))
    })
}

fn read_frame(segment: &[u8]) -> Option<(usize, usize, Vec<Component>)> {
    let (&[precision, h1, h0, w1, w0, count], rest) = segment.split_first_chunk()?;
    let size = |high, low| usize::from(u16::from_be_bytes([high, low]));
    let (width, height) = (size(w1, w0), size(h1, h0));
    if precision != 8 || width == 0 || height == 0 || rest.len() != 3 * usize::from(count) {
        return None;
    }
    let mut components: Vec<Component> = rest
        .chunks_exact(3)
        .map(|part| Component {
            identifier: part[0],
            blocks: (usize::from(part[1] >> 4), usize::from(part[1] & 15)),
            quantization: usize::from(part[2]),
            codes: (0, 0),
        })
        .collect();
    match components.as_mut_slice() {
        // A component that comes alone comes block by block.
        [brightness] => brightness.blocks = (1, 1),
        [brightness, blue, red] => {
            let (across, down) = brightness.blocks;
            let is_common = (1..=2).contains(&across) && (1..=2).contains(&down);
            let is_plain = |component: &Component| component.blocks == (1, 1);
            let is_rgb = [brightness.identifier, blue.identifier, red.identifier] == *b"RGB";
            if !is_common || !is_plain(blue) || !is_plain(red) || is_rgb {
                return None;
            }
        }
        _ => return None,
    }
    Some((width, height, components))
}

fn read_scan(segment: &[u8], components: &mut [Component]) -> Option<()> {
    let (&count, rest) = segment.split_first()?;
    let (chosen, end) = rest.split_at_checked(2 * usize::from(count))?;
    if usize::from(count) != components.len() || end != [0, 63, 0] {
        return None;
    }
    for (component, chosen) in components.iter_mut().zip(chosen.chunks_exact(2)) {
        if component.identifier != chosen[0] {
            return None;
        }
        component.codes = (usize::from(chosen[1] >> 4), usize::from(chosen[1] & 15));
    }
    Some(())
}

fn read_quantization(mut segment: &[u8], tables: &mut Tables) -> Option<()> {
    while let Some((&kind, rest)) = segment.split_first() {
        let table = tables.quantization.get_mut(usize::from(kind & 15))?;
        let width = 1 + usize::from(kind >> 4);
        let (values, rest) = rest.split_at_checked(64 * width)?;
        let mut read = [0; 64];
        for (to, value) in read.iter_mut().zip(values.chunks_exact(width)) {
            *to = value.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
        }
        *table = (width <= 2).then_some(read);
        segment = rest;
    }
    Some(())
}

fn read_codes(mut segment: &[u8], tables: &mut Tables) -> Option<()> {
    while let Some((&kind, rest)) = segment.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(total)?;
        let class = match kind >> 4 {
            0 => &mut tables.dc,
            1 => &mut tables.ac,
            _ => return None,
        };
        *class.get_mut(usize::from(kind & 15))? = Some(Table::new(counts, symbols)?);
        segment = rest;
    }
    Some(())
}
