//! What is kept of a refinement after each epoch, so that it can be taken up again where it was. After the last epoch
//! too: another classifier on the same refined network then costs no second refinement.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use serde::{Deserialize, Serialize};
use shared::files::write_atomically;

use super::{Best, History, RefineError};
use crate::float_bytes::{from_bytes, to_bytes};
use crate::refine::engine::State;
use crate::setup;

/// Everything that an interrupted refinement needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    pub state: State,
    pub history: History,
    pub best: Option<Best>,
}

/// What is no tensor.
#[derive(Serialize, Deserialize)]
struct Header {
    steps: u64,
    history: History,
    best_epoch: Option<usize>,
}

const HEADER: &str = "ikat";
const BEST: &str = "best/";
const LOGITS: &str = "best-logits";

impl Checkpoint {
    pub fn save(&self, path: &Path) -> Result<(), RefineError> {
        let header = Header {
            steps: self.state.steps,
            history: self.history.clone(),
            best_epoch: self.best.as_ref().map(|best| best.epoch),
        };
        let mut bytes: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut put = |name: String, values: &[f32]| {
            bytes.insert(name, to_bytes(values));
        };
        for (name, values) in &self.state.tensors {
            put(name.clone(), values);
        }
        if let Some(best) = &self.best {
            put(LOGITS.to_owned(), &best.logits);
            for (index, values) in best.parameters.iter().enumerate() {
                put(format!("{BEST}{index}"), values);
            }
        }
        let mut views = Vec::with_capacity(bytes.len());
        for (name, bytes) in &bytes {
            let view =
                TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(|error| failed(path, &error))?;
            views.push((name.clone(), view));
        }
        let header = serde_json::to_string(&header).map_err(|error| failed(path, &error))?;
        let metadata = HashMap::from([(HEADER.to_owned(), header)]);
        let encoded = serialize(views, Some(metadata)).map_err(|error| failed(path, &error))?;
        write_atomically(path, &encoded).map_err(|error| failed(path, &error))
    }

    /// The checkpoint at `path`; `None` where there is none, or one that cannot be read: it then begins anew.
    pub fn load(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).ok()?;
        let header: Header = serde_json::from_str(metadata.metadata().as_ref()?.get(HEADER)?).ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let mut tensors: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for (name, view) in file.tensors() {
            tensors.insert(name, from_bytes(view.data()));
        }
        let best = match header.best_epoch {
            None => None,
            Some(epoch) => {
                let logits = tensors.remove(LOGITS)?;
                let mut parameters = Vec::new();
                while let Some(values) = tensors.remove(&format!("{BEST}{}", parameters.len())) {
                    parameters.push(values);
                }
                Some(Best {
                    epoch,
                    logits,
                    parameters,
                })
            }
        };
        Some(Self {
            state: State {
                steps: header.steps,
                tensors,
            },
            history: header.history,
            best,
        })
    }
}

/// Number of refinements that are kept, finished or not.
const KEPT: usize = 8;

/// Removes all but the newest checkpoints from the folder of `path`.
pub(super) fn keep_newest(path: &Path) {
    if let Some(folder) = path.parent() {
        setup::keep_newest(folder, KEPT, &|file: &Path| file.extension() == path.extension());
    }
}

fn failed(path: &Path, error: &dyn std::error::Error) -> RefineError {
    RefineError::Checkpoint {
        path: PathBuf::from(path),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refine::{EPOCH, Epoch, Validation};

    #[test]
    fn the_newest_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |number: usize| folder.path().join(format!("{number:02}.safetensors"));
        let begin = std::time::SystemTime::now();
        for number in 0..KEPT + 3 {
            let file = std::fs::File::create(path(number)).expect("a file");
            let age = std::time::Duration::from_secs(number as u64);
            file.set_modified(begin - age).expect("its time");
        }
        let other = folder.path().join("other");
        std::fs::write(&other, b"").expect("a file");
        keep_newest(&path(0));
        assert!((0..KEPT).all(|number| path(number).exists()));
        assert!((KEPT..KEPT + 3).all(|number| !path(number).exists()));
        assert!(other.exists());
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("checkpoint");
        assert_eq!(Checkpoint::load(&path), None);
        let checkpoint = Checkpoint {
            state: State {
                steps: 7,
                tensors: BTreeMap::from([("parameter/a".to_owned(), vec![0.1, f32::MIN_POSITIVE, -3.0])]),
            },
            history: History {
                before: Some(Validation {
                    loss: 0.6,
                    calibrated: 0.3,
                    error: 0.1,
                }),
                epochs: vec![Epoch {
                    validation_error: None,
                    ..EPOCH
                }],
            },
            best: Some(Best {
                epoch: 0,
                logits: vec![1.0, 2.0],
                parameters: vec![vec![1.5], vec![]],
            }),
        };
        checkpoint.save(&path).expect("saved");
        assert_eq!(Checkpoint::load(&path), Some(checkpoint));
        std::fs::write(&path, b"half a file").expect("written");
        assert_eq!(Checkpoint::load(&path), None);
    }
}
