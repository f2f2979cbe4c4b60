//! Running a network, behind one small trait.

pub mod library;
mod onnx_runtime;

use std::path::PathBuf;

pub use library::Runtime;
pub use onnx_runtime::OnnxRuntime;

/// A dense tensor of images: batch, channels, height, width.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: [usize; 4],
    data: Vec<f32>,
}

impl Tensor {
    /// A tensor of `shape` over `data`, row-major.
    ///
    /// # Panics
    /// When `data` does not have as many values as `shape` says.
    pub fn new(shape: [usize; 4], data: Vec<f32>) -> Self {
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "tensor data fits its shape"
        );
        Self { shape, data }
    }

    /// Batch, channels, height, width.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}

/// What a network says of a batch of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Activations {
    /// One row per image: pooled features, or class logits for a network with its own head.
    /// Row-major, `images x size`.
    pub vectors: Vec<f32>,
    /// Length of one row.
    pub size: usize,
    /// The last feature map before pooling, `[images, channels, height, width]`, where the network offers one.
    pub map: Option<Tensor>,
}

/// What to copy out of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// The vectors alone.
    Vectors,
    /// The vectors and the last feature map.
    VectorsAndMap,
}

/// Something that turns images into vectors. Deterministic: the same image gives the same vector,
/// whatever else is in the batch or running beside it.
pub trait Network: Send {
    /// Runs a batch: `[images, 3, height, width]`, of at least one image, prepared as the network expects.
    ///
    /// # Errors
    /// [`NetworkError::Run`] where the network does not take the batch, [`NetworkError::NotFinite`] where a value of a
    /// vector is NaN or infinite.
    fn run(&mut self, images: &Tensor, outputs: Outputs) -> Result<Activations, NetworkError>;
}

/// Why a network could not be loaded or run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// No ONNX Runtime library was found in any of the places looked at.
    #[error("the ONNX Runtime library was not found (looked for {})", .0.join(", "))]
    LibraryMissing(Vec<String>),
    /// The library is not where the environment says.
    #[error(
        "the ONNX Runtime library was not found: {} names {}, which is no file; correct it, or unset it to have the library \
         looked for elsewhere", library::VARIABLE, .0.display()
    )]
    LibraryMisnamed(PathBuf),
    /// The library was found and could not be loaded.
    #[error("the ONNX Runtime library at {path} cannot be loaded: {reason}")]
    LibraryUnusable {
        /// Where it is.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// The model is not a network that can be run here.
    #[error("the network cannot be loaded: {0}")]
    Load(String),
    /// The CUDA device cannot be used.
    #[error("the network cannot be run on the CUDA device: {0}")]
    Cuda(String),
    /// The network refused the input.
    #[error("the network failed: {0}")]
    Run(String),
    /// The network gave NaN or infinity.
    #[error("the network gave a value that is not finite")]
    NotFinite,
}
