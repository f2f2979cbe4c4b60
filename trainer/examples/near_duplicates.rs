//! How long grouping near-duplicates takes, on hashes as product photos have them: white borders in a part of them,
//! a tenth of them copies. `cargo run --release --example near_duplicates`.

use std::time::Instant;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::dataset::near_duplicate_groups;

#[allow(clippy::print_stdout)]
fn main() {
    for count in [10_000, 20_000, 100_000, 1_000_000] {
        let hashes = hashes(count);
        let start = Instant::now();
        let groups = near_duplicate_groups(&hashes, 16);
        let seconds = start.elapsed().as_secs_f64();
        let distinct = groups.iter().max().map_or(0, |last| last + 1);
        println!("{count:>8} hashes: {seconds:.4} s, {distinct} groups");
    }
}

fn hashes(count: usize) -> Vec<[u8; 32]> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut hashes: Vec<[u8; 32]> = Vec::with_capacity(count);
    for index in 0..count {
        let mut hash = [0; 32];
        random.fill_bytes(&mut hash);
        if random.random_range(0..10) < 4 {
            // Nothing in the three outer rows and columns.
            let inner = |row: usize, byte: &mut u8, mask: u8| *byte &= if (3..13).contains(&row) { mask } else { 0 };
            for (row, bytes) in hash.chunks_exact_mut(2).enumerate() {
                inner(row, &mut bytes[0], 0x1f);
                inner(row, &mut bytes[1], 0xf8);
            }
        }
        if index > 0 && random.random_range(0..10) == 0 {
            hash = hashes[random.random_range(0..index)];
            for _ in 0..random.random_range(0..10) {
                hash[random.random_range(0..32)] ^= 1 << random.random_range(0..8);
            }
        }
        hashes.push(hash);
    }
    hashes
}
