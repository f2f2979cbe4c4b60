//! Microsoft's ONNX Runtime library, from the Python package `onnxruntime`.
//!
//! Its library needs nothing newer than glibc 2.28, so that the same file serves on AWS Lambda's
//! `provided.al2023`. The wheels for different Python versions hold the identical library.

use std::path::{Path, PathBuf};

use shared::network::library::{self, VERSION};

use super::{Cache, SetupError, archive, command};
use crate::progress::Progress;

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

const PLATFORMS: [Platform; 3] = [
    Platform {
        os: "linux",
        architecture: "x86_64",
        tags: &["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"],
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

/// The library, from the cache or fetched into it.
///
/// # Errors
/// See [`SetupError`].
pub fn runtime_library(cache: &Cache, progress: &dyn Progress) -> Result<PathBuf, SetupError> {
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let platform = PLATFORMS
        .iter()
        .find(|platform| platform.os == os && platform.architecture == architecture)
        .ok_or_else(|| SetupError::Platform(format!("{os} on {architecture}")))?;
    cache.file(&library::in_cache(Path::new("")), platform.sha256, |folder| {
        progress.begin(&format!("Obtaining ONNX Runtime {VERSION}"), 0);
        let mut options = vec!["--python-version", "3.11"];
        options.extend(platform.tags.iter().flat_map(|tag| ["--platform", tag]));
        let wheel = command::pip_download(&format!("onnxruntime=={VERSION}"), &options, folder);
        let library = wheel.and_then(|wheel| archive::unpack_from_wheel(&wheel, platform.file, folder));
        progress.end();
        library
    })
}
