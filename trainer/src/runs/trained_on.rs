//! Which images a run was trained on, known by their content whatever they are called elsewhere.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use shared::files::{at, hex};

use super::{RunError, TRAINED_ON};

/// The contents of the images that a run was trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainedOn {
    /// SHA-256 of each encoded image, in hexadecimal digits.
    contents: BTreeSet<String>,
}

impl TrainedOn {
    /// The images with these SHA-256 of their encoded contents.
    pub fn new<'a>(contents: impl IntoIterator<Item = &'a [u8; 32]>) -> Self {
        Self {
            contents: contents.into_iter().map(|content| hex(content)).collect(),
        }
    }

    /// What the run in `folder` says; `None` where it has no such file.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn load(folder: &Path) -> Result<Option<Self>, RunError> {
        let path = folder.join(TRAINED_ON);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Self {
                contents: text.lines().map(str::to_owned).collect(),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error).into()),
        }
    }

    /// A line for each content, sorted.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for content in &self.contents {
            text.push_str(content);
            text.push('\n');
        }
        text
    }

    /// Whether an image with this SHA-256 was trained on.
    pub fn contains(&self, content: &[u8; 32]) -> bool {
        self.contents.contains(&hex(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_known_again_from_the_file() {
        let trained_on = TrainedOn::new(&[[2; 32], [1; 32], [2; 32]]);
        let run = tempfile::tempdir().expect("a folder");
        assert_eq!(TrainedOn::load(run.path()).expect("no file"), None);
        std::fs::write(run.path().join(TRAINED_ON), trained_on.to_text()).expect("written");
        let loaded = TrainedOn::load(run.path()).expect("readable").expect("a file");
        assert_eq!(loaded, trained_on);
        assert!(loaded.contains(&[1; 32]) && loaded.contains(&[2; 32]) && !loaded.contains(&[3; 32]));
        assert_eq!(loaded.to_text().lines().count(), 2);
    }
}
