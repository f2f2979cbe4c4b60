//! Runs side by side: figures, the parameters that differ, and whether the difference means anything.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Number, Value};

use super::{Entry, Kind, RunError};
use crate::evaluation::{Answers, Metrics, PairedTest, Predictions, SIGNIFICANCE, holm};

/// Up to so many runs, the test of each against each is shown; beyond, that of each against the most accurate one.
const PAIRWISE: usize = 6;
/// The parameter that is the same for runs of the same images.
const FINGERPRINT: &str = "data.fingerprint";

/// Several runs side by side.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// In the order asked for.
    pub runs: Vec<Compared>,
    /// What was not the same for all of them.
    pub differences: Vec<Difference>,
    /// Tests on the images that two of them have in common.
    pub paired: Vec<Pair>,
    /// Number of tests that the p values are corrected for: all pairs with images in common, shown or not, since the
    /// most accurate run is chosen by the images that it is tested on.
    pub tests: usize,
    /// What the comparison takes for granted, for people to read.
    pub caveats: Vec<String>,
}

/// One of the runs.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// Identifier of the run.
    pub id: String,
    /// Name of its folder.
    pub folder: String,
    /// Name of the model.
    pub name: String,
    /// Its figures.
    pub metrics: Metrics,
    /// Its answers.
    #[serde(skip)]
    pub predictions: Predictions,
}

/// A parameter that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name, e.g. `svm.folds`.
    pub parameter: String,
    /// Its value in each run; absent where the run has no such parameter.
    pub values: Vec<Option<String>>,
}

/// Two runs tested against each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// Index of the first.
    pub first: usize,
    /// Index of the second.
    pub second: usize,
    /// What came out.
    #[serde(flatten)]
    pub test: PairedTest,
    /// Its p value after Holm's correction for all tests of the comparison.
    pub corrected_p_value: f64,
}

impl Pair {
    /// Whether the difference is more than chance.
    pub fn is_significant(&self) -> bool {
        self.corrected_p_value < SIGNIFICANCE
    }

    /// What the test says, for people to read, of runs with these names.
    pub fn verdict(&self, first: &str, second: &str) -> String {
        let (first_better, second_better) = (self.test.only_first, self.test.only_second);
        if !self.is_significant() {
            "cannot be told apart on these images".to_owned()
        } else if first_better > second_better {
            format!("{first} is better")
        } else {
            debug_assert!(second_better > first_better);
            format!("{second} is better")
        }
    }
}

impl Comparison {
    /// Reads what is compared of each run.
    ///
    /// # Errors
    /// [`RunError::File`] and [`RunError::Unreadable`].
    pub fn new(entries: &[Entry]) -> Result<Self, RunError> {
        let mut runs = Vec::new();
        let mut parameters = Vec::new();
        for entry in entries {
            runs.push(Compared {
                id: entry.record.id.clone(),
                folder: folder_name(entry),
                name: entry.record.name.clone(),
                metrics: entry.metrics.clone(),
                predictions: entry.predictions()?,
            });
            parameters.push(self::parameters(entry)?);
        }
        let (paired, tests) = paired(&runs);
        let differences = differences(&parameters);
        let mut caveats = Vec::new();
        if !paired.is_empty() && differences.iter().any(|difference| difference.parameter == FINGERPRINT) {
            caveats.push(
                "These runs are not all of the same images (data.fingerprint): those with the same path and class are \
                 taken to be the same."
                    .to_owned(),
            );
        }
        // What a measurement has to tell is how many of its images were trained on.
        for (entry, run) in entries
            .iter()
            .zip(&runs)
            .filter(|(entry, _)| entry.record.kind == Kind::Evaluate)
        {
            caveats.extend(entry.record.notes.iter().map(|note| format!("{}: {note}", run.folder)));
        }
        Ok(Self {
            runs,
            differences,
            paired,
            tests,
            caveats,
        })
    }
}

fn folder_name(entry: &Entry) -> String {
    let path = entry.folder.canonicalize().unwrap_or_else(|_| entry.folder.clone());
    path.file_name()
        .map_or_else(|| entry.record.id.clone(), |name| name.to_string_lossy().into_owned())
}

/// Everything that a run was made with, flat.
fn parameters(entry: &Entry) -> Result<BTreeMap<String, String>, RunError> {
    let record = &entry.record;
    let mut flat = BTreeMap::from([
        ("backbone".to_owned(), record.backbone.name.clone()),
        ("backbone.sha256".to_owned(), beginning(&record.backbone.sha256)),
        (FINGERPRINT.to_owned(), beginning(&record.data.fingerprint)),
        ("data.images".to_owned(), record.data.images.to_string()),
        ("data.root".to_owned(), record.data.root.clone()),
        ("kind".to_owned(), record.kind.name().to_owned()),
        ("program".to_owned(), record.program.clone()),
        ("resolution".to_owned(), record.resolution.to_string()),
    ]);
    flatten("", &entry.parameters()?, &mut flat);
    Ok(flat)
}

