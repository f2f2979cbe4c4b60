//! Obtains a network of the catalogue and prints, line by line, where the runtime library is, its ONNX file as it is run,
//! and the one that is refined: for comparisons with other implementations in `tests/reference` and `tests/benchmarks`.

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
    for path in [library, backbone.onnx, backbone.trainable] {
        anstream::println!("{}", path.display());
    }
    Ok(())
}
