//! Versions come, go and break under a constant load: no wrong answer, no error while a good version is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use end_to_end::colours::{COLOURS, bundle, lying_bundle, png};
use end_to_end::http::Http;
use end_to_end::relay::{Relay, Weather};
use end_to_end::seaweedfs::{self, SeaweedFs};
use end_to_end::wait_until;
use end_to_end::web::{Web, answer};
use serde_json::Value;
use shared::bundle::{Bundle, MANIFEST, MODEL, TrustedKeys};
use shared::files::sha256_hex;
use shared::store::ObjectStore;
use shared::store::versions::{Live, file_key, live_key};
use trainer::publish::{publish, publish_canary, rollback};

/// Name of the model.
const NAME: &str = "colours";

/// What the load has seen since it was last asked.
#[derive(Default)]
struct Seen {
    /// How many answers each version gave.
    versions: BTreeMap<String, usize>,
    /// Which versions answered for each image.
    speakers: BTreeMap<usize, BTreeSet<String>>,
    slowest: Duration,
    wrong: Vec<String>,
}

/// Clients that ask without a pause.
struct Load {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// `prefixes` tells how the labels of each version begin.
    fn start(scorer: &Arc<Http>, prefixes: &BTreeMap<String, String>) -> Self {
        let (seen, over) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        // Sixteen images of each colour, each with its own hash.
        let images: Vec<(usize, &str, Vec<u8>)> = (0..48_u8)
            .map(|number| {
                let (name, mut colour) = COLOURS[usize::from(number) % 3];
                for channel in &mut colour {
                    *channel = channel.saturating_sub(number / 3);
                }
                (usize::from(number), name, png(colour))
            })
            .collect();
        let clients = (0..2)
            .map(|client| {
                let (scorer, prefixes, images) = (Arc::clone(scorer), prefixes.clone(), images.clone());
                let (seen, over) = (Arc::clone(&seen), Arc::clone(&over));
                std::thread::spawn(move || {
                    for (number, colour, image) in images.iter().cycle().skip(client * 7) {
                        if over.load(Ordering::SeqCst) {
                            return;
                        }
                        let begun = Instant::now();
                        let (status, answer) = scorer.post("/", "image/png", image);
                        let took = begun.elapsed();
                        let version = answer["model"]["version"].as_str().unwrap_or_default().to_owned();
                        let expected = prefixes.get(&version).map(|prefix| format!("{prefix}-{colour}"));
                        let mut seen = seen.lock().expect("no panic");
                        seen.slowest = seen.slowest.max(took);
                        if status != 200 || expected.is_none() || answer["label"].as_str() != expected.as_deref() {
                            seen.wrong.push(format!("{colour}: {status} {answer}"));
                        }
                        *seen.versions.entry(version.clone()).or_default() += 1;
                        seen.speakers.entry(*number).or_default().insert(version);
                    }
                })
            })
            .collect();
        Self { seen, over, clients }
    }

    /// What was seen since the last time, which must be without fault.
    fn take(&self, step: &str) -> Seen {
        let seen = std::mem::take(&mut *self.seen.lock().expect("no panic"));
        assert!(
            seen.wrong.is_empty(),
            "{step}: {:?}",
            &seen.wrong[..seen.wrong.len().min(3)]
        );
        assert!(
            seen.slowest < Duration::from_secs(5),
            "{step}: a request waited {:?}",
            seen.slowest
        );
        seen
    }

    /// Waits until these versions, and no others, answer for a while.
    fn until_only(&self, step: &str, versions: &[&Bundle]) -> Seen {
        let wanted: BTreeSet<&str> = versions.iter().map(|bundle| bundle.manifest.version.as_str()).collect();
        let mut last = Seen::default();
        wait_until(step, || {
            std::thread::sleep(Duration::from_millis(300));
            last = self.take(step);
            last.versions.keys().map(String::as_str).collect::<BTreeSet<_>>() == wanted
        });
        last
    }

    fn stop(self) {
        self.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("no panic");
        }
    }
}

/// How a version is broken on its way to the store.
struct Damage {
    name: &'static str,
    bundle: Bundle,
    /// The file that is damaged, and what becomes of it; nothing where it is lost.
    file: &'static str,
    become_of: fn(&[u8]) -> Option<Vec<u8>>,
    live: fn(Live) -> Vec<u8>,
    /// What the scorer says of it.
    says: &'static str,
}

