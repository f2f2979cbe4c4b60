//! By a Step Functions Distributed Map.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use end_to_end::colours::{self, COLOURS};
use end_to_end::lambda::Lambda;
use end_to_end::program::{Running, say, trainer};
use end_to_end::seaweedfs::SeaweedFs;
use end_to_end::step_functions::StepFunctions;
use end_to_end::{root, wait_until};
use serde_json::{Value, json};
use trainer::publish::publish;

use super::{Place, assert_labels, columns, download, label, read, write};

/// A deployed stack: images in a bucket, the scoring function as Lambda runs it, and a state machine over it.
struct Stack {
    server: SeaweedFs,
    machine: StepFunctions,
    runtime: tokio::runtime::Runtime,
    expected: BTreeMap<String, String>,
}

impl Stack {
    /// With `count` images in `s3://photos/in/`; `disturb` may answer instead of the function, given the number of
    /// the invocation and the event.
    fn start(count: usize, disturb: impl Fn(usize, &Value) -> Option<Value> + Send + Sync + 'static) -> Option<Self> {
        let server = SeaweedFs::start()?;
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let expected = runtime.block_on(async {
            let models = server.store("models", "").await;
            publish(&models, &colours::bundle("all"), "colours")
                .await
                .expect("published");
            server.create_bucket("results").await;
            let photos = server.store("photos", "").await;
            let mut expected = BTreeMap::new();
            let mut writes = tokio::task::JoinSet::new();
            for number in 0..count {
                let key = format!("in/{number:05}.png");
                expected.insert(format!("s3://photos/{key}"), label(number));
                if writes.len() == 16 {
                    writes.join_next().await;
                }
                let (photos, image) = (photos.clone(), colours::png(COLOURS[number % 3].1));
                writes.spawn(async move { photos.put(&key, image.into(), None).await.expect("written") });
            }
            writes.join_all().await;
            expected
        });
        let mut environment = server.environment();
        environment.extend([
            ("IKAT_ALLOWED_BUCKETS", "photos"),
            ("IKAT_MODEL", "s3://models/colours"),
        ]);
        let lambda = Lambda::start(&environment)?;
        let invocations = AtomicUsize::new(0);
        let machine = StepFunctions::start(server.client(), move |event| {
            let number = invocations.fetch_add(1, Ordering::SeqCst);
            disturb(number, event).unwrap_or_else(|| lambda.invoke(event).1)
        });
        Some(Self {
            server,
            machine,
            runtime,
            expected,
        })
    }

    fn batch(&self, place: &Place, input: &str, output: &str) -> Command {
        let mut command = trainer(&["batch", "--json"]);
        command
            .args(["--input", input, "--output", output, "--concurrency", "7"])
            .env("IKAT_CACHE", place.path("cache"))
            .env("IKAT_STATE_MACHINE", StepFunctions::STATE_MACHINE)
            .envs(self.server.environment())
            .env("AWS_ENDPOINT_URL_SFN", self.machine.endpoint());
        command
    }

    /// Copies the output at `prefix` in the bucket of results to `folder`.
    fn fetch(&self, prefix: &str, folder: &Path) {
        download(&self.runtime, &self.server, prefix, folder);
    }
}

#[test]
fn a_state_machine_scores_five_thousand_images_whatever_breaks() {
    let place = Place::new();
    // Every seventh invocation fails and may be tried again; one batch fails whatever is done.
    let disturb = |number: usize, event: &Value| {
        let broken = event["Items"][0]["Key"] == "in/00200.png";
        let error = |kind: &str| Some(json!({ "errorType": kind, "errorMessage": "broken on purpose" }));
        match number {
            _ if broken => error("Runtime.ExitError"),
            _ if number.is_multiple_of(7) => error("StorageUnavailable"),
            _ => None,
        }
    };
    let Some(stack) = Stack::start(5000, disturb) else {
        return;
    };
    let command = || stack.batch(&place, "s3://photos/in/", "s3://results/2026");

    // The trainer is killed, then the execution breaks down twice, then it succeeds.
    stack.machine.break_down_after(60);
    let running = Running::start(&mut command());
    wait_until("the execution", || stack.machine.batches() > 5);
    drop(running);
    let said = say(&mut command()).ended_with(1);
    assert!(
        said.stderr.contains("Joining") && said.stderr.contains("broken on purpose"),
        "{said:?}"
    );
    assert!((5..250).contains(&stack.machine.batches()));
    stack.machine.break_down_after(150);
    say(&mut command()).ended_with(1);
    let said = say(&mut command()).ended_with(3);
    assert!(said.stderr.contains("Taking up again"), "{said:?}");
    assert_eq!(
        (
            stack.machine.asked("StartExecution"),
            stack.machine.asked("RedriveExecution")
        ),
        (1, 2)
    );

    let out = place.path("out");
    stack.fetch("2026", &out);
    let (failed, good): (BTreeMap<_, _>, BTreeMap<_, _>) = stack
        .expected
        .clone()
        .into_iter()
        .partition(|(item, _)| ("s3://photos/in/00200.png".."s3://photos/in/00220.png").contains(&item.as_str()));
    assert_eq!((good.len(), failed.len()), (4980, 20));
    assert_labels(&out, &good);
    let failures = columns(&read(&out, "failures.csv"), "item", "code");
    assert!(failures.keys().eq(failed.keys()));
    assert!(read(&out, "failures.csv").contains("Runtime.ExitError: broken on purpose"));
    let document = said.json();
    assert_eq!(
        [
            &document["images"],
            &document["succeeded"],
            &document["failed"],
            &document["passing"]
        ],
        [5000, 4980, 20, 20]
    );

    // Again: nothing is asked of the state machine.
    let asked = stack.machine.asked("DescribeExecution");
    let again = say(&mut command()).ended_with(3);
    assert_eq!(
        (again.json(), stack.machine.asked("DescribeExecution")),
        (document, asked)
    );
    // The template's state machine finds what it needs in the execution's input.
    assert_input_is_complete(&stack.machine.inputs()[0], "ScorePrefix:", "ScoreList:");
}

