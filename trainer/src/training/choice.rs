//! Which classifier suits a data set: each is tried on folds of the training part, within a limit of time.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::bundle::ClassifierKind;

use super::{Fitted, Parameters, Prepared, TrainingError, Workplace, refined, with_features};
use crate::backbone::Backbone;
use crate::dataset::Dataset;
use crate::refine::RefineError;
use crate::svm::{Fold, stratified_grouped};

/// In the order of preference where they do equally well: the simplest first.
const CANDIDATES: [ClassifierKind; 3] = [ClassifierKind::Svm, ClassifierKind::Dnn, ClassifierKind::SvmRefined];

/// What was tried, and which is best.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The best.
    pub classifier: ClassifierKind,
    /// How each did on the folds that all of them were tried on.
    pub candidates: Vec<Candidate>,
    /// Why it is the best, in a sentence or two.
    pub reason: String,
}

/// How a classifier did on images that it was not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Candidate {
    /// Which.
    pub classifier: ClassifierKind,
    /// Images held out.
    pub images: usize,
    /// How many of them it recognized.
    pub right: usize,
}

impl Candidate {
    /// Share of the images that it recognized.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.images.max(1) as f64
    }
}

/// Tries every classifier on folds of the training part of `dataset`: the same images held out for all. Refinements come
/// last and end where the time that is left would not suffice for another one on the whole training part.
///
/// # Errors
/// See [`TrainingError`]; a refinement that takes too long is none.
pub fn choose(
    dataset: &Dataset,
    backbone: &Backbone,
    parameters: &Parameters,
    limit: Duration,
    workplace: &Workplace,
) -> Result<Choice, TrainingError> {
    let begin = Instant::now();
    with_features(dataset, backbone, parameters, workplace, |job, _, _| {
        let training = job.features.normalized_rows(&job.train);
        let classes = job.dataset.classes.len();
        let count = parameters.svm.folds;
        let folds = stratified_grouped(&training.labels, &training.groups, classes, count, parameters.svm.seed).folds;
        let workplaces: Vec<Workplace> = (1..=folds.len()).map(|fold| workplace.of_fold(fold)).collect();
        let folds = folds.iter().zip(&workplaces);
        let folds: Vec<(Prepared, Vec<usize>)> = folds.map(|(fold, workplace)| job.on(fold, workplace)).collect();
        compare(&folds, parameters, begin, limit)
    })
}

fn compare(
    folds: &[(Prepared, Vec<usize>)],
    parameters: &Parameters,
    begin: Instant,
    limit: Duration,
) -> Result<Choice, TrainingError> {
    let mut right: Vec<Vec<usize>> = Vec::new();
    let mut ended = None;
    for (job, held_out) in folds {
        right.push(vec![job.recognized(&job.svm()?, held_out)]);
    }
    if let Some(recipe) = &parameters.recipe {
        for ((job, held_out), right) in folds.iter().zip(&mut right) {
            // As much again is needed for the whole training part.
            let left = limit.saturating_sub(begin.elapsed()) / 2;
            match refined::both(job, recipe, Instant::now() + left) {
                Ok(refined) => {
                    for fitted in &refined {
                        right.push(job.recognized(fitted, held_out));
                    }
                }
                Err(TrainingError::Refine(RefineError::OutOfTime)) => {
                    ended = Some("the time limit left no room for more");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    let images: Vec<usize> = folds.iter().map(|(_, held_out)| held_out.len()).collect();
    Ok(decide(&right, &images, ended))
}

/// The best on the folds that all candidates were tried on; `right` counts by fold and candidate.
fn decide(right: &[Vec<usize>], images: &[usize], ended: Option<&str>) -> Choice {
    let whole = right.iter().filter(|right| right.len() == CANDIDATES.len()).count();
    let (tried, folds) = if whole > 0 {
        (CANDIDATES.len(), whole)
    } else {
        (1, right.len())
    };
    let candidates: Vec<Candidate> = (0..tried)
        .map(|index| Candidate {
            classifier: CANDIDATES[index],
            images: images[..folds].iter().sum(),
            right: right[..folds].iter().map(|right| right[index]).sum(),
        })
        .collect();
    let mut best = candidates[0];
    for candidate in &candidates {
        if candidate.right > best.right {
            best = *candidate;
        }
    }
    let told = candidates.iter().map(|candidate| {
        let share = 100.0 * candidate.accuracy();
        format!("{} {share:.1} %", candidate.classifier.name())
    });
    let told: Vec<String> = told.collect();
    let chosen = best.classifier.name();
    let mut reason = match (tried, best.images) {
        (_, 0) => format!("{chosen} is trained: there was nothing to hold out, to compare by."),
        (1, _) => format!("{chosen} is trained: nothing else was tried."),
        _ => format!(
            "{chosen} is trained: of {} images held out in {folds} of {} folds, {} were recognized.",
            best.images,
            right.len(),
            told.join(", ")
        ),
    };
    if let Some(ended) = ended {
        let _ = write!(reason, " Refinements ended early: {ended}.");
    }
    Choice {
        classifier: best.classifier,
        candidates,
        reason,
    }
}

impl Workplace<'_> {
    /// The same with events of their own for a fold, counted from 1: TensorBoard shows it as a run beside the others.
    fn of_fold(&self, fold: usize) -> Self {
        let events = self.events.as_ref();
        Self {
            events: events.map(|folder| folder.join(format!("fold-{fold}"))),
            ..self.clone()
        }
    }
}

impl<'a> Prepared<'a> {
    /// The same with a fold's rows to train on, and the rows held out.
    fn on(&self, fold: &Fold, workplace: &'a Workplace<'a>) -> (Prepared<'a>, Vec<usize>) {
        let rows = |rows: &[usize]| rows.iter().map(|row| self.train[*row]).collect();
        let job = Prepared {
            dataset: self.dataset,
            features: self.features,
            train: rows(&fold.train),
            backbone: self.backbone,
            model: self.model,
            parameters: self.parameters,
            workplace,
        };
        (job, rows(&fold.held_out))
    }

    /// How many of `rows` a classifier recognizes.
    pub(super) fn recognized(&self, fitted: &Fitted, rows: &[usize]) -> usize {
        let is_right = |row: &&usize| {
            let features = fitted.features.matrix.row(**row).to_vec();
            fitted.head.predict(&features).best == self.dataset.items[**row].class
        };
        rows.iter().filter(is_right).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_on_common_folds_wins_and_the_simplest_of_equals() {
        let choice = decide(&[vec![8, 9, 9], vec![10]], &[10, 10], Some("it was late"));
        assert_eq!(choice.classifier, ClassifierKind::Dnn);
        assert_eq!(choice.candidates.len(), 3);
        assert_eq!((choice.candidates[0].images, choice.candidates[0].right), (10, 8));
        assert!(choice.reason.contains("svm 80.0 %"), "{}", choice.reason);
        assert!(choice.reason.contains("it was late"));
        let equal = decide(&[vec![9, 9, 8]], &[10], None);
        assert_eq!(equal.classifier, ClassifierKind::Svm);
    }

    #[test]
    fn without_refinements_or_folds_the_svm_is_left() {
        let alone = decide(&[vec![8], vec![10]], &[10, 10], Some("it was late"));
        assert_eq!((alone.classifier, alone.candidates.len()), (ClassifierKind::Svm, 1));
        assert_eq!(alone.candidates[0].right, 18);
        let nothing = decide(&[], &[], None);
        assert_eq!(nothing.classifier, ClassifierKind::Svm);
        assert!(nothing.reason.contains("nothing to hold out"), "{}", nothing.reason);
    }
}
