//! Bundles that somebody vouches for, and what is refused where that is asked for.

use std::path::Path;
use std::process::Command;

use end_to_end::http::Http;
use end_to_end::program::{say, say_within, scorer};
use end_to_end::workshop::Workshop;
use end_to_end::{colours, installed, wait_until};
use serde_json::Value;
use shared::bundle::SVM;

/// Makes a key; gives the public one.
fn keygen(workshop: &Workshop, file: &str) -> String {
    let made = say_within(60, &workshop.trainer(&["keygen", "--json", "--out", file])).ended_with(0);
    let private = std::fs::read_to_string(workshop.path(file)).expect("a key");
    let secret = private.lines().nth(1).expect("the key in base64");
    assert!(
        !made.stdout.contains(secret) && !made.stderr.contains(secret),
        "the private key is shown"
    );
    made.json()["public_key"].as_str().expect("a key").to_owned()
}

fn publish(workshop: &Workshop, more: &[&str]) -> Command {
    let publish = ["publish", "--json", "--bundle", "bundle", "--to", "store"];
    workshop.trainer(&[&publish[..], more].concat())
}

/// What a scorer answers that trusts these keys.
fn serve(workshop: &Workshop, model: &str, keys: &str) -> (u16, Value) {
    let model = workshop.path(model).display().to_string();
    let scorer = Http::start(&[("IKAT_MODEL", &model), ("IKAT_TRUSTED_KEY", keys)]);
    let mut answer = (0, Value::Null);
    wait_until("an answer", || {
        answer = scorer.post("/", "image/png", &colours::png([250, 10, 10]));
        answer.0 != 0
    });
    answer
}

fn refused(answer: &(u16, Value), words: &str) {
    let (status, body) = answer;
    assert_eq!(*status, 503, "{body}");
    let message = body["error"]["message"].as_str().expect("a message");
    assert!(message.contains(words), "{message}");
}

#[test]
fn only_what_a_trusted_key_has_signed_is_served_published_and_scored() {
    let workshop = Workshop::new(0);
    colours::bundle("a").write(&workshop.path("bundle")).expect("written");
    let (own, other) = (keygen(&workshop, "own.pem"), keygen(&workshop, "other.pem"));
    let again = say_within(60, &workshop.trainer(&["keygen", "--out", "own.pem"])).ended_with(1);
    assert!(again.stderr.contains("never overwritten"), "{again:?}");

    say_within(60, &publish(&workshop, &[])).ended_with(0);
    assert_eq!(serve(&workshop, "store/colours", "").0, 200);
    refused(&serve(&workshop, "store/colours", &own), "is not signed");
    let unsigned = say_within(60, &publish(&workshop, &["--trusted-key", &own])).ended_with(1);
    assert!(unsigned.stderr.contains("--sign"), "{unsigned:?}");

    let version = say_within(60, &publish(&workshop, &["--sign", "own.pem"]))
        .ended_with(0)
        .json();
    let version = version["version"].as_str().expect("a version");
    assert_eq!(serve(&workshop, "store/colours", &own).0, 200);
    assert_eq!(serve(&workshop, "store/colours", &format!("{other},{own}")).0, 200);
    refused(
        &serve(&workshop, "store/colours", &other),
        "not one of this bundle by a key",
    );
    assert_eq!(serve(&workshop, "store/colours", "").0, 200);
    openssl_agrees(&workshop, version);

    // The same version under a new key, and back.
    say_within(60, &publish(&workshop, &["--sign", "other.pem"])).ended_with(0);
    assert_eq!(serve(&workshop, "store/colours", &other).0, 200);
    refused(
        &serve(&workshop, "store/colours", &own),
        "not one of this bundle by a key",
    );
    say_within(60, &publish(&workshop, &["--sign", "own.pem"])).ended_with(0);

    // A plain bundle folder, by the scorer and by the trainer.
    let published = format!("store/colours/versions/{version}");
    assert_eq!(serve(&workshop, &published, &own).0, 200);
    std::fs::write(workshop.path("red.png"), colours::png([250, 10, 10])).expect("written");
    let score = |bundle: &str, key: &str| {
        let mut score = workshop.trainer(&["score", "--json", "--bundle", bundle, "red.png"]);
        say_within(60, score.env("IKAT_TRUSTED_KEY", key))
    };
    score(&published, &own).ended_with(0);
    assert!(score(&published, &other).ended_with(1).stderr.contains("manifest.sig"));
    assert!(score("bundle", &own).ended_with(1).stderr.contains("is not signed"));
    assert!(
        score("bundle", "abc")
            .ended_with(2)
            .stderr
            .contains("64 hexadecimal digits")
    );

    // One bit of the manifest, and one of the signature.
    for file in ["manifest.json", "manifest.sig"] {
        let path = workshop.path(&published).join(file);
        let whole = std::fs::read(&path).expect("a file");
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        std::fs::write(&path, damaged).expect("written");
        assert_eq!(serve(&workshop, &published, &own).0, 503, "{file}");
        std::fs::write(&path, whole).expect("written");
    }
    assert_eq!(serve(&workshop, &published, &own).0, 200);
}

