//! The deployment's template on an emulator that runs the real scorer and enforces the roles of the template.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use end_to_end::REGION;
use end_to_end::colours::{COLOURS, bundle, library, png};
use end_to_end::ministack::MiniStack;
use end_to_end::program::{Said, say, trainer};
use futures_util::{StreamExt, stream};
use reqwest::{Client, Method};
use serde_json::{Map, Value, json};
use shared::bundle::TrustedKeys;
use trainer::publish::{publish, rollback};

/// Name of the model.
const NAME: &str = "colours";

/// `trainer call` at the emulator.
fn call(stack: &MiniStack, arguments: &[&str]) -> Said {
    let mut command = trainer(&["call", "--json", "--quiet"]);
    say(command.args(arguments).envs(stack.environment()))
}

#[tokio::test]
async fn the_stack_answers_signed_requests_and_follows_its_model() {
    let Some(stack) = MiniStack::start() else { return };
    let parameters = [("ModelName", NAME), ("RefreshSeconds", "1")];
    let outputs = stack.create_stack("ikat", library(), &parameters).await;
    assert!(!outputs.contains_key("StateMachine"), "{outputs:?}");
    let url = stack.function_url(&outputs["Url"]);
    let store = stack.store(&outputs["Store"]).await;
    let [first, second] = ["first", "second"].map(bundle);
    publish(&store, &first, NAME).await.expect("published");

    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("green.png");
    std::fs::write(&image, png(COLOURS[1].1)).expect("written");
    let image = image.display().to_string();

    let refused = call(&stack, &["--endpoint", &url, &image]).ended_with(1).json();
    assert_eq!(refused["summary"]["errors"]["forbidden"], 1, "{refused}");
    assert!(
        refused["results"][0]["error"]
            .as_str()
            .is_some_and(|error| error.contains("403")),
        "{refused}"
    );

    let signed = ["--endpoint", &url, "--sign-requests", "--region", REGION, &image];
    let label = || call(&stack, &signed).ended_with(0).json()["results"][0]["label"].clone();
    assert_eq!(label(), "first-green");
    let load = [&signed[..], &["--repeat", "12", "--concurrency", "3"]].concat();
    let answered = call(&stack, &load).ended_with(0).json();
    assert_eq!(answered["summary"]["answered"], 12, "{answered}");
    assert_eq!(
        answered["summary"]["versions"][&first.manifest.version], 12,
        "{answered}"
    );
    let [round_trip, server] = ["round_trip_ms", "server_ms"].map(|row| answered["summary"][row]["p50"].as_f64());
    assert!(round_trip > server && server > Some(0.0), "{answered}");

    // The alias decides; the stack is not touched.
    publish(&store, &second, NAME).await.expect("published");
    until(&stack, || label() == "second-green").await;
    rollback(&store, NAME, None, &TrustedKeys::default())
        .await
        .expect("rolled back");
    until(&stack, || label() == "first-green").await;

    // Other parameters reach what answers, without new code and at the same address.
    let pinned = [&parameters[..], &[("PinnedVersion", &*second.manifest.version)]].concat();
    let updated = stack.update_stack("ikat", library(), &pinned).await;
    assert_eq!(updated["Url"], outputs["Url"]);
    until(&stack, || label() == "second-green").await;

    stack.delete_stack("ikat").await;
    let gone = call(&stack, &signed);
    assert_eq!(gone.code, 1, "{gone:?}");
    // The models stay.
    assert!(store.head("colours/live.json").await.expect("an answer").is_some());
}

