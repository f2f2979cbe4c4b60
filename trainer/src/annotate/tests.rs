use std::fs;
use std::path::Path;

use super::desk::{Desk, DeskError, Query, Sort};
use super::server::hosts;
use crate::audit::Doubt;
use crate::dataset::DatasetError;

fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for path in ["a/1.jpg", "a/2.jpg", "a/sub/3.jpg", "b/1.jpg"] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, path.display().to_string()).expect("a file");
    }
    folder
}

fn open(folder: &Path) -> Desk {
    Desk::open(folder, Vec::new()).expect("a desk")
}

fn paths(desk: &Desk, excluded: bool) -> Vec<String> {
    let query = Query {
        excluded,
        limit: 100,
        ..Query::default()
    };
    desk.page(&query).images.into_iter().map(|image| image.path).collect()
}

fn revision(desk: &Desk) -> u64 {
    desk.page(&Query::default()).revision
}

#[test]
fn a_relabel_moves_the_file_and_never_over_another() {
    let folder = data();
    let mut desk = open(folder.path());
    let reply = desk
        .relabel(&["a/1.jpg".to_owned(), "a/sub/3.jpg".to_owned()], "b")
        .expect("moved");
    assert_eq!(reply.moved.len(), 2);
    assert_eq!(paths(&desk, false), ["a/2.jpg", "b/1-2.jpg", "b/1.jpg", "b/sub/3.jpg"]);
    let moved = fs::read_to_string(folder.path().join("b/1-2.jpg")).expect("there");
    assert!(moved.ends_with("a/1.jpg"));
    assert!(!folder.path().join("a/sub").exists(), "an empty folder goes");
    let page = desk.page(&Query::default());
    let counts: Vec<_> = page
        .classes
        .iter()
        .map(|class| (&class.label[..], class.count))
        .collect();
    assert_eq!(counts, [("a", 1), ("b", 3)]);
}

#[test]
fn what_is_not_on_the_desk_is_told() {
    let folder = data();
    fs::write(folder.path().join("loose.jpg"), "no label").expect("a file");
    let mut desk = open(folder.path());
    desk.exclude(&["b/1.jpg".to_owned()]).expect("excluded");
    desk.undo(revision(&desk)).expect("undone");
    drop(desk);
    // The folder that the excluded image was in is of no interest.
    let desk = open(folder.path());
    let left_out: Vec<_> = desk.left_out().iter().map(|left| left.path.as_path()).collect();
    assert_eq!(left_out, [Path::new("loose.jpg")]);
}

#[test]
fn every_step_can_be_undone_and_redone_also_after_a_restart() {
    let folder = data();
    let before = paths(&open(folder.path()), false);
    let mut desk = open_again(folder.path(), |_| {});
    desk.relabel(&["a/1.jpg".to_owned()], "new").expect("moved");
    desk.exclude(&["b/1.jpg".to_owned()]).expect("moved");
    let after = paths(&desk, false);
    assert_eq!(paths(&desk, true), [".ikat/excluded/b/1.jpg"]);
    drop(desk);

    let mut desk = open(folder.path());
    for _ in 0..2 {
        let now = revision(&desk);
        desk.undo(now).expect("undone");
    }
    assert_eq!(paths(&desk, false), before);
    let now = revision(&desk);
    assert!(matches!(desk.undo(now), Err(DeskError::NoStep(_))));
    drop(desk);

    let mut desk = open(folder.path());
    for _ in 0..2 {
        let now = revision(&desk);
        desk.redo(now).expect("redone");
    }
    assert_eq!(paths(&desk, false), after);
    let now = revision(&desk);
    assert!(matches!(desk.redo(now), Err(DeskError::NoStep(_))));
}

/// Opens the desk after `change` to the files.
fn open_again(folder: &Path, change: impl Fn(&Path)) -> Desk {
    change(folder);
    open(folder)
}

