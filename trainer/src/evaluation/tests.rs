//! Numbers that can be checked by hand; `tests/reference/metrics_compare.py` checks many more.

use shared::classifier::{Decision, Prediction};

use super::*;
use crate::svm::SweepEntry;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("c{index}")).collect()
}

fn prediction(probabilities: &[f32]) -> Prediction {
    let best = (1..probabilities.len()).fold(0, |best, class| {
        if probabilities[class] > probabilities[best] {
            class
        } else {
            best
        }
    });
    Prediction {
        best,
        margins: probabilities.to_vec(),
        probabilities: probabilities.to_vec(),
        decision: Decision::Accepted,
    }
}

fn evaluate(classes: &[String], truths: &[usize], predictions: &[Prediction]) -> Evaluation {
    let paths = (0..truths.len()).map(|number| number.to_string().into());
    Evaluation::new(&Predictions::new(classes, paths, truths, predictions))
}

fn close(value: Option<f64>, expected: f64) -> bool {
    value.is_some_and(|value| (value - expected).abs() < 1e-7)
}

/// Truths 0 0 0 1 1, predicted 0 0 1 1 0; class 2 has no image and no prediction.
fn example() -> Evaluation {
    let predictions = [
        prediction(&[0.8, 0.1, 0.1]),
        prediction(&[0.6, 0.3, 0.1]),
        prediction(&[0.3, 0.6, 0.1]),
        prediction(&[0.2, 0.7, 0.1]),
        prediction(&[0.5, 0.4, 0.1]),
    ];
    evaluate(&names(3), &[0, 0, 0, 1, 1], &predictions)
}

#[test]
fn a_small_case_is_as_by_hand() {
    let evaluation = example();
    assert!(close(evaluation.accuracy, 0.6));
    assert!(close(evaluation.class_averaged_accuracy, f64::midpoint(2.0 / 3.0, 0.5)));
    assert_eq!(evaluation.confusion, [[2, 1, 0], [1, 1, 0], [0, 0, 0]]);
    let first = &evaluation.per_class["c0"];
    assert!(close(first.precision, 2.0 / 3.0) && close(first.recall, 2.0 / 3.0) && close(first.f1, 2.0 / 3.0));
    // Positives 0.8 0.6 0.3 against negatives 0.2 0.5: five of six pairs in order.
    assert!(close(first.auc, 5.0 / 6.0));
    let second = &evaluation.per_class["c1"];
    // Positives 0.7 0.4 against 0.1 0.3 0.6: five of six.
    assert!(close(second.auc, 5.0 / 6.0) && close(second.precision, 0.5) && close(second.f1, 0.5));
    assert!(close(evaluation.auc_macro, 5.0 / 6.0));
    // Positives 0.8 0.6 0.3 0.7 0.4; negatives five times 0.1, 0.1 0.3 0.6 0.2 0.5.
    // In order, a tie half: 10 + 9.5 + 7.5 + 10 + 8 = 45 of 50.
    assert!(close(evaluation.auc_micro, 0.9), "{:?}", evaluation.auc_micro);
    // Bins of one image, but for the two of 0.6 (one right): 0.2 + |1.2 - 1| + 0.3 + 0.5 over 5.
    assert!(
        close(evaluation.calibration.ece, 1.2 / 5.0),
        "{:?}",
        evaluation.calibration.ece
    );
    // Wilson's interval for 3 of 5.
    let [low, high] = evaluation.accuracy_interval.expect("defined");
    assert!(
        (low - 0.230_724).abs() < 1e-5 && (high - 0.882_379).abs() < 1e-5,
        "{low} {high}"
    );
}

#[test]
fn what_a_class_without_images_cannot_have_is_null() {
    let json = serde_json::to_value(example()).expect("serializes");
    let class = &json["per_class"]["c2"];
    for key in ["accuracy", "precision", "recall", "f1", "auc"] {
        assert_eq!(class.get(key), Some(&serde_json::Value::Null), "{key}: {class}");
    }
    assert_eq!(class["support"], 0);
}

