//! Finding and loading Microsoft's ONNX Runtime library.

use std::path::{Path, PathBuf};

use ort::environment::Environment;

use super::{NetworkError, OnnxRuntime};

/// File name of the library on this platform.
pub const FILE_NAME: &str = if cfg!(target_os = "windows") {
    "onnxruntime.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// The version that the trainer obtains: the oldest, smallest and least hungry of those that give the same output.
pub const VERSION: &str = "1.20.1";

/// The environment variable that names the library and wins over every other place.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Where the trainer keeps the library in its cache folder.
pub fn in_cache(cache: &Path) -> PathBuf {
    cache
        .join("runtime")
        .join(format!("onnxruntime-{VERSION}"))
        .join(FILE_NAME)
}

/// The loaded library, ready to make networks. Cheap to clone; a process needs one.
#[derive(Clone)]
pub struct Runtime {
    environment: Environment,
}

impl Runtime {
    /// Loads the library from `ORT_DYLIB_PATH`, else from the first of `candidates` that exists, else
    /// from beside the running program or its `lib` folder.
    ///
    /// # Errors
    /// [`NetworkError::LibraryMissing`], [`NetworkError::LibraryMisnamed`] or [`NetworkError::LibraryUnusable`].
    pub fn load(candidates: &[PathBuf]) -> Result<Self, NetworkError> {
        let path = find(candidates)?;
        let unusable = |reason: String| NetworkError::LibraryUnusable {
            path: path.clone(),
            reason,
        };
        let environment = ort::init_from(&path)
            .map_err(|error| unusable(error.to_string()))?
            .with_name("ikat")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { environment })
    }

    /// Loads a network from the bytes of an ONNX file, to run on `threads` threads.
    ///
    /// # Errors
    /// [`NetworkError::Load`].
    pub fn network(&self, model: &[u8], threads: usize) -> Result<OnnxRuntime, NetworkError> {
        OnnxRuntime::on_processor(&self.environment, model, threads)
    }

    /// Loads a network from the bytes of an ONNX file onto a CUDA device, counted from 0. For that the library must be
    /// one of those with CUDA, and its CUDA and cuDNN where the system's loader finds them.
    ///
    /// # Errors
    /// [`NetworkError::Cuda`], or [`NetworkError::Load`].
    pub fn network_on_cuda(&self, model: &[u8], device: usize) -> Result<OnnxRuntime, NetworkError> {
        OnnxRuntime::on_cuda(&self.environment, model, device)
    }
}

/// Where the library is, by the rule of [`Runtime::load`].
///
/// # Errors
/// [`NetworkError::LibraryMissing`] with every place that was looked at, or [`NetworkError::LibraryMisnamed`].
pub fn find(candidates: &[PathBuf]) -> Result<PathBuf, NetworkError> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(NetworkError::LibraryMisnamed(path))
        };
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf));
    let beside = beside
        .into_iter()
        .flat_map(|folder| [folder.join(FILE_NAME), folder.join("lib").join(FILE_NAME)]);
    let places: Vec<PathBuf> = candidates.iter().cloned().chain(beside).collect();
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked = places.iter().map(|path| path.display().to_string());
        NetworkError::LibraryMissing(std::iter::once(VARIABLE.to_owned()).chain(looked).collect())
    })
}