/// Another program reads the key and finds the signature good.
fn openssl_agrees(workshop: &Workshop, version: &str) {
    let Some(openssl) = installed("openssl") else {
        return;
    };
    let folder = workshop.path("store/colours/versions").join(version);
    let file = |path: &Path| path.display().to_string();
    let public = file(&workshop.path("public.pem"));
    let key = file(&workshop.path("own.pem"));
    say(Command::new(&openssl).args(["pkey", "-in", &key, "-pubout", "-out", &public])).ended_with(0);
    let (signature, manifest) = (file(&folder.join("manifest.sig")), file(&folder.join("manifest.json")));
    say(Command::new(&openssl).args([
        "pkeyutl", "-verify", "-pubin", "-inkey", &public, "-rawin", "-sigfile", &signature, "-in", &manifest,
    ]))
    .ended_with(0);
}

#[test]
fn what_no_trusted_key_has_signed_is_not_gone_back_to() {
    let workshop = Workshop::new(0);
    let own = keygen(&workshop, "own.pem");
    let put = |name: &str, more: &[&str]| {
        colours::bundle(name).write(&workshop.path("bundle")).expect("written");
        say_within(60, &publish(&workshop, more)).ended_with(0);
    };
    let rollback = |key: &str| {
        let mut command = workshop.trainer(&["rollback", "--json", "--to", "store", "--name", "colours"]);
        say_within(60, command.env("IKAT_TRUSTED_KEY", key))
    };
    put("unsigned", &[]);
    put("signed", &["--sign", "own.pem", "--canary", "0.5"]);
    // Of the live version, another manifest than was served is as good as another version.
    let live = workshop.path("store/colours/live.json");
    let served = std::fs::read_to_string(&live).expect("live.json");
    let mut other: Value = serde_json::from_str(&served).expect("JSON");
    other["manifest_sha256"] = "0".repeat(64).into();
    std::fs::write(&live, other.to_string()).expect("written");
    let refusal = rollback(&own).ended_with(1);
    assert!(refusal.stderr.contains("is not signed"), "{refusal:?}");
    // The end of a trial makes nothing live.
    std::fs::write(&live, served).expect("written");
    rollback(&own).ended_with(0);

    put("signed", &["--sign", "own.pem"]);
    let refusal = rollback(&own).ended_with(1);
    assert!(refusal.stderr.contains("is not signed"), "{refusal:?}");
    assert_eq!(serve(&workshop, "store/colours", &own).0, 200, "nothing has changed");
    let done = rollback("").ended_with(0).json();
    assert!(done["version"].is_string(), "{done}");
    refused(&serve(&workshop, "store/colours", &own), "is not signed");
}

#[test]
fn a_damaged_bundle_is_neither_scored_with_nor_published() {
    let workshop = Workshop::new(0);
    colours::bundle("a").write(&workshop.path("bundle")).expect("written");
    std::fs::write(workshop.path("red.png"), colours::png([250, 10, 10])).expect("written");
    let path = workshop.path("bundle").join(SVM);
    let mut bytes = std::fs::read(&path).expect("a classifier");
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let score = workshop.trainer(&["score", "--bundle", "bundle", "red.png"]);
    for command in [score, publish(&workshop, &[])] {
        let refused = say_within(60, &command).ended_with(1).stderr;
        assert!(
            refused.contains(SVM) && refused.contains("take another copy") && !refused.contains("should be a run"),
            "{refused}"
        );
    }
}

#[test]
fn a_key_that_is_none_stops_the_scorer() {
    let said = say_within(
        60,
        scorer()
            .args(["--listen", "127.0.0.1:0"])
            .env("IKAT_MODEL", "nowhere")
            .env("IKAT_TRUSTED_KEY", "abc"),
    )
    .ended_with(2);
    assert!(said.stderr.contains("--trusted-key (or IKAT_TRUSTED_KEY)"), "{said:?}");
}
