//! `predictions.csv`: what was answered for each test image. Everything an evaluation says follows from it.

use std::path::PathBuf;

use shared::classifier::{Decision, Prediction};

use crate::dataset::text_of;

/// Columns before the classes' scores.
const COLUMNS: [&str; 3] = ["path", "truth", "label"];

/// Answers for test images, one row each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predictions {
    /// Class names, in the order of the scores.
    pub classes: Vec<String>,
    /// One per image.
    pub rows: Vec<Predicted>,
}

/// The answer for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// Path below the data set's root.
    pub path: PathBuf,
    /// Index of the class whose folder it is in.
    pub truth: usize,
    /// Index of the class that it was given.
    pub best: usize,
    /// Probability of each class, summing to 1.
    pub probabilities: Vec<f32>,
    /// Whether the answer is given or held back; not known of answers that were read from a table.
    pub decision: Option<Decision>,
}

impl Predicted {
    /// Whether the class is the right one.
    pub fn is_right(&self) -> bool {
        self.truth == self.best
    }

    /// Probability of the class that it was given.
    pub fn confidence(&self) -> f32 {
        self.probabilities[self.best]
    }
}

impl Predictions {
    /// Puts together paths, true classes (indices into `classes`) and answers. An answer of another number of
    /// classes, or an index out of range, is left out.
    pub fn new(
        classes: &[String],
        paths: impl IntoIterator<Item = PathBuf>,
        truths: &[usize],
        predictions: &[Prediction],
    ) -> Self {
        let count = classes.len();
        let rows = paths.into_iter().zip(truths).zip(predictions);
        let rows = rows
            .filter(|((_, truth), prediction)| {
                **truth < count && prediction.best < count && prediction.probabilities.len() == count
            })
            .map(|((path, truth), prediction)| Predicted {
                path,
                truth: *truth,
                best: prediction.best,
                probabilities: prediction.probabilities.clone(),
                decision: Some(prediction.decision),
            });
        Self {
            classes: classes.to_vec(),
            rows: rows.collect(),
        }
    }

    /// The table: path, truth, label, and a column for each class's probability. A path that is no Unicode has
    /// `\xNN` in place of what is not.
    pub fn to_csv(&self) -> Vec<u8> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let classes = self.classes.iter().map(String::as_str);
        // Writing to memory does not fail.
        let _ = writer.write_record(COLUMNS.into_iter().chain(classes));
        for row in &self.rows {
            let _ = writer.write_field(text_of(&row.path));
            let _ = writer.write_field(&self.classes[row.truth]);
            let _ = writer.write_field(&self.classes[row.best]);
            for probability in &row.probabilities {
                let _ = writer.write_field(probability.to_string());
            }
            let _ = writer.write_record(None::<&[u8]>);
        }
        writer.into_inner().unwrap_or_default()
    }

    /// Reads what [`Self::to_csv`] gave; the error says why it is no such table.
    pub(crate) fn from_csv(text: &[u8]) -> Result<Self, String> {
        let mut reader = csv::Reader::from_reader(text);
        let header = reader.headers().map_err(|error| error.to_string())?;
        if header.iter().take(COLUMNS.len()).ne(COLUMNS) {
            return Err("its first line does not begin with path,truth,label".to_owned());
        }
        let classes: Vec<String> = header.iter().skip(COLUMNS.len()).map(str::to_owned).collect();
        let mut rows = Vec::new();
        for (number, record) in reader.records().enumerate() {
            let record = record.map_err(|error| error.to_string())?;
            let wrong = |what: &str| format!("image {} has {what}", number + 1);
            let class = |name: &str| {
                let index = classes.iter().position(|class| class == name);
                index.ok_or_else(|| wrong("a class that is no column"))
            };
            let probabilities: Result<Vec<f32>, _> = record.iter().skip(COLUMNS.len()).map(str::parse).collect();
            rows.push(Predicted {
                path: PathBuf::from(&record[0]),
                truth: class(&record[1])?,
                best: class(&record[2])?,
                probabilities: probabilities.map_err(|_| wrong("a score that is no number"))?,
                decision: None,
            });
        }
        Ok(Self { classes, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_to_the_last_bit() {
        let classes = ["plain", "a,\"b\"", "<b>\n", "😀"].map(str::to_owned).to_vec();
        let row = |name: &str, truth: usize, best: usize, probabilities: [f32; 4]| Predicted {
            path: name.into(),
            truth,
            best,
            probabilities: probabilities.to_vec(),
            decision: None,
        };
        let predictions = Predictions {
            classes,
            rows: vec![
                row("plain/1.jpg", 0, 3, [0.1, 1e-30, 0.3, 0.599_999_9]),
                row(
                    "a,\"b\"/line\nbreak <img>.jpg",
                    1,
                    2,
                    [1.0 / 3.0, 0.0, 0.5, 0.166_666_67],
                ),
            ],
        };
        assert_eq!(Predictions::from_csv(&predictions.to_csv()).expect("read"), predictions);
    }

    #[test]
    fn other_tables_are_refused() {
        for text in [
            "a,b,c\n1,2,3\n",
            "path,truth,label,x\np,x,y,1\n",
            "path,truth,label,x\np,x,x,much\n",
            "path,truth,label,x\np,x\n",
        ] {
            assert!(Predictions::from_csv(text.as_bytes()).is_err(), "{text}");
        }
    }
}
