//! The deployment's template as Amazon's own tools see it, and what its function brings along.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use end_to_end::colours::library;
use end_to_end::program::say;
use end_to_end::{installed, root, tool};

#[test]
fn the_linters_find_nothing() {
    let template = root().join("infra/template.yaml");
    if let Some(cfn_lint) = tool("cfn-lint") {
        let said = say(Command::new(cfn_lint)
            .args(["--include-checks", "I", "--"])
            .arg(&template));
        assert_eq!((said.code, said.stdout.trim()), (0, ""), "{said:?}");
    }
    if let Some(sam) = tool("sam") {
        let home = tempfile::tempdir().expect("a folder");
        let said = say(Command::new(sam)
            .args(["validate", "--lint", "--template"])
            .arg(&template)
            .env("SAM_CLI_TELEMETRY", "0")
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("HOME", home.path()));
        assert_eq!(said.code, 0, "{said:?}");
    }
}

#[test]
fn a_request_has_the_time_that_the_stack_gives_it() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    for setting in ["Timeout: !Ref Timeout\n", "IKAT_DEADLINE_SECONDS: !Ref Timeout\n"] {
        assert!(template.contains(&format!(" {setting}")), "{setting}");
    }
}

#[test]
fn a_batch_that_finds_no_free_instance_waits_until_it_is_its_turn() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    let retriers: Vec<&str> = template
        .split("- ErrorEquals: [")
        .filter(|retrier| {
            let errors = retrier.split(']').next();
            errors.is_some_and(|errors| errors.contains("Lambda.TooManyRequestsException"))
        })
        .collect();
    assert_eq!(retriers.len(), 2, "{retriers:?}");
    for retrier in retriers {
        let number = |name: &str| -> u32 {
            let (_, value) = retrier.split_once(&format!(" {name}: ")).expect(name);
            value.lines().next().and_then(|value| value.parse().ok()).expect(name)
        };
        let (first, rate, longest) = (
            number("IntervalSeconds"),
            number("BackoffRate"),
            number("MaxDelaySeconds"),
        );
        let wait = |attempt| longest.min(first.saturating_mul(rate.saturating_pow(attempt)));
        let waits = (0..number("MaxAttempts")).map(wait);
        // Jitter takes half of each, on average.
        let patience = waits.sum::<u32>() / 2;
        // The 50 batches at once of `trainer batch`, over the 10 instances that a new account may have, 30 s each; and a
        // few times that, as whoever comes later may be in front.
        assert!(patience >= 4 * (50 / 10 * 30), "{patience} s");
    }
}

#[test]
fn a_slip_in_a_parameter_is_refused_before_it_is_deployed() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    let folder = tempfile::tempdir().expect("a folder");
    let values = folder.path().join("values");
    let (buckets, no_buckets) = (
        "\nphotos\nmy.photos-2026\n",
        "s3://photos\nphotos/2026\nphotos,archive\n",
    );
    for (parameter, taken, slips) in [
        ("RefreshSeconds", "1\n30\n86400\n", "\n0\n1.5\n-1\n30s\n5000000000\n"),
        (
            "ModelPrefix",
            "m\nmodels\nteam/a.b-c_d\n",
            "\n/models\nmodels/\na//b\na/../b\na b\n",
        ),
        ("ImageBucket", buckets, no_buckets),
        ("ResultBucket", buckets, no_buckets),
    ] {
        let (_, described) = template.split_once(&format!("\n  {parameter}:\n")).expect(parameter);
        let (_, pattern) = described.split_once("AllowedPattern: \"").expect(parameter);
        let (pattern, _) = pattern.split_once('"').expect(parameter);
        fs::write(&values, [taken, slips].concat()).expect("written");
        // The whole of a value must match, as it must for CloudFormation.
        let said = say(Command::new("grep").args(["-E", "-x", "-e", pattern]).arg(&values));
        assert_eq!(said.stdout, taken, "{parameter}");
    }
}

