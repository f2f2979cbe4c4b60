//! Obtains a network of the catalogue and prints where its ONNX file is: for the comparison with other
//! implementations in `tests/reference/backbone_compare.py`.

use std::path::PathBuf;

use trainer::backbone;
use trainer::progress::Silent;
use trainer::setup::{self, Cache};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: backbone CACHE NAME|FILE [WEIGHTS]".into());
    };
    let cache = Cache::at(&PathBuf::from(folder));
    let library = setup::runtime_library(&cache, &Silent)?;
    let weights = arguments.next().map(PathBuf::from);
    let backbone = backbone::obtain(&name, weights.as_deref(), None, &cache, &Silent)?;
    anstream::println!("{}\n{}", library.display(), backbone.onnx.display());
    Ok(())
}