#[test]
fn a_class_never_predicted_has_precision_zero() {
    let evaluation = evaluate(&names(2), &[0, 1], &[prediction(&[0.9, 0.1]), prediction(&[0.8, 0.2])]);
    let class = &evaluation.per_class["c1"];
    assert!(close(class.precision, 0.0) && close(class.recall, 0.0) && close(class.f1, 0.0) && close(class.auc, 1.0));
}

#[test]
fn equal_scores_are_as_good_as_chance() {
    let even = prediction(&[0.5, 0.5]);
    let evaluation = evaluate(&names(2), &[0, 1, 1], &[even.clone(), even.clone(), even]);
    assert!(close(evaluation.auc_micro, 0.5) && close(evaluation.auc_macro, 0.5));
}

#[test]
fn no_images_and_a_single_class_have_no_numbers_where_none_are_defined() {
    let none = evaluate(&names(2), &[], &[]);
    assert_eq!(
        (
            none.accuracy,
            none.accuracy_interval,
            none.auc_micro,
            none.calibration.ece
        ),
        (None, None, None, None)
    );
    let single = evaluate(&names(1), &[0, 0], &[prediction(&[1.0]), prediction(&[1.0])]);
    assert!(close(single.accuracy, 1.0) && close(single.calibration.ece, 0.0));
    assert_eq!((single.auc_macro, single.auc_micro), (None, None));
    let [low, high] = single.accuracy_interval.expect("defined");
    assert!(low > 0.3 && (high - 1.0).abs() < f64::EPSILON);
}

/// Forty images leave no less open for being of forty classes.
#[test]
fn the_interval_over_classes_of_one_image_is_as_wide_as_that_of_the_images() {
    let answer = |image: usize| {
        let mut probabilities = vec![0.0; 40];
        probabilities[if image.is_multiple_of(5) { 39 - image } else { image }] = 1.0;
        prediction(&probabilities)
    };
    let truths: Vec<usize> = (0..40).collect();
    let predictions: Vec<Prediction> = truths.iter().copied().map(answer).collect();
    let evaluation = evaluate(&names(40), &truths, &predictions);
    assert!(close(evaluation.class_averaged_accuracy, 0.8));
    let width = |bounds: Option<[f64; 2]>| bounds.map_or(0.0, |[low, high]| high - low);
    let (images, classes) = (
        evaluation.accuracy_interval,
        evaluation.class_averaged_accuracy_interval,
    );
    assert!(width(classes) >= width(images), "{classes:?} and {images:?}");
}

#[test]
fn classes_without_test_images_are_named() {
    let some = example();
    assert_eq!(some.untested().as_deref(), Some("No test image is of c2."));
    let text = table(&some);
    assert!(text.contains("\nNo test image is of c2.\nAccuracy 0.600"), "{text}");
    let none = table(&evaluate(&names(2), &[], &[]));
    assert!(
        none.contains("There are no test images") && !none.contains("Accuracy"),
        "{none}"
    );
    assert_eq!(evaluate(&names(1), &[0], &[prediction(&[1.0])]).untested(), None);
}