#[tokio::test]
async fn an_open_stack_answers_anybody() {
    let Some(stack) = MiniStack::start() else { return };
    let parameters = [
        ("ModelName", NAME),
        ("PublicAccess", "true"),
        ("AllowedOrigins", "https://one.example,https://two.example"),
        ("ProvisionedConcurrency", "1"),
        ("ReservedConcurrency", "5"),
        ("Tracing", "Active"),
    ];
    let outputs = stack.create_stack("open", library(), &parameters).await;
    let store = stack.store(&outputs["Store"]).await;
    publish(&store, &bundle("open"), NAME).await.expect("published");
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("blue.png");
    std::fs::write(&image, png(COLOURS[2].1)).expect("written");
    let url = stack.function_url(&outputs["Url"]);
    let answer = call(&stack, &["--endpoint", &url, &image.display().to_string()])
        .ended_with(0)
        .json();
    assert_eq!(answer["results"][0]["label"], "open-blue");

    // Browsers let pages of the named origins alone read answers, and ask before they post.
    let client = Client::builder().no_proxy().timeout(Duration::from_mins(1));
    let client = client.build().expect("a client");
    let allowed = async |method: Method, origin: &str, what: &str| {
        let request = client.request(method, &url).header("origin", origin);
        let answer = request.send().await.expect("an answer");
        let header = answer.headers().get(format!("access-control-allow-{what}"));
        header.map(|header| header.to_str().expect("a text").to_owned())
    };
    for method in [Method::OPTIONS, Method::GET] {
        for origin in ["https://one.example", "https://two.example"] {
            let told = allowed(method.clone(), origin, "origin").await;
            assert_eq!(told.as_deref(), Some(origin), "{method}");
        }
        assert_eq!(allowed(method, "https://three.example", "origin").await, None);
    }
    for (what, value) in [("methods", "POST"), ("headers", "content-type")] {
        let told = allowed(Method::OPTIONS, "https://one.example", what).await;
        assert!(told.as_ref().is_some_and(|told| told.contains(value)), "{told:?}");
    }
}

/// How many images the state machine scores.
const IMAGES: usize = 5000;

#[tokio::test]
async fn the_state_machine_scores_each_image_exactly_once_whatever_fails() {
    let Some(stack) = MiniStack::start() else { return };
    for bucket in ["photos", "scores"] {
        stack.create_bucket(bucket).await;
    }
    let parameters = [
        ("ModelName", NAME),
        ("ImageBucket", "photos"),
        ("ResultBucket", "scores"),
    ];
    let outputs = stack.create_stack("batch", library(), &parameters).await;
    let expected = fill(&stack).await;

    let machine = &outputs["StateMachine"];
    let described = json!({ "stateMachineArn": machine });
    let described = stack
        .ask("states", "AWSStepFunctions.DescribeStateMachine", &described)
        .await;
    let definition: Value =
        serde_json::from_str(described["definition"].as_str().expect("a definition")).expect("JSON");
    let keys: Vec<&String> = expected.keys().collect();
    let (definition, batches) = as_batches(definition, &keys);
    let put = stack.s3().put_object().bucket("scores").key("batches.json");
    put.body(Bytes::from(batches.to_string()).into())
        .send()
        .await
        .expect("written");
    let update = json!({ "stateMachineArn": machine, "definition": definition.to_string() });
    stack
        .ask("states", "AWSStepFunctions.UpdateStateMachine", &update)
        .await;

    let input = json!({
        "bucket": "photos", "prefix": "in/", "output_bucket": "scores", "output_prefix": "out", "concurrency": 3,
    });
    let start = json!({ "stateMachineArn": machine, "input": input.to_string() });
    let begun = Instant::now();
    let execution = stack.ask("states", "AWSStepFunctions.StartExecution", &start).await;
    // There is no model yet: the first batches fail, and are tried again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let store = stack.store(&outputs["Store"]).await;
    publish(&store, &bundle("batch"), NAME).await.expect("published");
    let execution = json!({ "executionArn": execution["executionArn"] });
    let mut killed = 0;
    let finished = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let described = stack
            .ask("states", "AWSStepFunctions.DescribeExecution", &execution)
            .await;
        if described["status"] != "RUNNING" {
            break described;
        }
        if killed < 4 {
            killed += stack.kill_instances();
        }
        assert!(begun.elapsed() < Duration::from_mins(4), "{}", stack.log());
    };
    assert_eq!(finished["status"], "SUCCEEDED", "{finished}");
    assert!(killed >= 4, "instances were killed: {killed}");

    let output: Vec<Value> = serde_json::from_str(finished["output"].as_str().expect("an output")).expect("batches");
    let mut found = BTreeMap::new();
    for result in output
        .iter()
        .flat_map(|batch| batch["results"].as_array().expect("results"))
    {
        let item = result["item"].as_str().expect("an item").to_owned();
        let answer = result["label"].as_str().or_else(|| result["error"]["code"].as_str());
        let earlier = found.insert(item, answer.expect("a label or an error").to_owned());
        assert_eq!(earlier, None, "twice: {result}");
    }
    let expected: BTreeMap<String, String> = expected
        .into_iter()
        .map(|(key, answer)| (format!("s3://photos/{key}"), answer))
        .collect();
    assert_eq!(found.len(), IMAGES);
    assert!(found == expected, "an image has another answer");
    let failed: u64 = output.iter().filter_map(|batch| batch["failed"].as_u64()).sum();
    assert_eq!(failed, IMAGES as u64 / 100);
}