fn damages() -> Vec<Damage> {
    let whole = |contents: &[u8]| Some(contents.to_vec());
    let lost = |_: &[u8]| None;
    let good = |live: Live| live.to_json();
    let damage = |name, file, become_of, says| Damage {
        name,
        bundle: bundle(name),
        file,
        become_of,
        live: good,
        says,
    };
    let flipped = |contents: &[u8]| {
        let mut contents = contents.to_vec();
        let middle = contents.len() / 2;
        contents[middle] ^= 1;
        Some(contents)
    };
    vec![
        damage("flipped", MODEL, flipped, "its hash differs"),
        damage(
            "cut",
            MODEL,
            |contents| Some(contents[1..].to_vec()),
            "its size differs",
        ),
        damage("lost", MODEL, lost, "is missing"),
        damage("no-manifest", MANIFEST, lost, "is missing"),
        damage("bad-manifest", MANIFEST, flipped, "its hash is not the one"),
        Damage {
            live: |live| Live::new(&live.version, &"0".repeat(64), None).to_json(),
            ..damage("wrong-hash", MODEL, whole, "its hash is not the one")
        },
        Damage {
            live: |_| b"{".to_vec(),
            ..damage("no-live", MODEL, whole, "live.json is not valid")
        },
        Damage {
            bundle: lying_bundle("lying"),
            ..damage("lying", MODEL, whole, "golden image")
        },
    ]
}

/// Publishes a version as it should not be.
async fn publish_damaged(store: &ObjectStore, damage: &Damage) {
    let bundle = &damage.bundle;
    let manifest = Bytes::from(bundle.manifest.to_json());
    let hash = sha256_hex(&manifest);
    let mut files = bundle.files.clone();
    files.insert(MANIFEST.to_owned(), manifest);
    for (file, contents) in files {
        let contents = if file == damage.file {
            (damage.become_of)(&contents).map(Bytes::from)
        } else {
            Some(contents)
        };
        if let Some(contents) = contents {
            let key = file_key(NAME, &bundle.manifest.version, &file);
            store.put(&key, contents, None).await.expect("written");
        }
    }
    let live = (damage.live)(Live::new(&bundle.manifest.version, &hash, None));
    store.put(&live_key(NAME), live.into(), None).await.expect("written");
}

/// What the scorer says is wrong, if anything.
fn problem(scorer: &Http) -> Option<Value> {
    let (status, answer) = scorer.get("/health/ready");
    assert_eq!(status, 200, "{answer}");
    answer.get("problem").cloned()
}

fn until_well(scorer: &Http) {
    wait_until("the scorer to be well", || problem(scorer).is_none());
}

