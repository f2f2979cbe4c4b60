//! How fast two networks are on this machine.

use std::time::{Duration, Instant};

use shared::network::{Network, NetworkError, Outputs, Runtime, Tensor};

/// Runs of each network.
const RUNS: usize = 31;
/// Runs before those that count.
const WARM_UP: usize = 3;

/// The fastest of warm runs for one image on one thread: whatever else the machine does slows the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speeds {
    /// Of the first network.
    pub first: Duration,
    /// Of the second network.
    pub second: Duration,
}

/// Runs two networks, given as ONNX files, in turn.
pub fn compare(runtime: &Runtime, first: &[u8], second: &[u8], image: &Tensor) -> Result<Speeds, NetworkError> {
    let mut networks = [runtime.network(first, 1)?, runtime.network(second, 1)?];
    let mut fastest = [Duration::MAX; 2];
    for run in 0..WARM_UP + RUNS {
        for (network, fastest) in networks.iter_mut().zip(&mut fastest) {
            let start = Instant::now();
            network.run(image, Outputs::Vectors)?;
            if run >= WARM_UP {
                *fastest = start.elapsed().min(*fastest);
            }
        }
    }
    let [first, second] = fastest;
    Ok(Speeds { first, second })
}
