//! The last step: a network's vector to a [`Prediction`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Calibration, LinearClassifier, Thresholds, l2_normalize};

/// What follows the network: the same for evaluation on stored features and for serving.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Class names, in the order of the margins.
    pub classes: Vec<String>,
    /// The linear classifier on the L2-normalized vector; `None` where the network's vector already
    /// holds class logits.
    pub classifier: Option<LinearClassifier>,
    /// Margins to probabilities.
    pub calibration: Calibration,
    /// When to answer `unknown`.
    pub thresholds: Thresholds,
}

/// Whether the answer can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The best class reaches both thresholds.
    Accepted,
    /// No class does.
    Unknown,
}

impl Decision {
    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Unknown => "unknown",
        }
    }
}

/// Scores of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the best class; the first one on a tie.
    pub best: usize,
    /// Margin (or logit) of each class.
    pub margins: Vec<f32>,
    /// Probability of each class, summing to 1.
    pub probabilities: Vec<f32>,
    /// Whether the best class reaches the thresholds.
    pub decision: Decision,
}

impl Head {
    /// Length of the vector that the network must give.
    pub fn takes(&self) -> usize {
        self.classifier
            .as_ref()
            .map_or(self.classes.len(), LinearClassifier::features)
    }

    /// Scores one vector as the network gave it, of length [`Self::takes`].
    pub fn predict(&self, vector: &[f32]) -> Prediction {
        let margins = match &self.classifier {
            Some(classifier) => {
                let mut features = vector.to_vec();
                l2_normalize(&mut features);
                classifier.margins(&features)
            }
            None => vector.to_vec(),
        };
        self.decide(margins)
    }

    /// Probabilities and decision for given margins, one for each class.
    pub fn decide(&self, margins: Vec<f32>) -> Prediction {
        let best = first_largest(&margins);
        let probabilities = self.calibration.probabilities(&margins);
        let accepted = probabilities[best] >= self.thresholds.probability && margins[best] >= self.thresholds.margin;
        let decision = if accepted {
            Decision::Accepted
        } else {
            Decision::Unknown
        };
        Prediction {
            best,
            margins,
            probabilities,
            decision,
        }
    }
}

/// Index of the largest value, the first one on a tie; 0 where there is none.
pub fn first_largest<'a>(values: impl IntoIterator<Item = &'a f32>) -> usize {
    let mut values = values.into_iter().enumerate();
    let Some(mut best) = values.next() else { return 0 };
    for (index, value) in values {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}
