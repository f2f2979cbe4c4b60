//! Reading an image from wherever a text says that it is: a file, a bucket, or the web.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{StatusCode, Url};
use shared::buckets::Buckets;
use shared::image::Limits;
use shared::service::{ErrorCode, S3Reference, ServiceError};

use crate::dataset::{self, ReadError};
use crate::fetch::{Downloader, TransferError};
use crate::shell;

/// Bounds one attempt at an address of the web, connection to last byte.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How often an address of the web is asked that is busy or breaks off.
const ATTEMPTS: u32 = 4;
/// Addresses of one host asked at once.
const PER_HOST: usize = 8;

/// Reads images of bounded size.
pub struct ImageReader {
    limits: Limits,
    web: Downloader,
    buckets: Buckets,
}

impl ImageReader {
    /// A reader for images within `limits`; whether it asks addresses in private networks is for whoever knows where
    /// the list of addresses came from.
    ///
    /// # Errors
    /// [`TransferError::Setup`]. No bucket is looked for before an image in one is asked for.
    pub fn new(limits: Limits, allow_private: bool) -> Result<Self, TransferError> {
        Ok(Self {
            limits,
            web: Downloader::new(TIMEOUT, ATTEMPTS, PER_HOST, allow_private)?,
            buckets: Buckets::default(),
        })
    }

    /// The encoded image at `address`: `s3://bucket/key` (or `s3a://`, as Hadoop writes it), `http://`, `https://`,
    /// `file://`, or the path of a file.
    ///
    /// # Errors
    /// In the words of the scoring function: `not_found`, `forbidden`, `too_large`, `bad_request`, and
    /// `storage_unavailable` for what may pass.
    pub async fn read(&self, address: &str) -> Result<Bytes, ServiceError> {
        let Some((scheme, rest)) = address.split_once("://") else {
            return self.file(PathBuf::from(address)).await;
        };
        match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => {
                let reference = S3Reference::parse(&format!("s3://{rest}"))?;
                let limit = self.limits.max_bytes as u64;
                self.buckets.fetch(&reference, limit, |error| error.to_string()).await
            }
            "http" | "https" => self.page(address).await,
            "file" => {
                let url = Url::parse(address).ok();
                let path = url.and_then(|url| url.to_file_path().ok());
                let path =
                    path.ok_or_else(|| ServiceError::bad_request("the address names no file of this machine"))?;
                self.file(path).await
            }
            _ => Err(ServiceError::bad_request(
                "images are read from paths, s3://, http://, https:// and file:// alone",
            )),
        }
    }

    async fn file(&self, path: PathBuf) -> Result<Bytes, ServiceError> {
        let limits = self.limits;
        let read = tokio::task::spawn_blocking(move || read_file(&path, limits)).await;
        read.unwrap_or_else(|error| Err(ServiceError::new(ErrorCode::Internal, error.to_string())))
    }

    async fn page(&self, address: &str) -> Result<Bytes, ServiceError> {
        let url = Url::parse(address).map_err(|error| ServiceError::bad_request(error.to_string()))?;
        let got = self.web.get(&url, self.limits.max_bytes, None).await;
        got.map(Bytes::from).map_err(|error| {
            let code = match &error {
                TransferError::Status(StatusCode::NOT_FOUND | StatusCode::GONE) => ErrorCode::NotFound,
                TransferError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                | TransferError::Private { .. } => ErrorCode::Forbidden,
                TransferError::TooLarge { .. } => ErrorCode::TooLarge,
                error if error.is_final() => ErrorCode::BadRequest,
                _ => ErrorCode::StorageUnavailable,
            };
            ServiceError::new(code, error.to_string())
        })
    }
}

/// The images of a data set by their paths in it, wherever it lies.
#[derive(Debug)]
pub struct Images {
    root: PathBuf,
    remote: Option<Remote>,
}

/// What reads images that are on no disk of this machine.
struct Remote {
    reader: ImageReader,
    /// Connections outlive one call.
    runtime: tokio::runtime::Runtime,
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Remote")
    }
}

