//! The interface as it is described: what tools find in it, images in buckets, and model servers' clients.

use std::process::Command;

use base64::Engine;
use end_to_end::colours::{bundle, png};
use end_to_end::http::Http;
use end_to_end::program::say;
use end_to_end::seaweedfs::{SECRET_KEY, SeaweedFs};
use end_to_end::{encoded, tool, wait_until};
use serde_json::{Value, json};
use shared::bundle::Bundle;

/// A scorer over plain HTTP with a bundle in a folder.
fn serve(bundle: &Bundle, environment: &[(&str, &str)]) -> (tempfile::TempDir, Http) {
    let folder = tempfile::tempdir().expect("a folder");
    bundle.write(folder.path()).expect("written");
    let model = folder.path().display().to_string();
    let scorer = Http::start(&[&[("IKAT_MODEL", model.as_str())][..], environment].concat());
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
    let bundle = bundle("described");
    let (folder, scorer) = serve(&bundle, &[]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance,unsupported_method";
    // The paths that name a model should name one that is there.
    let parameters = format!(
        "[parameters]\nname = \"colours\"\nversion = \"{}\"\n",
        bundle.manifest.version
    );
    std::fs::write(folder.path().join("schemathesis.toml"), parameters).expect("written");
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
    let mut environment = s3.environment();
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
    let (_, log) = scorer.stop();
    let refused = log.iter().any(|line| line["status"] == 403);
    let secret = log.iter().any(|line| line.to_string().contains(SECRET_KEY));
    assert!(refused && !secret, "{log:?}");
}

#[test]
fn an_explanation_shows_where_the_evidence_is() {
    let (_folder, scorer) = serve(&bundle("explained"), &[]);
    // Red on the left, black on the right.
    let mut picture = image::RgbImage::new(40, 20);
    for (x, _, pixel) in picture.enumerate_pixels_mut() {
        pixel.0 = if x < 20 { [250, 0, 0] } else { [0, 0, 0] };
    }
    let bytes = encoded(picture, image::ImageFormat::Png);
    let body = json!({ "image": base64(&bytes), "explain": true });
    let (status, answer) = scorer.post("/", "application/json", body.to_string().as_bytes());
    assert_eq!(
        (status, &answer["explanation"]["class"]),
        (200, &json!("explained-red")),
        "{answer}"
    );
    let map = answer["explanation"]["heat_map"].as_str().expect("a heat map");
    let map = base64::engine::general_purpose::STANDARD.decode(map).expect("base64");
    let map = image::load_from_memory(&map).expect("a PNG").to_rgba8();
    assert_eq!(map.dimensions(), (40, 20));
    let (left, right) = (map.get_pixel(8, 10).0[3], map.get_pixel(32, 10).0[3]);
    assert!(left > 150 && right < 30, "opacity {left} and {right}");
}

#[test]
fn each_request_is_one_line_in_the_log_and_its_metrics() {
    let (_folder, scorer) = serve(&bundle("logged"), &[("IKAT_METRICS_NAMESPACE", "Ikat")]);
    let image = png([250, 10, 10]);
    let headers = [
        "content-type: image/png",
        "x-request-id: order-7",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];
    let (status, answer) = scorer.post_with(&headers, &image);
    assert_eq!(status, 200, "{answer}");
    let body = json!({ "images": [base64(&png([10, 250, 10])), base64(b"text")] }).to_string();
    scorer.post("/", "application/json", body.as_bytes());
    scorer.post("/", "application/json", b"{");
    scorer.get("/health/live");
    let asked = || scorer.log().into_iter().any(|line| line["path"] == "/health/live");
    wait_until("the line of a question that no model is asked", asked);

    let lines = || -> Vec<Value> {
        scorer
            .log()
            .into_iter()
            .filter(|line| line["method"] == "POST")
            .collect()
    };
    wait_until("the lines", || lines().len() == 3);
    let lines = lines();
    let line = &lines[0];
    assert_eq!(
        (&line["request_id"], &line["carrier"], &line["status"]),
        (&json!("order-7"), &json!("http"), &json!(200))
    );
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["images"][0]["sha256"], shared::files::sha256_hex(&image));
    assert_eq!(line["images"][0]["version"], answer["model"]["version"]);
    assert_eq!(line["images"][0]["timing_ms"], answer["timing_ms"]);
    assert_eq!(
        (&line["Predictions"], &line["label"]),
        (&json!(1), &json!("logged-red"))
    );
    assert!(line["_aws"]["CloudWatchMetrics"].is_array());
    assert_eq!(lines[1]["images"][1]["error"], "unsupported_format");
    assert_eq!(
        (&lines[2]["status"], &lines[2]["ClientErrors"]),
        (&json!(400), &json!(1))
    );
    let all = scorer.log().iter().map(Value::to_string).collect::<String>();
    assert!(!all.contains(&base64(&image)[..40]), "no image in the log");
}

#[test]
fn a_quiet_log_keeps_the_lines_that_are_metrics() {
    let image = png([250, 10, 10]);
    for (namespace, written) in [("Ikat", true), ("", false)] {
        let environment = [("IKAT_METRICS_NAMESPACE", namespace), ("IKAT_LOG", "warn")];
        let (_folder, scorer) = serve(&bundle("quiet"), &environment);
        assert_eq!(scorer.post("/", "image/png", &image).0, 200);
        let (_, log) = scorer.stop();
        let lines: Vec<_> = log.iter().filter(|line| line["method"] == "POST").collect();
        assert_eq!(lines.len(), usize::from(written), "{namespace:?}");
        assert!(lines.iter().all(|line| line["Predictions"] == 1), "{lines:?}");
    }
}
