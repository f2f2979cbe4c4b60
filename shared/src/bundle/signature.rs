//! Who vouches for a bundle: an Ed25519 signature (RFC 8032) of its manifest, which holds the hash of every file.

use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};

use super::BundleError;
use crate::files::{from_hex, hex};

/// Name of the signature beside the manifest: 64 bytes, of the manifest's bytes as they are.
pub const SIGNATURE: &str = "manifest.sig";
/// The variable that names the trusted keys.
pub(super) const TRUSTED_KEYS_VARIABLE: &str = "IKAT_TRUSTED_KEY";

/// Length of a signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// The public keys whose owners may say what is served. None means that nobody is asked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(Vec<VerifyingKey>);

/// Why a text names no trusted keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no public key: give the 64 hexadecimal digits that `trainer keygen` prints, several with commas \
     between them"
)]
pub struct TrustedKeysError {
    text: String,
}

impl TrustedKeys {
    /// Reads keys of 64 hexadecimal digits each, with commas between them. An empty text names none.
    ///
    /// # Errors
    /// [`TrustedKeysError`] for the first text that is no key.
    pub fn parse(text: &str) -> Result<Self, TrustedKeysError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let key = |text: &str| {
            from_hex(text)
                .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
                .filter(|key| !key.is_weak())
                .ok_or_else(|| TrustedKeysError { text: text.to_owned() })
        };
        Ok(Self(
            text.split(',').map(|part| key(part.trim())).collect::<Result<_, _>>()?,
        ))
    }

    /// Whether nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys has signed these very bytes; always, where there is no key.
    ///
    /// # Errors
    /// [`BundleError::Unsigned`] and [`BundleError::Untrusted`].
    pub fn check(&self, manifest: &[u8], signature: Option<&[u8]>) -> Result<(), BundleError> {
        if self.is_empty() {
            return Ok(());
        }
        let signature = signature.ok_or(BundleError::Unsigned)?;
        let signature = Signature::from_slice(signature).map_err(|_| BundleError::Untrusted)?;
        let vouches = |key: &VerifyingKey| key.verify_strict(manifest, &signature).is_ok();
        self.0.iter().any(vouches).then_some(()).ok_or(BundleError::Untrusted)
    }
}

impl fmt::Debug for TrustedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.0.iter().map(|key| hex(key.as_bytes())))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 3: public key, message and signature.
    const KEY: &str = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
    const MESSAGE: [u8; 2] = [0xaf, 0x82];
    const SIGNATURE: &str = "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
                             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";

    fn signature() -> Vec<u8> {
        let (left, right) = SIGNATURE.split_at(64);
        [left, right]
            .iter()
            .flat_map(|half| from_hex(half).expect("hexadecimal"))
            .collect()
    }

    #[test]
    fn the_published_signature_is_good_and_every_other_is_not() {
        let other = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let keys = TrustedKeys::parse(&format!("{other}, {KEY}")).expect("keys");
        keys.check(&MESSAGE, Some(&signature())).expect("signed by one of them");
        for bit in 0..512 {
            let mut forged = signature();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(keys.check(&MESSAGE, Some(&forged)), Err(BundleError::Untrusted)),
                "{bit}"
            );
        }
        assert!(matches!(
            keys.check(b"other", Some(&signature())),
            Err(BundleError::Untrusted)
        ));
        assert!(matches!(
            keys.check(&MESSAGE, Some(b"short")),
            Err(BundleError::Untrusted)
        ));
        assert!(matches!(keys.check(&MESSAGE, None), Err(BundleError::Unsigned)));
        let others = TrustedKeys::parse(other).expect("a key");
        assert!(matches!(
            others.check(&MESSAGE, Some(&signature())),
            Err(BundleError::Untrusted)
        ));
    }

    #[test]
    fn without_keys_nobody_is_asked_and_what_is_no_key_is_refused() {
        for text in ["", "  "] {
            let keys = TrustedKeys::parse(text).expect("no keys");
            assert!(keys.is_empty());
            keys.check(&MESSAGE, None).expect("nobody is asked");
        }
        let weak = "0".repeat(63) + "1";
        for text in ["x", &KEY[1..], &format!("{KEY},"), "é", &weak, &"0".repeat(64)] {
            TrustedKeys::parse(text).expect_err(text);
        }
    }
}
