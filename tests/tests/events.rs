//! What engines send a Lambda function, through the Runtime API, with images in a real bucket.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use end_to_end::colours::{COLOURS, bundle, lying_bundle, png};
use end_to_end::lambda::Lambda;
use end_to_end::seaweedfs::{self, SeaweedFs};
use end_to_end::web::{Web, answer};
use end_to_end::{root, wait_until};
use serde_json::{Value, json};
use shared::bundle::MODEL;
use shared::store::versions::file_key;
use shared::store::{FolderStore, ObjectStore};
use trainer::publish::publish;

fn fixture(name: &str) -> Value {
    let path = root().join("tests/fixtures/events").join(name).with_extension("json");
    serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("JSON")
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The value of a result string or a body.
fn parsed(text: &Value) -> Value {
    serde_json::from_str(text.as_str().expect("a text")).expect("JSON")
}

#[expect(
    clippy::too_many_lines,
    reason = "one kind of event after the other, all sent to one function"
)]
#[tokio::test]
async fn each_event_is_answered_in_its_own_shape() {
    let Some(s3) = SeaweedFs::start() else { return };
    let models = s3.store("models", "").await;
    publish(&models, &bundle("lambda"), "colours").await.expect("published");
    publish(&models, &lying_bundle("lying"), "lying")
        .await
        .expect("published");
    let photos = s3.store("photos", "").await;
    for (name, colour) in COLOURS {
        let key = format!("in/{name}.png");
        photos.put(&key, png(colour).into(), None).await.expect("written");
    }
    photos
        .put("in/a b+ä.png", png([250, 10, 10]).into(), None)
        .await
        .expect("written");
    photos.put("in/text.png", "text".into(), None).await.expect("written");

    let mut environment = s3.environment();
    environment.extend([
        ("IKAT_ALLOWED_BUCKETS", "photos/in"),
        ("IKAT_MODEL", "s3://models/colours"),
    ]);
    let Some(lambda) = Lambda::start(&environment) else {
        return;
    };

    let image = base64(&png([10, 10, 250]));
    for name in [
        "function_url",
        "api_gateway_v1",
        "api_gateway_v2",
        "load_balancer",
        "load_balancer_multi_value",
    ] {
        let mut event = fixture(name);
        event["body"] = json!({ "image": image }).to_string().into();
        event["isBase64Encoded"] = false.into();
        let (status, answer) = lambda.invoke(&event);
        assert_eq!((status, &answer["statusCode"]), (200, &json!(200)), "{name}: {answer}");
        assert_eq!(parsed(&answer["body"])["label"], "lambda-blue", "{name}");
    }
    let (_, answer) = lambda.invoke(&json!({ "image": image }));
    assert_eq!(
        (&answer["statusCode"], &answer["label"]),
        (&json!(200), &json!("lambda-blue"))
    );

    for (name, bucket) in [("s3_batch_1", "s3BucketArn"), ("s3_batch_2", "s3Bucket")] {
        let mut event = fixture(name);
        let task = |id: &str, key: &str| {
            let place = if bucket == "s3Bucket" {
                "photos"
            } else {
                "arn:aws:s3:::photos"
            };
            json!({ "taskId": id, "s3Key": key, "s3VersionId": null, bucket: place })
        };
        event["tasks"] = json!([
            task("1", "in/a+b%2B%C3%A4.png"),
            task("2", "in/text.png"),
            task("3", "in/none.png"),
            task("4", "out/green.png"),
        ]);
        let (status, answer) = lambda.invoke(&event);
        assert_eq!(status, 200, "{name}: {answer}");
        assert_eq!(
            answer["invocationSchemaVersion"], event["invocationSchemaVersion"],
            "{name}"
        );
        let results = answer["results"].as_array().expect("results");
        let codes: Vec<_> = results
            .iter()
            .map(|result| result["resultCode"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(
            codes,
            ["Succeeded", "PermanentFailure", "PermanentFailure", "PermanentFailure"],
            "{answer}"
        );
        assert_eq!(parsed(&results[0]["resultString"])["label"], "lambda-red", "{name}");
        for (result, code) in results[1..]
            .iter()
            .zip(["unsupported_format", "not_found", "forbidden"])
        {
            assert!(
                result["resultString"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(code)),
                "{result}"
            );
        }
    }

    let batch = json!({
        "BatchInput": { "bucket": "photos", "top_k": 1 },
        "Items": [{ "Key": "in/green.png", "Size": 80 }, "s3://photos/in/none.png", { "image": image }],
    });
    let (status, answer) = lambda.invoke(&batch);
    assert_eq!(
        (status, &answer["succeeded"], &answer["failed"]),
        (200, &json!(2), &json!(1)),
        "{answer}"
    );
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results[0]["item"], "s3://photos/in/green.png");
    assert_eq!(results[0]["label"], "lambda-green");
    assert_eq!(results[0]["scores"].as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(
        (&results[1]["error"]["code"], &results[1]["passing"]),
        (&json!("not_found"), &json!(false))
    );
    assert_eq!(results[2]["label"], "lambda-blue");

    // A function without a model: engines are told to try again, each in its own way.
    environment.pop();
    environment.push(("IKAT_MODEL", "s3://models/lying"));
    let Some(lambda) = Lambda::start(&environment) else {
        return;
    };
    let (_, answer) = lambda.invoke(&fixture("s3_batch_1"));
    assert_eq!(answer["results"][0]["resultCode"], "TemporaryFailure", "{answer}");
    let (_, answer) = lambda.invoke(&batch);
    assert_eq!(answer["errorType"], "ModelUnavailable", "{answer}");
    let (_, answer) = lambda.invoke(&json!({ "image": image }));
    assert_eq!(
        (&answer["statusCode"], &answer["error"]["code"]),
        (&json!(503), &json!("model_unavailable"))
    );
}

#[test]
fn an_answer_that_is_more_than_is_carried_is_logged_as_it_is_given() {
    let folder = tempfile::tempdir().expect("a folder");
    bundle(&"long".repeat(1500)).write(folder.path()).expect("written");
    let Some((lambda, log)) = Lambda::start_and_listen(&[("IKAT_MODEL", &folder.path().display().to_string())]) else {
        return;
    };
    let answered = std::thread::spawn(move || {
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.find(|line| line["status"].is_number())
    });
    let images = vec![base64(&png([10, 10, 250])); 64];
    let mut event = fixture("load_balancer");
    event["body"] = json!({ "images": images }).to_string().into();
    let (_, answer) = lambda.invoke(&event);
    assert_eq!(answer["statusCode"], 413, "{}", answer["statusDescription"]);
    // Where it has logged nothing, this ends its log.
    drop(lambda);
    let line = answered.join().expect("no panic").expect("a line");
    assert_eq!(
        ["status", "ClientErrors", "Images"].map(|name| &line[name]),
        [&json!(413), &json!(1), &json!(64)]
    );
}

#[test]
fn an_image_that_takes_too_long_costs_no_other_item_its_answer() {
    let red = png([250, 10, 10]);
    let image = red.clone();
    let bucket = Web::start(move |path, _, stream| {
        if path.starts_with("/photos/slow.png") {
            // Longer than an item has, and shorter than the next one waits for its place on a single core.
            std::thread::sleep(Duration::from_millis(5500));
        }
        answer(stream, "200 OK", &[("etag", "\"1\"")], &image);
    });
    let folder = tempfile::tempdir().expect("a folder");
    bundle("lambda").write(folder.path()).expect("written");
    let model = folder.path().display().to_string();
    let endpoint = bucket.url("");
    let mut environment = seaweedfs::environment(&endpoint);
    environment.extend([
        ("IKAT_MODEL", model.as_str()),
        ("IKAT_ALLOWED_BUCKETS", "photos"),
        ("IKAT_DEADLINE_SECONDS", "4"),
    ]);
    let Some(lambda) = Lambda::start(&environment) else {
        return;
    };

    let keys = ["red.png", "slow.png", "red.png"];
    let tasks = keys.map(|key| json!({ "taskId": key, "s3Key": key, "s3BucketArn": "arn:aws:s3:::photos" }));
    let mut event = fixture("s3_batch_1");
    event["tasks"] = json!(tasks);
    let (_, answer) = lambda.invoke(&event);
    let codes = [0_usize, 1, 2].map(|number| answer["results"][number]["resultCode"].as_str());
    let expected = ["Succeeded", "PermanentFailure", "Succeeded"].map(Some);
    assert_eq!(codes, expected, "{answer}");
    let reason = answer["results"][1]["resultString"].as_str().unwrap_or_default();
    assert!(reason.starts_with("deadline_exceeded"), "{answer}");

    let items = json!([{ "Key": "slow.png" }, { "Key": "red.png" }, { "image": base64(&red) }]);
    let (_, answer) = lambda.invoke(&json!({ "BatchInput": { "bucket": "photos" }, "Items": items }));
    assert_eq!(
        (&answer["succeeded"], &answer["failed"]),
        (&json!(2), &json!(1)),
        "{answer}"
    );
    let slow = &answer["results"][0];
    assert_eq!(
        (&slow["error"]["code"], &slow["passing"]),
        (&json!("deadline_exceeded"), &json!(false))
    );
}

#[test]
fn an_instance_takes_its_first_event_though_its_store_does_not_answer() {
    // Connections are made by the system, and nobody reads from them.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    let mut environment = seaweedfs::environment(&endpoint);
    environment.extend([("IKAT_DEADLINE_SECONDS", "1"), ("IKAT_MODEL", "s3://models/colours")]);
    let Some(lambda) = Lambda::start(&environment) else {
        return;
    };
    let (_, answer) = lambda.invoke(&json!({ "image": "AAAA" }));
    assert_eq!(answer["statusCode"], 503, "{answer}");
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("still being loaded"), "{message}");
}

#[tokio::test]
async fn an_instance_sees_its_loading_through_before_it_takes_another_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = ObjectStore::Folder(FolderStore::new(folder.path()));
    let [first, second] = ["first", "second"].map(bundle);
    publish(&store, &first, "colours").await.expect("published");
    let slow = file_key("colours", &second.manifest.version, MODEL);
    let objects = folder.path().to_owned();
    let bucket = Web::start(move |path, _, stream| {
        let key = path
            .trim_start_matches("/models/")
            .split('?')
            .next()
            .unwrap_or_default();
        if key == slow {
            // Many times as long as an answer takes.
            std::thread::sleep(Duration::from_millis(500));
        }
        match std::fs::read(objects.join(key)) {
            Ok(object) => answer(stream, "200 OK", &[("etag", "\"1\"")], &object),
            Err(_) => answer(stream, "404 Not Found", &[], b""),
        }
    });
    let endpoint = bucket.url("");
    let mut environment = seaweedfs::environment(&endpoint);
    environment.extend([("IKAT_MODEL", "s3://models/colours"), ("IKAT_REFRESH_SECONDS", "1")]);
    let Some(lambda) = Lambda::start(&environment) else {
        return;
    };
    let image = base64(&png([250, 10, 10]));
    let version = || lambda.invoke(&json!({ "image": image })).1["model"]["version"].clone();
    let refresh = Duration::from_secs(1);
    assert_eq!(version(), first.manifest.version);
    wait_until("a time when no look is under way", || {
        std::thread::sleep(refresh);
        let begun = Instant::now();
        // The first of two begins a look, which is over once the second is answered. That one begins another where it
        // comes late, as on a busy machine.
        assert_eq!([version(), version()], [(); 2].map(|()| json!(first.manifest.version)));
        begun.elapsed() < refresh
    });
    publish(&store, &second, "colours").await.expect("published");
    std::thread::sleep(refresh);
    // The one that finds the new version does not wait for it, and the next one has it.
    assert_eq!(version(), first.manifest.version);
    assert_eq!(version(), second.manifest.version);
}