#[tokio::test]
async fn no_wrong_answer_and_no_error_while_versions_come_go_and_break() {
    let Some(s3) = SeaweedFs::start() else { return };
    let store = s3.store("models", "team").await;
    let [first, second, third] = ["first", "second", "third"].map(bundle);
    publish(&store, &first, NAME).await.expect("published");

    let relay = Relay::start(s3.endpoint());
    let endpoint = relay.endpoint();
    let mut environment = seaweedfs::environment(&endpoint);
    environment.extend([
        ("IKAT_MODEL", "s3://models/team/colours"),
        ("IKAT_REFRESH_SECONDS", "1"),
    ]);
    let scorer = Arc::new(Http::start(&environment));
    wait_until("the model", || scorer.get("/health/ready").0 == 200);

    let prefixes: BTreeMap<String, String> = [(&first, "first"), (&second, "second"), (&third, "third")]
        .map(|(bundle, prefix)| (bundle.manifest.version.clone(), prefix.to_owned()))
        .into();
    let load = Load::start(&scorer, &prefixes);
    load.until_only("the first version", &[&first]);

    publish(&store, &second, NAME).await.expect("published");
    load.until_only("published", &[&second]);
    rollback(&store, NAME, None, &TrustedKeys::default())
        .await
        .expect("rolled back");
    load.until_only("rolled back", &[&first]);

    publish_canary(&store, &third, NAME, 0.4).await.expect("published");
    load.until_only("on trial", &[&first, &third]);
    std::thread::sleep(Duration::from_secs(1));
    let seen = load.take("on trial for a while");
    let unsure = seen.speakers.values().filter(|versions| versions.len() > 1).count();
    assert_eq!(unsure, 0, "an image is always answered by the same version");
    let (_, model) = scorer.get("/model");
    assert_eq!(model["canary"]["version"], third.manifest.version.as_str());
    rollback(&store, NAME, None, &TrustedKeys::default())
        .await
        .expect("ended");
    load.until_only("the trial ended", &[&first]);

    for damage in damages() {
        publish_damaged(&store, &damage).await;
        wait_until(damage.name, || problem(&scorer).is_some());
        let problem = problem(&scorer).expect("just seen");
        assert!(
            problem["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains(damage.says)),
            "{problem}"
        );
        load.until_only(damage.name, &[&first]);
        // The way out is the one that the documentation names.
        let version = &first.manifest.version;
        store
            .put(
                &live_key(NAME),
                Live::new(version, &sha256_hex(&first.manifest.to_json()), None)
                    .to_json()
                    .into(),
                None,
            )
            .await
            .expect("repaired");
        until_well(&scorer);
    }

    relay.set(Weather::Down);
    wait_until("S3 being down to be noticed", || problem(&scorer).is_some());
    load.until_only("S3 is down", &[&first]);
    relay.set(Weather::Fine);
    until_well(&scorer);

    relay.set(Weather::Silent);
    publish(&store, &second, NAME).await.expect("published");
    std::thread::sleep(Duration::from_secs(3));
    load.until_only("S3 says nothing", &[&first]);
    relay.set(Weather::Slow);
    load.until_only("S3 is slow", &[&second]);
    load.stop();
}

#[cfg(unix)]
#[tokio::test]
async fn a_version_that_cannot_be_fetched_is_not_refused_and_is_followed_once_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ObjectStore::Folder(shared::store::FolderStore::new(folder.path()));
    let [first, second] = ["first", "second"].map(bundle);
    publish(&store, &first, NAME).await.expect("published");
    let model = folder.path().join(NAME).display().to_string();
    let scorer = Http::start(&[("IKAT_MODEL", &model), ("IKAT_REFRESH_SECONDS", "1")]);
    wait_until("the model", || scorer.get("/health/ready").0 == 200);

    let manifest = Bytes::from(second.manifest.to_json());
    let live = Live::new(&second.manifest.version, &sha256_hex(&manifest), None);
    let key = |file: &str| file_key(NAME, &second.manifest.version, file);
    let mut files = second.files.clone();
    files.insert(MANIFEST.to_owned(), manifest);
    let network = files.remove(MODEL).expect("a network");
    for (file, contents) in files {
        store.put(&key(&file), contents, None).await.expect("written");
    }
    let place = folder.path().join(key(MODEL));
    std::os::unix::fs::symlink(&place, &place).expect("a link to itself");
    store
        .put(&live_key(NAME), live.to_json().into(), None)
        .await
        .expect("written");
    wait_until("the fault to be noticed", || problem(&scorer).is_some());
    let told = problem(&scorer).expect("just seen");
    assert!(told.get("refused").is_none(), "{told}");

    std::fs::remove_file(&place).expect("removed");
    store.put(&key(MODEL), network, None).await.expect("written");
    until_well(&scorer);
    let (_, answer) = scorer.post("/", "image/png", &png([250, 0, 0]));
    assert_eq!(answer["label"], "second-red", "{answer}");
}

#[tokio::test]
async fn a_pinned_version_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ObjectStore::Folder(shared::store::FolderStore::new(folder.path()));
    let [first, second] = ["first", "second"].map(bundle);
    publish(&store, &first, NAME).await.expect("published");
    publish(&store, &second, NAME).await.expect("published");
    let model = folder.path().join(NAME).display().to_string();
    let version = first.manifest.version.as_str();
    let scorer = Http::start(&[
        ("IKAT_MODEL", &model),
        ("IKAT_VERSION", version),
        ("IKAT_REFRESH_SECONDS", "1"),
    ]);
    let ask = || scorer.post("/", "image/png", &png([250, 0, 0])).1["model"]["version"].clone();
    assert_eq!(ask(), version);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(ask(), version);
}

#[tokio::test]
async fn a_start_looks_once_which_version_is_live() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ObjectStore::Folder(shared::store::FolderStore::new(folder.path()));
    publish(&store, &bundle("first"), NAME).await.expect("published");
    let objects = folder.path().to_owned();
    let bucket = Web::start(move |path, _, stream| {
        let key = path.trim_start_matches("/models/").split('?').next();
        match std::fs::read(objects.join(key.unwrap_or_default())) {
            Ok(object) => answer(stream, "200 OK", &[("etag", "\"1\"")], &object),
            Err(_) => answer(stream, "404 Not Found", &[], b""),
        }
    });
    let endpoint = bucket.url("");
    let mut environment = seaweedfs::environment(&endpoint);
    environment.push(("IKAT_MODEL", "s3://models/colours"));
    let scorer = Http::start(&environment);
    for _ in 0..2 {
        assert_eq!(scorer.post("/", "image/png", &png([250, 0, 0])).0, 200);
    }
    // Looks go on in the background.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(bucket.asked("/models/colours/live.json?x-id=GetObject"), 1);
}

