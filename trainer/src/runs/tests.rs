use std::fs;

use serde_json::json;
use shared::bundle::{Backbone, ClassifierKind};

use super::*;
use crate::destination::{Claim, check_vacant};
use crate::evaluation::{Evaluation, Metrics, Predicted, Predictions};

/// A record of a run that ended at `created`.
pub(crate) fn record(id: &str, created: &str) -> Record {
    Record {
        schema_version: SCHEMA_VERSION,
        id: id.to_owned(),
        created: created.to_owned(),
        kind: Kind::Train,
        name: "textures".to_owned(),
        version: "0123456789abcdef".to_owned(),
        classifier: ClassifierKind::Svm,
        backbone: Backbone {
            name: "resnet18".to_owned(),
            sha256: "aa".repeat(32),
            licence: None,
        },
        resolution: 224,
        data: DataSummary {
            root: "/images".to_owned(),
            fingerprint: "bb".repeat(32),
            images: 4,
            left_out: 0,
            classes: Vec::new(),
        },
        program: "ikat trainer 0.1.0".to_owned(),
        notes: Vec::new(),
        files: BTreeMap::new(),
    }
}

/// Answers for images `0.jpg`, `1.jpg`, ... of two classes in turn; `right` tells which are right.
pub(crate) fn predictions(right: &[bool]) -> Predictions {
    let row = |(index, right): (usize, &bool)| {
        let truth = index % 2;
        let best = if *right { truth } else { 1 - truth };
        Predicted {
            path: format!("{index}.jpg").into(),
            truth,
            best,
            probabilities: if best == 0 { vec![0.75, 0.25] } else { vec![0.25, 0.75] },
            decision: None,
        }
    };
    Predictions {
        classes: vec!["dotted".to_owned(), "striped".to_owned()],
        rows: right.iter().enumerate().map(row).collect(),
    }
}

/// Writes a run.
pub(crate) fn save(folder: &Path, record: Record, right: &[bool], parameters: &serde_json::Value) {
    let predictions = predictions(right);
    let metrics = Metrics::from(Evaluation::new(&predictions));
    let files = BTreeMap::from([
        json(&metrics, folder, METRICS).expect("JSON"),
        (PREDICTIONS.to_owned(), predictions.to_csv().into()),
        json(parameters, folder, PARAMETERS).expect("JSON"),
        ("bundle/model.onnx".to_owned(), Bytes::from_static(b"network")),
    ]);
    write(folder, record, &files).expect("written");
}

#[test]
fn runs_are_found_by_identifier_beginning_and_folder() {
    let place = tempfile::tempdir().expect("a folder");
    let root = place.path();
    save(
        &root.join("runs/b"),
        record("20260102-000000-bbbbbb", "2026-01-02T00:00:00Z"),
        &[true; 4],
        &json!({}),
    );
    save(
        &root.join("a"),
        record("20260101-000000-aaaaaa", "2026-01-01T00:00:00Z"),
        &[true; 4],
        &json!({}),
    );
    save(
        &root.join(".hidden"),
        record("20260103-000000-cccccc", "2026-01-03T00:00:00Z"),
        &[true; 4],
        &json!({}),
    );
    save(
        &root.join("runs/too/deep"),
        record("20260104-000000-dddddd", "2026-01-04T00:00:00Z"),
        &[true; 4],
        &json!({}),
    );
    fs::create_dir(root.join("broken")).expect("a folder");
    fs::write(root.join("broken").join(RECORD), "{").expect("a file");

    let history = History::scan(root).expect("a history");
    let ids: Vec<_> = history.entries.iter().map(|entry| &entry.record.id[..]).collect();
    assert_eq!(ids, ["20260101-000000-aaaaaa", "20260102-000000-bbbbbb"]);
    assert_eq!(history.damaged.len(), 1);
    for name in [
        "20260102-000000-bbbbbb",
        "20260102",
        "b",
        &root.join("runs/b").display().to_string(),
    ] {
        assert_eq!(
            history.find(name).expect("found").record.id,
            "20260102-000000-bbbbbb",
            "{name}"
        );
    }
    let error = history.find("202601").expect_err("two runs").to_string();
    for folder in ["a", "runs/b"].map(|name| root.join(name).display().to_string()) {
        let named = history.find(&folder).expect("found").folder;
        assert!(error.contains(&folder) && named == Path::new(&folder), "{error}");
    }
    assert!(matches!(history.find("nothing"), Err(RunError::Unknown { .. })));
}

