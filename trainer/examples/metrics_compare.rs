//! Evaluates given predictions for `tests/reference/metrics_compare.py`, which compares with
//! scikit-learn.
//!
//! Reads a JSON list of `{classes, truths, best, probabilities}` on the standard input and prints the
//! list of evaluations.

use serde::Deserialize;
use shared::classifier::{Decision, Prediction};
use trainer::evaluation::{Evaluation, Predictions};

#[derive(Deserialize)]
struct Case {
    classes: Vec<String>,
    truths: Vec<usize>,
    best: Vec<usize>,
    probabilities: Vec<Vec<f32>>,
}

fn main() -> Result<(), serde_json::Error> {
    let cases: Vec<Case> = serde_json::from_reader(std::io::stdin().lock())?;
    let evaluations: Vec<Evaluation> = cases
        .into_iter()
        .map(|case| {
            let predictions: Vec<Prediction> = case
                .best
                .into_iter()
                .zip(case.probabilities)
                .map(|(best, probabilities)| Prediction {
                    best,
                    margins: probabilities.clone(),
                    probabilities,
                    decision: Decision::Accepted,
                })
                .collect();
            let paths = (0..case.truths.len()).map(|number| number.to_string().into());
            Evaluation::new(&Predictions::new(&case.classes, paths, &case.truths, &predictions))
        })
        .collect();
    serde_json::to_writer(std::io::stdout().lock(), &evaluations)
}