#[test]
fn a_state_machine_scores_a_list() {
    let place = Place::new();
    let Some(stack) = Stack::start(60, |_, _| None) else {
        return;
    };
    let expected = &stack.expected;
    let mut list: Vec<&str> = expected.keys().map(String::as_str).collect();
    list.push("s3://photos/in/none.png");
    write(&place.path("list.txt"), list.join("\n").as_bytes());
    let list = place.text("list.txt");
    say(&mut stack.batch(&place, &list, "s3://results/list")).ended_with(3);
    stack.fetch("list", &place.path("out"));
    assert_labels(&place.path("out"), expected);
    let failures = columns(&read(&place.path("out"), "failures.csv"), "item", "code");
    assert_eq!(
        failures.into_iter().collect::<Vec<_>>(),
        [("s3://photos/in/none.png".to_owned(), "not_found".to_owned())]
    );
    assert_input_is_complete(&stack.machine.inputs()[0], "ScoreList:", "Outputs:");

    // The results of this machine's cores are the same, but for the times.
    let mut local = place.local(&list, &place.text("local"));
    say(local.envs(stack.server.environment())).ended_with(3);
    for name in ["results.csv", "failures.csv"] {
        assert_eq!(
            read(&place.path("local"), name),
            read(&place.path("out"), name),
            "{name}"
        );
    }

    // What a state machine cannot read or is not there is told of before anything is started.
    write(&place.path("mixed.txt"), b"s3://photos/in/00000.png\n1.png\n");
    let arn = StepFunctions::STATE_MACHINE;
    for (input, output, machine, part) in [
        (place.text("mixed.txt"), "s3://results/x", arn, "--local"),
        (place.text("bundle"), "s3://results/x", arn, "--local"),
        ("s3://photos/in/".to_owned(), "elsewhere", arn, "--local"),
        (
            "s3://photos/in/".to_owned(),
            "s3://results/x",
            &arn.replace("ikat", "other"),
            "other-batch",
        ),
    ] {
        let mut command = stack.batch(&place, &input, output);
        let said = say(command.current_dir(place.path("")).env("IKAT_STATE_MACHINE", machine)).ended_with(1);
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
    assert_eq!(stack.machine.inputs().len(), 1);

    // Mended, the list is read again.
    write(&place.path("mixed.txt"), b"s3://photos/in/00000.png\n");
    say(&mut stack.batch(&place, &place.text("mixed.txt"), "s3://results/x")).ended_with(0);
    assert_eq!(stack.machine.inputs().len(), 2);

    // The same command joins an execution that found nothing, whatever is there by now.
    let said = say(&mut stack.batch(&place, "s3://photos/none/", "s3://results/none")).ended_with(1);
    assert!(said.stderr.contains("choose another output"), "{said:?}");
}

/// Asserts that the part of the template between these words asks for nothing that `input` lacks.
fn assert_input_is_complete(input: &Value, from: &str, to: &str) {
    let template = std::fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    let part = template
        .split_once(&format!("          {from}\n"))
        .expect("its state")
        .1;
    let part = part.split(to).next().unwrap_or_default();
    let mut asked = 0;
    for path in part.split_whitespace().filter_map(|word| word.strip_prefix("$.")) {
        let pointer = format!("/{}", path.replace('.', "/"));
        if path != "Payload" {
            assert!(input.pointer(&pointer).is_some(), "{path} is not in {input}");
            asked += 1;
        }
    }
    assert!(asked >= 4, "{asked}");
}