#[test]
fn of_many_runs_with_one_name_the_first_are_told() {
    let text = |count: usize| {
        let error = RunError::Ambiguous {
            name: "2026".to_owned(),
            candidates: (0..count).map(|number| format!("2026-{number}")).collect(),
        };
        error.to_string()
    };
    assert_eq!(text(2), "2026 could be any of 2026-0, 2026-1");
    assert!(text(10).ends_with(", 2026-9"), "{}", text(10));
    assert!(text(75).ends_with(", 2026-9 and 65 more"), "{}", text(75));
}

#[test]
fn a_run_is_never_overwritten_and_a_change_is_noticed() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("run");
    save(&folder, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
    assert!(matches!(
        write(&folder, record("2", "2026-01-01T00:00:00Z"), &BTreeMap::new()),
        Err(RunError::Destination(DestinationError::Occupied(_)))
    ));
    let entry = Entry::load(&folder).expect("a run");
    assert_eq!(entry.record.changed_files(&folder), Vec::<PathBuf>::new());
    fs::write(folder.join("bundle/model.onnx"), "another").expect("a change");
    assert_eq!(
        entry.record.changed_files(&folder),
        [PathBuf::from("bundle/model.onnx")]
    );
}

#[test]
fn a_file_of_a_run_that_cannot_be_read_is_named_once() {
    type Reading = fn(&Entry) -> Option<RunError>;
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("run");
    save(&folder, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
    let entry = Entry::load(&folder).expect("a run");
    let parts: [(&str, Reading); 3] = [
        (PREDICTIONS, |entry| entry.predictions().err()),
        (PARAMETERS, |entry| entry.parameters().err()),
        (METRICS, |entry| Entry::load(&entry.folder).err()),
    ];
    for (name, read) in parts {
        let path = folder.join(name);
        fs::write(&path, "{").expect("a change");
        let broken = read(&entry).expect("refused").to_string();
        fs::remove_file(&path).expect("removed");
        let gone = read(&entry).expect("refused").to_string();
        for said in [&broken, &gone] {
            assert_eq!(said.matches(name).count(), 1, "{said}");
        }
        let is_measured = name != PARAMETERS;
        assert_eq!(
            broken.ends_with("; evaluate again to write it anew"),
            is_measured,
            "{broken}"
        );
    }
}

#[test]
fn an_empty_folder_is_filled() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path();
    // As a program leaves it that was killed while it wrote.
    fs::create_dir(folder.join(".ikat-filling-0.tmp")).expect("a folder");
    let locks = tempfile::tempdir().expect("a folder");
    let _claim = Claim::acquire(folder, locks.path()).expect("free");
    save(folder, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
    let entry = Entry::load(folder).expect("a run");
    assert_eq!(entry.record.changed_files(folder), Vec::<PathBuf>::new());
    let names = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["bundle", METRICS, PARAMETERS, PREDICTIONS, RECORD]);
    fs::remove_file(folder.join(RECORD)).expect("removed");
    assert!(matches!(check_vacant(folder), Err(DestinationError::Occupied(_))));
}

