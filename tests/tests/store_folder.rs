//! Publishing to a folder: races, half-published versions, damage, going back.

use std::path::Path;
use std::process::Command;

use end_to_end::bundles::bundle;
use shared::bundle::{MODEL, TrustedKeys};
use shared::store::versions::{self, VersionError, live, load_version};
use shared::store::{FolderStore, ObjectStore, VersionRef, source};
use trainer::publish::{PublishError, models, publish, publish_canary, rollback, versions as list};

/// Tells the child processes of the race where to publish what.
const RACE_STORE: &str = "IKAT_TEST_RACE_STORE";
const RACE_SEED: &str = "IKAT_TEST_RACE_SEED";

fn store(folder: &Path) -> ObjectStore {
    ObjectStore::Folder(FolderStore::new(folder))
}

#[tokio::test]
async fn what_is_published_is_opened_and_publishing_again_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(folder.path());
    let (one, two) = (bundle(1, 4000), bundle(2, 4000));
    let first = publish(&store, &one, "t-shirts").await.expect("published");
    assert_eq!((&first.version, &first.previous), (&one.manifest.version, &None));
    let second = publish(&store, &two, "t-shirts").await.expect("published");
    assert_eq!(second.previous.as_ref(), Some(&one.manifest.version));
    assert_eq!(publish(&store, &two, "t-shirts").await.expect("again"), second);

    let model = folder.path().join("t-shirts").display().to_string();
    let opened = source::open(&model, None).await.expect("opened");
    assert_eq!((&opened.manifest, &opened.files), (&two.manifest, &two.files));
    let pinned = source::open(&model, Some(&one.manifest.version)).await.expect("opened");
    assert_eq!(pinned.files, one.files);
    let plain = folder.path().join("t-shirts/versions").join(&one.manifest.version);
    let plain = source::open(&plain.display().to_string(), None).await.expect("opened");
    assert_eq!(plain.manifest, one.manifest);
}

#[tokio::test]
async fn rollback_goes_back_and_forth_and_to_a_named_version() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(folder.path());
    let bundles = [bundle(1, 100), bundle(2, 100), bundle(3, 100)];
    let version = |index: usize| bundles[index].manifest.version.as_str();
    publish(&store, &bundles[0], "m").await.expect("published");
    let error = rollback(&store, "m", None, &TrustedKeys::default())
        .await
        .expect_err("nothing before it");
    assert!(matches!(error, PublishError::NoPrevious { .. }), "{error}");
    publish(&store, &bundles[1], "m").await.expect("published");
    publish(&store, &bundles[2], "m").await.expect("published");
    for (to, expected) in [(None, 1), (None, 2), (Some(version(0)), 0), (None, 2)] {
        rollback(&store, "m", to, &TrustedKeys::default())
            .await
            .expect("rolled back");
        assert_eq!(live(&store, "m").await.expect("live").version, version(expected));
    }
    let all = list(&store, "m").await.expect("listed");
    assert_eq!(all.len(), 3);
    assert!(
        all.iter()
            .all(|info| info.complete && info.created.is_some() && info.accuracy == Some(0.875))
    );
    let served: Vec<_> = all
        .iter()
        .filter(|info| info.live)
        .map(|info| info.version.as_str())
        .collect();
    assert_eq!(served, [version(2)]);
}

#[tokio::test]
async fn a_half_published_version_is_listed_and_never_made_live() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(folder.path());
    let (whole, half) = (bundle(1, 100), bundle(2, 100));
    publish(&store, &whole, "m").await.expect("published");
    let name = &half.manifest.version;
    store
        .put(&versions::file_key("m", name, MODEL), half.files[MODEL].clone(), None)
        .await
        .expect("the first half");

    let all = list(&store, "m").await.expect("listed");
    let info = all.iter().find(|info| &info.version == name).expect("in the list");
    assert!(!info.complete && !info.live && info.problem.is_some(), "{info:?}");
    let error = rollback(&store, "m", Some(name), &TrustedKeys::default())
        .await
        .expect_err("incomplete");
    assert!(matches!(error, PublishError::Incomplete { .. }), "{error}");
    for model in ["m", "other"] {
        let error = rollback(&store, model, Some("deadbeef"), &TrustedKeys::default())
            .await
            .expect_err("no version");
        assert!(
            matches!(error, PublishError::Version(VersionError::NoVersion { .. })),
            "{error}"
        );
    }
    let error = load_version(&store, "m", &VersionRef::named(name), &TrustedKeys::default())
        .await
        .expect_err("incomplete");
    assert!(matches!(error, VersionError::Missing { .. }), "{error}");
    let error = load_version(&store, "m", &VersionRef::named("deadbeef"), &TrustedKeys::default())
        .await
        .expect_err("no version");
    assert!(matches!(error, VersionError::NoVersion { .. }), "{error}");
    assert!(error.to_string().contains("trainer versions --to"), "{error}");
    assert_eq!(live(&store, "m").await.expect("live").version, whole.manifest.version);

    publish(&store, &half, "m").await.expect("the second half");
    assert_eq!(live(&store, "m").await.expect("live").version, *name);
}

