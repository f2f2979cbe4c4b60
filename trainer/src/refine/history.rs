//! How a refinement went, as `epochs.json` keeps it: an array with an entry for each epoch, and before them, where
//! images were held out, one with the number 0 for the network before the first.

use std::fmt::Write;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How one pass over the training images went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Learning rate of the last step.
    pub rate: f32,
    /// Weighted mean loss over the images, in nats, on variations of them and with dropout.
    pub train_loss: f32,
    /// Share of the varied training images classified wrongly.
    pub train_error: f32,
    /// Mean cross-entropy on the validation images.
    pub validation_loss: Option<f32>,
    /// The same after calibration, by which epochs are compared.
    pub calibrated_validation_loss: Option<f32>,
    /// Share of the validation images classified wrongly.
    pub validation_error: Option<f32>,
    /// Whether the network after this epoch was kept.
    pub kept: bool,
}

/// How the validation images go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean cross-entropy.
    #[serde(rename = "validation_loss")]
    pub loss: f32,
    /// The same after calibration.
    #[serde(rename = "calibrated_validation_loss")]
    pub calibrated: f32,
    /// Share classified wrongly.
    #[serde(rename = "validation_error")]
    pub error: f32,
}

/// How a refinement went.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// Before the first epoch, where images were held out.
    pub before: Option<Validation>,
    /// Epoch by epoch.
    pub epochs: Vec<Epoch>,
}

impl History {
    /// Whether no epoch was better than the network before the first.
    pub fn is_unchanged(&self) -> bool {
        !self.epochs.is_empty() && self.epochs.iter().all(|epoch| !epoch.kept)
    }

    /// One line on the last of `epochs` epochs, or on what was before them.
    pub(super) fn told(&self, epochs: usize) -> String {
        let mut line = match (self.epochs.last(), self.before) {
            (Some(epoch), _) => format!(
                "Epoch {}/{epochs}: loss {:.3}, training error {:.1} %",
                self.epochs.len(),
                epoch.train_loss,
                100.0 * epoch.train_error
            ),
            (None, Some(before)) => {
                let (loss, error) = (before.loss, 100.0 * before.error);
                return format!("Before the first epoch: validation loss {loss:.3}, error {error:.1} %");
            }
            (None, None) => String::new(),
        };
        let last = self.epochs.last();
        if let Some((loss, error)) = last.and_then(|epoch| epoch.validation_loss.zip(epoch.validation_error)) {
            let _ = write!(line, "; validation loss {loss:.3}, error {:.1} %", 100.0 * error);
        }
        line
    }
}

/// An entry of the file with its number.
#[derive(Serialize)]
struct Numbered<'a, T> {
    epoch: usize,
    #[serde(flatten)]
    entry: &'a T,
    /// Where the entry itself does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<bool>,
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = self.epochs.len() + usize::from(self.before.is_some());
        let mut entries = serializer.serialize_seq(Some(count))?;
        if let Some(entry) = &self.before {
            entries.serialize_element(&Numbered {
                epoch: 0,
                entry,
                kept: Some(self.is_unchanged()),
            })?;
        }
        for (number, entry) in self.epochs.iter().enumerate() {
            entries.serialize_element(&Numbered {
                epoch: number + 1,
                entry,
                kept: None,
            })?;
        }
        entries.end()
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Epoch(Epoch),
            Before(Validation),
        }
        let mut history = Self::default();
        for entry in Vec::<Entry>::deserialize(deserializer)? {
            match entry {
                Entry::Epoch(epoch) => history.epochs.push(epoch),
                Entry::Before(before) => history.before = Some(before),
            }
        }
        Ok(history)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const EPOCH: Epoch = Epoch {
        rate: 0.1,
        train_loss: 0.5,
        train_error: 0.25,
        validation_loss: Some(0.4),
        calibrated_validation_loss: Some(0.3),
        validation_error: Some(0.2),
        kept: false,
    };
    const BEFORE: Validation = Validation {
        loss: 0.7,
        calibrated: 0.2,
        error: 0.125,
    };

    #[test]
    fn what_was_before_the_first_epoch_is_epoch_0() {
        let mut history = History {
            before: Some(BEFORE),
            epochs: vec![EPOCH, EPOCH],
        };
        let json = |history: &History| serde_json::to_value(history).expect("JSON");
        let text = serde_json::to_string(&history).expect("JSON");
        assert_eq!(serde_json::from_str::<History>(&text).expect("a history"), history);
        let numbers = |history: &History| {
            let entries = json(history);
            let entries = entries.as_array().expect("an array");
            let number = |entry: &serde_json::Value| (entry["epoch"].as_u64(), entry["kept"].as_bool());
            entries.iter().map(number).collect::<Vec<_>>()
        };
        let expected = [(Some(0), Some(true)), (Some(1), Some(false)), (Some(2), Some(false))];
        assert_eq!(numbers(&history), expected);
        assert!(text.starts_with(r#"[{"epoch":0,"validation_loss":0.7,"#), "{text}");
        history.epochs[1].kept = true;
        assert_eq!(numbers(&history)[0], (Some(0), Some(false)));
    }

    #[test]
    fn each_epoch_and_what_was_before_have_a_line() {
        let mut history = History {
            before: Some(BEFORE),
            epochs: Vec::new(),
        };
        assert_eq!(
            history.told(3),
            "Before the first epoch: validation loss 0.700, error 12.5 %"
        );
        assert!(!history.is_unchanged());
        history.epochs.push(EPOCH);
        assert_eq!(
            history.told(3),
            "Epoch 1/3: loss 0.500, training error 25.0 %; validation loss 0.400, error 20.0 %"
        );
        assert!(history.is_unchanged());
    }
}
