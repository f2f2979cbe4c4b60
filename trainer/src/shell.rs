//! Words of commands that are printed to be copied into a shell.

use std::ffi::OsStr;

/// What no shell reads as anything but itself, besides letters and digits.
const PLAIN: &str = "_./:=@%+,-";

/// A text or a path as one word of a POSIX shell: in single quotes, unless it needs none. Control characters are
/// escaped for the terminal's sake; a name with one must be typed.
pub(crate) fn quote(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || PLAIN.contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    let mut quoted = "'".to_owned();
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str(r"'\''"),
            control if control.is_control() => quoted.extend(control.escape_default()),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_more_than_a_name() {
        for (text, expected) in [
            ("runs/2026-01-01T00:00:00Z", "runs/2026-01-01T00:00:00Z"),
            ("s3://bucket/models", "s3://bucket/models"),
            ("my photos", "'my photos'"),
            ("Anna's $HOME", r"'Anna'\''s $HOME'"),
            ("~/photos", "'~/photos'"),
            ("fotos/übung", "'fotos/übung'"),
            ("a\u{1b}[1m", r"'a\u{1b}[1m'"),
            ("", "''"),
        ] {
            assert_eq!(quote(text), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_the_text_back() {
        for text in ["my photos", "it's; echo `a` \"$b\" \\ *", "'", "plain", ""] {
            let command = format!("printf %s {}", quote(text));
            let output = std::process::Command::new("sh").args(["-c", &command]).output();
            let output = output.expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }
}
