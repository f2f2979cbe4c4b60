//! The whole way from features to thresholds, on small random problems.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shared::classifier::{Decision, Head, first_largest, l2_normalize};

use super::calibration::fit_temperature;
use super::*;
use crate::progress::Silent;

/// Labelled features.
pub(super) struct Sample {
    pub(super) features: Array2<f32>,
    pub(super) labels: Vec<usize>,
}

/// `count` rows of length 1, of overlapping classes of unequal size.
pub(super) fn sample(count: usize, features: usize, classes: usize, seed: u64) -> Sample {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let centres = Array2::from_shape_fn((classes, features), |_| generator.random_range(-0.6_f32..0.6));
    let labels: Vec<usize> = (0..count)
        .map(|row| if row % 5 == 4 { 0 } else { row % classes })
        .collect();
    let mut values = Array2::from_shape_fn((count, features), |(row, column)| {
        centres[[labels[row], column]] + generator.random_range(-1.0_f32..1.0)
    });
    for row in values.rows_mut() {
        let mut own = row.to_vec();
        l2_normalize(&mut own);
        row.into_iter().zip(own).for_each(|(value, normal)| *value = normal);
    }
    Sample {
        features: values,
        labels,
    }
}

fn quick(c_grid: &[f64]) -> Parameters {
    Parameters {
        c_grid: c_grid.to_vec(),
        ..Parameters::default()
    }
}

fn input<'a>(features: &'a Array2<f32>, labels: &'a [usize], groups: &'a [usize], classes: usize) -> Input<'a> {
    Input {
        features: features.view(),
        labels,
        groups,
        classes,
    }
}

fn train_sample(data: &Sample, classes: usize, parameters: &Parameters) -> Trained {
    let groups: Vec<usize> = (0..data.labels.len()).collect();
    let input = input(&data.features, &data.labels, &groups, classes);
    train(&input, parameters, &Silent).expect("trains")
}

fn accuracy(data: &Sample, trained: &Trained) -> f64 {
    let head = Head {
        classes: vec![String::new(); trained.classifier.classes()],
        classifier: Some(trained.classifier.clone()),
        calibration: trained.calibration.clone(),
        thresholds: trained.thresholds,
    };
    let rows = data.features.rows().into_iter().zip(&data.labels);
    let right = rows
        .filter(|(row, label)| head.predict(&row.to_vec()).best == **label)
        .count();
    right as f64 / data.labels.len() as f64
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let data = sample(160, 24, 4, 1);
    let with = |threads: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool")
            .install(|| train_sample(&data, 4, &quick(&[0.01, 1.0, 100.0])))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(7));
}

#[test]
fn it_learns_and_chooses_by_what_it_has_not_seen() {
    let (data, test) = (sample(400, 32, 3, 2), sample(400, 32, 3, 2));
    let parameters = Parameters {
        class_weights: ClassWeights::None,
        ..Parameters::default()
    };
    let trained = train_sample(&data, 3, &parameters);
    assert!(accuracy(&test, &trained) > 0.9, "{}", accuracy(&test, &trained));
    let entries = &trained.sweep.entries;
    assert_eq!(entries.len(), 7);
    assert!(entries.windows(2).all(|pair| pair[0].c < pair[1].c));
    let best = entries.iter().map(|entry| entry.cv_accuracy).fold(0.0, f64::max);
    let first = entries
        .iter()
        .find(|entry| entry.cv_accuracy >= best)
        .expect("there is a best");
    assert_eq!(first.c.to_bits(), trained.sweep.chosen_c.to_bits());
    assert_eq!(trained.sweep.out_of_fold_rows, (0..400).collect::<Vec<_>>());
    assert!(trained.notes.is_empty(), "{:?}", trained.notes);
}

#[test]
fn labels_of_pure_noise_are_not_learned_out_of_fold() {
    let mut data = sample(300, 200, 2, 3);
    let mut generator = ChaCha8Rng::seed_from_u64(4);
    data.labels
        .iter_mut()
        .for_each(|label| *label = generator.random_range(0..2));
    let trained = train_sample(&data, 2, &quick(&[100.0]));
    let entry = trained.sweep.entries[0];
    assert!(entry.train_accuracy > 0.9, "{entry:?}");
    assert!((entry.cv_accuracy - 0.5).abs() < 0.12, "{entry:?}");
    // Such margins deserve no confidence.
    let best = trained.calibration.probabilities(&[1.0, -1.0])[0];
    assert!(best < 0.65, "{best}");
}