/// Puts images into the bucket, one in a hundred of which is none; gives what is to be said of each key.
async fn fill(stack: &MiniStack) -> BTreeMap<String, String> {
    let s3 = stack.s3();
    let images: Vec<(String, Bytes, String)> = (0..IMAGES)
        .map(|number| {
            let (colour, pixel) = COLOURS[number % 3];
            if number % 100 == 50 {
                let key = format!("in/{number:05}-text.png");
                (key, "text".into(), "unsupported_format".to_owned())
            } else {
                let key = format!("in/{number:05} {colour}+ä.png");
                (key, png(pixel).into(), format!("batch-{colour}"))
            }
        })
        .collect();
    let puts = images.iter().map(|(key, image, _)| {
        let put = s3.put_object().bucket("photos").key(key).body(image.clone().into());
        async move { put.send().await.expect("written") }
    });
    stream::iter(puts).buffer_unordered(16).collect::<Vec<_>>().await;
    images.into_iter().map(|(key, _, answer)| (key, answer)).collect()
}

/// Does what the emulator leaves out: reads, selects and batches the items as `ItemSelector` and `ItemBatcher` say, and
/// gives a definition that reads those batches, with all else as it was.
fn as_batches(mut definition: Value, keys: &[&String]) -> (Value, Value) {
    let map = definition["States"]["ScorePrefix"].as_object_mut().expect("the map");
    let mut take = |name: &str| {
        map.remove(name)
            .unwrap_or_else(|| panic!("{name} is gone from the definition"))
    };
    let [selector, batcher, reader] = ["ItemSelector", "ItemBatcher", "ItemReader"].map(&mut take);
    take("ResultWriter");
    take("MaxConcurrencyPath");
    assert_eq!(
        reader["Parameters"],
        json!({ "Bucket.$": "$.bucket", "Prefix.$": "$.prefix" })
    );
    assert_eq!(batcher["BatchInput"], json!({ "bucket.$": "$.bucket" }));
    map.insert("MaxConcurrency".to_owned(), 3.into());
    map.insert(
        "ItemReader".to_owned(),
        json!({
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": { "InputType": "JSON" },
            "Parameters": { "Bucket": "scores", "Key": "batches.json" },
        }),
    );
    let items: Vec<Value> = keys
        .iter()
        .map(|key| {
            let listed = json!({ "Key": key, "Size": 90, "Etag": "x", "StorageClass": "STANDARD" });
            let selected = selector.as_object().expect("fields").iter().map(|(name, path)| {
                let field = path.as_str().and_then(|path| path.strip_prefix("$$.Map.Item.Value."));
                let name = name.strip_suffix(".$").expect("a path");
                (name.to_owned(), listed[field.expect("of the item")].clone())
            });
            Value::Object(selected.collect::<Map<_, _>>())
        })
        .collect();
    let most = batcher["MaxItemsPerBatch"].as_u64().expect("a number") as usize;
    let batches = items
        .chunks(most)
        .map(|items| json!({ "BatchInput": { "bucket": "photos" }, "Items": items }));
    (definition, batches.collect())
}

/// Waits until `ready`, a minute at most.
async fn until(stack: &MiniStack, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_mins(1), "{}", stack.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
