//! Publishing to and loading from a store that fails in every way that stores and networks do.
//!
//! `IKAT_FAULTS` says how many rounds (few, where nothing is said).

use std::collections::HashMap;

use end_to_end::bundles::bundle;
use end_to_end::faults::{Fault, Faults};
use end_to_end::s3_client;
use end_to_end::seaweedfs::{ACCESS_KEY, SECRET_KEY, SeaweedFs};
use shared::bundle::{Bundle, TrustedKeys};
use shared::store::versions::{find_live, live, load_version};
use shared::store::{ObjectStore, S3Store};
use trainer::publish::{PublishError, publish};

const CI_ROUNDS: usize = 4;

fn rounds() -> usize {
    std::env::var("IKAT_FAULTS").map_or(CI_ROUNDS, |text| text.parse().expect("a number"))
}

/// A bundle that differs for each number.
fn version(number: usize) -> Bundle {
    let mut bundle = bundle(number as u8, 50_000);
    bundle.manifest.metrics.insert("accuracy".to_owned(), number as f64);
    Bundle::new(bundle.manifest, bundle.files)
}

/// What is live, whole; it is an error of the test where that cannot be had from a store without faults.
async fn whole(store: &ObjectStore) -> Option<Bundle> {
    let (live, _) = find_live(store, "model").await.expect("an answer")?;
    let bundle = load_version(store, "model", &live.reference(), &TrustedKeys::default()).await;
    Some(bundle.expect("what is live is whole"))
}

/// A store behind a proxy of its own.
fn behind_faults(server: &SeaweedFs, bucket: &str) -> (ObjectStore, Faults) {
    let proxy = Faults::start(server.endpoint());
    let client = s3_client(&proxy.endpoint(), ACCESS_KEY, SECRET_KEY);
    (ObjectStore::S3(S3Store::with_client(client, bucket, "")), proxy)
}

fn add(sum: &mut HashMap<Fault, usize>, proxy: &Faults) {
    for (fault, count) in proxy.tally().0 {
        *sum.entry(fault).or_default() += count;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_store_does_what_is_live_is_whole() {
    let Some(server) = SeaweedFs::start() else { return };
    let direct = server.store("faults", "").await;
    let mut happened = HashMap::new();
    let (mut published, mut failed, mut loaded, mut refused) = (0, 0, 0, 0);
    for round in 0..rounds() {
        let (store, proxy) = behind_faults(&server, "faults");
        proxy.set(&Fault::ALL, 5, round as u64 + 1);
        let before = whole(&direct).await.map(|bundle| bundle.manifest.version);
        let new = version(round);
        let result = publish(&store, &new, "model").await;
        let after = whole(&direct).await.map(|bundle| bundle.manifest.version);
        let is_new = after.as_ref() == Some(&new.manifest.version);
        if let Ok(done) = &result {
            assert!(is_new, "round {round}: {done:?} was promised, {after:?} is live");
            published += 1;
        } else {
            assert!(
                is_new || after == before,
                "round {round}: {result:?}, and {after:?} is live"
            );
            failed += 1;
        }

        // A reader gets a version whole, or none.
        for _ in 0..3 {
            let read = async {
                let live = live(&store, "model").await?;
                load_version(&store, "model", &live.reference(), &TrustedKeys::default()).await
            };
            match read.await {
                Ok(bundle) => {
                    let number = bundle.manifest.metrics["accuracy"] as usize;
                    let expected = version(number);
                    assert_eq!(bundle.manifest, expected.manifest, "round {round}");
                    assert!(bundle.files == expected.files, "round {round}: versions are mixed");
                    loaded += 1;
                }
                Err(_) => refused += 1,
            }
        }
        add(&mut happened, &proxy);

        // The same again without faults makes up for what failed.
        proxy.set(&[], 0, 0);
        publish(&store, &new, "model").await.expect("nothing is in the way");
        let after = whole(&direct).await.expect("live");
        assert_eq!(after.manifest.version, new.manifest.version);
    }
    println!("published {published}, told that it failed {failed}; loaded {loaded}, refused {refused}; {happened:?}");
    assert!(published > 0 && loaded > 0, "published {published}, loaded {loaded}");
    assert!(!happened.is_empty(), "nothing was in the way");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_publishers_one_is_told() {
    let Some(server) = SeaweedFs::start() else { return };
    let direct = server.store("races", "").await;
    publish(&direct, &version(0), "model").await.expect("published");
    let (mut told, mut both, mut broken) = (0, 0, 0);
    for round in 1..=rounds() {
        let publishers: Vec<_> = [2 * round, 2 * round + 1]
            .into_iter()
            .map(|number| {
                let (store, proxy) = behind_faults(&server, "races");
                // No answers of long ago: what is asked is who wins, not whether a lie is believed.
                proxy.set(&[Fault::Late, Fault::SlowDown, Fault::ResetAfter], 6, number as u64);
                tokio::spawn(async move {
                    let bundle = version(number);
                    (bundle.manifest.version.clone(), publish(&store, &bundle, "model").await)
                })
            })
            .collect();
        let mut results = Vec::new();
        for publisher in publishers {
            results.push(publisher.await.expect("no panic"));
        }
        let live = whole(&direct).await.expect("live").manifest.version;
        let winners: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).collect();
        match winners.len() {
            // One after the other: the last one is live.
            2 => {
                assert!(winners.iter().any(|(version, _)| *version == live), "{results:?}");
                both += 1;
            }
            1 => assert_eq!(winners[0].0, live, "{results:?}"),
            _ => broken += 1,
        }
        for (version, result) in &results {
            if let Err(PublishError::Lost { version: lost, winner }) = result {
                assert_eq!(lost, version);
                assert_ne!(winner, version, "{results:?}");
                told += 1;
            }
        }
    }
    println!(
        "{} races: the loser was told in {told}, one came after the other in {both}, the store failed both in {broken}",
        rounds()
    );
    assert!(told > 0, "no race was one");
}