#[test]
fn copies_of_an_image_in_one_group_do_not_flatter() {
    let mut data = sample(60, 300, 2, 5);
    let mut generator = ChaCha8Rng::seed_from_u64(6);
    data.labels
        .iter_mut()
        .for_each(|label| *label = generator.random_range(0..2));
    let rows: Vec<usize> = (0..180).map(|row| row / 3).collect();
    let features = data.features.select(ndarray::Axis(0), &rows);
    let labels: Vec<usize> = rows.iter().map(|row| data.labels[*row]).collect();
    let cv = |groups: &[usize]| {
        let input = input(&features, &labels, groups, 2);
        let trained = train(&input, &quick(&[100.0]), &Silent).expect("trains");
        trained.sweep.entries[0].cv_accuracy
    };
    assert!(cv(&(0..180).collect::<Vec<_>>()) > 0.9);
    assert!(cv(&rows) < 0.75, "{}", cv(&rows));
}

#[test]
fn two_classes_have_opposite_planes() {
    let data = sample(100, 12, 2, 7);
    let trained = train_sample(&data, 2, &quick(&[1.0]));
    let weights = &trained.classifier.weights;
    assert_eq!(weights.len(), 2);
    assert!(
        weights[0]
            .iter()
            .zip(&weights[1])
            .all(|(a, b)| (a + b).abs() < f32::EPSILON)
    );
    assert!(accuracy(&data, &trained) > 0.8);
}

#[test]
fn a_class_of_one_image_is_told_and_the_rest_is_still_validated() {
    let mut data = sample(61, 12, 2, 8);
    data.labels[60] = 2;
    let trained = train_sample(&data, 3, &quick(&[0.1, 1.0]));
    assert_eq!(trained.sweep.out_of_fold_rows, (0..60).collect::<Vec<_>>());
    assert_eq!(trained.classifier.classes(), 3);
    assert_eq!(trained.never_held_out, [2]);
    assert_eq!(trained.sweep.folds, 5);
    assert!(trained.notes.is_empty(), "{:?}", trained.notes);
}

#[test]
fn folds_that_are_given_are_no_fewer_than_was_asked_for() {
    let data = sample(60, 12, 2, 8);
    let (held_out, rest): (Vec<usize>, Vec<usize>) = (0..60).partition(|row| *row < 12);
    let fold = Fold { train: rest, held_out };
    let folds = Folds {
        folds: vec![fold],
        never_held_out: Vec::new(),
    };
    let parameters = quick(&[0.1, 1.0]);
    let input = input(&data.features, &data.labels, &[], 2);
    let trained = train_on_folds(&input, &folds, &parameters, &Silent).expect("trains");
    assert_eq!(trained.sweep.folds, 1);
    assert!(trained.notes.is_empty(), "{:?}", trained.notes);
}

#[test]
fn one_image_per_class_takes_the_c_next_to_1() {
    let data = Sample {
        features: ndarray::array![[1.0, 0.0], [0.0, 1.0]],
        labels: vec![0, 1],
    };
    let trained = train_sample(&data, 2, &Parameters::default());
    assert!((trained.classifier.c - 1.0).abs() < f64::EPSILON);
    assert!(trained.sweep.entries.is_empty() && trained.never_held_out.is_empty());
    assert_eq!(trained.sweep.folds, 0);
    assert!((accuracy(&data, &trained) - 1.0).abs() < f64::EPSILON);
    assert!(
        trained.notes.len() == 1 && trained.notes[0].contains("C is 1"),
        "{:?}",
        trained.notes
    );
    let json = trained.classifier.to_json().expect("finite");
    assert!(shared::classifier::LinearClassifier::from_json(&json).is_ok());
    for (grid, expected) in [(&[50.0][..], 50.0), (&[1e-4, 1000.0, 0.01], 0.01)] {
        let c = train_sample(&data, 2, &quick(grid)).classifier.c;
        assert!((c - expected).abs() < f64::EPSILON, "{grid:?}: {c}");
    }
}