#[tokio::test]
async fn a_version_on_trial_is_made_live_or_taken_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(folder.path());
    let [one, two, three] = [1, 2, 3].map(|seed| bundle(seed, 100));
    let version = |bundle: &shared::bundle::Bundle| bundle.manifest.version.clone();
    let error = publish_canary(&store, &one, "m", 0.1).await.expect_err("nothing live");
    assert!(matches!(error, PublishError::NothingLive { .. }), "{error}");
    assert!(error.to_string().ends_with("without --canary"), "{error}");
    publish(&store, &one, "m").await.expect("published");
    for share in [0.0, 1.0, f64::NAN] {
        let error = publish_canary(&store, &two, "m", share).await.expect_err("no share");
        assert!(matches!(error, PublishError::Share(_)), "{error}");
    }
    let error = publish_canary(&store, &one, "m", 0.1).await.expect_err("live");
    assert!(matches!(error, PublishError::AlreadyLive { .. }), "{error}");

    publish_canary(&store, &two, "m", 0.1).await.expect("on trial");
    let trial = publish_canary(&store, &three, "m", 0.25).await.expect("on trial");
    assert_eq!(trial.canary.map(|canary| canary.version), Some(version(&three)));
    assert_eq!(trial.ended_trial, Some(version(&two)));
    let shares: Vec<_> = list(&store, "m").await.expect("listed");
    let share = |of| {
        shares
            .iter()
            .find(|info| info.version == version(of))
            .and_then(|info| info.canary_share)
    };
    assert_eq!((share(&one), share(&two), share(&three)), (None, None, Some(0.25)));

    let ended = rollback(&store, "m", None, &TrustedKeys::default())
        .await
        .expect("ended");
    assert_eq!(ended.ended_trial, Some(version(&three)));
    let after = live(&store, "m").await.expect("live");
    assert_eq!(
        (after.version, after.canary, after.previous),
        (version(&one), None, None)
    );

    publish_canary(&store, &two, "m", 0.1).await.expect("on trial");
    let promoted = publish(&store, &two, "m").await.expect("live");
    assert_eq!(promoted.ended_trial, None);
    let after = live(&store, "m").await.expect("live");
    assert_eq!((after.version, after.canary), (version(&two), None));
    assert_eq!(after.previous, Some(version(&one)));

    publish_canary(&store, &three, "m", 0.1).await.expect("on trial");
    let other = publish(&store, &one, "m").await.expect("live");
    assert_eq!(other.ended_trial, Some(version(&three)));
}

#[tokio::test]
async fn the_models_in_a_store_are_listed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(folder.path());
    assert!(models(&store).await.expect("listed").is_empty());
    let bundle = bundle(1, 100);
    for name in ["shirts", "dresses"] {
        publish(&store, &bundle, name).await.expect("published");
    }
    std::fs::create_dir(folder.path().join("notes")).expect("no model");
    let all = models(&store).await.expect("listed");
    let names: Vec<&str> = all.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["dresses", "shirts"]);
    assert_eq!(all[0].version.as_ref(), Some(&bundle.manifest.version));

    let live = folder.path().join("dresses/live.json");
    for damaged in ["{", &" ".repeat(65 << 10)] {
        std::fs::write(&live, damaged).expect("damaged");
        let all = models(&store).await.expect("listed");
        assert_eq!((all.len(), &all[0].version), (2, &None));
        let problem = all[0].problem.as_deref().expect("a problem");
        assert!(problem.contains("live.json"), "{problem}");
        assert_eq!(all[1].version.as_ref(), Some(&bundle.manifest.version));
    }
    std::fs::write(&live, "{").expect("damaged");
    let error = rollback(
        &store,
        "dresses",
        Some(&bundle.manifest.version),
        &TrustedKeys::default(),
    )
    .await;
    let error = error.expect_err("damaged").to_string();
    assert!(error.contains("remove it"), "{error}");
    std::fs::remove_file(&live).expect("removed");
    let mended = rollback(
        &store,
        "dresses",
        Some(&bundle.manifest.version),
        &TrustedKeys::default(),
    )
    .await;
    assert_eq!(mended.expect("live again").version, bundle.manifest.version);
}