#[test]
fn an_excluded_image_comes_back_by_a_label() {
    let folder = data();
    let mut desk = open(folder.path());
    desk.exclude(&["a/sub/3.jpg".to_owned()]).expect("moved");
    desk.relabel(&[".ikat/excluded/a/sub/3.jpg".to_owned()], "b")
        .expect("moved");
    assert_eq!(paths(&desk, false), ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/sub/3.jpg"]);
}

#[test]
fn no_step_makes_labels_that_differ_by_case_alone() {
    let folder = data();
    let mut desk = open(folder.path());
    desk.exclude(&["a/1.jpg".to_owned()]).expect("moved");
    drop(desk);
    let mut desk = open_again(folder.path(), |folder| {
        fs::rename(folder.join("a"), folder.join("A")).expect("renamed");
    });
    let excluded = desk.exclude(&["A/2.jpg".to_owned()]).expect("told");
    let now = revision(&desk);
    let undone = desk.undo(now).expect("told");
    for (reply, reason) in [
        (excluded, "which excluded images have"),
        (undone, "differ only in upper"),
    ] {
        assert!(reply.moved.is_empty(), "{reply:?}");
        assert!(reply.conflicts[0].reason.contains(reason), "{reply:?}");
    }
    drop(desk);
    assert_eq!(
        paths(&open(folder.path()), false),
        ["A/2.jpg", "A/sub/3.jpg", "b/1.jpg"]
    );
}

#[test]
fn a_step_that_a_kill_left_half_done_is_carried_out() {
    let folder = data();
    let journal = folder.path().join(".ikat/annotations.jsonl");
    let mut desk = open(folder.path());
    desk.relabel(&["a/1.jpg".to_owned(), "a/2.jpg".to_owned()], "c")
        .expect("moved");
    let expected = paths(&desk, false);
    drop(desk);
    // The first move was cut off between its two names, the second did not happen, and the line that settles was begun.
    fs::hard_link(folder.path().join("c/1.jpg"), folder.path().join("a/1.jpg")).expect("both");
    fs::rename(folder.path().join("c/2.jpg"), folder.path().join("a/2.jpg")).expect("back");
    let text = fs::read_to_string(&journal).expect("a journal");
    let begun = text.strip_suffix("tled\"\n").expect("a settled step");
    fs::write(&journal, begun).expect("written");
    let mut desk = open(folder.path());
    assert_eq!(paths(&desk, false), expected);
    assert_eq!(desk.completed().len(), 2);
    let now = revision(&desk);
    desk.undo(now).expect("undone");
    assert_eq!(paths(&desk, false), ["a/1.jpg", "a/2.jpg", "a/sub/3.jpg", "b/1.jpg"]);
}

#[cfg(unix)]
#[test]
fn a_journal_that_leads_out_of_the_data_set_is_refused() {
    let (folder, victim) = (data(), tempfile::tempdir().expect("a folder"));
    let secret = victim.path().join("id_rsa");
    fs::write(&secret, "key").expect("a file");
    let journal = folder.path().join(".ikat/annotations.jsonl");
    fs::create_dir(folder.path().join(".ikat")).expect("a folder");
    std::os::unix::fs::symlink(victim.path(), folder.path().join("evil")).expect("a link");
    let outside = secret.display().to_string();
    for (from, to) in [
        (&outside[..], "a/x.jpg"),
        ("a/1.jpg", &outside[..]),
        ("../id_rsa", "a/x.jpg"),
        ("a/1.jpg", "a/../../x.jpg"),
        ("a/1.jpg", ".ikat/lock-2"),
        ("a/1.jpg", "evil/.bash_aliases"),
    ] {
        let line = serde_json::json!({ "done": [{ "from": from, "to": to }] });
        fs::write(&journal, format!("{{\"done\":[]}}\n{line}\n")).expect("written");
        let refused = Desk::open(folder.path(), Vec::new())
            .err()
            .expect("refused")
            .to_string();
        assert!(
            refused.contains("annotations.jsonl") && refused.contains("line 2"),
            "{refused}"
        );
        assert!(secret.exists() && folder.path().join("a/1.jpg").exists(), "{from} {to}");
    }
    // By their names these are images; the link is seen before anything moves.
    for (from, to) in [("evil/id_rsa", "a/x.jpg"), ("a/1.jpg", "evil/x.jpg")] {
        let line = serde_json::json!({ "done": [{ "from": from, "to": to }] });
        fs::write(&journal, format!("{line}\n")).expect("written");
        let mut desk = open(folder.path());
        assert!(desk.completed().is_empty());
        let now = revision(&desk);
        let reply = desk.undo(now).expect("a reply");
        assert_eq!((reply.moved.len(), reply.conflicts.len()), (0, 1), "{from} {to}");
        assert!(secret.exists() && folder.path().join("a/1.jpg").exists(), "{from} {to}");
    }
}

#[cfg(unix)]
#[test]
fn a_class_folder_that_became_a_link_locks_nobody_out() {
    let (folder, disk) = (data(), tempfile::tempdir().expect("a folder"));
    let mut desk = open(folder.path());
    desk.exclude(&["a/2.jpg".to_owned()]).expect("moved");
    desk.relabel(&["a/1.jpg".to_owned()], "b").expect("moved");
    drop(desk);
    fs::rename(folder.path().join("b"), disk.path().join("b")).expect("moved");
    std::os::unix::fs::symlink(disk.path().join("b"), folder.path().join("b")).expect("a link");
    let mut desk = open(folder.path());
    assert_eq!(paths(&desk, false), ["a/sub/3.jpg", "b/1-2.jpg", "b/1.jpg"]);
    let now = revision(&desk);
    let reply = desk.undo(now).expect("a reply");
    assert_eq!((reply.moved.len(), reply.conflicts.len()), (0, 1));
    assert!(disk.path().join("b/1-2.jpg").exists());
    drop(desk);
    // The step before it is not hidden, and it is no step to redo.
    let mut desk = open(folder.path());
    assert!(!desk.page(&Query::default()).can_redo);
    let now = revision(&desk);
    assert_eq!(desk.undo(now).expect("undone").moved.len(), 1);
    assert!(folder.path().join("a/2.jpg").exists());
    assert!(!desk.page(&Query::default()).can_undo);
}

#[cfg(unix)]
#[test]
fn a_relative_link_comes_back_as_it_was() {
    let folder = data();
    let link = folder.path().join("a/link.jpg");
    std::os::unix::fs::symlink("sub/3.jpg", &link).expect("a link");
    let mut desk = open(folder.path());
    desk.relabel(&["a/link.jpg".to_owned()], "b").expect("moved");
    let there = fs::read_link(folder.path().join("b/link.jpg")).expect("a link");
    assert_eq!(there, Path::new("../a/sub/3.jpg"));
    let now = revision(&desk);
    desk.undo(now).expect("undone");
    assert_eq!(fs::read_link(link).expect("a link"), Path::new("sub/3.jpg"));
}

#[cfg(unix)]
#[test]
fn a_picture_behind_a_link_stays_where_it_is() {
    let (folder, elsewhere) = (data(), tempfile::tempdir().expect("a folder"));
    fs::write(elsewhere.path().join("1.jpg"), "one").expect("a file");
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("linked")).expect("a link");
    let mut desk = open(folder.path());
    for (path, label) in [("linked/1.jpg", "b"), ("a/1.jpg", "linked")] {
        let reply = desk.relabel(&[path.to_owned()], label).expect("a reply");
        assert_eq!((reply.moved.len(), reply.conflicts.len()), (0, 1), "{path}");
    }
    assert!(elsewhere.path().join("1.jpg").exists() && folder.path().join("a/1.jpg").exists());
    drop(desk);
    assert!(!open(folder.path()).page(&Query::default()).can_undo);
}