impl Images {
    /// The images below a folder.
    pub fn in_folder(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            remote: None,
        }
    }

    /// The images below `root`, which may be an address that [`ImageReader::read`] understands.
    ///
    /// # Errors
    /// What keeps the system from setting up connections.
    pub fn at(root: &Path, limits: Limits, allow_private: bool) -> io::Result<Self> {
        let mut images = Self::in_folder(root);
        // A data set over several buckets has no root.
        if root.as_os_str().is_empty() || root.to_string_lossy().contains("://") {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let reader = ImageReader::new(limits, allow_private).map_err(io::Error::other)?;
            images.remote = Some(Remote { reader, runtime });
        }
        Ok(images)
    }

    /// Where the image `path` is, for people to read.
    pub fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// The encoded image. Not to be called where asynchronous work is under way.
    ///
    /// # Errors
    /// What keeps it from being read, in words.
    pub fn read(&self, path: &Path, limits: Limits) -> Result<Vec<u8>, String> {
        let place = self.place(path);
        let Some(Remote { reader, runtime }) = &self.remote else {
            return dataset::read(&place, limits).map_err(|error| error.to_string());
        };
        let address = place.to_str().ok_or("its address is no Unicode")?;
        let read = runtime.block_on(reader.read(address));
        read.map(Vec::from).map_err(|error| error.message)
    }
}

/// What to do about a folder where an image should be.
pub(crate) fn instead_of_folder(path: &Path) -> String {
    format!("it is a folder: name the images in it, as in {}/*", shell::quote(path))
}

fn read_file(path: &Path, limits: Limits) -> Result<Bytes, ServiceError> {
    let found = std::fs::metadata(path).map_err(|error| unseen(path, error))?;
    if found.is_dir() {
        return Err(ServiceError::bad_request(instead_of_folder(path)));
    }
    if !found.is_file() {
        return Err(ServiceError::bad_request("not an ordinary file"));
    }
    Ok(dataset::read(path, limits)?.into())
}

/// What it means that nothing can be told of the file at `path`: of a disk that does not answer, not that it is gone.
fn unseen(path: &Path, error: io::Error) -> ServiceError {
    match ServiceError::from(ReadError::File(error)) {
        error if error.code == ErrorCode::NotFound => {
            ServiceError::new(error.code, format!("there is no file {}", path.display()))
        }
        error => error,
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::TooLarge(_) => ErrorCode::TooLarge,
            ReadError::File(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidFilename
                | io::ErrorKind::InvalidInput => ErrorCode::NotFound,
                io::ErrorKind::PermissionDenied => ErrorCode::Forbidden,
                _ => ErrorCode::StorageUnavailable,
            },
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_case_of_a_scheme_does_not_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("1.png");
        std::fs::write(&file, "abc").expect("written");
        let reader = ImageReader::new(Limits::default(), false).expect("a reader");
        for scheme in ["file", "FILE"] {
            let read = reader.read(&format!("{scheme}://{}", file.display())).await;
            assert_eq!(read, Ok(Bytes::from("abc")), "{scheme}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_has_the_code_that_an_address_would_have() {
        let limits = Limits {
            max_bytes: 3,
            ..Limits::default()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let code = |name: &str| read_file(&folder.path().join(name), limits).map_err(|error| error.code);
        for (name, contents) in [("small", "abc"), ("large", "abcd")] {
            std::fs::write(folder.path().join(name), contents).expect("written");
        }
        assert_eq!(code("small"), Ok(Bytes::from("abc")));
        assert_eq!(code("large"), Err(ErrorCode::TooLarge));
        for name in ["none", "small/none", "no\0ne"] {
            assert_eq!(code(name), Err(ErrorCode::NotFound), "{name:?}");
        }
        assert_eq!(code(""), Err(ErrorCode::BadRequest));
        for (kind, expected) in [
            (io::ErrorKind::NotFound, ErrorCode::NotFound),
            (io::ErrorKind::PermissionDenied, ErrorCode::Forbidden),
            (io::ErrorKind::StaleNetworkFileHandle, ErrorCode::StorageUnavailable),
        ] {
            assert_eq!(unseen(folder.path(), kind.into()).code, expected);
        }
    }
}
