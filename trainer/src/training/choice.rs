//! Which classifier suits a data set: each is tried on folds of the training part, within a limit of time.

use std::fmt::Write;
use std::time::{Duration, Instant};

use ndarray::Array2;
use serde::Serialize;
use shared::bundle::ClassifierKind;
use shared::classifier::Head;

use super::{Parameters, Prepared, TrainingError, Workplace, prepare, refined};
use crate::backbone::Backbone;
use crate::dataset::Dataset;
use crate::refine::RefineError;
use crate::refine::engine::EngineError;
use crate::svm::{ClassWeights, Fold, first_best, stratified_grouped};

/// In the order of preference where they do equally well: the simplest first.
const CANDIDATES: [ClassifierKind; 3] = [ClassifierKind::Svm, ClassifierKind::Dnn, ClassifierKind::SvmRefined];

/// What was tried, and which is best.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The best.
    pub classifier: ClassifierKind,
    /// How each did on the folds that all of them were tried on; none where the network cannot be refined.
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
    /// The share that it is compared by: of the images that it recognized, or, where class weights are balanced, the
    /// mean of that share over the classes.
    pub score: f64,
}

/// Images of each class, and how many of them a classifier recognizes.
#[derive(Debug, Clone, Default)]
pub(super) struct Recognized {
    images: Vec<usize>,
    right: Vec<usize>,
}

impl Recognized {
    /// The share of the images that is recognized.
    pub fn accuracy(&self, weights: ClassWeights) -> f64 {
        weights.accuracy(&self.right, &self.images)
    }

    fn and(mut self, more: &Self) -> Self {
        for (sums, more) in [(&mut self.images, &more.images), (&mut self.right, &more.right)] {
            sums.resize(more.len(), 0);
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += more;
            }
        }
        self
    }
}

/// Tries every classifier on folds of the training part of `dataset`: the same images held out for all. Refinements
/// come last and end where the time that is left would not suffice for another one on the whole training part. Where
/// the network cannot be refined or the training on any fold diverges, the SVM is left.
///
/// # Errors
/// See [`TrainingError`]; a refinement that takes too long or diverges is none.
pub fn choose(
    dataset: &Dataset,
    backbone: &Backbone,
    parameters: &Parameters,
    limit: Duration,
    workplace: &Workplace,
) -> Result<Choice, TrainingError> {
    match try_all(dataset, backbone, parameters, limit, workplace) {
        Err(TrainingError::Refine(
            error @ (RefineError::Graph(_) | RefineError::Engine(EngineError::Graph(_)) | RefineError::Parity { .. }),
        )) => Ok(Choice {
            classifier: ClassifierKind::Svm,
            candidates: Vec::new(),
            reason: format!("svm is trained, without trying the others: {error}."),
        }),
        choice => choice,
    }
}

fn try_all(
    dataset: &Dataset,
    backbone: &Backbone,
    parameters: &Parameters,
    limit: Duration,
    workplace: &Workplace,
) -> Result<Choice, TrainingError> {
    let begin = Instant::now();
    let divided = prepare(dataset, backbone, parameters, workplace)?;
    let job = divided.job(backbone, parameters, workplace);
    // The test part is not needed, so that refined networks give no features of it.
    let training = job.features.normalized_rows(&job.train);
    let items = job.train.iter().map(|row| job.dataset.items[*row].clone());
    let dataset = job.dataset.restricted(items.collect(), Vec::new());
    let job = Prepared {
        dataset: &dataset,
        features: &training,
        train: (0..job.train.len()).collect(),
        ..job
    };
    let classes = job.dataset.classes.len();
    let count = parameters.svm.folds;
    let folds = stratified_grouped(&training.labels, &training.groups, classes, count, parameters.svm.seed).folds;
    let workplaces: Vec<Workplace> = (1..=folds.len()).map(|fold| workplace.of_fold(fold)).collect();
    let folds = folds.iter().zip(&workplaces);
    let folds: Vec<(Prepared, Vec<usize>)> = folds.map(|(fold, workplace)| job.on(fold, workplace)).collect();
    compare(&folds, parameters, begin, limit)
}