#[test]
fn pages_may_send_what_their_requests_are_signed_with() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    let (_, allowed) = template.split_once("AllowHeaders:").expect("headers");
    let allowed = allowed.trim_start().strip_prefix('[').expect("a list");
    let (allowed, _) = allowed.split_once(']').expect("its end");
    let allowed: Vec<&str> = allowed.split(", ").collect();
    // What the signer of the AWS SDK for JavaScript (`@smithy/signature-v4`) puts into a request.
    for header in [
        "authorization",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
    ] {
        assert!(allowed.contains(&header), "{header}");
    }
}

#[test]
fn no_partition_of_aws_is_taken_for_granted() {
    let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    assert!(
        !template.contains("arn:aws:"),
        "an ARN that the regions of China do not know"
    );
}

/// A Cargo that leaves how it was called where the program should be.
const CARGO: &str = r#"#!/bin/sh
for argument; do
    [ "$previous" = --lambda-dir ] && echo "$PWD: $*" > "$argument/bootstrap"
    previous=$argument
done
"#;

#[test]
fn what_is_built_is_what_is_measured() {
    let (Some(sam), Some(_)) = (tool("sam"), installed("make")) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().canonicalize().expect("its path");
    for name in ["infra/layer/lib", "scorer", "bin"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    for name in ["infra/template.yaml", "scorer/Makefile"] {
        fs::copy(root().join(name), folder.join(name)).expect("a copy");
    }
    let cargo = folder.join("bin/cargo");
    fs::write(&cargo, CARGO).expect("written");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("a program");
    let path = std::env::var("PATH").expect("a path");
    let said = say(Command::new(sam)
        .arg("build")
        .current_dir(folder.join("infra"))
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .env("SAM_CLI_TELEMETRY", "0")
        .env("AWS_DEFAULT_REGION", "eu-central-1")
        .env("HOME", &folder));
    assert_eq!(said.code, 0, "{said:?}");
    let called = fs::read_to_string(folder.join("infra/.aws-sam/build/Scorer/bootstrap")).expect("what is deployed");
    let expected = format!(
        "{}: lambda build --locked --profile lambda --bin scorer ",
        folder.display()
    );
    assert!(called.starts_with(&expected), "{called}");
}

#[test]
fn a_panic_in_the_function_can_be_caught() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let profile = |name: &str| -> Vec<&str> {
        let (_, settings) = manifest
            .split_once(&format!("[profile.{name}]\n"))
            .expect("the profile");
        settings.lines().take_while(|line| !line.starts_with('[')).collect()
    };
    assert!(profile("release").contains(&"panic = \"unwind\""));
    let lambda = profile("lambda");
    assert!(lambda.contains(&"inherits = \"release\""), "{lambda:?}");
    assert!(!lambda.iter().any(|line| line.starts_with("panic")), "{lambda:?}");
}

/// What `provided.al2023` has, after the documentation of Amazon Linux 2023: glibc 2.34 and the libraries of gcc 11.
const AMAZON_LINUX_2023: [(&str, [u32; 3]); 3] = [
    ("GLIBC_", [2, 34, 0]),
    ("GLIBCXX_", [3, 4, 29]),
    ("CXXABI_", [1, 3, 13]),
];

#[test]
fn the_runtime_library_asks_for_no_newer_system_than_lambda_has() {
    let library = fs::read(library()).expect("the library");
    for (prefix, newest) in AMAZON_LINUX_2023 {
        let asked = versions(&library, prefix);
        let most = asked.iter().max().unwrap_or_else(|| panic!("no {prefix} at all"));
        assert!(most <= &newest, "{prefix}{most:?} is newer than {newest:?}");
    }
}

/// The versions of symbols that a library names in its tables, found as text.
fn versions(library: &[u8], prefix: &str) -> Vec<[u32; 3]> {
    let matches = library.windows(prefix.len()).enumerate();
    let matches = matches.filter(|(_, window)| *window == prefix.as_bytes());
    let read = |(start, _): (usize, &[u8])| {
        let text = &library[start + prefix.len()..];
        let text = &text[..text.iter().position(|byte| *byte == 0)?];
        let mut version = [0; 3];
        for (place, part) in version.iter_mut().zip(std::str::from_utf8(text).ok()?.split('.')) {
            *place = part.parse().ok()?;
        }
        Some(version)
    };
    matches.filter_map(read).collect()
}