#[cfg(unix)]
#[test]
fn a_link_to_an_empty_folder_is_one_that_keeps_its_permissions() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = tempfile::tempdir().expect("a folder");
    let (real, link) = (place.path().join("real"), place.path().join("link"));
    symlink(&real, &link).expect("a link");
    assert!(
        matches!(check_vacant(&link), Err(DestinationError::File(_))),
        "it leads nowhere"
    );
    fs::create_dir(&real).expect("a folder");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).expect("a mode");
    save(&link, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
    assert!(Entry::load(&real).is_ok());
    let mode = fs::metadata(&real).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[cfg(unix)]
#[test]
fn a_run_may_be_read_by_whom_the_umask_leaves() {
    use std::os::unix::fs::PermissionsExt;
    const AGAIN: &str = "IKAT_TEST_UMASK";
    let place = tempfile::tempdir().expect("a folder");
    let (ours, ordinary) = (place.path().join("ours"), place.path().join("ordinary"));
    save(&ours, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
    fs::create_dir(&ordinary).expect("a folder");
    let mode = |path: &Path| fs::metadata(path).expect("a folder").permissions().mode();
    assert_eq!(mode(&ours), mode(&ordinary));
    // The umask belongs to the process: once more in one that has another.
    if std::env::var_os(AGAIN).is_none() {
        let output = std::process::Command::new("sh")
            .args(["-c", "umask 027; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().expect("this test"))
            .args(["--exact", "runs::tests::a_run_may_be_read_by_whom_the_umask_leaves"])
            .env(AGAIN, "1")
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_as_it_would_be() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("run");
    let files = ["a", "a/b"].map(|name| (name.to_owned(), Bytes::new()));
    let written = write(&folder, record("1", "2026-01-01T00:00:00Z"), &BTreeMap::from(files));
    let error = written.expect_err("a file is no folder").to_string();
    assert!(error.starts_with(&folder.join("a/b").display().to_string()), "{error}");
    assert!(!error.contains(".ikat-") && !folder.exists(), "{error}");
}

#[test]
fn deleting_takes_the_runs_own_files_alone() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("run");
    save(&folder, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
    fs::write(folder.join("notes.txt"), "mine").expect("a note");
    let left = Entry::load(&folder).expect("a run").delete().expect("deleted");
    assert_eq!(left, [folder.join("notes.txt")]);
    fs::remove_file(&left[0]).expect("removed");
    fs::remove_dir(&folder).expect("empty now");

    save(&folder, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
    assert!(
        Entry::load(&folder)
            .expect("a run")
            .delete()
            .expect("deleted")
            .is_empty()
    );
    assert!(!folder.exists());
}

#[test]
fn a_comparison_names_what_differs_and_tests_common_images() {
    let place = tempfile::tempdir().expect("a folder");
    let (a, b) = (place.path().join("a"), place.path().join("b"));
    let mut right = [true; 20];
    save(
        &a,
        record("1", "2026-01-01T00:00:00Z"),
        &right,
        &json!({ "svm": { "folds": 5 }, "seed": 1 }),
    );
    right[..10].fill(false);
    let other = Record {
        resolution: 448,
        ..record("2", "2026-01-02T00:00:00Z")
    };
    save(&b, other, &right, &json!({ "svm": { "folds": 3 }, "seed": 1 }));
    let entries = [Entry::load(&a).expect("a run"), Entry::load(&b).expect("a run")];
    let comparison = Comparison::new(&entries).expect("comparable");
    let names: Vec<_> = comparison
        .differences
        .iter()
        .map(|difference| &difference.parameter[..])
        .collect();
    assert_eq!(names, ["resolution", "svm.folds"]);
    let [pair] = &comparison.paired[..] else {
        panic!("one pair")
    };
    assert_eq!(
        (pair.test.images, pair.test.only_first, pair.test.only_second),
        (20, 10, 0)
    );
    assert_eq!(pair.verdict("a", "b"), "a is better");
    assert!((pair.test.p_value - 2.0 / 1024.0).abs() < 1e-15);
    assert!((pair.corrected_p_value - pair.test.p_value).abs() < 1e-15);
}

#[test]
fn what_a_comparison_takes_for_granted_is_told() {
    let place = tempfile::tempdir().expect("a folder");
    let entry = |name: &str, images: &str| {
        let folder = place.path().join(name);
        let mut record = record(name, "2026-01-01T00:00:00Z");
        record.data.fingerprint = images.repeat(32);
        save(&folder, record, &[true; 4], &json!({}));
        Entry::load(&folder).expect("a run")
    };
    let entries = [entry("1", "aa"), entry("2", "aa"), entry("3", "bb")];
    let same = Comparison::new(&entries[..2]).expect("comparable");
    assert_eq!((same.paired.len(), same.caveats.len()), (1, 0));
    let mut others = entries[1..].to_vec();
    others[1].record.kind = Kind::Evaluate;
    others[1].record.notes = vec!["3 of these 4 images were trained on.".to_owned()];
    let others = Comparison::new(&others).expect("comparable");
    assert_eq!(others.paired[0].test.images, 4);
    assert!(
        others.caveats[0].contains("same path and class"),
        "{:?}",
        others.caveats
    );
    assert_eq!(others.caveats[1..], ["3: 3 of these 4 images were trained on."]);
    let page = crate::report::comparison(&others, &[], &[]).expect("a page");
    assert!(others.caveats.iter().all(|caveat| page.contains(caveat)), "{page}");
}

#[test]
fn p_values_are_corrected_for_all_pairs_shown_or_not() {
    let place = tempfile::tempdir().expect("a folder");
    let entry = |number: usize, wrong: usize| {
        let folder = place.path().join(number.to_string());
        let mut right = [true; 20];
        right[..wrong].fill(false);
        let record = record(&number.to_string(), "2026-01-01T00:00:00Z");
        save(&folder, record, &right, &json!({}));
        Entry::load(&folder).expect("a run")
    };
    // Six images tell the last from the others: p = 2/64, which does not outlast three tests.
    let few: Vec<Entry> = [6, 6, 0]
        .into_iter()
        .enumerate()
        .map(|(n, wrong)| entry(n, wrong))
        .collect();
    let comparison = Comparison::new(&few).expect("comparable");
    assert_eq!((comparison.paired.len(), comparison.tests), (3, 3));
    let page = crate::report::comparison(&comparison, &[], &[]).expect("a page");
    assert!(page.contains("for all 3 pairs of these runs that have"), "{page}");
    let two = Comparison::new(&few[..2]).expect("comparable");
    let page = crate::report::comparison(&two, &[], &[]).expect("a page");
    assert!(!page.contains("corrected"), "one test needs no correction: {page}");
    let pair = &comparison.paired[1];
    assert!((pair.test.p_value - 0.031_25).abs() < 1e-12 && (pair.corrected_p_value - 0.093_75).abs() < 1e-12);
    assert_eq!(pair.verdict("a", "b"), "cannot be told apart on these images");

    let many: Vec<Entry> = (10..17).map(|n| entry(n, if n == 12 { 0 } else { 6 })).collect();
    let comparison = Comparison::new(&many).expect("comparable");
    assert_eq!((comparison.paired.len(), comparison.tests), (6, 21));
    assert!(comparison.paired.iter().all(|pair| pair.first == 2 || pair.second == 2));
    let pair = &comparison.paired[0];
    assert!((pair.corrected_p_value - 21.0 * 0.031_25).abs() < 1e-12, "{pair:?}");
}

#[test]
fn a_record_that_leads_out_of_its_folder_is_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let mut evil = record("1", "2026-01-01T00:00:00Z");
    let entry = shared::bundle::FileEntry::of(b"");
    evil.files = BTreeMap::from([("../../precious".to_owned(), entry)]);
    fs::write(place.path().join(RECORD), serde_json::to_vec(&evil).expect("JSON")).expect("a file");
    assert!(matches!(Record::load(place.path()), Err(RunError::Unreadable { .. })));
}
