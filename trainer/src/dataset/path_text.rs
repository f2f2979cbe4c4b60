//! Paths as one field of a line of text, whatever bytes they are made of, and as text in JSON.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

const ESCAPE: u8 = b'\\';

/// The path as text: a tab, a line break, a backslash and bytes that are not Unicode become `\xNN`.
pub(crate) fn escape(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                let mut bytes = [0; 4];
                character
                    .encode_utf8(&mut bytes)
                    .bytes()
                    .for_each(|byte| escape_byte(byte, &mut text));
            } else {
                text.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| escape_byte(*byte, &mut text));
    }
    text
}

/// The path as text in results: as it is, or, where it is no Unicode, as [`escape`] has it.
pub(crate) fn text_of(path: &Path) -> String {
    path.to_str().map_or_else(|| escape(path), str::to_owned)
}

fn escape_byte(byte: u8, text: &mut String) {
    use std::fmt::Write;
    let _ = write!(text, "\\x{byte:02x}");
}

/// The path that [`escape`] wrote. `None` where a backslash begins no `\xNN`, or where this platform has no such path.
pub(crate) fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == ESCAPE {
            let (digits, after) = after.strip_prefix(b"x")?.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    to_path(bytes)
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)] // Elsewhere not every path is one.
fn to_path(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn to_path(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// One path or several.
pub(crate) trait Paths {
    /// The same as text.
    type Text: Serialize;

    /// Paths need not be Unicode; JSON is.
    fn text(&self) -> Self::Text;
}

impl Paths for Path {
    type Text = String;

    fn text(&self) -> String {
        text_of(self)
    }
}

impl Paths for PathBuf {
    type Text = String;

    fn text(&self) -> String {
        self.as_path().text()
    }
}

impl<P: Paths + ?Sized> Paths for &P {
    type Text = P::Text;

    fn text(&self) -> P::Text {
        (**self).text()
    }
}

impl<P: Paths> Paths for Option<P> {
    type Text = Option<P::Text>;

    fn text(&self) -> Option<P::Text> {
        self.as_ref().map(Paths::text)
    }
}

impl<P: Paths> Paths for [P] {
    type Text = Vec<P::Text>;

    fn text(&self) -> Vec<P::Text> {
        self.iter().map(Paths::text).collect()
    }
}

impl<P: Paths> Paths for Vec<P> {
    type Text = Vec<P::Text>;

    fn text(&self) -> Vec<P::Text> {
        self.as_slice().text()
    }
}

/// For `serialize_with`: without it, a path that is no Unicode is an error once all work is done.
pub(crate) fn as_text<P: Paths + ?Sized, S: Serializer>(paths: &P, serializer: S) -> Result<S::Ok, S::Error> {
    paths.text().serialize(serializer)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_form_in_json() {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(serialize_with = "as_text")]
            one: &'a Path,
            #[serde(serialize_with = "as_text")]
            own: PathBuf,
            #[serde(serialize_with = "as_text")]
            none: Option<PathBuf>,
            #[serde(serialize_with = "as_text")]
            some: Option<PathBuf>,
            #[serde(serialize_with = "as_text")]
            many: Vec<&'a Path>,
            #[serde(serialize_with = "as_text")]
            slice: &'a [PathBuf],
        }
        let path = unescape("a\\xff.jpg").expect("a path");
        let document = Document {
            one: &path,
            own: path.clone(),
            none: None,
            some: Some(path.clone()),
            many: vec![&path],
            slice: std::slice::from_ref(&path),
        };
        let text = "a\\xff.jpg";
        assert_eq!(
            serde_json::to_value(document).expect("a document"),
            serde_json::json!({ "one": text, "own": text, "none": null, "some": text, "many": [text], "slice": [text] })
        );
    }
}
