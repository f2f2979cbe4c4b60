use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::classifier::{Calibration, Decision, Prediction, Thresholds};

use super::*;
use shared::service::{Answer, Item, S3Reference};

fn fixture(name: &str) -> String {
    let path = format!("{}/../tests/fixtures/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).expect(&path)
}

fn request(event: Event) -> Result<Request, ServiceError> {
    match event {
        Event::Http { request, .. } | Event::Plain(request) => request,
        Event::S3Batch(_) | Event::Map(_) => panic!("not a request"),
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn answer() -> Answer {
    let manifest = shared::bundle::Manifest {
        schema_version: 1,
        name: "m".to_owned(),
        version: "v1".to_owned(),
        classes: vec!["dotted".to_owned(), "striped".to_owned()],
        classifier: shared::bundle::ClassifierKind::Dnn,
        backbone: shared::bundle::Backbone {
            name: "none".to_owned(),
            sha256: String::new(),
            licence: None,
        },
        feature_size: 2,
        preprocessing: shared::preprocessing::Preprocessing {
            resolution: 8,
            geometry: shared::preprocessing::Geometry::Letterbox,
            background: [0; 3],
            channels: shared::preprocessing::ChannelOrder::Rgb,
            mean: [0.0; 3],
            std: [1.0; 3],
        },
        calibration: Calibration::Temperature { scale: 1.0 },
        thresholds: Thresholds {
            probability: 0.5,
            margin: 0.0,
        },
        files: BTreeMap::new(),
        metrics: BTreeMap::new(),
    };
    let prediction = Prediction {
        best: 1,
        margins: vec![0.0, 1.0],
        probabilities: vec![0.25, 0.75],
        decision: Decision::Accepted,
    };
    Answer::new(&manifest, &prediction, shared::pipeline::Timing::default(), None)
}

#[test]
fn each_event_of_http_becomes_the_same_request() {
    for (name, form, path) in [
        ("function_url", Some(Form::V2), "/score"),
        ("api_gateway_v2", Some(Form::V2), "/score"),
        ("api_gateway_v1", Some(Form::V1), "/score"),
        (
            "load_balancer",
            Some(Form::LoadBalancer { multi_value: false }),
            "/score",
        ),
        (
            "load_balancer_multi_value",
            Some(Form::LoadBalancer { multi_value: true }),
            "/score",
        ),
        ("plain", None, "/"),
    ] {
        let event = Event::read(fixture(name).into()).expect(name);
        match &event {
            Event::Http {
                form: found,
                traceparent,
                ..
            } => {
                assert_eq!(Some(*found), form, "{name}");
                assert_eq!(traceparent.is_some(), name == "function_url", "{name}");
            }
            Event::Plain(_) => assert_eq!(form, None, "{name}"),
            Event::S3Batch(_) | Event::Map(_) => panic!("{name}"),
        }
        let request = request(event).expect(name);
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", path),
            "{name}"
        );
        assert_eq!(request.content_type.as_deref(), Some("application/json"), "{name}");
        let body: Value = serde_json::from_slice(&request.body).expect(name);
        assert_eq!(body, json!({ "image": "AAAA" }), "{name}");
    }
}

#[test]
fn a_stage_is_no_part_of_the_path() {
    let second = |path: &str| json!({ "rawPath": path, "requestContext": { "http": {}, "stage": "v2" } });
    let of_rest_api = |path: &str| json!({ "httpMethod": "POST", "path": path, "requestContext": { "stage": "v2" } });
    let first = |path: &str| {
        let mut event = of_rest_api(path);
        event["version"] = "1.0".into();
        event
    };
    for (event, path) in [
        (second("/v2/score"), "/score"),
        (second("/v2/v2/models/m/infer"), "/v2/models/m/infer"),
        (second("/v20/score"), "/v20/score"),
        (first("/v2/score"), "/score"),
        (of_rest_api("/score"), "/score"),
        (of_rest_api("/v2/models/m/infer"), "/v2/models/m/infer"),
    ] {
        let form = Form::of(&event).expect("an event of HTTP");
        assert_eq!(form.target(&event).1, path, "{event}");
    }
}

#[test]
fn events_of_http_are_answered_as_http_and_plain_ones_plainly() {
    let response = Response::from(ServiceError::new(ErrorCode::ModelUnavailable, "no"));
    for form in [Form::V2, Form::V1, Form::LoadBalancer { multi_value: false }] {
        let answer = json_of(&form.response(&response));
        assert_eq!(answer["statusCode"], 503);
        assert_eq!(
            answer["headers"],
            json!({ "content-type": "application/json", "retry-after": "5" })
        );
        assert_eq!(
            json_of(answer["body"].as_str().expect("a body"))["error"]["code"],
            "model_unavailable"
        );
        assert_eq!(answer["isBase64Encoded"], false);
    }
    let answer = json_of(&Form::LoadBalancer { multi_value: true }.response(&response));
    assert_eq!(answer["statusDescription"], "503 Service Unavailable");
    assert_eq!(
        answer["multiValueHeaders"],
        json!({ "content-type": ["application/json"], "retry-after": ["5"] })
    );
    assert!(answer.get("headers").is_none());
    assert_eq!(
        json_of(&plain(&ServiceError::bad_request("no").into())),
        json!({ "statusCode": 400, "error": { "code": "bad_request", "message": "no" } })
    );
}

#[test]
fn tasks_of_s3_batch_operations_name_their_objects() {
    let item = |key: &str, version: Option<&str>| {
        Ok(Item::Reference(S3Reference {
            version: version.map(str::to_owned),
            ..S3Reference::new("amzn-s3-demo-bucket", key).expect("a reference")
        }))
    };
    for (name, items) in [
        ("s3_batch_1", vec![item("customerImage1.jpg", Some("1"))]),
        (
            "s3_batch_2",
            vec![item("photos of 2026/ä+1.jpg", None), item("object2.jpg", None)],
        ),
    ] {
        let Event::S3Batch(invocation) = Event::read(fixture(name).into()).expect(name) else {
            panic!("{name}")
        };
        assert_eq!(invocation.items(), items, "{name}");
    }
}

#[test]
fn tasks_of_s3_batch_operations_have_their_result_codes() {
    let Event::S3Batch(invocation) = Event::read(fixture("s3_batch_2").into()).expect("an event") else {
        panic!("another event")
    };
    let missing = ServiceError::new(ErrorCode::NotFound, "x".repeat(5000));
    let response = json_of(&invocation.response(Ok(vec![Ok(answer()), Err(missing)])));
    let members = ["invocationSchemaVersion", "treatMissingKeysAs", "invocationId"].map(|name| response[name].as_str());
    assert_eq!(
        members,
        [
            Some("2.0"),
            Some("TemporaryFailure"),
            Some("YXNkbGZqYWRmaiBhc2RmdW9hZHNmZGpmaGFzbGtkaGZza2RmaAo")
        ]
    );
    let results = response["results"].as_array().expect("results");
    assert_eq!(results[0]["resultCode"], "Succeeded");
    let said = json_of(results[0]["resultString"].as_str().expect("a text"));
    assert_eq!(
        said,
        json!({ "label": "striped", "score": 0.75, "decision": "accepted", "version": "v1" })
    );
    assert_eq!(results[1]["resultCode"], "PermanentFailure");
    assert_eq!(results[1]["resultString"].as_str().map(str::len), Some(1000));

    let unavailable = ServiceError::new(ErrorCode::ModelUnavailable, "no model");
    let response = json_of(&invocation.response(Err(unavailable)));
    let codes: Vec<_> = response["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| &result["resultCode"])
        .collect();
    assert_eq!(codes, ["TemporaryFailure", "TemporaryFailure"]);
}

#[test]
fn a_batch_of_a_distributed_map_has_one_result_for_each_item() {
    let Event::Map(batch) = Event::read(fixture("distributed_map").into()).expect("an event") else {
        panic!("another event")
    };
    assert_eq!(batch.top_k(), Some(1));
    let items = batch.items();
    let place = |bucket: &str, key: &str| S3Reference::new(bucket, key).map(Item::Reference);
    assert_eq!(
        items[..4],
        [
            place("photos", "in/a b+1.jpg"),
            place("archive", "2.jpg"),
            place("archive", "3.jpg"),
            place("archive", "4.jpg"),
        ]
    );
    assert_eq!(items[4], Item::read("AAAA"));
    assert!(items[5].is_err());
    let outcomes = || {
        let passing = ServiceError::new(ErrorCode::StorageUnavailable, "slow down");
        let mut outcomes: Vec<Result<Answer, ServiceError>> = vec![Ok(answer()); 4];
        outcomes.extend([Err(passing), Err(ServiceError::bad_request("no"))]);
        outcomes
    };
    let response = json_of(&batch.response(&items, Ok(outcomes())).expect("an answer"));
    assert_eq!((&response["succeeded"], &response["failed"]), (&json!(4), &json!(2)));
    assert_eq!(response["results"][0]["item"], "s3://photos/in/a b+1.jpg");
    assert_eq!(response["results"][0]["label"], "striped");
    assert_eq!(response["results"][4]["passing"], true);
    assert_eq!(response["results"][5]["passing"], false);
    assert_eq!(response["results"][5]["item"], json!({ "name": "no image" }));

    // What may pass for all is for the state machine to try again.
    let unavailable = || ServiceError::new(ErrorCode::ModelUnavailable, "no model");
    assert_eq!(batch.response(&items, Err(unavailable())), Err(unavailable()));
    let all = vec![Err(unavailable()); items.len()];
    assert_eq!(batch.response(&items, Ok(all)), Err(unavailable()));
}

#[test]
fn what_a_listing_has_for_a_folder_is_no_image() {
    let event = r#"{"BatchInput":{"bucket":"photos"},"Items":[{"Key":"in/"},{"Key":"in/1.jpg"}]}"#;
    let Ok(Event::Map(batch)) = Event::read(event.into()) else {
        panic!("another event")
    };
    let items = batch.items();
    assert_eq!(items, [S3Reference::new("photos", "in/1.jpg").map(Item::Reference)]);
    let response = json_of(&batch.response(&items, Ok(vec![Ok(answer())])).expect("an answer"));
    assert_eq!((&response["succeeded"], &response["failed"]), (&json!(1), &json!(0)));
}

#[test]
fn a_batch_whose_scores_are_more_than_is_carried_keeps_the_likeliest() {
    let items: Vec<Value> = (0..20)
        .map(|number| json!({ "s3": format!("s3://photos/{number}.jpg") }))
        .collect();
    let Ok(Event::Map(batch)) = Event::read(json!({ "Items": items }).to_string().into()) else {
        panic!("another event")
    };
    let items = batch.items();
    let large = Answer {
        scores: (0..2000)
            .map(|class| (format!("class {class}"), 1.0 / 2000.0))
            .collect(),
        ..answer()
    };
    let text = batch.response(&items, Ok(vec![Ok(large); 20])).expect("an answer");
    assert!(((200 << 10)..(256 << 10)).contains(&text.len()), "{}", text.len());
    let response = json_of(&text);
    for result in response["results"].as_array().expect("results") {
        assert_eq!(result["label"], "striped");
        let scores = result["scores"].as_object().expect("scores");
        assert!(scores.contains_key("class 0") && !scores.contains_key("class 1999"));
        let warning = result["warnings"][0].as_str().expect("a warning");
        assert!(warning.contains(&scores.len().to_string()), "{warning}");
    }
}

#[test]
fn the_state_machine_tries_again_what_may_pass() {
    let path = format!("{}/../infra/template.yaml", env!("CARGO_MANIFEST_DIR"));
    let template = std::fs::read_to_string(&path).expect(&path);
    let errors = |rule: &str| -> Vec<String> {
        let lists = rule.split("ErrorEquals: [").skip(1);
        let names = lists.flat_map(|rest| rest.split(']').next().unwrap_or_default().split(','));
        names.map(|name| name.trim().to_owned()).collect()
    };
    let rules: Vec<Vec<String>> = template.split("Retry:").skip(1).map(errors).collect();
    assert_eq!(rules.len(), 2);
    // What may befall an invocation in Lambda itself:
    // https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html
    for name in [
        "Lambda.ClientExecutionTimeoutException",
        "Lambda.ServiceException",
        "Lambda.AWSLambdaException",
        "Lambda.SdkClientException",
        "Lambda.TooManyRequestsException",
        "Lambda.Unknown",
    ] {
        assert!(
            rules.iter().all(|rule| rule.iter().any(|error| error == name)),
            "{name}"
        );
    }
    for code in [
        ErrorCode::BadRequest,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::MethodNotAllowed,
        ErrorCode::TooLarge,
        ErrorCode::UnsupportedFormat,
        ErrorCode::UndecodableImage,
        ErrorCode::TooManyRequests,
        ErrorCode::Internal,
        ErrorCode::ModelUnavailable,
        ErrorCode::StorageUnavailable,
        ErrorCode::DeadlineExceeded,
    ] {
        let name = format!("{code:?}");
        for rule in &rules {
            let is_tried = rule.contains(&name);
            assert_eq!(is_tried, code.is_passing(), "{name}");
        }
    }
}

#[test]
fn what_lambda_would_refuse_is_refused() {
    let large = "A".repeat(MAX_BYTES + 1);
    let mut event: Value = json_of(&fixture("function_url"));
    event["body"] = large.clone().into();
    for event in [event, json!({ "image": large })] {
        let error = request(Event::read(event.to_string().into()).expect("an event")).expect_err("too large");
        assert_eq!(error.code, ErrorCode::TooLarge);
        assert!(error.message.contains("s3://bucket/key"), "{error}");
    }
    let response = Response::json(200, &"A".repeat(MAX_BYTES));
    let limited = |form: Form, path: &str, response: &Response| {
        let write = |response: &Response| form.response(response);
        json_of(&write(&fitting(path, response.clone(), form.most_bytes(), write)))
    };
    let answer = limited(Form::V2, "/", &response);
    assert_eq!(answer["statusCode"], 413);
    assert!(json_of(answer["body"].as_str().expect("a body"))["error"]["code"].is_string());
    // Each path in its own form.
    let path = "/v2/models/m/infer";
    let answer = limited(Form::V2, path, &response);
    assert!(json_of(answer["body"].as_str().expect("a body"))["error"].is_string());
    // A load balancer takes less.
    let response = Response::json(200, &"A".repeat(1 << 20));
    for (form, status) in [(Form::V2, 200), (Form::LoadBalancer { multi_value: false }, 413)] {
        assert_eq!(limited(form, "/", &response)["statusCode"], status, "{form:?}");
    }
}

#[test]
fn a_request_that_cannot_be_read_still_has_its_method_and_path() {
    let mut event = json_of(&fixture("function_url"));
    event["rawPath"] = "/v2/models/m/infer".into();
    event["body"] = "!".into();
    event["isBase64Encoded"] = true.into();
    let Ok(Event::Http {
        method, path, request, ..
    }) = Event::read(event.to_string().into())
    else {
        panic!("another event")
    };
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/v2/models/m/infer"));
    assert_eq!(request.map_err(|error| error.code), Err(ErrorCode::BadRequest));
}

#[test]
fn an_event_of_any_shape_gets_an_answer() {
    for event in ["null", "[", "\"text\"", "{}", "{", r#"{"requestContext":{"http":{}}}"#] {
        let read = Event::read(event.into()).expect(event);
        if let Ok(request) = request(read) {
            assert_eq!(request.method, "POST");
        }
    }
    for event in [
        r#"{"invocationSchemaVersion":"1.0","tasks":[{}]}"#,
        r#"{"Items":[],"BatchInput":{"top_k":"many"}}"#,
        r#"{"Items":[],"BatchInput":{"top_k":0}}"#,
        r#"{"Records":[{"eventSource":"aws:sqs","body":"{\"image\":\"AAAA\"}"}]}"#,
        r#"{"eventSource":"aws:kafka","records":{"images-0":[{"topic":"images","value":"AAAA"}]}}"#,
        r#"{"eventSource":"aws:mq","messages":[{"messageID":"1","data":"AAAA"}]}"#,
        r#"{"detail-type":"Object Created","source":"aws.s3","detail":{}}"#,
        r#"[{"messageId":"1","eventSource":"aws:sqs","body":"{\"image\":\"AAAA\"}"}]"#,
        " []",
    ] {
        assert_eq!(
            Event::read(event.into()).err().map(|error| error.code),
            Some(ErrorCode::BadRequest),
            "{event}"
        );
    }
}