#[tokio::test]
async fn a_bundle_that_is_replaced_in_its_folder_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = ["first", "second"].map(bundle);
    // As it lies in a run.
    let inside = folder.path().join("bundle");
    first.write(&inside).expect("written");
    let model = folder.path().display().to_string();
    let scorer = Http::start(&[("IKAT_MODEL", &model), ("IKAT_REFRESH_SECONDS", "1")]);
    let ask = || scorer.post("/", "image/png", &png([250, 0, 0])).1["label"].clone();
    assert_eq!(ask(), "first-red");
    second.write(&inside).expect("written");
    wait_until("the second", || ask() == "second-red");
}

#[tokio::test]
async fn a_scorer_that_was_started_before_its_model_was_published_becomes_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join(NAME).display().to_string();
    let scorer = Http::start(&[
        ("IKAT_MODEL", &model),
        ("IKAT_METRICS_NAMESPACE", "Ikat"),
        ("IKAT_REFRESH_SECONDS", "1"),
    ]);
    let (status, answer) = scorer.get("/health/ready");
    assert_eq!(status, 503, "{answer}");
    wait_until("the first attempt", || {
        let mut lines = scorer.log().into_iter();
        lines.any(|line| line["message"] == "the model cannot be loaded")
    });
    let store = ObjectStore::Folder(shared::store::FolderStore::new(folder.path()));
    publish(&store, &lying_bundle("lying"), NAME).await.expect("published");
    let mut lines = Vec::new();
    let refusal = |line: &Value| line["RefusedVersions"] == 1 && line["model"] == NAME;
    wait_until("the refusal", || {
        assert_eq!(scorer.get("/health/ready").0, 503);
        lines = scorer.log();
        lines.iter().any(refusal)
    });
    // Only what was published counts: before it, nothing was refused.
    let mut before = lines
        .iter()
        .take_while(|line| !line["error"].to_string().contains("golden image"));
    assert!(!before.any(refusal), "{lines:?}");
    publish(&store, &bundle("first"), NAME).await.expect("published");
    wait_until("the model", || scorer.get("/health/ready").0 == 200);

    // What names the version counts as well, as it would at a start.
    let count = || scorer.log().into_iter().filter(refusal).count();
    let before = count();
    std::fs::write(folder.path().join(NAME).join("live.json"), "{").expect("written");
    wait_until("the damage to be counted", || count() > before);
    wait_until("the damage to be told of", || {
        problem(&scorer).is_some_and(|told| told["reason"].to_string().contains("live.json"))
    });
}

#[tokio::test]
async fn a_refused_trial_is_told_of_for_as_long_as_it_is_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ObjectStore::Folder(shared::store::FolderStore::new(folder.path()));
    publish(&store, &bundle("first"), NAME).await.expect("published");
    let model = folder.path().join(NAME).display().to_string();
    let scorer = Http::start(&[("IKAT_MODEL", &model), ("IKAT_REFRESH_SECONDS", "1")]);
    wait_until("the model", || scorer.get("/health/ready").0 == 200);

    let lying = lying_bundle("lying");
    publish_canary(&store, &lying, NAME, 0.4).await.expect("published");
    wait_until("the trial to be refused", || problem(&scorer).is_some());
    let told = problem(&scorer).expect("just seen");
    assert_eq!(told["refused"], lying.manifest.version.as_str(), "{told}");
    // Refused again and again.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(problem(&scorer).as_ref(), Some(&told));
        std::thread::sleep(Duration::from_millis(10));
    }
    let changed = |line: &Value| line["message"] == "other versions answer from now on";
    assert!(!scorer.log().iter().any(changed), "nothing changed");

    // A fault that passes is told of only until it is over.
    let live = folder.path().join(NAME).join("live.json");
    let good = std::fs::read(&live).expect("live.json");
    std::fs::write(&live, "{").expect("written");
    wait_until("the fault to be noticed", || {
        problem(&scorer).is_some_and(|problem| problem.get("refused").is_none())
    });
    std::fs::write(&live, good).expect("written");
    wait_until("the trial to be told of", || problem(&scorer).as_ref() == Some(&told));
}