#[tokio::test]
async fn a_version_that_lost_a_file_is_no_target_of_a_rollback() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(folder.path());
    let (one, two) = (bundle(1, 100), bundle(2, 100));
    publish(&store, &one, "m").await.expect("published");
    publish(&store, &two, "m").await.expect("published");
    let lost = versions::file_key("m", &one.manifest.version, "golden/1.jpg");
    std::fs::remove_file(folder.path().join(lost)).expect("removed");
    let error = rollback(&store, "m", None, &TrustedKeys::default())
        .await
        .expect_err("incomplete")
        .to_string();
    assert!(error.contains("1.jpg is missing"), "{error}");
    assert_eq!(live(&store, "m").await.expect("live").version, two.manifest.version);
}

#[tokio::test]
async fn damage_is_noticed_and_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(folder.path());
    let bundle = bundle(1, 4000);
    publish(&store, &bundle, "m").await.expect("published");
    let model = folder.path().join("m").display().to_string();
    for name in [MODEL, "golden/1.jpg", "manifest.json"] {
        let file = folder
            .path()
            .join(versions::file_key("m", &bundle.manifest.version, name));
        let whole = std::fs::read(&file).expect("readable");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() - 1], &[&whole[..], b" "].concat()] {
            std::fs::write(&file, damaged).expect("damaged");
            let error = source::open(&model, None).await.expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        }
        let error = publish(&store, &bundle, "m").await.expect_err("occupied");
        assert!(
            matches!(error, PublishError::Occupied { .. } | PublishError::Incomplete { .. }),
            "{error}"
        );
        std::fs::write(&file, &whole).expect("repaired");
    }
    source::open(&model, None).await.expect("whole again");
}

#[tokio::test]
async fn a_bundle_that_is_damaged_in_memory_is_not_published() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = store(&folder.path().join("store"));
    let mut damaged = bundle(1, 100);
    damaged.files.insert(MODEL.to_owned(), "other".into());
    let error = publish(&store, &damaged, "m").await.expect_err("damaged");
    assert!(matches!(error, PublishError::Bundle(_)), "{error}");
    let error = publish(&store, &bundle(1, 100), "../m").await.expect_err("no name");
    assert!(matches!(error, PublishError::Version(VersionError::Name(_))), "{error}");
    assert!(!folder.path().join("store").exists());
}

/// One publisher of the race below; does nothing when it is run by itself.
#[tokio::test]
async fn race_child() {
    let (Ok(folder), Ok(seed)) = (std::env::var(RACE_STORE), std::env::var(RACE_SEED)) else {
        return;
    };
    let bundle = bundle(seed.parse().expect("a number"), 100_000);
    match publish(&store(Path::new(&folder)), &bundle, "m").await {
        Ok(_) => std::process::exit(0),
        Err(PublishError::Lost { .. }) => std::process::exit(77),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn of_racing_processes_each_wins_whole_or_is_told_that_it_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let children: Vec<_> = (1..=6)
        .map(|seed| {
            Command::new(std::env::current_exe().expect("this test"))
                .args(["race_child", "--exact"])
                .env(RACE_STORE, folder.path())
                .env(RACE_SEED, seed.to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("a child")
        })
        .collect();
    let codes: Vec<_> = children
        .into_iter()
        .map(|mut child| child.wait().expect("a child of ours").code())
        .collect();
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 77))), "{codes:?}");
    assert!(codes.contains(&Some(0)), "{codes:?}");

    let all = list(&store(folder.path()), "m").await.expect("listed");
    let complete = all.iter().filter(|info| info.complete).count();
    assert_eq!((all.len(), complete), (6, 6), "{all:?}");
    let model = folder.path().join("m").display().to_string();
    source::open(&model, None).await.expect("the last winner, whole");
}
