//! What to do next, as far as an evaluation tells.

use std::collections::BTreeMap;

use super::Evaluation;
use crate::counted::{counted, listed};

/// A class with fewer images to train on is hardly learnt, ...
const TRAIN: usize = 20;
/// ... and the figures of one with fewer test images are chance.
const TEST: usize = 5;
/// So many mistakes between two classes are worth a look, ...
const MISTAKES: usize = 3;
/// ... where they are this share of the test images of both.
const CONFUSED: f64 = 0.1;
/// Accuracy above the class-averaged one by more is owed to the frequent classes.
const GAP: f64 = 0.1;
/// A wider interval leaves the accuracy open.
const WIDTH: f64 = 0.2;
/// So many files left out are no accident, ...
const FILES: usize = 5;
/// ... where they are this share of all.
const LEFT_OUT: f64 = 0.05;
/// Most classes that a sentence names.
const NAMED: usize = 5;

/// What was measured, as far as the evaluation itself does not know it.
pub struct Basis<'a> {
    /// Images of each class that were trained on; none after a measurement alone.
    pub trained_on: Option<BTreeMap<&'a str, usize>>,
    /// Images that were read.
    pub images: usize,
    /// Files that were left out.
    pub left_out: usize,
}

impl Evaluation {
    /// What to do next, in a few sentences for people to read; none where all is fine.
    pub fn advice(&self, basis: &Basis) -> Vec<String> {
        [
            self.too_few(basis.trained_on.as_ref()),
            self.most_confused(),
            self.rare_classes(),
            self.wide_interval(),
            left_out(basis),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn too_few(&self, trained_on: Option<&BTreeMap<&str, usize>>) -> Option<String> {
        let is_few = |class: &&str| {
            let test = self.per_class.get(*class).map_or(0, |of_class| of_class.support);
            match trained_on {
                Some(counts) => {
                    counts.get(*class).is_none_or(|train| *train < TRAIN) || (self.test_count > 0 && test < TEST)
                }
                // A data set need not have all classes to be measured on.
                None => (1..TEST).contains(&test),
            }
        };
        let classes: Vec<&str> = self.classes.iter().map(String::as_str).filter(is_few).collect();
        if classes.is_empty() {
            return None;
        }
        let names = listed(&classes, NAMED);
        let to_train = match trained_on {
            Some(_) => format!("{TRAIN} to train on or "),
            None => String::new(),
        };
        Some(format!(
            "Add photos of {names}: with fewer than {to_train}{TEST} to test with, the figures of a class are chance."
        ))
    }

    fn most_confused(&self) -> Option<String> {
        let counts = &self.confusion;
        let mistakes = |(one, other): (usize, usize)| counts[one][other] + counts[other][one];
        let pairs = (0..counts.len()).flat_map(|other| (0..other).map(move |one| (one, other)));
        let (one, other) = pairs.max_by_key(|pair| mistakes(*pair))?;
        let wrong = mistakes((one, other));
        let images: usize = counts[one].iter().chain(&counts[other]).sum();
        if wrong < MISTAKES || (wrong as f64) < CONFUSED * images as f64 {
            return None;
        }
        let (one, other) = (&self.classes[one], &self.classes[other]);
        Some(format!(
            "{wrong} of the {images} test images of {one} and {other} were taken for the other class: look at them, as labels \
             may be wrong (trainer data audit finds doubtful ones, trainer annotate corrects them), or add photos of both."
        ))
    }

    fn rare_classes(&self) -> Option<String> {
        let (accuracy, averaged) = (self.accuracy?, self.class_averaged_accuracy?);
        (accuracy - averaged > GAP).then(|| {
            format!(
                "{:.0} % of the images are recognized, but {:.0} % of a class on average: add photos of the rarer classes, \
                 which do worse.",
                100.0 * accuracy,
                100.0 * averaged
            )
        })
    }

    fn wide_interval(&self) -> Option<String> {
        let [low, high] = self.accuracy_interval?;
        (high - low > WIDTH).then(|| {
            format!(
                "Test with more photos: {} open whether the accuracy is {:.0} or {:.0} %.",
                counted(self.test_count, "leaves", "leave"),
                100.0 * low,
                100.0 * high
            )
        })
    }
}

fn left_out(basis: &Basis) -> Option<String> {
    let Basis { images, left_out, .. } = *basis;
    let files = images + left_out;
    (left_out >= FILES && left_out as f64 > LEFT_OUT * files as f64).then(|| {
        format!(
            "Mend or replace the files that were left out, {left_out} of {files}: skipped.json says why, one by one."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Predicted, Predictions};

    /// Of two classes, how many images of each were taken for which.
    fn evaluation(confusion: [[usize; 2]; 2]) -> Evaluation {
        let mut rows = Vec::new();
        for (truth, counts) in confusion.into_iter().enumerate() {
            for (best, count) in counts.into_iter().enumerate() {
                rows.extend((0..count).map(|number| Predicted {
                    path: format!("{truth}/{best}/{number}.jpg").into(),
                    truth,
                    best,
                    probabilities: if best == 0 { vec![0.9, 0.1] } else { vec![0.1, 0.9] },
                    decision: None,
                }));
            }
        }
        Evaluation::new(&Predictions {
            classes: vec!["dotted".to_owned(), "striped".to_owned()],
            rows,
        })
    }

    fn basis(trained_on: Option<[usize; 2]>, left_out: usize) -> Basis<'static> {
        Basis {
            trained_on: trained_on.map(|[dotted, striped]| BTreeMap::from([("dotted", dotted), ("striped", striped)])),
            images: 200,
            left_out,
        }
    }

    #[test]
    fn where_all_is_fine_there_is_nothing_to_do() {
        let fine = evaluation([[49, 1], [2, 48]]);
        for basis in [basis(Some([80, 80]), 4), basis(None, 0)] {
            assert_eq!(fine.advice(&basis), Vec::<String>::new());
        }
    }

    #[test]
    fn classes_of_a_few_images_are_named() {
        let sentence = |confusion, trained_on| evaluation(confusion).advice(&basis(trained_on, 0)).join("\n");
        let few = sentence([[90, 0], [0, 1]], Some([200, 2]));
        assert_eq!(
            few,
            "Add photos of striped: with fewer than 20 to train on or 5 to test with, the figures of a class are chance."
        );
        assert!(sentence([[90, 0], [0, 9]], Some([19, 19])).starts_with("Add photos of dotted, striped: "));
        let measured = sentence([[90, 0], [0, 1]], None);
        assert!(
            measured.contains("striped: with fewer than 5 to test with"),
            "{measured}"
        );
        assert_eq!(sentence([[90, 0], [0, 0]], None), "", "a class that is not measured");
        assert_eq!(
            sentence([[0, 0], [0, 0]], Some([20, 20])),
            "",
            "no test at all is told elsewhere"
        );
    }

    #[test]
    fn classes_that_are_confused_and_rare_ones_are_told() {
        let advice = |confusion| evaluation(confusion).advice(&basis(Some([99, 99]), 0));
        let confused = advice([[80, 20], [0, 100]]).join("\n");
        assert!(
            confused.starts_with("20 of the 200 test images of dotted and striped were taken for the other class: "),
            "{confused}"
        );
        assert!(
            confused.contains("trainer data audit") && !confused.contains('\n'),
            "{confused}"
        );
        let rare = advice([[190, 0], [6, 4]]).join("\n");
        assert!(
            rare.starts_with("97 % of the images are recognized, but 70 % of a class on average: "),
            "{rare}"
        );
    }

    #[test]
    fn an_open_accuracy_and_files_that_were_left_out_are_told() {
        let open = evaluation([[8, 0], [2, 6]]).advice(&basis(None, 0)).join("\n");
        assert_eq!(
            open,
            "Test with more photos: 16 leave open whether the accuracy is 64 or 97 %."
        );
        let fine = evaluation([[50, 0], [0, 50]]);
        let advice = fine.advice(&basis(None, 20)).join("\n");
        assert!(
            advice.starts_with("Mend or replace the files that were left out, 20 of 220: "),
            "{advice}"
        );
    }
}