/// Undoes by hand what a step did, and puts other files where it found its own.
fn by_hand(folder: &Path) {
    let at = |path: &str| folder.join(path);
    fs::rename(at("c/1.jpg"), at("a/1.jpg")).expect("moved back");
    fs::copy(at("c/2.jpg"), at("a/2.jpg")).expect("copied");
    fs::rename(at("c/3.jpg"), at("b/3.jpg")).expect("moved on");
    fs::write(at("a/3.jpg"), "another").expect("a file");
}

#[test]
fn a_step_that_was_carried_out_is_not_made_again() {
    let folder = data();
    fs::write(folder.path().join("a/3.jpg"), "three").expect("a file");
    let mut desk = open(folder.path());
    let moved = ["a/1.jpg", "a/2.jpg", "a/3.jpg"].map(str::to_owned);
    desk.relabel(&moved, "c").expect("moved");
    drop(desk);
    by_hand(folder.path());
    for _ in 0..2 {
        let desk = open(folder.path());
        assert!(desk.completed().is_empty());
        let expected = [
            "a/1.jpg",
            "a/2.jpg",
            "a/3.jpg",
            "a/sub/3.jpg",
            "b/1.jpg",
            "b/3.jpg",
            "c/2.jpg",
        ];
        assert_eq!(paths(&desk, false), expected);
    }
}

