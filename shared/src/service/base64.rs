//! Base64 as callers send it: with a data-URL prefix, the URL-safe alphabet, line breaks, no padding.

use ::base64::Engine;
use ::base64::alphabet::STANDARD;
use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::error::{ErrorCode, ServiceError};

/// Padding is optional, and so are the unused bits of the last character: some encoders leave them set.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes that `text` stands for, at most `limit` of them.
///
/// # Errors
/// `too_large` before anything is decoded, `bad_request` for what is not base64 or holds no bytes.
pub(super) fn decode(text: &str, limit: usize) -> Result<Vec<u8>, ServiceError> {
    let payload = without_data_url(text)?;
    // Exactly only where it matters: four symbols carry three bytes.
    if payload.len().div_ceil(4) * 3 > limit {
        let size = size(payload);
        if size > limit {
            return Err(ServiceError::new(
                ErrorCode::TooLarge,
                format!("the image has {size} bytes, more than the limit of {limit}: send a smaller image"),
            ));
        }
    }
    let bytes = LENIENT
        .decode(payload)
        .or_else(|_| LENIENT.decode(normalized(payload)))
        .map_err(|error| ServiceError::bad_request(format!("the image is not base64: {error}")))?;
    if bytes.is_empty() {
        return Err(ServiceError::bad_request("there is no image: the base64 text is empty"));
    }
    Ok(bytes)
}

/// How many bytes the symbols stand for.
fn size(payload: &str) -> usize {
    let symbols = payload
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=')
        .count();
    symbols / 4 * 3 + symbols % 4 * 3 / 4
}

/// The symbols without line breaks, in the standard alphabet.
fn normalized(payload: &str) -> Vec<u8> {
    payload
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect()
}

/// What follows the comma of `data:image/jpeg;base64,...`; all of `text` where there is no such prefix.
fn without_data_url(text: &str) -> Result<&str, ServiceError> {
    let text = text.trim_start();
    if !text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:")) {
        return Ok(text);
    }
    match text.split_once(',') {
        Some((prefix, payload)) if prefix.to_ascii_lowercase().ends_with(";base64") => Ok(payload),
        _ => Err(ServiceError::bad_request(
            "the data URL is not base64: it should begin like data:image/jpeg;base64,",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_callers_send() {
        let bytes = [0xfb, 0xff, 0xfe, 0x01];
        for text in [
            "+//+AQ==",
            "+//+AQ",
            "-__-AQ",
            "-__-AQ==",
            "+//+\r\nAQ==\n",
            " +//+ AQ",
            "data:image/png;base64,+//+AQ==",
            "DATA:image/png;charset=x;BASE64,+//+AQ",
        ] {
            assert_eq!(decode(text, 4).as_deref(), Ok(&bytes[..]), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_is_not_base64() {
        for text in [
            "",
            "  \n",
            "=",
            "a",
            "ä",
            "!!!!",
            "data:image/png,abcd",
            "data:",
            "data:;base64,",
        ] {
            let error = decode(text, 100).expect_err(text);
            assert_eq!(error.code, ErrorCode::BadRequest, "{text:?}");
        }
    }

    #[test]
    fn checks_the_size_first() {
        assert_eq!(decode("AAAA", 3), Ok(vec![0; 3]));
        let error = decode("AAAAAA", 3).expect_err("four bytes");
        assert_eq!(error.code, ErrorCode::TooLarge);
        let error = decode("!!!!!!!!", 3).expect_err("too long to look at");
        assert_eq!(error.code, ErrorCode::TooLarge);
    }
}
