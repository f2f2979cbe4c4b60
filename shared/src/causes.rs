//! An error and its causes as one line of text: the errors of many libraries name their cause only as their source.

use std::error::Error;

/// The error and its causes in one line, leaving out a cause that its error quotes already.
pub fn chain(error: &dyn Error) -> String {
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