#[test]
fn a_label_that_differs_by_case_alone_is_refused() {
    let folder = data();
    let mut desk = open(folder.path());
    let clash = |refused: Result<(), DeskError>| {
        assert!(matches!(
            refused,
            Err(DeskError::Dataset(DatasetError::CaseClash { .. }))
        ));
    };
    clash(desk.relabel(&["a/1.jpg".to_owned()], "B").map(drop));
    clash(desk.add_class("A"));
    desk.exclude(&["b/1.jpg".to_owned()]).expect("moved");
    drop(desk);
    let mut desk = open(folder.path());
    let refused = desk.add_class("B");
    assert!(matches!(refused, Err(DeskError::ExcludedClash { .. })), "{refused:?}");
    desk.relabel(&["a/1.jpg".to_owned()], "b").expect("the very label");
}

#[test]
fn the_case_of_a_class_is_corrected_by_way_of_another() {
    let folder = data();
    let mut desk = open(folder.path());
    let labels = |desk: &Desk| -> Vec<String> {
        let classes = desk.page(&Query::default()).classes;
        classes.into_iter().map(|class| class.label).collect()
    };
    desk.relabel(&["b/1.jpg".to_owned()], "other").expect("moved");
    desk.relabel(&["other/1.jpg".to_owned()], "B").expect("moved");
    assert_eq!(labels(&desk), ["B", "a", "other"]);
    for _ in 0..2 {
        let now = revision(&desk);
        desk.undo(now).expect("undone");
    }
    assert_eq!(labels(&desk), ["a", "b", "other"]);
    assert!(folder.path().join("b/1.jpg").exists());
}

#[test]
fn the_last_image_can_be_excluded_and_comes_back() {
    let folder = data();
    let mut desk = open(folder.path());
    let all = paths(&desk, false);
    desk.exclude(&all).expect("moved");
    drop(desk);
    let mut desk = open(folder.path());
    assert_eq!((paths(&desk, false).len(), paths(&desk, true).len()), (0, 4));
    let now = revision(&desk);
    desk.undo(now).expect("undone");
    assert_eq!(paths(&desk, false), all);
    let empty = tempfile::tempdir().expect("a folder");
    assert!(Desk::open(empty.path(), Vec::new()).is_err());
    assert!(!empty.path().join(".ikat").exists(), "a wrong path becomes no data set");
}

#[test]
fn two_windows_do_not_lose_an_edit() {
    let folder = data();
    let mut desk = open(folder.path());
    let seen = revision(&desk);
    desk.relabel(&["a/1.jpg".to_owned()], "b").expect("the first window");
    let reply = desk
        .relabel(&["a/1.jpg".to_owned(), "a/2.jpg".to_owned()], "c")
        .expect("the second window");
    assert_eq!((reply.moved.len(), reply.conflicts.len()), (1, 1));
    assert!(matches!(desk.undo(seen), Err(DeskError::Stale)));
    assert!(folder.path().join("b/1-2.jpg").exists());
}

#[test]
fn a_file_deleted_underneath_is_told_and_no_step() {
    let folder = data();
    let mut desk = open(folder.path());
    fs::remove_file(folder.path().join("a/1.jpg")).expect("deleted");
    let reply = desk.relabel(&["a/1.jpg".to_owned()], "b").expect("a reply");
    assert_eq!((reply.moved.len(), reply.conflicts.len()), (0, 1));
    assert!(!desk.page(&Query::default()).can_undo);
    assert_eq!(paths(&desk, false), ["a/2.jpg", "a/sub/3.jpg", "b/1.jpg"]);
}

