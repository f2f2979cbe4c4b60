//! The interface as it is described: what tools find in it, images in buckets, and model servers' clients.

use std::process::Command;

use base64::Engine;
use end_to_end::colours::{bundle, library, png};
use end_to_end::http::Http;
use end_to_end::program::say;
use end_to_end::seaweedfs::SeaweedFs;
use end_to_end::{tool, wait_until};
use serde_json::{Value, json};
use shared::bundle::Bundle;

/// A scorer over plain HTTP with a bundle in a folder.
fn serve(bundle: &Bundle, environment: &[(&str, &str)]) -> (tempfile::TempDir, Http) {
    let folder = tempfile::tempdir().expect("a folder");
    bundle.write(folder.path()).expect("written");
    let (model, library) = (folder.path().display().to_string(), library().display().to_string());
    let mut all = vec![("IKAT_MODEL", model.as_str()), ("ORT_DYLIB_PATH", &library)];
    all.extend(environment);
    let scorer = Http::start(&all);
    wait_until("the model", || scorer.get("/health/ready").0 == 200);
    (folder, scorer)
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn whatever_a_tool_makes_of_the_description_is_answered_as_described() {
    let Some(schemathesis) = tool("schemathesis") else {
        return;
    };
    let (folder, scorer) = serve(&bundle("described"), &[]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance,unsupported_method";
    let said = say(Command::new(schemathesis)
        .args(["run", &format!("http://{}/openapi.json", scorer.address())])
        .args(["--checks", checks, "--max-examples", "60", "--seed", "1", "--no-color"])
        .current_dir(folder.path()));
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert_eq!(scorer.get("/health/ready").0, 200);
}

#[tokio::test]
async fn images_are_read_from_the_allowed_buckets_alone() {
    let Some(s3) = SeaweedFs::start() else { return };
    for name in ["photos", "secrets"] {
        let store = s3.store(name, "").await;
        store
            .put("in/green.png", png([10, 250, 10]).into(), None)
            .await
            .expect("written");
        store
            .put("out/green.png", png([10, 250, 10]).into(), None)
            .await
            .expect("written");
    }
    let environment = s3.environment();
    let mut environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    environment.push(("IKAT_ALLOWED_BUCKETS", "photos/in, none"));
    let (_folder, scorer) = serve(&bundle("bucket"), &environment);
    let ask = |body: Value| scorer.post("/", "application/json", body.to_string().as_bytes());

    let (status, answer) = ask(json!({ "s3": "s3://photos/in/green.png" }));
    assert_eq!((status, &answer["label"]), (200, &json!("bucket-green")), "{answer}");
    for (place, status, code) in [
        ("s3://photos/in/none.png", 404, "not_found"),
        ("s3://none/green.png", 404, "not_found"),
        ("s3://photos/out/green.png", 403, "forbidden"),
        ("s3://photos/in/../out/green.png", 400, "bad_request"),
        ("s3://secrets/in/green.png", 403, "forbidden"),
        ("photos/in/green.png", 400, "bad_request"),
    ] {
        let (found, answer) = ask(json!({ "s3": place }));
        assert_eq!(
            (found, answer["error"]["code"].as_str()),
            (status, Some(code)),
            "{place}: {answer}"
        );
    }
    let images = json!([
        "s3://photos/in/green.png",
        base64(&png([250, 10, 10])),
        "s3://secrets/in/green.png"
    ]);
    let (status, answer) = ask(json!({ "images": images, "top_k": 1 }));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["results"][0]["scores"].as_object().map(serde_json::Map::len),
        Some(1)
    );
    assert_eq!(answer["results"][1]["label"], "bucket-red");
    assert_eq!(answer["results"][2]["error"]["code"], "forbidden");

    let many: Vec<&str> = vec!["s3://photos/in/green.png"; 64];
    let tensor = json!({ "name": "image", "shape": [64], "datatype": "BYTES", "data": many });
    let body = json!({ "inputs": [tensor] }).to_string();
    let (status, answer) = scorer.post("/v2/models/colours/infer", "application/json", body.as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["outputs"][0]["data"], json!(vec!["bucket-green"; 64]));
}
