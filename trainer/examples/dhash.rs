//! Prints the difference hash of each image of a folder, for `tests/reference/dhash_compare.py`.

use shared::image::{Limits, decode};
use trainer::dataset::{HASH_SIZE, dhash};

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let pixels = decode(&std::fs::read(&path)?, &Limits::default())?;
        println!("{}\t{}", path.display(), dhash(&pixels, HASH_SIZE));
    }
    Ok(())
}