#[test]
fn metrics_have_the_contract_s_keys_and_survive_a_file() {
    let mut metrics = Metrics::from(example());
    metrics.evaluation = metrics
        .evaluation
        .calibrated_by(&Calibration::Temperature { scale: 2.0 });
    assert_eq!(metrics.evaluation.calibration.method.as_deref(), Some("temperature"));
    metrics.chosen_c = Some(0.1);
    metrics.c_sweep = vec![SweepEntry {
        c: 0.1,
        cv_accuracy: 0.9,
        train_accuracy: 1.0,
        cv_class_averaged_accuracy: None,
    }];
    metrics.train_count = Some(20);
    let json = serde_json::to_value(&metrics).expect("JSON");
    let read: Metrics = serde_json::from_str(&json.to_string()).expect("metrics");
    assert_eq!(read, metrics);
    let keys: Vec<&str> = json
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = [
        "accuracy",
        "class_averaged_accuracy",
        "class_averaged_accuracy_interval",
        "accuracy_interval",
        "per_class",
        "auc_macro",
        "auc_micro",
        "confusion",
        "classes",
        "chosen_c",
        "c_sweep",
        "calibration",
        "train_count",
        "test_count",
        "seconds",
        "unknown",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    for (part, keys) in [
        (
            "/per_class/c0",
            &["accuracy", "precision", "recall", "f1", "auc", "support"][..],
        ),
        ("/c_sweep/0", &["c", "cv_accuracy", "train_accuracy"]),
        ("/calibration", &["method", "ece"]),
        ("/seconds", &["featurize", "svm", "evaluate", "refine"]),
    ] {
        let object = json.pointer(part).expect(part);
        assert!(keys.iter().all(|key| object.get(key).is_some()), "{part}: {object}");
    }
}

#[test]
fn the_table_names_every_class_and_count() {
    let text = table(&example());
    for part in ["c0", "c1", "c2", "precision", "0.667", "0.600", "95 %", "-"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_class_whose_name_has_a_line_break_is_one_row() {
    let classes = ["a\nb", "c"].map(str::to_owned);
    let text = table(&evaluate(&classes, &[1], &[prediction(&[0.1, 0.9])]));
    assert!(text.contains("a\\x0ab ") && text.contains("1 a\\x0ab "), "{text}");
    assert!(text.contains("No test image is of a\\x0ab."), "{text}");
    assert!(text.contains(") on 1 image;"), "{text}");
}

#[test]
fn many_classes_have_their_most_frequent_mistakes_in_place_of_a_matrix() {
    assert!(table(&example()).contains("Confusion (rows"));
    let answer = |class: usize| {
        let mut probabilities = vec![0.0; 41];
        probabilities[class] = 1.0;
        prediction(&probabilities)
    };
    let evaluation = evaluate(&names(41), &[0, 7, 7, 9, 9], &[0, 40, 40, 9, 3].map(answer));
    assert_eq!(evaluation.mistakes(), [(7, 40, 2), (9, 3, 1)]);
    let text = table(&evaluation);
    let lines = [
        "truth  prediction  images",
        "c7            c40       2",
        "c9             c3       1",
    ];
    let expected = format!("The most frequent mistakes\n{}\n\n", lines.join("\n"));
    assert!(text.contains(&expected) && !text.contains("Confusion"), "{text}");
    let text = table(&evaluate(&names(41), &[7], &[answer(7)]));
    assert!(
        text.contains("\n\nNo image was taken for one of another class.\n\n"),
        "{text}"
    );
    assert!(text.contains(" on 1 image; "), "{text}");
}

#[test]
fn answers_that_are_held_back_are_counted() {
    let mut predictions = [[0.8, 0.2], [0.45, 0.55], [0.9, 0.1]].map(|probabilities| prediction(&probabilities));
    assert_eq!(evaluate(&names(2), &[0, 0, 0], &predictions).held_back(), None);
    predictions[0].decision = Decision::Unknown;
    predictions[1].decision = Decision::Unknown;
    let evaluation = evaluate(&names(2), &[0, 0, 0], &predictions);
    assert_eq!(evaluation.unknown, Some(Unknown { count: 2, right: 1 }));
    let told = evaluation.held_back().expect("two are");
    assert!(told.contains("2 of 3") && told.contains("for 1 of them"), "{told}");
}

#[test]
fn columns_are_those_of_a_terminal() {
    let rows = [["class", "n"], ["日本", "1"], ["e\u{301}", "22"]].map(|row| row.map(str::to_owned).to_vec());
    assert_eq!(aligned(&rows), "class   n\n日本    1\ne\u{301}      22\n");
    assert_eq!(padded("👗", 4), "👗  ");
    assert_eq!(padded("longer", 4), "longer");
}