#[test]
fn constant_features_and_zero_rows_are_harmless() {
    let mut data = sample(40, 6, 2, 9);
    data.features.fill(0.5);
    data.features.row_mut(3).fill(0.0);
    for solver in [Solver::DualCoordinateDescent, Solver::Smo] {
        let parameters = Parameters {
            solver,
            ..quick(&[0.1, 10.0])
        };
        let trained = train_sample(&data, 2, &parameters);
        assert!(trained.classifier.to_json().is_ok());
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let data = sample(20, 4, 2, 10);
    let groups: Vec<usize> = (0..20).collect();
    let parameters = Parameters::default();
    let attempt = |features: &Array2<f32>, labels: &[usize], groups: &[usize], classes, parameters: &Parameters| {
        train(&input(features, labels, groups, classes), parameters, &Silent).expect_err("refused")
    };
    let features = &data.features;
    let labels = &data.labels;
    assert!(matches!(
        attempt(features, &labels[1..], &groups, 2, &parameters),
        SvmError::InvalidInput(_)
    ));
    assert!(matches!(
        attempt(features, labels, &groups[1..], 2, &parameters),
        SvmError::InvalidInput(_)
    ));
    assert!(matches!(
        attempt(features, labels, &groups, 1, &parameters),
        SvmError::TooFewClasses(1)
    ));
    assert!(matches!(
        attempt(features, labels, &groups, 3, &parameters),
        SvmError::EmptyClass(2)
    ));
    let mut broken = features.clone();
    broken[[7, 2]] = f32::NAN;
    assert!(
        attempt(&broken, labels, &groups, 2, &parameters)
            .to_string()
            .contains("row 7")
    );
    let error = attempt(features, labels, &groups, 2, &quick(&[1.0, -1.0]));
    assert!(matches!(error, SvmError::InvalidParameter { name: "c_grid", .. }));
}

#[test]
fn smo_refuses_what_would_take_hours() {
    let count = smo::MAX_ROWS + 1;
    let labels: Vec<usize> = (0..count).map(|row| row % 2).collect();
    let parameters = Parameters {
        solver: Solver::Smo,
        ..Parameters::default()
    };
    let features = Array2::zeros((count, 1));
    let error = train(&input(&features, &labels, &labels, 2), &parameters, &Silent).expect_err("refused");
    assert!(matches!(error, SvmError::TooLargeForSmo { .. }), "{error}");
}

/// The hinge and the squared hinge have different planes, but they must order images alike.
#[test]
fn both_solvers_agree_on_the_classes() {
    let data = sample(150, 16, 3, 11);
    let ours = train_sample(&data, 3, &quick(&[1.0]));
    let parameters = Parameters {
        solver: Solver::Smo,
        ..quick(&[1.0])
    };
    let theirs = train_sample(&data, 3, &parameters);
    assert_eq!(theirs.classifier.solver, "smo");
    let same = data
        .features
        .rows()
        .into_iter()
        .filter(|row| {
            let best = |trained: &Trained| first_largest(&trained.classifier.margins(&row.to_vec()));
            best(&ours) == best(&theirs)
        })
        .count();
    assert!(same >= 140, "{same} of 150");
    assert!((accuracy(&data, &ours) - accuracy(&data, &theirs)).abs() < 0.05);
}

#[test]
fn it_is_a_citizen_of_linfa() {
    let data = sample(120, 16, 3, 12);
    let dataset = DatasetBase::new(data.features.clone(), Array1::from(data.labels.clone()));
    let model = LinearSvm::params().c(10.0).fit(&dataset).expect("fits");
    let predicted: Array1<usize> = model.predict(&dataset);
    let right = predicted.iter().zip(&data.labels).filter(|(a, b)| a == b).count();
    assert!(right > 100, "{right}");
    assert_eq!(model.classifier().solver, "dual-coordinate-descent");
    let view = DatasetBase::new(data.features.view(), dataset.targets().view());
    assert_eq!(LinearSvm::params().c(10.0).fit(&view).expect("fits"), model);
    assert!(LinearSvm::params().c(0.0).fit(&dataset).is_err());
}

#[test]
fn thresholds_accept_the_share_asked_for() {
    let data = sample(400, 32, 4, 13);
    let trained = train_sample(&data, 4, &quick(&[0.1]));
    let head = Head {
        classes: vec![String::new(); 4],
        classifier: None,
        calibration: trained.calibration.clone(),
        thresholds: trained.thresholds,
    };
    let (mut right, mut accepted) = (0, 0);
    let sweep = &trained.sweep;
    for (margins, row) in sweep
        .out_of_fold_margins
        .rows()
        .into_iter()
        .zip(&sweep.out_of_fold_rows)
    {
        let answer = head.decide(margins.to_vec());
        if answer.best == data.labels[*row] {
            right += 1;
            accepted += usize::from(answer.decision == Decision::Accepted);
        }
    }
    let share = f64::from(u32::try_from(accepted).expect("small")) / f64::from(right);
    assert!((0.95..0.97).contains(&share), "{share}");
}

/// Every image lies within the margin then, and the margins grow with the number of images.
#[test]
fn thresholds_hold_for_new_images_at_a_tiny_c() {
    let mut all = sample(460, 256, 3, 17);
    // As a network's features: much in common, so that all margins are below zero.
    for row in all.features.rows_mut() {
        let mut own: Vec<f32> = row.iter().map(|value| value + 0.1).collect();
        l2_normalize(&mut own);
        row.into_iter().zip(own).for_each(|(value, moved)| *value = moved);
    }
    let known = Sample {
        features: all.features.slice_axis(ndarray::Axis(0), (..60).into()).to_owned(),
        labels: all.labels[..60].to_vec(),
    };
    let trained = train_sample(&known, 3, &quick(&[1e-4]));
    let head = Head {
        classes: vec![String::new(); 3],
        classifier: Some(trained.classifier),
        calibration: trained.calibration,
        thresholds: trained.thresholds,
    };
    let answers = all.features.rows().into_iter().zip(&all.labels).skip(60);
    let right: Vec<bool> = answers
        .map(|(row, label)| (head.predict(&row.to_vec()), *label))
        .filter(|(answer, label)| answer.best == *label)
        .map(|(answer, _)| answer.decision == Decision::Accepted)
        .collect();
    let accepted = right.iter().filter(|accepted| **accepted).count();
    assert!(right.len() > 150, "{}", right.len());
    assert!(accepted * 100 > right.len() * 85, "{accepted} of {}", right.len());
}

#[test]
fn the_temperature_has_the_least_log_loss() {
    let mut data = sample(300, 32, 3, 14);
    // Wrong labels, so that the loss has its least at a moderate scale.
    data.labels
        .iter_mut()
        .step_by(7)
        .for_each(|label| *label = (*label + 1) % 3);
    let trained = train_sample(&data, 3, &quick(&[1.0]));
    let Calibration::Temperature { scale } = trained.calibration;
    let loss = |scale: f64| -> f64 {
        let calibration = Calibration::Temperature { scale };
        let rows = trained.sweep.out_of_fold_margins.rows().into_iter().zip(&data.labels);
        rows.map(|(row, label)| -f64::from(calibration.probabilities(&row.to_vec())[*label]).ln())
            .sum()
    };
    assert!(
        loss(scale) < loss(scale * 1.3) && loss(scale) < loss(scale / 1.3),
        "{scale}"
    );
}

#[test]
fn classes_that_are_never_held_out_are_not_forgotten_for_a_tiny_c() {
    // Sixty images of one class, which every C recognizes, and one of each of six others.
    let mut features = Array2::from_shape_fn((66, 8), |(row, column)| match (row, column) {
        (..60, _) => 0.3 * ((row * 7 + column * 3) as f32).sin() + if column == 0 { 1.0 } else { 0.0 },
        (_, 0) => 0.5,
        _ => f32::from(u8::from(row - 59 == column)),
    });
    for mut row in features.rows_mut() {
        l2_normalize(row.as_slice_mut().expect("standard layout"));
    }
    let labels = (0..66_usize).map(|row| row.saturating_sub(59)).collect();
    let data = Sample { features, labels };
    for class_weights in [ClassWeights::Balanced, ClassWeights::None] {
        let parameters = Parameters {
            class_weights,
            ..quick(&[1e-4, 1.0, 100.0])
        };
        let trained = train_sample(&data, 7, &parameters);
        assert_eq!(trained.never_held_out, [1, 2, 3, 4, 5, 6]);
        assert!(trained.sweep.entries.iter().all(|entry| entry.cv_accuracy > 0.999));
        assert!((accuracy(&data, &trained) - 1.0).abs() < 1e-12, "{:?}", trained.sweep);
    }
}

#[test]
fn the_temperature_follows_margins_of_every_size() {
    let margins = ndarray::array![[1.0_f32, 0.2, 0.1], [0.3, 0.9, 0.2], [0.6, 0.5, 0.1], [0.2, 0.1, 0.8]];
    let truths = [0, 1, 1, 2];
    let scale = |size: f32| {
        let Calibration::Temperature { scale } = fit_temperature((&margins * size).view(), &truths);
        scale * f64::from(size)
    };
    let plain = scale(1.0);
    for size in [1e-12, 1e-6, 1e3] {
        assert!(
            (scale(size) / plain - 1.0).abs() < 1e-4,
            "{size}: {} and {plain}",
            scale(size)
        );
    }
}

#[test]
fn thresholds_that_no_image_tells_accept_all() {
    let margins = ndarray::array![[0.1_f32, 0.9], [0.8, 0.3]];
    let wrong = calibrate(margins.view(), &[0, 1], 0.95);
    assert_eq!(wrong.thresholds, ACCEPT_ALL);
    let note = wrong.note.expect("a note");
    assert!(note.starts_with("No held-out image was classified rightly"), "{note}");
    assert_eq!(calibrate(margins.view(), &[1, 0], 0.95).note, None);
    let none = calibrate(Array2::<f32>::zeros((0, 2)).view(), &[], 0.95);
    assert_eq!((none.thresholds, none.note), (ACCEPT_ALL, None));
}
