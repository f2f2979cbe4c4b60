//! Entropy-coded data of a sequential JPEG: bits, codes, coefficients (ITU-T T.81, annexes C and F.2.2).

/// Codes of up to so many bits are looked up at once.
const LOOK: u32 = 10;
/// Where coefficients go that are not kept.
pub(super) const DROPPED: u8 = 64;

/// The bits between two markers, first bit first. Small and copied, so that it stays in registers where it is used
/// most.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    /// Those read and not used, from the top.
    held: u64,
    count: u32,
    /// How many of those read were not there.
    missing: u32,
}

impl<'a> Bits<'a> {
    /// Those from `position` of `data` on.
    pub(super) fn new(data: &'a [u8], position: usize) -> Self {
        Self {
            data,
            position,
            held: 0,
            count: 0,
            missing: 0,
        }
    }

    /// Makes at least 32 bits available: zeros where a marker or the end has come.
    #[inline]
    fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(word) = self.data.get(self.position..).and_then(<[u8]>::first_chunk) {
            let word = u32::from_be_bytes(*word);
            // Adding one carries into the highest bit of a byte of which all others are set.
            let carries = (word & 0x7f7f_7f7f).wrapping_add(0x0101_0101);
            if word & carries & 0x8080_8080 == 0 {
                self.held |= u64::from(word) << (32 - self.count);
                self.count += 32;
                self.position += 4;
                return;
            }
        }
        *self = self.refilled_by_bytes();
    }

    #[cold]
    #[inline(never)]
    fn refilled_by_bytes(mut self) -> Self {
        while self.count <= 56 {
            let byte = match (self.data.get(self.position), self.data.get(self.position + 1)) {
                (Some(0xff), Some(0)) => {
                    self.position += 2;
                    0xff
                }
                (Some(0xff) | None, _) => {
                    self.missing += 8;
                    0
                }
                (Some(byte), _) => {
                    self.position += 1;
                    *byte
                }
            };
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    #[inline]
    fn take(&mut self, count: u32) {
        self.held <<= count;
        self.count -= count;
    }

    /// A difference or coefficient of `size` bits, up to 15: those below half of the range stand for negative ones.
    #[inline]
    fn signed(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let value = (self.held >> (64 - size)) as i32;
        self.take(size);
        extended(value, size)
    }

    /// Goes on after the restart marker of this number; `None` where there is another marker or none.
    pub(super) fn restart(&mut self, number: u8) -> Option<()> {
        if !self.is_whole() {
            return None;
        }
        // What is held was read ahead, and none of it is from behind the marker.
        while self.data.get(self.position) == Some(&0xff) && self.data.get(self.position + 1) == Some(&0xff) {
            self.position += 1;
        }
        let marker = self.data.get(self.position..self.position + 2)?;
        if marker != [0xff, 0xd0 + number] {
            return None;
        }
        *self = Self::new(self.data, self.position + 2);
        Some(())
    }

    /// Whether all that was used was there.
    pub(super) fn is_whole(&self) -> bool {
        self.missing <= self.count
    }
}

#[inline]
fn extended(value: i32, size: u32) -> i32 {
    if value < 1 << (size - 1) {
        value - (1 << size) + 1
    } else {
        value
    }
}

/// A Huffman table.
pub(super) struct Table {
    /// By the next bits: symbol and length of the code, 0 where it is longer.
    short: Vec<u16>,
    /// By the next bits: coefficient, zeros before it and length of both, 0 where they are longer or not there.
    coefficients: Vec<i32>,
    /// The last code of each length, and what to add to a code for the place of its symbol.
    longest: [(i32, i32); 17],
    symbols: Vec<u8>,
}

impl Table {
    /// A table with so many codes of each length from 1 to 16. `None` where there are more than there can be.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut short = vec![0; 1 << LOOK];
        let mut longest = [(-1, 0); 17];
        let (mut code, mut place) = (0_i32, 0_i32);
        for (length, &count) in (1_u32..).zip(counts) {
            let next = code + i32::from(count);
            if next > 1 << length {
                return None;
            }
            for code in (code..next).filter(|_| length <= LOOK) {
                let symbol = *symbols.get((place + code) as usize - (next - i32::from(count)) as usize)?;
                let first = (code as usize) << (LOOK - length);
                short[first..first + (1 << (LOOK - length))].fill(u16::from(symbol) << 8 | length as u16);
            }
            longest[length as usize] = (next - 1, place - code);
            place += i32::from(count);
            code = next << 1;
        }
        let coefficients = (0..1 << LOOK)
            .map(|bits| coefficient(bits, short[bits as usize]))
            .collect();
        Some(Self {
            short,
            coefficients,
            longest,
            symbols: symbols.get(..place as usize)?.to_vec(),
        })
    }

    /// The next symbol; `None` where no code is like the next bits.
    #[inline]
    fn symbol(&self, bits: &mut Bits) -> Option<u8> {
        let short = self.short[(bits.held >> (64 - LOOK)) as usize];
        if short != 0 {
            bits.take(u32::from(short & 0xff));
            return Some((short >> 8) as u8);
        }
        let (symbol, length) = self.long_symbol(bits.held)?;
        bits.take(length);
        Some(symbol)
    }

    /// The symbol whose code, a long one, begins `held`, and the code's length.
    #[inline(never)]
    fn long_symbol(&self, held: u64) -> Option<(u8, u32)> {
        let (length, code, offset) = (LOOK + 1..=16).find_map(|length| {
            let code = (held >> (64 - length)) as i32;
            let (last, offset) = self.longest[length as usize];
            (code <= last).then_some((length, code, offset))
        })?;
        Some((*self.symbols.get((code + offset) as usize)?, length))
    }
}

