//! Where networks are run over images: what a quantization and a report both need.

use shared::network::Runtime;

use crate::progress::Progress;

/// Where networks are run.
pub struct Workbench<'a> {
    /// The loaded runtime library.
    pub runtime: &'a Runtime,
    /// Images worked on at once.
    pub threads: usize,
    /// Who is told of the progress.
    pub progress: &'a dyn Progress,
}
