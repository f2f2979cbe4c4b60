//! One place for parameters: flag, then environment, then `ikat.toml`, then default.
//!
//! Nothing is merged by hand. What the environment and the file say becomes part of the command tree
//! before it parses: each long option `--some-name` reads `IKAT_SOME_NAME`, and a value from the file
//! becomes its default. So precedence, types, help texts and error messages are clap's own, and a
//! new option is settable everywhere without a line here.
//!
//! In the file, a key above all sections holds for every command that has the option; a section named
//! for a command holds for it and its subcommands, and the nearest wins. The section of a nested
//! command is `[data.split]` or, because TOML lets `data` be a key or a section but not both,
//! `[data-split]`. Keys are written with `-` or `_`. Paths are relative to the working folder, as on
//! the command line. A value that a command does not take hinders no other, unless it stands in that command's own
//! section.
//!
//! Of options that exclude each other (`--local` and `--state-machine`) the one that is set more firmly holds, and the
//! other counts as unset: one may stand in the file and the other be typed, as may the words without a name that it
//! excludes.

mod layers;
mod origin;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Command;
use toml::Table;

pub use layers::{environment, typed};
pub use origin::explained;

/// The parameter file for users to start from, every parameter commented out at its default.
#[cfg(test)]
pub(crate) const TEMPLATE: &str = include_str!("../../../resources/ikat.toml");
/// The file that is read where no other is named, if it is there.
pub const FILE_NAME: &str = "ikat.toml";
/// The variable that names another file.
pub const FILE_VARIABLE: &str = "IKAT_CONFIG";
/// The option that names another file.
const FILE_OPTION: &str = "--config";
/// A parameter file is a page or two.
const MOST_BYTES: u64 = 1 << 20;

/// The parameters of one file, or none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    /// Where they come from; none where there is no file.
    pub path: Option<PathBuf>,
    table: Table,
}

/// What is wrong with a parameter file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read the parameter file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The option that names the file is empty, as where a variable of a script is not set.
    #[error("{FILE_OPTION} names no file: name one, or leave it out")]
    Unnamed,
    /// The file is too large to be one of parameters.
    #[error("{} is larger than {MOST_BYTES} bytes: is it a parameter file?", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {source}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// No command has such an option, or no command has such a name.
    #[error(
        "{}: unknown {what} `{name}`{}",
        .path.display(),
        .nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// `key` or `section`.
        what: &'static str,
        /// The name with its section.
        name: String,
        /// The known name that is closest, if any is close.
        nearest: Option<String>,
    },
    /// The same parameter stands twice in one section, spelled differently.
    #[error("{}: `{name}` is set twice in one section; keep one of the spellings", .path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The name with its section.
        name: String,
    },
    /// Two options that exclude each other stand in one section.
    #[error("{}: `{one}` and `{other}` exclude each other; keep one of them", .path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// One of them, with its section.
        one: String,
        /// The other.
        other: String,
    },
    /// The value is not one that the option takes.
    #[error("{}: `{name} = {value}`: {reason}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The name with its section.
        name: String,
        /// The value as it stands in the file.
        value: String,
        /// Why not, for people to read.
        reason: String,
    },
}

impl Configuration {
    /// The file that `arguments` (the raw command line) name with `--config FILE`, else the one that
    /// `variable` (the value of [`FILE_VARIABLE`]) names, else [`FILE_NAME`] in `folder` if it is there.
    ///
    /// # Errors
    /// [`ConfigurationError::Read`], also where a named file is missing, `Unnamed`, `TooLarge` and `Syntax`.
    pub fn find(
        arguments: impl IntoIterator<Item = OsString>,
        variable: Option<OsString>,
        folder: &Path,
    ) -> Result<Self, ConfigurationError> {
        let named = named_on_command_line(arguments).or(variable.filter(|name| !name.is_empty()));
        if let Some(path) = named {
            if path.is_empty() {
                return Err(ConfigurationError::Unnamed);
            }
            return Self::read(Path::new(&path));
        }
        let path = folder.join(FILE_NAME);
        // What is there and cannot be read, such as a link that leads nowhere, is told of.
        if path.symlink_metadata().is_ok() {
            Self::read(&path)
        } else {
            Ok(Self::default())
        }
    }

    /// Reads one file.
    ///
    /// # Errors
    /// [`ConfigurationError::Read`], `TooLarge` and `Syntax`.
    pub fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let failed = |source| ConfigurationError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
            .map_err(failed)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(ConfigurationError::TooLarge { path: path.to_owned() });
        }
        Self::parse(&text, path)
    }

    /// Takes `text` as the contents of the file at `path`.
    ///
    /// # Errors
    /// [`ConfigurationError::Syntax`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigurationError> {
        let table = text.parse().map_err(|source| ConfigurationError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Self {
            path: Some(path.to_owned()),
            table,
        })
    }

    /// `command` with the environment and this file laid under its options, all the way down, for a program that was
    /// started with `arguments` (the raw command line). Empty variables count as unset.
    ///
    /// An option that is required only under conditions (`required_unless_present` and the like) keeps
    /// its condition.
    ///
    /// # Errors
    /// [`ConfigurationError::Unknown`], `Twice`, `Contradiction` and `Value`.
    pub fn apply(&self, command: Command, arguments: &[OsString]) -> Result<Command, ConfigurationError> {
        layers::apply(
            &self.table,
            self.path.as_deref().unwrap_or(Path::new(FILE_NAME)),
            command,
            arguments,
        )
    }
}

/// The value of `--config` before any `--`; the last one counts.
fn named_on_command_line(arguments: impl IntoIterator<Item = OsString>) -> Option<OsString> {
    let mut found = None;
    let mut arguments = arguments.into_iter().take_while(|argument| argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == FILE_OPTION {
            found = arguments.next().or(found);
        } else if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            found = Some(value.into());
        }
    }
    found
}

#[cfg(test)]
mod tests;