#[test]
fn a_class_that_is_emptied_leaves_no_list_in_its_place() {
    let folder = data();
    fs::write(folder.path().join("metadata.csv"), "path,label\na/1.jpg,other\n").expect("a list");
    let mut desk = open(folder.path());
    desk.relabel(&["b/1.jpg".to_owned()], "a").expect("moved");
    drop(desk);
    let mut desk = open(folder.path());
    assert_eq!(paths(&desk, false), ["a/1-2.jpg", "a/1.jpg", "a/2.jpg", "a/sub/3.jpg"]);
    let now = revision(&desk);
    assert_eq!(desk.undo(now).expect("undone").moved.len(), 1);
}

#[test]
fn labels_and_paths_that_lead_elsewhere_are_refused() {
    let folder = data();
    let mut desk = open(folder.path());
    for label in ["../x", "", ".ikat", "a/b", "a\0"] {
        assert!(
            matches!(desk.relabel(&["a/1.jpg".to_owned()], label), Err(DeskError::Label(_))),
            "{label:?}"
        );
    }
    for path in ["../outside.jpg", "/etc/passwd", ".ikat/lock", "a/../b/1.jpg"] {
        assert_eq!(desk.locate(path), None, "{path}");
        assert_eq!(desk.exclude(&[path.to_owned()]).expect("a reply").moved.len(), 0);
    }
    assert!(Desk::open(&folder.path().join("nowhere"), Vec::new()).is_err());
    assert!(!folder.path().join("nowhere").exists());
}

#[test]
fn the_most_doubtful_labels_come_first() {
    let folder = data();
    let doubt = |path: &str, suspicion| Doubt {
        path: path.to_owned(),
        label: path[..1].to_owned(),
        suggested: "b".to_owned(),
        suspicion,
    };
    let desk = Desk::open(folder.path(), vec![doubt("a/2.jpg", 0.5), doubt("b/1.jpg", 1.5)]).expect("a desk");
    let query = Query {
        sort: Sort::Suspicion,
        offset: 1,
        limit: 2,
        ..Query::default()
    };
    let page = desk.page(&query);
    let shown: Vec<_> = page.images.iter().map(|image| &image.path[..]).collect();
    assert_eq!((page.total, shown), (4, vec!["a/2.jpg", "a/1.jpg"]));
}

#[test]
fn a_corrected_label_is_no_longer_doubtful() {
    let folder = data();
    let doubt = Doubt {
        path: "a/2.jpg".to_owned(),
        label: "a".to_owned(),
        suggested: "b".to_owned(),
        suspicion: 1.5,
    };
    let mut desk = Desk::open(folder.path(), vec![doubt]).expect("a desk");
    let first = |desk: &Desk| {
        let query = Query {
            sort: Sort::Suspicion,
            limit: 1,
            ..Query::default()
        };
        desk.page(&query).images[0].clone()
    };
    assert_eq!(first(&desk).suggested.as_deref(), Some("b"));
    desk.relabel(&["a/2.jpg".to_owned()], "b").expect("moved");
    assert_eq!(first(&desk).suspicion, None);
    let now = revision(&desk);
    desk.undo(now).expect("undone");
    assert_eq!(first(&desk).path, "a/2.jpg");
    assert_eq!(first(&desk).suspicion, Some(1.5));
}

#[test]
fn a_single_image_is_found_wherever_it_is() {
    let folder = data();
    let mut desk = open(folder.path());
    let reply = desk.exclude(&["b/1.jpg".to_owned()]).expect("moved");
    let query = Query {
        path: Some(reply.moved[0].to.clone()),
        limit: 1,
        ..Query::default()
    };
    let page = desk.page(&query);
    assert_eq!(page.total, 1);
    assert!(page.images[0].excluded);
}

#[test]
fn a_browser_leaves_out_the_port_of_the_web() {
    for port in [80, 8000] {
        let hosts = hosts(port);
        for (name, own) in ["127.0.0.1", "localhost"].iter().zip(hosts) {
            let url = reqwest::Url::parse(&format!("http://{name}:{port}/")).expect("an address");
            assert_eq!(own, url.authority());
        }
    }
}