fn compare(
    folds: &[(Prepared, Vec<usize>)],
    parameters: &Parameters,
    begin: Instant,
    limit: Duration,
) -> Result<Choice, TrainingError> {
    let mut recognized: Vec<Vec<Recognized>> = Vec::new();
    let mut ended = None;
    for (job, held_out) in folds {
        let svm = job.svm()?;
        recognized.push(vec![job.recognized(&svm.head, &svm.features.matrix, held_out)]);
    }
    if let Some(recipe) = &parameters.recipe {
        for ((job, held_out), recognized) in folds.iter().zip(&mut recognized) {
            // As much again is needed for the whole training part.
            let left = limit.saturating_sub(begin.elapsed()) / 2;
            match refined::both(job, recipe, Instant::now() + left) {
                Ok(refined) => {
                    for (head, vectors) in &refined {
                        recognized.push(job.recognized(head, vectors, held_out));
                    }
                }
                Err(TrainingError::Refine(error @ (RefineError::OutOfTime | RefineError::Diverged { .. }))) => {
                    ended = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(decide(&recognized, parameters.svm.class_weights, ended.as_ref()))
}

/// The best on the folds that all candidates were tried on, by the weights that C is chosen by too; `recognized` stands
/// by fold and candidate, and `ended` says why not on all of them.
fn decide(recognized: &[Vec<Recognized>], weights: ClassWeights, ended: Option<&RefineError>) -> Choice {
    let is_whole = |of_fold: &&Vec<Recognized>| of_fold.len() == CANDIDATES.len();
    let whole = match ended {
        // What diverges on one fold may do so on the whole training part too.
        Some(RefineError::Diverged { .. }) => 0,
        _ => recognized.iter().filter(is_whole).count(),
    };
    let (tried, folds) = if whole > 0 {
        (CANDIDATES.len(), whole)
    } else {
        (1, recognized.len())
    };
    let candidates: Vec<Candidate> = (0..tried)
        .map(|index| {
            let of_folds = recognized[..folds].iter().map(|of_fold| &of_fold[index]);
            let all = of_folds.fold(Recognized::default(), Recognized::and);
            Candidate {
                classifier: CANDIDATES[index],
                images: all.images.iter().sum(),
                right: all.right.iter().sum(),
                score: all.accuracy(weights),
            }
        })
        .collect();
    let best = candidates[first_best(candidates.iter().map(|candidate| candidate.score))];
    let told = candidates.iter().map(|candidate| {
        let share = 100.0 * candidate.score;
        format!("{} {share:.1} %", candidate.classifier.name())
    });
    let told: Vec<String> = told.collect();
    let chosen = best.classifier.name();
    let weighting = match weights {
        ClassWeights::Balanced => ", every class counting the same",
        ClassWeights::None => "",
    };
    let mut reason = match (tried, best.images) {
        (_, 0) => format!("{chosen} is trained: there was nothing to hold out, to compare by."),
        (1, _) => format!("{chosen} is trained: nothing else was tried to the end."),
        _ => format!(
            "{chosen} is trained: of {} images held out in {folds} of {} folds, {} were recognized{weighting}.",
            best.images,
            recognized.len(),
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
            train: rows(&fold.train),
            workplace,
            ..*self
        };
        (job, rows(&fold.held_out))
    }

    /// How many of `rows` a classifier recognizes by the `vectors` of all images, by class.
    pub(super) fn recognized(&self, head: &Head, vectors: &Array2<f32>, rows: &[usize]) -> Recognized {
        let none = vec![0; self.dataset.classes.len()];
        let mut recognized = Recognized {
            images: none.clone(),
            right: none,
        };
        for row in rows {
            let class = self.dataset.items[*row].class;
            let vector = vectors.row(*row).to_vec();
            recognized.images[class] += 1;
            recognized.right[class] += usize::from(head.predict(&vector).best == class);
        }
        recognized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Candidates on a fold of one class.
    fn of_one_class(images: usize, right: &[usize]) -> Vec<Recognized> {
        let recognized = |right: &usize| Recognized {
            images: vec![images],
            right: vec![*right],
        };
        right.iter().map(recognized).collect()
    }

    #[test]
    fn the_best_on_common_folds_wins_and_the_simplest_of_equals() {
        let folds = [of_one_class(10, &[8, 9, 9]), of_one_class(10, &[10])];
        let choice = decide(&folds, ClassWeights::None, Some(&RefineError::OutOfTime));
        assert_eq!(choice.classifier, ClassifierKind::Dnn);
        assert_eq!(choice.candidates.len(), 3);
        assert_eq!((choice.candidates[0].images, choice.candidates[0].right), (10, 8));
        assert!(choice.reason.contains("svm 80.0 %"), "{}", choice.reason);
        assert!(choice.reason.contains("time limit"), "{}", choice.reason);
        let equal = decide(&[of_one_class(10, &[9, 9, 8])], ClassWeights::None, None);
        assert_eq!(equal.classifier, ClassifierKind::Svm);
    }

    #[test]
    fn balanced_weights_count_rare_classes_as_much_as_frequent_ones() {
        let of_fold = [[90, 2], [80, 8], [79, 8]].map(|right| Recognized {
            images: vec![90, 10],
            right: right.to_vec(),
        });
        let folds = [of_fold.to_vec()];
        let balanced = decide(&folds, ClassWeights::Balanced, None);
        assert_eq!(balanced.classifier, ClassifierKind::Dnn);
        let reason = &balanced.reason;
        assert!(
            reason.contains("svm 60.0 %") && reason.contains("every class counting the same"),
            "{reason}"
        );
        let by_image = decide(&folds, ClassWeights::None, None);
        assert_eq!(by_image.classifier, ClassifierKind::Svm);
        assert!(!by_image.reason.contains("every class"), "{}", by_image.reason);
    }

    #[test]
    fn without_refinements_or_folds_the_svm_is_left() {
        let folds = [of_one_class(10, &[8]), of_one_class(10, &[10])];
        let alone = decide(&folds, ClassWeights::Balanced, Some(&RefineError::OutOfTime));
        assert_eq!((alone.classifier, alone.candidates.len()), (ClassifierKind::Svm, 1));
        assert_eq!(alone.candidates[0].right, 18);
        // Neither is chosen what did better, but diverged on another fold.
        let folds = [of_one_class(10, &[8, 9, 9]), of_one_class(10, &[10])];
        let diverged = RefineError::Diverged { epoch: 1, rate: 1.0 };
        let alone = decide(&folds, ClassWeights::Balanced, Some(&diverged));
        assert_eq!((alone.classifier, alone.candidates.len()), (ClassifierKind::Svm, 1));
        assert!(alone.reason.contains("--learning-rate"), "{}", alone.reason);
        let nothing = decide(&[], ClassWeights::Balanced, None);
        assert_eq!(nothing.classifier, ClassifierKind::Svm);
        assert!(nothing.reason.contains("nothing to hold out"), "{}", nothing.reason);
    }
}
