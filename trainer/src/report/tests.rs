use serde_json::json;
use shared::explain::ActivationMap;

use super::*;
use crate::evaluation::{Evaluation, Predicted};
use crate::runs::ClassCount;
use crate::svm::SweepEntry;

const NASTY: &str = "</script><img src=x onerror=alert(1)>&\"'\n😀";

/// A report on `images` images of `classes` classes whose names hold markup.
pub(crate) fn rendered(images: usize, classes: usize) -> String {
    let labels: Vec<String> = (0..classes).map(|class| format!("{NASTY}{class}")).collect();
    let rows = (0..images).map(|image| {
        let (truth, best) = (image % classes, (image + image / 5) % classes);
        let mut probabilities = vec![0.5 / classes as f32; classes];
        probabilities[best] += 0.5;
        Predicted {
            path: format!("{NASTY}/{image}.jpg").into(),
            truth,
            best,
            probabilities,
        }
    });
    let predictions = Predictions {
        classes: labels.clone(),
        rows: rows.collect(),
    };
    let metrics = Metrics::from(Evaluation::new(&predictions));
    let mut record = crate::runs::tests::record("20260101-000000-aaaaaa", "2026-01-01T00:00:00Z");
    record.name = NASTY.to_owned();
    record.data.classes = labels
        .into_iter()
        .map(|label| ClassCount {
            label,
            train: 1,
            test: 1,
        })
        .collect();
    let shown = (0..images).map(|row| Shown {
        row,
        thumbnail: vec![0xff, 0xd8],
        width: 3,
        height: 2,
        map: Some(ActivationMap {
            width: 2,
            height: 1,
            values: vec![1.0, 0.5],
        }),
    });
    let gallery = Gallery {
        images: shown.collect(),
    };
    let report = Report {
        record: &record,
        metrics: &metrics,
        predictions: &predictions,
        history: &[],
        parameters: &json!({ "name": NASTY }),
        skipped: &[Skipped {
            path: NASTY.into(),
            reason: NASTY.to_owned(),
        }],
        gallery: &gallery,
    };
    let files = report.files().expect("drawn");
    String::from_utf8(files[PAGE].to_vec()).expect("text")
}

#[test]
fn labels_and_names_are_text_wherever_they_stand() {
    let page = rendered(30, 3);
    assert!(!page.contains("<img src=x"), "markup from a label");
    assert_eq!(page.matches("</script>").count(), 2, "the page's own scripts alone");
    assert!(page.contains("&#60;img src=x") || page.contains("&lt;img src=x"));
    assert!(page.contains("\\u003cimg src=x"));
}

#[test]
fn nothing_is_asked_of_the_network() {
    let page = rendered(8, 2);
    let outside = ["src=\"http", "href=\"http", "url(", "@import"];
    assert!(outside.iter().all(|reference| !page.contains(reference)));
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn many_classes_and_no_images_are_reports_too() {
    let page = rendered(400, 100);
    assert!(page.contains("The most frequent mistakes"));
    let empty = rendered(0, 2);
    assert!(empty.contains("no test image") && !empty.contains("id=\"grid\""));
}

#[test]
fn a_shortened_label_says_so() {
    assert_eq!(chart::shortened("plain"), "plain");
    let short = chart::shortened(&"x".repeat(40));
    assert!(short.ends_with('…') && short.chars().count() == 22);
}

#[test]
fn the_choice_of_c_is_drawn_by_what_it_was_chosen_by() {
    let metrics = |class_averaged: Option<f64>| {
        let nothing = Predictions {
            classes: vec!["a".to_owned(), "b".to_owned()],
            rows: Vec::new(),
        };
        let entry = |c: f64| SweepEntry {
            c,
            cv_accuracy: 0.9,
            train_accuracy: 1.0,
            cv_class_averaged_accuracy: class_averaged,
        };
        Metrics {
            c_sweep: vec![entry(0.1), entry(1.0)],
            ..Metrics::from(Evaluation::new(&nothing))
        }
    };
    let caption = |metrics: &Metrics| plots::c_sweep(metrics).expect("drawn").expect("two points").caption;
    assert!(caption(&metrics(Some(0.7))).contains("every class counting the same"));
    assert!(!caption(&metrics(None)).contains("every class"));
}
