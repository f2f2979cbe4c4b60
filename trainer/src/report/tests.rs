use serde_json::json;
use shared::explain::ActivationMap;
use shared::image::Limits;

use super::chart::Line;
use super::*;
use crate::audit::{Audit, Doubt, Labelled};
use crate::evaluation::{Evaluation, Predicted};
use crate::runs::{ClassCount, Compared, Comparison};
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
            decision: None,
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
fn numbers_and_words_agree() {
    let page = rendered(1, 2);
    assert!(page.contains("<summary>1 file left out</summary>"), "{page}");
    assert!(page.contains("1 test image leaves the accuracy"), "{page}");
    assert!(rendered(30, 2).contains("30 test images leave the accuracy"));
}

#[test]
fn the_accuracy_is_as_uncertain_as_its_interval_is_long_on_either_side() {
    let page = rendered(4, 2);
    assert!(page.contains("95 % interval 51.0 to 100.0 %"), "{page}");
    assert!(page.contains("uncertain by up to 49.0 points"), "{page}");
}

#[test]
fn surer_answers_are_not_said_to_be_right_more_often() {
    // All are equally sure, and some wrong.
    let page = rendered(30, 3);
    assert!(page.contains("where all that are less sure are held back"), "{page}");
    assert!(!page.contains("the more of the answers are right"), "{page}");
}

#[test]
fn what_to_do_next_is_told_where_there_is_something() {
    let page = rendered(30, 3);
    assert!(
        page.contains("<h2>What to do next</h2>") && page.contains("<li>Add photos of "),
        "{page}"
    );
}

/// The page's script finds by them what it listens to.
#[test]
fn identifiers_stand_once_in_a_page() {
    let page = rendered(30, 3);
    let mut seen = std::collections::HashSet::new();
    for part in page.split(" id=\"").skip(1) {
        let (id, _) = part.split_once('"').expect("an end");
        assert!(seen.insert(id), "{id} stands twice");
    }
    assert!(seen.contains("advice") && seen.contains("next"), "{seen:?}");
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
    assert!(rendered(4, 100).contains("No image was taken for one of another class."));
    let (_, data) = page.split_once("id=\"data\">").expect("images");
    let (data, _) = data.split_once("</script>").expect("an end");
    let data: Value = serde_json::from_str(data).expect("JSON");
    let scores = data["images"][7]["scores"].as_array().expect("scores");
    assert_eq!((scores.len(), &scores[0][0]), (20, &json!(8)), "the answer first");
    let empty = rendered(0, 2);
    assert!(empty.contains("no test image") && !empty.contains("id=\"grid\""));
    assert!(
        page.contains("href=\"#curves\"") && !empty.contains("curves"),
        "no empty plot"
    );
}

#[test]
fn a_shortened_label_says_so() {
    assert_eq!(chart::shortened("plain"), "plain");
    let short = chart::shortened(&"x".repeat(40));
    assert!(short.contains('…') && short.chars().count() == 22);
    let wide = chart::shortened(&"類".repeat(40));
    assert!(wide.contains('…') && wide.chars().count() < 12);
}

#[test]
fn long_names_keep_their_areas_and_their_ends_in_a_legend() {
    let labels = ["a", "b"].map(|end| format!("{}{end}", "x".repeat(40)));
    let row = |truth: usize| Predicted {
        path: format!("{truth}.jpg").into(),
        truth,
        best: truth,
        probabilities: (0..2).map(|class| if class == truth { 0.9 } else { 0.1 }).collect(),
        decision: None,
    };
    let predictions = Predictions {
        classes: labels.to_vec(),
        rows: (0..2).map(row).collect(),
    };
    let svg = plots::roc(&predictions, &Evaluation::new(&predictions))
        .expect("drawn")
        .svg;
    assert!(svg.contains("xa 1.000") && svg.contains("xb 1.000"), "{svg}");
    let runs = [1, 2].map(|seed| {
        Line::new(
            format!("efficientnet-lite0-448-svm-refined-seed{seed}"),
            vec![(0.0, 0.0), (1.0, 1.0)],
        )
    });
    let svg = plots::roc_chart("Runs", runs.into()).draw().expect("drawn");
    assert!(svg.contains("refined-seed1") && svg.contains("refined-seed2"), "{svg}");
}

