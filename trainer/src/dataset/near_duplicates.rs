//! Groups of images that show nearly the same: bursts of one scene, copies in another size or quality.
//!
//! Two hashes that differ in at most `d` bits agree in at least one of `d + 1` parts (the pigeonhole principle;
//! Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing", 2012). So hashes are sorted by one
//! part after the other, and only those that agree in it are compared. Of very many hashes too many agree in a part by
//! chance; then there are half as many parts, twice as long, of which one differs in at most one bit: hashes are sorted
//! by what is left of a part without one of its bits. `trainer/examples/near_duplicates.rs` measures it.

use rayon::prelude::*;

/// Number of differing bits, of 256, up to which two images count as near-duplicates. Among 1600 photos of clothes,
/// copies of one picture differ in at most 2 bits, and the next pair, two plain fabrics, in 26.
pub const DEFAULT_DISTANCE: u32 = 16;

/// The group of each image: connected by steps of at most `distance` differing bits. All hashes have one length.
/// Groups are numbered by their first image.
pub fn near_duplicate_groups<H: AsRef<[u8]>>(hashes: &[H], distance: u32) -> Vec<usize> {
    let words = Words::new(hashes);
    let parts = distance as usize + 1;
    // Hashes that agree with one in a part by chance, if half of all had each bit.
    let chance = hashes.len() as f64 * parts as f64 / (words.bits() as f64 / parts as f64).exp2();
    grouped(&words, distance, chance > MOST_BY_CHANCE)
}

/// Above so many comparisons of a hash that come to nothing, sorting more often is faster. Measured.
const MOST_BY_CHANCE: f64 = 100.0;

/// The groups, by parts that are equal or, where they are `long`, by parts that differ in one bit.
fn grouped(words: &Words, distance: u32, long: bool) -> Vec<usize> {
    let mut groups = Groups::new(words.count());
    let distinct = words.distinct(&mut groups);
    if distance as usize >= words.bits() {
        distinct.windows(2).for_each(|pair| groups.join(pair[0], pair[1]));
        return groups.numbered();
    }
    let masks = if long {
        let parts = words.masks(&distinct, distance as usize / 2 + 1);
        parts.iter().flat_map(|part| without_one_bit(part)).collect()
    } else {
        words.masks(&distinct, distance as usize + 1)
    };
    let mut keyed = Vec::with_capacity(distinct.len());
    for mask in masks {
        keyed.clear();
        keyed.extend(distinct.iter().map(|index| (words.key(*index, &mask), *index)));
        keyed.par_sort_unstable();
        let runs = keyed.par_chunk_by(|left, right| left.0 == right.0);
        let joined: Vec<(usize, usize)> = runs.flat_map_iter(|run| words.joined(run, distance)).collect();
        for (left, right) in joined {
            groups.join(left, right);
        }
    }
    groups.numbered()
}

/// The masks that lack one bit of `mask` each.
fn without_one_bit(mask: &[u64]) -> Vec<Vec<u64>> {
    let bits = (0..64 * mask.len()).filter(|bit| mask[bit / 64] >> (bit % 64) & 1 == 1);
    let lacking = |bit: usize| {
        let mut mask = mask.to_vec();
        mask[bit / 64] &= !(1 << (bit % 64));
        mask
    };
    bits.map(lacking).collect()
}

/// Hashes as words of 64 bits, one after the other.
struct Words {
    words: Vec<u64>,
    /// Words of one hash.
    length: usize,
}

impl Words {
    fn new<H: AsRef<[u8]>>(hashes: &[H]) -> Self {
        let length = hashes.first().map_or(1, |hash| hash.as_ref().len().div_ceil(8).max(1));
        let mut words = vec![0; hashes.len() * length];
        for (words, hash) in words.chunks_exact_mut(length).zip(hashes) {
            for (word, bytes) in words.iter_mut().zip(hash.as_ref().chunks(8)) {
                *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            }
        }
        Self { words, length }
    }

    fn count(&self) -> usize {
        self.words.len() / self.length
    }

    fn bits(&self) -> usize {
        64 * self.length
    }

    fn of(&self, index: usize) -> &[u64] {
        &self.words[index * self.length..][..self.length]
    }

