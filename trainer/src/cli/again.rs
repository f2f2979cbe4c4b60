//! The command that tries once more what a batch job failed on.

use std::ffi::OsString;

use crate::batch::Summary;
use crate::batch::output::FAILURES;
use crate::shell;

/// What tries those failures again that may have passed, where the program was started with `words`. On this machine
/// the same command goes on with them; what the state machine failed on is another job.
pub fn hint(summary: &Summary, is_local: bool, words: impl Iterator<Item = OsString>) -> String {
    if summary.passing == 0 {
        return String::new();
    }
    let output = &summary.job.output;
    let failures = format!("{output}/{FAILURES}");
    let is_bucket = output.strip_prefix("s3://").is_some_and(|place| !place.contains('/'));
    let next = format!("{output}{}again", if is_bucket { '/' } else { '-' });
    let other = (!is_local).then_some((failures.as_str(), next.as_str()));
    format!("\nAgain:    {}", again(words, other))
}

/// The command of `words`, with another input and output where these are given.
fn again(words: impl Iterator<Item = OsString>, other: Option<(&str, &str)>) -> String {
    let mut words = words.skip(1);
    let mut command = vec!["trainer".to_owned()];
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let begins = |start: &&str| text.starts_with(*start);
        if other.is_some() && ["--input", "--output"].contains(&&*text) {
            words.next();
        } else if other.is_none() || !["--input=", "--output="].iter().any(begins) {
            command.push(shell::quote(&word));
        }
    }
    if let Some((input, output)) = other {
        command.extend([
            "--input".to_owned(),
            shell::quote(input),
            "--output".to_owned(),
            shell::quote(output),
        ]);
    }
    command.join(" ")
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    pub fn summary(output: &str, succeeded: u64, passing: u64) -> Summary {
        let labels = if succeeded > 0 {
            json!({ "dotted": succeeded })
        } else {
            json!({})
        };
        serde_json::from_value(json!({
            "id": "1", "input": "images", "output": output, "scorer": "v", "complete": true, "images": succeeded + 2,
            "succeeded": succeeded, "unknown": 0, "failed": 2, "passing": passing, "labels": labels, "models": [],
        }))
        .expect("a summary")
    }

    #[test]
    fn what_may_pass_is_tried_again_by_a_whole_command() {
        let hint = |output: &str, passing: u64, is_local: bool, line: &str| {
            hint(
                &summary(output, 1, passing),
                is_local,
                line.split(' ').map(OsString::from),
            )
        };
        let local = "/usr/bin/trainer batch --local --bundle run --input=in --output out";
        assert_eq!(
            hint("/home/out", 0, true, local),
            "",
            "nothing that another try would help"
        );
        assert_eq!(
            hint("/home/out", 1, true, local),
            "\nAgain:    trainer batch --local --bundle run --input=in --output out"
        );
        let typed = "trainer batch --input s3://b/in/ --state-machine arn --output=s3://b/out/ --concurrency 2";
        for (output, next) in [("s3://b/out", "s3://b/out-again"), ("s3://scores", "s3://scores/again")] {
            assert_eq!(
                hint(output, 2, false, typed),
                format!(
                    "\nAgain:    trainer batch --state-machine arn --concurrency 2 --input {output}/failures.csv \
                     --output {next}"
                )
            );
        }
    }
}