#[test]
fn a_curve_of_many_points_is_a_small_file() {
    let shares = (0..=100_000).map(|step| f64::from(step) / 1e5);
    let curve = Line::new("curve", shares.map(|share| (share, share.sqrt())).collect());
    let svg = plots::roc_chart("Curve", vec![curve]).draw().expect("drawn");
    assert!(svg.len() < 50_000, "{} bytes", svg.len());
}

#[test]
fn a_matrix_of_many_classes_is_a_small_file() {
    let classes = 500;
    let labels: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let counts: Vec<Vec<usize>> = (0..classes)
        .map(|row| (0..classes).map(|column| usize::from(row == column)).collect())
        .collect();
    let svg = chart::matrix("Confusion", &labels, &counts).expect("drawn");
    assert!(svg.len() < 1_000_000, "{} bytes", svg.len());
}

#[test]
fn the_page_of_an_audit_tells_what_its_text_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let doubt = |number: usize| Doubt {
        path: format!("train/{number}.jpg"),
        label: "train".to_owned(),
        suggested: NASTY.to_owned(),
        suspicion: 1.0,
    };
    let labelled = |path: &str, label: &str| Labelled {
        path: path.to_owned(),
        label: label.to_owned(),
    };
    let audit = Audit {
        images: 200,
        classes: Vec::new(),
        note: Some(format!("The folders look like parts of a data set. {NASTY}")),
        wrong_extensions: Vec::new(),
        tiny: Vec::new(),
        leakage: None,
        conflicts: vec![vec![labelled("hat/1.jpg", "hat"), labelled("shoes/2.jpg", NASTY)]],
        labels: (0..200).map(doubt).collect(),
        odd: Vec::new(),
    };
    let page = audit_page(&audit, &[], folder.path(), None, Limits::default()).expect("drawn");
    assert!(page.contains("The folders look like parts of a data set."));
    assert!(page.contains("Images that stand in more than one class (1)") && page.contains("hat/1.jpg, shoes/2.jpg"));
    assert!(page.contains("Doubtful labels (200)") && page.contains("The first 120 are shown."));
    assert!(page.contains("Classes that are confused (1)") && page.contains("<td>200 images</td>"));
    assert!(!page.contains("<img src=x"), "markup from a label");
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

#[test]
fn a_comparison_draws_the_classes_that_were_tested_and_says_how_many() {
    // Of so many classes, with an image of each of these.
    let page = |classes: usize, tested: &[usize]| {
        let row = |truth: &usize| Predicted {
            path: format!("{truth}.jpg").into(),
            truth: *truth,
            best: *truth,
            probabilities: (0..classes).map(|class| f32::from(u8::from(class == *truth))).collect(),
            decision: None,
        };
        let predictions = Predictions {
            classes: (0..classes).map(|class| format!("class {class:02}")).collect(),
            rows: tested.iter().map(row).collect(),
        };
        let runs = vec![Compared {
            id: "id".to_owned(),
            folder: "run".to_owned(),
            name: "run".to_owned(),
            metrics: Metrics::from(Evaluation::new(&predictions)),
            predictions,
        }];
        let compared = Comparison {
            runs,
            differences: Vec::new(),
            paired: Vec::new(),
            tests: 0,
            caveats: Vec::new(),
        };
        comparison(&compared, &[], &["old (other images)".to_owned()]).expect("drawn")
    };
    let all: Vec<usize> = (0..13).collect();
    assert!(page(13, &all).contains("Of 13 classes, the first 12 by name have a plot."));
    assert!(!page(13, &all[1..]).contains("by name have a plot"));
    let last = page(13, &[11, 12]);
    assert!(last.contains("<h3>class 12</h3>") && !last.contains("by name have a plot"));
    let none = page(13, &[]);
    assert!(none.contains("Not compared, though in the same folder: old (other images)."));
    assert!(
        last.contains("ROC curves") && !none.contains("ROC curves"),
        "no empty section"
    );
}
