//! Groups of images that show nearly the same: bursts of one scene, copies in another size or quality.
//!
//! Two hashes that differ in at most `d` bits agree in at least one of `d + 1` parts (the pigeonhole principle;
//! Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing", 2012). So hashes are sorted by one
//! part after the other, and only those that agree in it are compared.

/// Number of differing bits, of 256, up to which two images count as near-duplicates. Among 1600 photos of clothes,
/// copies of one picture differ in at most 2 bits, and the next pair, two plain fabrics, in 26.
pub const DEFAULT_DISTANCE: u32 = 16;

type Words = [u64; 4];

/// The group of each image: connected by steps of at most `distance` differing bits. Groups are numbered by their
/// first image.
pub fn near_duplicate_groups(hashes: &[[u8; 32]], distance: u32) -> Vec<usize> {
    let words: Vec<Words> = hashes.iter().map(to_words).collect();
    let mut groups = Groups::new(words.len());
    let mut order: Vec<usize> = (0..words.len()).collect();
    let parts = (distance + 1).min(256);
    for part in 0..parts {
        let mask = mask(256 * part / parts, 256 * (part + 1) / parts);
        let key = |index: usize| and(&words[index], &mask);
        order.sort_unstable_by_key(|index| (key(*index), *index));
        for run in order.chunk_by(|left, right| key(*left) == key(*right)) {
            for (position, left) in run.iter().enumerate() {
                for right in &run[position + 1..] {
                    if differing(&words[*left], &words[*right]) <= distance {
                        groups.join(*left, *right);
                    }
                }
            }
        }
    }
    groups.numbered()
}

fn to_words(hash: &[u8; 32]) -> Words {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(hash.chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

/// Ones from bit `from` up to but not including bit `to`.
fn mask(from: u32, to: u32) -> Words {
    let mut words = [0; 4];
    for bit in from..to {
        words[(bit / 64) as usize] |= 1 << (63 - bit % 64);
    }
    words
}

fn and(left: &Words, right: &Words) -> Words {
    std::array::from_fn(|index| left[index] & right[index])
}

fn differing(left: &Words, right: &Words) -> u32 {
    left.iter()
        .zip(right)
        .map(|(left, right)| (left ^ right).count_ones())
        .sum()
}

/// Disjoint sets of numbers.
pub(super) struct Groups {
    parents: Vec<usize>,
}

impl Groups {
    /// Every number alone.
    pub(super) fn new(count: usize) -> Self {
        Self {
            parents: (0..count).collect(),
        }
    }

    /// Puts the sets of two numbers together.
    pub(super) fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.root(left), self.root(right));
        self.parents[left.max(right)] = left.min(right);
    }

    /// The set of each number; sets are numbered by their first member.
    pub(super) fn numbered(mut self) -> Vec<usize> {
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
                    if differing(&to_words(&hashes[left]), &to_words(&hashes[right])) <= distance {
                        groups.join(left, right);
                    }
                }
            }
            assert_eq!(
                near_duplicate_groups(&hashes, distance),
                groups.numbered(),
                "{distance}"
            );
        }
    }

    #[test]
    fn no_image_makes_no_group() {
        assert_eq!(near_duplicate_groups(&[], 10), [] as [usize; 0]);
    }
}
