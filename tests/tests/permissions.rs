//! Who may do what in a deployment: each statement of each policy that the template makes, resolved by the emulator.
//! Whoever widens one has to say so here.

use end_to_end::colours::library;
use end_to_end::ministack::MiniStack;
use serde_json::{Value, json};

/// A statement that allows actions.
fn allow(actions: impl Into<Value>, resource: impl Into<Value>) -> Value {
    json!({ "Effect": "Allow", "Action": actions.into(), "Resource": resource.into() })
}

#[tokio::test]
async fn the_roles_may_do_this_and_no_more() {
    let Some(stack) = MiniStack::start() else { return };
    let parameters = [
        ("ModelName", "colours"),
        ("ImageBucket", "photos"),
        ("ResultBucket", "scores"),
        ("Tracing", "Active"),
    ];
    let outputs = stack.create_stack("ikat", library(), &parameters).await;
    let bucket = outputs["Store"].split('/').nth(2).expect("a bucket");
    let roles = stack.roles().await;
    let names: Vec<&str> = roles.keys().map(String::as_str).collect();
    let [batch, scorer] = names[..] else {
        panic!("other roles: {names:?}")
    };
    assert!(
        batch.starts_with("ikat-BatchRole-") && scorer.starts_with("ikat-ScorerRole-"),
        "{names:?}"
    );

    let may =
        |service: &str| json!([{ "Effect": "Allow", "Principal": { "Service": service }, "Action": "sts:AssumeRole" }]);
    let account = "us-east-1:000000000000";
    assert_eq!(roles[scorer].trust, may("lambda.amazonaws.com"));
    assert_eq!(
        roles[scorer].statements,
        [
            allow(["s3:GetObject", "s3:GetObjectVersion"], "arn:aws:s3:::photos/*"),
            allow("s3:GetObject", format!("arn:aws:s3:::{bucket}/models/colours/*")),
            allow(["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*"),
            allow(
                ["logs:CreateLogStream", "logs:PutLogEvents"],
                format!("arn:aws:logs:{account}:log-group:/aws/lambda/ikat-scorer:*")
            ),
        ]
    );
    let function = &outputs["Function"];
    let machine = |kind: &str| format!("arn:aws:states:{account}:{kind}:ikat-batch");
    assert_eq!(roles[batch].trust, may("states.amazonaws.com"));
    assert_eq!(
        roles[batch].statements,
        [
            allow("s3:ListBucket", "arn:aws:s3:::photos"),
            allow(
                [
                    "s3:PutObject",
                    "s3:GetObject",
                    "s3:ListMultipartUploadParts",
                    "s3:AbortMultipartUpload"
                ],
                "arn:aws:s3:::scores/*"
            ),
            allow("lambda:InvokeFunction", function.as_str()),
            allow("states:StartExecution", machine("stateMachine")),
            allow(
                [
                    "states:DescribeExecution",
                    "states:StopExecution",
                    "states:RedriveExecution"
                ],
                [":*", "/*"].map(|all| machine("execution") + all)
            ),
        ]
    );
    assert!(
        !function.contains(":live"),
        "{function} keeps the parameters of its version"
    );
    // Nobody is let in from outside.
    assert_eq!(stack.function_policy(function).await, None);
    let statements = stack.bucket_policy(bucket).await;
    assert_eq!(
        statements,
        json!([{
            "Sid": "OnlyOverTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")],
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        }])
    );
    stack.delete_stack("ikat").await;

    let parameters = [("ModelName", "colours"), ("PublicAccess", "true")];
    let outputs = stack.create_stack("open", library(), &parameters).await;
    let roles = stack.roles().await;
    assert_eq!(roles.len(), 1, "no role for a state machine that is not there");
    let statements: Vec<&Value> = roles.values().flat_map(|role| &role.statements).collect();
    assert_eq!(statements.len(), 2, "no images, no traces: {statements:?}");
    let policy = stack.function_policy(&outputs["Function"]).await.expect("a policy");
    let may: Vec<_> = policy
        .as_array()
        .expect("statements")
        .iter()
        .map(|statement| {
            (
                statement["Action"].clone(),
                statement["Principal"].clone(),
                statement["Condition"].clone(),
            )
        })
        .collect();
    assert_eq!(
        may,
        [
            (
                json!("lambda:InvokeFunctionUrl"),
                json!("*"),
                json!({ "StringEquals": { "lambda:FunctionUrlAuthType": "NONE" } })
            ),
            (
                json!("lambda:InvokeFunction"),
                json!("*"),
                json!({ "Bool": { "lambda:InvokedViaFunctionUrl": "true" } })
            ),
        ]
    );
}