    /// The first of the hashes of each value, ascending; those of one value are put together in `groups`. Plain
    /// pictures often have the very same hash, and comparing each with each would take forever.
    fn distinct(&self, groups: &mut Groups) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.count()).collect();
        order.sort_unstable_by_key(|index| (self.of(*index), *index));
        let mut firsts = Vec::with_capacity(order.len());
        for run in order.chunk_by(|left, right| self.of(*left) == self.of(*right)) {
            firsts.push(run[0]);
            for index in run {
                groups.join(run[0], *index);
            }
        }
        firsts.sort_unstable();
        firsts
    }

    /// `count` masks that share out the bits among them. Bits that are nearly always the same, as along the white
    /// border of a product photo, tell nothing apart: so that each part gets its share of the telling ones, they
    /// are dealt out by how evenly they divide the hashes.
    fn masks(&self, hashes: &[usize], count: usize) -> Vec<Vec<u64>> {
        let mut ones = vec![0_usize; self.bits()];
        for index in hashes {
            for (word, counts) in self.of(*index).iter().zip(ones.chunks_exact_mut(64)) {
                for (bit, count) in counts.iter_mut().enumerate() {
                    *count += (word >> bit & 1) as usize;
                }
            }
        }
        let mut order: Vec<usize> = (0..self.bits()).collect();
        order.sort_by_key(|bit| ones[*bit].abs_diff(hashes.len() - ones[*bit]));
        let mut masks = vec![vec![0; self.length]; count];
        for (position, bit) in order.into_iter().enumerate() {
            masks[position % count][bit / 64] |= 1 << (bit % 64);
        }
        masks
    }

    /// Equal where two hashes agree under the mask. Where they do not it nearly always differs, and need not.
    fn key(&self, index: usize, mask: &[u64]) -> u64 {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        let words = self.of(index).iter().zip(mask);
        words.fold(0, |key: u64, (word, mask)| {
            (key ^ (word & mask)).wrapping_mul(MULTIPLIER).rotate_left(29)
        })
    }

    /// Pairs that put the hashes of a run into groups, fewer than there are hashes: of copies of one picture every pair
    /// would be near, more than memory holds.
    fn joined(&self, run: &[(u64, usize)], distance: u32) -> Vec<(usize, usize)> {
        if run.len() < 2 {
            return Vec::new();
        }
        let mut groups = Groups::new(run.len());
        for (position, (_, left)) in run.iter().enumerate() {
            for (other, (_, right)) in run.iter().enumerate().skip(position + 1) {
                if self.differing(*left, *right) <= distance {
                    groups.join(position, other);
                }
            }
        }
        let with_root = (0..run.len()).map(|position| (position, groups.root(position)));
        let joined = with_root.filter(|(position, root)| position != root);
        joined.map(|(position, root)| (run[root].1, run[position].1)).collect()
    }

    fn differing(&self, left: usize, right: usize) -> u32 {
        let pairs = self.of(left).iter().zip(self.of(right));
        pairs.map(|(left, right)| (left ^ right).count_ones()).sum()
    }
}

/// Disjoint sets of numbers.
pub(crate) struct Groups {
    parents: Vec<usize>,
}

impl Groups {
    /// Every number alone.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            parents: (0..count).collect(),
        }
    }

    /// Puts the sets of two numbers together.
    pub(crate) fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.root(left), self.root(right));
        self.parents[left.max(right)] = left.min(right);
    }

    /// The set of each number; sets are numbered by their first member.
    pub(crate) fn numbered(mut self) -> Vec<usize> {
        let mut numbers = vec![None; self.parents.len()];
        let mut next = 0;
        (0..self.parents.len())
            .map(|index| {
                let root = self.root(index);
                *numbers[root].get_or_insert_with(|| {
                    next += 1;
                    next - 1
                })
            })
            .collect()
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Random hashes, many of them a few bits from an earlier one.
    fn hashes(count: usize) -> Vec<[u8; 32]> {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut hashes: Vec<[u8; 32]> = Vec::new();
        for index in 0..count {
            let mut hash = [0; 32];
            random.fill_bytes(&mut hash);
            if index > 0 && random.random_range(0..3) > 0 {
                hash = hashes[random.random_range(0..index)];
                for _ in 0..random.random_range(0..20) {
                    hash[random.random_range(0..32)] ^= 1 << random.random_range(0..8);
                }
            }
            hashes.push(hash);
        }
        hashes
    }

    #[test]
    fn groups_are_those_of_comparing_every_pair() {
        let hashes = hashes(300);
        for distance in [0, 1, 4, 10, 16, 40, 255, 256] {
            let mut groups = Groups::new(hashes.len());
            for left in 0..hashes.len() {
                for right in left + 1..hashes.len() {
                    let pairs = hashes[left].iter().zip(&hashes[right]);
                    if pairs.map(|(left, right)| (left ^ right).count_ones()).sum::<u32>() <= distance {
                        groups.join(left, right);
                    }
                }
            }
            let (expected, words) = (groups.numbered(), Words::new(&hashes));
            assert_eq!(near_duplicate_groups(&hashes, distance), expected, "{distance}");
            for long in [false, true] {
                assert_eq!(grouped(&words, distance, long), expected, "{distance} {long}");
            }
        }
    }

    #[test]
    fn hashes_of_another_length_are_grouped_alike() {
        // 3 x 3 bits fill a byte and a bit of the next; opposite hashes differ in all of them.
        let hashes = [
            [0b1010_1010, 0x80],
            [0b1010_1011, 0x80],
            [0b0101_0101, 0x00],
            [0b1010_1010, 0x80],
        ];
        assert_eq!(near_duplicate_groups(&hashes, 0), [0, 1, 2, 0]);
        assert_eq!(near_duplicate_groups(&hashes, 1), [0, 0, 1, 0]);
        assert_eq!(near_duplicate_groups(&hashes, 9), [0, 0, 0, 0]);
    }

    #[test]
    fn no_image_makes_no_group() {
        assert_eq!(near_duplicate_groups::<[u8; 32]>(&[], 10), [] as [usize; 0]);
    }
}