/// The entry for a coefficient whose code and value are the next `bits`, [`LOOK`] of them.
fn coefficient(bits: i32, short: u16) -> i32 {
    let (symbol, length) = (i32::from(short >> 8), u32::from(short & 0xff));
    let (zeros, size) = (symbol >> 4, (symbol & 15) as u32);
    if length == 0 || size == 0 || length + size > LOOK {
        return 0;
    }
    let value = bits >> (LOOK - length - size) & ((1 << size) - 1);
    extended(value, size) << 16 | zeros << 8 | (length + size) as i32
}

/// What becomes of a coefficient.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Its place in the block, [`DROPPED`] for none.
    pub(super) place: u8,
    /// The bit of its row.
    pub(super) row: u8,
    /// What it is multiplied by.
    pub(super) factor: f32,
}

/// Reads a block into `block`, which is zero where coefficients are kept; `slots` are in the order of the file. Gives
/// the rows in which there is something beside the first coefficient, as bits; `None` where the data is damaged.
#[inline]
pub(super) fn read_block(
    all: &mut Bits,
    (dc, ac): (&Table, &Table),
    last_dc: &mut i32,
    slots: &[Slot; 64],
    block: &mut [f32; 65],
) -> Option<u8> {
    let mut bits = *all;
    bits.refill();
    let size = u32::from(dc.symbol(&mut bits)?);
    if size > 15 {
        return None;
    }
    *last_dc = last_dc.wrapping_add(bits.signed(size));
    block[0] = *last_dc as f32 * slots[0].factor;
    let mut rows = 0;
    let mut index = 1;
    while index < 64 {
        bits.refill();
        let direct = ac.coefficients[(bits.held >> (64 - LOOK)) as usize];
        let value = if direct != 0 {
            bits.take((direct & 0xff) as u32);
            index += (direct >> 8 & 15) as usize;
            direct >> 16
        } else {
            let symbol = ac.symbol(&mut bits)?;
            let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, size) {
                (15, 0) => {
                    index += 16;
                    continue;
                }
                (_, 0) => break,
                _ => {}
            }
            index += zeros;
            bits.signed(size)
        };
        let slot = slots.get(index)?;
        block[usize::from(slot.place)] = value as f32 * slot.factor;
        rows |= slot.row;
        index += 1;
    }
    *all = bits;
    Some(rows)
}
