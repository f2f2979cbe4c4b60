//! What options take. What an option cannot take is wrong usage, told before any work begins.

use std::num::NonZero;
use std::path::Path;
use std::str::FromStr;

use reqwest::Url;
use shared::store::Location;
use shared::store::versions::{self, VersionError};

use crate::backbone;
use crate::batch::BatchError;
use crate::batch::state_machine::Arn;

/// Reads a number for which `fits` holds; `rule` says in words which do.
pub fn number<T: FromStr + 'static>(
    rule: &'static str,
    fits: fn(&T) -> bool,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let value = text.trim().parse::<T>().ok();
        value.filter(fits).ok_or_else(|| format!("give {rule}"))
    }
}

/// Reads how many there are to be of what cannot be none.
pub fn count<N: From<NonZero<usize>>>(text: &str) -> Result<N, String> {
    number("a whole number from 1", |_: &NonZero<usize>| true)(text).map(N::from)
}

/// Reads a number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    number("a number above 0", |value: &f64| value.is_finite() && *value > 0.0)(text)
}

/// Reads an address of the web.
pub fn address(text: &str) -> Result<Url, String> {
    let reason = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => return Ok(url),
        Ok(url) => format!("the scheme is {}, not http or https", url.scheme()),
        Err(error) => error.to_string(),
    };
    Err(format!("{reason}: give an address, such as http://127.0.0.1:9000"))
}

/// Reads the place of a store: `s3://bucket/prefix` or a folder.
pub fn store(text: &str) -> Result<String, String> {
    match Location::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a text that says something.
pub fn words(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("give at least one word".to_owned()),
        words => Ok(words.to_owned()),
    }
}

/// Reads the name that a model has in a store.
pub fn model_name(text: &str) -> Result<String, String> {
    if versions::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(VersionError::Name(text.to_owned()).to_string())
    }
}

/// Reads the ARN of a state machine.
pub fn state_machine(text: &str) -> Result<Arn, String> {
    text.parse().map_err(|wrong: BatchError| wrong.to_string())
}

/// Reads the name of a network of the catalogue, or the path of a network; whether that can be read is seen later.
pub fn network(text: &str) -> Result<String, String> {
    if backbone::is_file(Path::new(text)) {
        return Ok(text.to_owned());
    }
    match backbone::find(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(unknown) => Err(unknown.to_string()),
    }
}

/// The same where nothing is done with a path, so that no message asks for one.
pub fn catalogued(text: &str) -> Result<String, String> {
    network(text).map_err(|_| {
        let names: Vec<&str> = backbone::catalogue().iter().map(|entry| entry.name.as_str()).collect();
        format!(
            "there is no network {text:?} in the catalogue: give one of {}",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::command;

    /// The refusal of a line that lacks nothing else.
    fn refusal(line: &str) -> String {
        let words = std::iter::once("trainer").chain(line.split(' '));
        let error = command().try_get_matches_from(words).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        error.to_string()
    }

    #[test]
    fn wrong_values_are_wrong_usage() {
        for option in [
            "--ratio 75",
            "--ratio 0",
            "--ratio NaN",
            "--folds 1",
            "--c-grid 0.1,0",
            "--c-grid inf",
            "--tolerance 0",
            "--max-passes 0",
            "--accept-quantile 1.5",
            "--near-duplicate-distance 257",
            "--backbone resnet-of-tomorrow",
            "--std 0,0,0",
            "--std 0,1,1",
            "--std nan,1,1",
            "--std=-1,1,1",
            "--mean inf,0,0",
            "--mlflow 127.0.0.1:5000",
            "--mlflow file:///tmp/mlruns",
        ] {
            let said = refusal(&format!("train --data images {option}"));
            let (name, _) = option.split_once([' ', '=']).expect("an option and its value");
            assert!(said.contains("invalid value") && said.contains(name), "{said}");
        }
        for line in [
            "score --bundle run --top-k 0 photo.jpg",
            "call --endpoint 127.0.0.1:9000 photo.jpg",
            "call --endpoint ftp://example.org photo.jpg",
            "call --endpoint http://127.0.0.1:9000 --timeout 0 photo.jpg",
            "data search --data images --items=",
            "rollback --to store --name ../other",
            "versions --to store --name ../other",
            "publish --bundle run --to store --name ../other",
            "lr-find --data images --from-rate 0",
            "lr-find --data images --steps 3",
            "setup --backbone resnet-of-tomorrow",
            "batch --input s3://photos --output s3://scores --state-machine batch",
            "batch --input images --output s3:// --local --bundle run",
            "publish --bundle run --to S3://models",
            "rollback --name photos --to s3://",
            "versions --to s3://",
            "sweep --data images --out sweep --backbone resnet18,resnet-of-tomorrow",
            // As of a variable that is not set: a beginning of every run's name.
            "runs show ",
            "runs compare first ",
            "runs delete ",
        ] {
            let said = refusal(line);
            assert!(
                said.contains("invalid value") || said.contains("a value is required"),
                "{said}"
            );
        }
    }

    #[test]
    fn who_asks_for_none_of_what_cannot_be_none_is_told_what_to_give() {
        for line in [
            "train --data images --threads 0",
            "train --data images --golden-images 0",
            "train --data images --max-passes 0",
            "score --bundle run --top-k 0 photo.jpg",
            "call --endpoint http://127.0.0.1:9000 --concurrency 0 photo.jpg",
        ] {
            let said = refusal(line);
            assert!(said.contains("give a whole number from 1"), "{said}");
        }
    }

    #[test]
    fn a_path_is_asked_for_only_where_it_is_of_use() {
        let trained = refusal("train --data images --backbone nix");
        assert!(trained.contains("path of an .onnx file"), "{trained}");
        let set_up = refusal("setup --backbone nix");
        assert!(set_up.contains("resnet18, ") && !set_up.contains(".onnx"), "{set_up}");
    }

    #[test]
    fn who_names_two_that_score_is_told_of_both() {
        let machine = "arn:aws:states:eu-central-1:123456789012:stateMachine:ikat-batch";
        let said = refusal(&format!(
            "batch --input images --output scores --local --bundle run --state-machine {machine}"
        ));
        assert!(said.contains("--local") && said.contains("--state-machine"), "{said}");
    }

    #[test]
    fn lists_may_have_spaces_after_their_commas() {
        let line = ["trainer", "train", "--data", "images", "--c-grid", "0.1, 1"];
        command().try_get_matches_from(line).expect("numbers");
    }
}
