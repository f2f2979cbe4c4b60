//! Publishing to a real S3 server.

use bytes::Bytes;
use end_to_end::bundles::{bundle, noise};
use end_to_end::seaweedfs::SeaweedFs;
use shared::bundle::{MODEL, TrustedKeys};
use shared::store::versions::{self, VersionError, live, load_version};
use shared::store::{Condition, ObjectStore, S3Store, StoreError};
use trainer::publish::{PublishError, models, publish, rollback, versions as list};

fn refused(result: &Result<String, StoreError>) -> bool {
    matches!(result, Err(StoreError::ConditionFailed { .. }))
}

// One server for all: it takes seconds to start.
#[tokio::test]
async fn a_real_server_does_what_publishing_relies_on() {
    let Some(server) = SeaweedFs::start() else {
        return;
    };
    round_trip(&server).await;
    large_objects(&server).await;
    races(&server).await;
    messages(&server).await;
    publishing(&server).await;

    let sockets = server.sockets().to_vec();
    assert!(sockets.iter().any(|socket| socket.exists()), "other names: {sockets:?}");
    drop(server);
    assert!(
        !sockets.iter().any(|socket| socket.exists()),
        "left behind: {sockets:?}"
    );
}

async fn round_trip(server: &SeaweedFs) {
    let store = server.store("objects", "a/prefix").await;
    assert_eq!(store.get("a/b", 10).await.expect("readable"), None);
    assert_eq!(store.head("a/b").await.expect("readable"), None);
    let put = |text: &'static str, condition| store.put("a/b", Bytes::from(text), condition);
    let nothing_there = put("0", Some(Condition::Unchanged("\"0\"".to_owned()))).await;
    assert!(refused(&nothing_there), "{nothing_there:?}");
    let first = put("first", Some(Condition::Absent)).await.expect("created");
    assert!(refused(&put("second", Some(Condition::Absent)).await));
    let object = store.get("a/b", 5).await.expect("readable").expect("there");
    assert_eq!((object.bytes.as_ref(), &object.etag), (b"first".as_slice(), &first));
    put("third", Some(Condition::Unchanged(first.clone())))
        .await
        .expect("replaced");
    assert!(refused(&put("fourth", Some(Condition::Unchanged(first))).await));
    put("", None).await.expect("emptied");
    assert_eq!(store.get("a/b", 0).await.expect("readable").expect("there").bytes, "");
    store.put("a/c/d", Bytes::from("text"), None).await.expect("written");
    assert_eq!(store.folders("a").await.expect("listable"), ["c"]);
    assert!(store.folders("z").await.expect("listable").is_empty());
    let error = store.get("a/c/d", 3).await.expect_err("too large");
    assert!(
        matches!(error, StoreError::TooLarge { size: 4, limit: 3, .. }),
        "{error}"
    );
}

async fn large_objects(server: &SeaweedFs) {
    let store = server.store("large", "").await;
    let contents = noise(1, (40 << 20) + 12_345);
    store
        .put("model", contents.clone(), Some(Condition::Absent))
        .await
        .expect("written in parts");
    let info = store.head("model").await.expect("readable").expect("there");
    assert_eq!(info.size, contents.len() as u64);
    let back = store.get("model", info.size).await.expect("readable").expect("there");
    assert!(back.bytes == contents, "40 MB came back different");
    let again = store.put("model", noise(2, 20 << 20), Some(Condition::Absent)).await;
    assert!(refused(&again), "{again:?}");
    let unfinished = server.client().list_multipart_uploads().bucket("large").send().await;
    assert!(unfinished.expect("listed").uploads().is_empty());
}

async fn races(server: &SeaweedFs) {
    let store = server.store("races", "models").await;
    let mut condition = Condition::Absent;
    for round in 0..4 {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let (store, condition) = (store.clone(), condition.clone());
                let bytes = Bytes::from(format!("{round}.{writer}"));
                tokio::spawn(async move { store.put("m/live.json", bytes, Some(condition)).await })
            })
            .collect();
        let mut winners = Vec::new();
        for writer in writers {
            match writer.await.expect("no panic") {
                Ok(etag) => winners.push(etag),
                Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        let present = store.get("m/live.json", 99).await.expect("readable").expect("there");
        assert_eq!(present.etag, winners[0]);
        condition = Condition::Unchanged(present.etag);
    }
}

async fn messages(server: &SeaweedFs) {
    let nowhere = ObjectStore::S3(S3Store::with_client(server.client(), "no-such-bucket", ""));
    let error = live(&nowhere, "m").await.expect_err("no bucket");
    assert!(error.to_string().contains("no-such-bucket does not exist"), "{error}");
    let error = publish(&nowhere, &bundle(1, 100), "m").await.expect_err("no bucket");
    assert!(error.to_string().contains("no-such-bucket does not exist"), "{error}");

    let store = server.store("messages", "").await;
    let error = live(&store, "m").await.expect_err("nothing published");
    assert!(matches!(error, VersionError::NotPublished { .. }), "{error}");
    assert!(error.to_string().contains("s3://messages/m/live.json"), "{error}");

    let stranger = ObjectStore::S3(S3Store::with_client(server.stranger(), "messages", ""));
    let error = stranger.get("m/live.json", 99).await.expect_err("a wrong secret");
    assert!(matches!(error, StoreError::Credentials { .. }), "{error}");
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
}

async fn publishing(server: &SeaweedFs) {
    let store = server.store("models", "team/a").await;
    let (one, two) = (bundle(1, 17 << 20), bundle(2, 3000));
    let version = &one.manifest.version;
    publish(&store, &one, "m").await.expect("published");
    let second = publish(&store, &two, "m").await.expect("published");
    assert_eq!(second.previous.as_ref(), Some(version));
    assert_eq!(publish(&store, &two, "m").await.expect("again"), second);
    assert_eq!(
        rollback(&store, "m", None, &TrustedKeys::default())
            .await
            .expect("rolled back")
            .version,
        *version
    );
    let present = live(&store, "m").await.expect("live");
    let (reference, anyone) = (present.reference(), TrustedKeys::default());
    let loaded = load_version(&store, "m", &reference, &anyone);
    assert_eq!(loaded.await.expect("whole").files, one.files);
    let all = list(&store, "m").await.expect("listed");
    assert_eq!(all.len(), 2);
    assert!(
        all.iter()
            .all(|info| info.complete && info.live == (info.version == *version))
    );

    let whole = ObjectStore::S3(S3Store::with_client(server.client(), "models", ""));
    for (place, expected) in [(&store, &["m"][..]), (&whole, &[][..])] {
        let all = models(place).await.expect("listed");
        let names: Vec<&str> = all.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, expected);
    }
    assert!(whole.folders("").await.expect("listed").contains(&"team".to_owned()));

    // Same size, one bit off: only the hash tells.
    let key = versions::file_key("m", version, MODEL);
    let mut damaged = one.files[MODEL].to_vec();
    damaged[10_000_000] ^= 1;
    store.put(&key, damaged.into(), None).await.expect("damaged");
    let loaded = load_version(&store, "m", &reference, &anyone).await;
    let error = loaded.expect_err("damaged").to_string();
    assert!(error.contains(MODEL), "{error}");
    let error = publish(&store, &one, "m").await.expect_err("occupied");
    assert!(matches!(error, PublishError::Occupied { .. }), "{error}");
    assert_eq!(live(&store, "m").await.expect("live"), present);
}