/// As much of a hash as people compare; of what is none, and cannot be cut there, all.
fn beginning(hash: &str) -> String {
    hash.get(..12).unwrap_or(hash).to_owned()
}

/// Every value of a JSON document by its dotted name; a list is one value.
pub(crate) fn flatten(name: &str, value: &Value, flat: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() {
                    field.clone()
                } else {
                    format!("{name}.{field}")
                };
                flatten(&name, value, flat);
            }
        }
        Value::Null => {}
        Value::String(text) => {
            flat.insert(name.to_owned(), text.clone());
        }
        other => {
            flat.insert(name.to_owned(), shortest(other.clone()).to_string());
        }
    }
}

/// `value` with its numbers in as few digits as they were given: a [`Value`] holds 64 bits, and those of 32 have other
/// digits there.
pub(crate) fn shortest(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(fields.map(|(name, value)| (name, shortest(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(shortest).collect()),
        Value::Number(number) => Value::Number(narrowed(&number).unwrap_or(number)),
        other => other,
    }
}

/// The shortest number that is the same in 32 bits, where `number` needs no more.
fn narrowed(number: &Number) -> Option<Number> {
    let wide = number.as_f64().filter(|_| number.is_f64())?;
    let narrow = wide as f32;
    if f64::from(narrow).to_bits() != wide.to_bits() {
        return None;
    }
    Number::from_f64(narrow.to_string().parse().ok()?)
}

fn differences(parameters: &[BTreeMap<String, String>]) -> Vec<Difference> {
    let mut names: Vec<&String> = parameters.iter().flat_map(BTreeMap::keys).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| Difference {
            parameter: name.clone(),
            values: parameters.iter().map(|of_run| of_run.get(name).cloned()).collect(),
        })
        .filter(|difference| difference.values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect()
}

/// The tests to show, and the number of all of them.
fn paired(runs: &[Compared]) -> (Vec<Pair>, usize) {
    let answers: Vec<Answers> = runs.par_iter().map(|run| Answers::of(&run.predictions)).collect();
    let pair = |(first, second): (usize, usize)| {
        let test = PairedTest::new(&answers[first], &answers[second])?;
        Some(Pair {
            first,
            second,
            test,
            corrected_p_value: test.p_value,
        })
    };
    let after = |first: usize| (first + 1..runs.len()).map(move |second| (first, second));
    let all: Vec<(usize, usize)> = (0..runs.len()).flat_map(after).collect();
    let mut pairs: Vec<Pair> = all.into_par_iter().filter_map(pair).collect();
    let p_values: Vec<f64> = pairs.iter().map(|pair| pair.test.p_value).collect();
    for (pair, corrected) in pairs.iter_mut().zip(holm(&p_values)) {
        pair.corrected_p_value = corrected;
    }
    let tests = pairs.len();
    if runs.len() > PAIRWISE {
        let accuracy = |index: &usize| runs[*index].metrics.evaluation.accuracy.unwrap_or(0.0);
        // The first of the most accurate ones.
        let best = (0..runs.len())
            .rev()
            .max_by(|a, b| accuracy(a).total_cmp(&accuracy(b)))
            .unwrap_or(0);
        pairs.retain(|pair| pair.first == best || pair.second == best);
    }
    (pairs, tests)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hash_that_was_written_over_is_shown_all_the_same() {
        assert_eq!(beginning(&"ab".repeat(32)), "abababababab");
        for other in ["ab", "", "elevenbytesé"] {
            assert_eq!(beginning(other), other);
        }
    }

    #[test]
    fn numbers_of_32_bits_have_their_own_digits() {
        let wide = json!({ "dropout": 0.2_f32, "steps": [[20, 0.01_f32]], "c": 0.1_f64, "half": 0.5, "epochs": 20, "none": null });
        let text = r#"{"c":0.1,"dropout":0.2,"epochs":20,"half":0.5,"none":null,"steps":[[20,0.01]]}"#;
        let short: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(shortest(wide.clone()), short);
        assert_eq!(shortest(short.clone()), short);
        let mut flat = BTreeMap::new();
        flatten("", &wide, &mut flat);
        assert_eq!((&flat["dropout"][..], &flat["steps"][..]), ("0.2", "[[20,0.01]]"));
    }
}
