//! What an error comes from, in words: those of libraries tell it only to who asks.

use std::error::Error;

/// The error and its causes in one line, leaving out a cause that its error quotes already.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}

/// What the innermost cause says. Of an error of the web, it tells refused from unresolved, and the outer ones repeat
/// the address.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
