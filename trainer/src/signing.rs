//! Keys that sign bundles: Ed25519, kept as PKCS #8 PEM, as OpenSSL makes and reads them.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::Signer;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use rand::RngExt;
use shared::bundle::{Bundle, SIGNATURE_BYTES};
use shared::files::{FileError, TEMPORARY, UNFINISHED, at, hex};

use crate::destination::DestinationError;
use crate::shell;

/// A key file is a few lines.
const MOST_BYTES: u64 = 16 << 10;

/// The private key of whoever vouches for bundles. It is shown nowhere, and wiped from memory when it is dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// Why a key cannot be used. No variant holds any part of it.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key is never written over another: what that one signed could not be signed again.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The file holds something else.
    #[error("{0} holds no Ed25519 private key in PEM (PKCS #8): make one with `trainer keygen`")]
    NoKey(PathBuf),
    /// Others on this machine may read the file.
    #[error(
        "{path} can be read by others (mode {mode:03o}): take that away with `chmod 600 {}`",
        shell::quote(.path)
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl SigningKey {
    /// A new key, from the system's randomness.
    pub fn generate() -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&rand::rng().random()))
    }

    /// Reads the key in `path`, which nobody but its owner may be able to read.
    pub fn read(path: &Path) -> Result<Self, SigningError> {
        let file = std::fs::File::open(path).map_err(at(path))?;
        check_private(&file, path)?;
        let mut pem = String::new();
        match file.take(MOST_BYTES).read_to_string(&mut pem) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            result => result.map(drop).map_err(at(path))?,
        }
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(&pem);
        key.map(Self).map_err(|_| SigningError::NoKey(path.to_path_buf()))
    }

    /// Writes the key to `path`, which must not exist, for its owner alone.
    ///
    /// # Errors
    /// [`DestinationError::Exists`] and [`SigningError::File`].
    pub fn write(&self, path: &Path) -> Result<(), SigningError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => SigningError::Destination(DestinationError::Exists(path.to_path_buf())),
            _ => at(path)(source).into(),
        };
        // OpenSSL 3.0 reads no file that holds the public key too.
        let keys = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        let pem = keys
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| failed(io::Error::other(error.to_string())))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        // Temporary files are for their owner alone, and so is what this one becomes.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .suffix(TEMPORARY)
            .tempfile_in(folder)
            // The error itself names the temporary file.
            .map_err(|error| failed(error.kind().into()))?;
        file.as_file_mut()
            .write_all(pem.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed)?;
        file.persist_noclobber(path)
            .map(drop)
            .map_err(|error| failed(error.error))
    }

    /// What others need to check its signatures: 64 hexadecimal digits, for `IKAT_TRUSTED_KEY`.
    pub fn public(&self) -> String {
        hex(self.0.verifying_key().as_bytes())
    }

    /// Signs `bundle`, in place of whoever had signed it before.
    pub fn vouch_for(&self, bundle: &mut Bundle) {
        bundle.signature = Some(self.sign(&bundle.manifest.to_json()).to_vec().into());
    }

    /// The signature of `message`; the same one each time.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

#[cfg(unix)]
fn check_private(file: &std::fs::File, path: &Path) -> Result<(), SigningError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(at(path))?;
    match metadata.permissions().mode() & 0o777 {
        mode if metadata.is_file() && mode & 0o077 != 0 => Err(SigningError::Exposed {
            path: path.to_path_buf(),
            mode,
        }),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_private(_: &std::fs::File, _: &Path) -> Result<(), SigningError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::bundle::TrustedKeys;

    use super::*;

    #[test]
    fn a_key_is_written_once_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        // In a folder that is made for it.
        let path = folder.path().join("keys/key.pem");
        let key = SigningKey::generate();
        key.write(&path).expect("written");
        let again = SigningKey::read(&path).expect("read");
        assert_eq!(again.public(), key.public());
        // The private key is one line between the first and the last; with the public key it would be two.
        let pem = std::fs::read_to_string(&path).expect("a text");
        assert_eq!(pem.lines().count(), 3);
        assert_eq!(again.sign(b"x"), key.sign(b"x"));
        let trusted = TrustedKeys::parse(&key.public()).expect("a key");
        trusted.check(b"x", Some(&again.sign(b"x"))).expect("its own signature");
        assert!(matches!(
            SigningKey::generate().write(&path),
            Err(SigningError::Destination(DestinationError::Exists(_)))
        ));
        assert_eq!(SigningKey::read(&path).expect("untouched").public(), key.public());
    }

    #[test]
    fn what_is_no_key_is_refused_and_nothing_of_it_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        for contents in [
            &b""[..],
            b"secret",
            &[0xff; 99],
            b"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n",
        ] {
            shared::files::write_atomically(&path, contents).expect("written");
            private(&path);
            let error = SigningKey::read(&path).expect_err("no key");
            assert!(matches!(error, SigningError::NoKey(_)), "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
        let key = SigningKey::generate();
        let shown = format!("{key:?}");
        assert!(
            shown.contains(&key.public()) && !shown.contains(&hex(&key.0.to_bytes())),
            "{shown}"
        );
    }

    #[cfg(unix)]
    fn private(path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    }

    #[cfg(not(unix))]
    fn private(_: &Path) {}

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("my key.pem");
        SigningKey::generate().write(&path).expect("written");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        let error = SigningKey::read(&path).expect_err("exposed").to_string();
        assert!(error.contains(&format!("`chmod 600 '{}'`", path.display())), "{error}");
    }
}
