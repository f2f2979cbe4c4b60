//! What a command answers when it did not succeed, and the one place that prints it.

use std::error::Error;
use std::fmt::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use shared::causes::chain;

use super::output::{printable_lines, tell};
use crate::backbone::BackboneError;
use crate::setup::SetupError;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Everything was done.
    Complete,
    /// Done, but part of the input was left out; each item was listed.
    Partly,
}

impl Done {
    /// Complete where nothing was left out.
    pub fn unless_left_out<T>(left_out: &[T]) -> Self {
        if left_out.is_empty() {
            Self::Complete
        } else {
            Self::Partly
        }
    }
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        match done {
            Done::Complete => Self::SUCCESS,
            Done::Partly => Self::from(3),
        }
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// Wrong usage: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code: 2,
        }
    }

    /// A failure that no error of the library stands for.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code: 1,
        }
    }

    /// A failure with what to do about it.
    pub fn hinted(error: &dyn Error, hint: impl Into<String>) -> Self {
        Self {
            message: chain(error),
            hint: Some(hint.into()),
            code: 1,
        }
    }

    /// Prints the failure to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        tell(&self.text());
        ExitCode::from(self.code)
    }

    /// The failure and what to do about it, with colours. Names from outside that are in it cannot command the
    /// terminal.
    pub fn text(&self) -> String {
        let error = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let mut text = format!("{error}error{error:#}: {}", printable_lines(&self.message));
        if let Some(hint) = &self.hint {
            let style = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
            let _ = write!(text, "\n\n{style}hint{style:#}: {}", printable_lines(hint));
        }
        text
    }
}

/// With the hint that the error has of its own; options that contradict each other are wrong usage.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        let setup = match error.downcast_ref::<BackboneError>() {
            Some(BackboneError::Options(reason)) => return Self::usage(reason),
            Some(BackboneError::Setup(error)) => Some(error),
            _ => error.downcast_ref::<SetupError>(),
        };
        Self {
            message: chain(error),
            hint: setup.and_then(SetupError::hint).map(str::to_owned),
            code: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_an_error_is_told_wherever_it_comes_from() {
        let changed = || SetupError::Hash {
            name: "resnet18.pth".to_owned(),
            found: "1".to_owned(),
            expected: "0".to_owned(),
        };
        for failure in [Failure::from(changed()), BackboneError::Setup(changed()).into()] {
            assert_eq!(failure.hint.as_deref(), changed().hint());
            assert_eq!((failure.message, failure.code), (changed().to_string(), 1));
        }
        let failure = Failure::from(BackboneError::Options("leave --resolution away".to_owned()));
        assert_eq!((failure.message.as_str(), failure.code), ("leave --resolution away", 2));
    }
}
