//! What the scorer is told: by the environment, as functions are, and by one flag.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZero;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, CommandFactory, FromArgMatches, Parser};
use shared::bundle::{TrustedKeys, TrustedKeysError};
use shared::service::AllowedBuckets;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Requests that wait for each core, where nothing else is said.
const WAITING: usize = 8;
/// What is logged, where nothing else is said.
const LOG: &str = "warn,scorer=info";

/// The scoring function of Ikat.
///
/// As a Lambda function it needs no arguments. IKAT_MODEL names the model: s3://bucket/prefix/name, or a folder.
/// IKAT_VERSION pins a version instead of the live one. ORT_DYLIB_PATH names the ONNX Runtime library, which is else
/// looked for in /opt/lib, in the trainer's cache and beside this program.
#[derive(Debug, Parser)]
#[command(name = "scorer", version, allow_negative_numbers = true)]
pub struct Arguments {
    /// Answer plain HTTP at this address instead of serving Lambda, for example 127.0.0.1:9000 or localhost:9000
    #[arg(long, value_name = "HOST:PORT", env = "IKAT_LISTEN", value_parser = address)]
    listen: Option<SocketAddr>,
    /// The model: s3://bucket/prefix/name, or a folder
    #[arg(long, value_name = "MODEL", env = "IKAT_MODEL")]
    model: Option<String>,
    /// A version to serve instead of the live one
    #[arg(long = "pin", value_name = "VERSION", env = "IKAT_VERSION")]
    pinned: Option<String>,
    /// Threads that the network of one image runs on
    #[arg(long, value_name = "N", env = "IKAT_THREADS", default_value = "1", value_parser = from_one::<NonZero<usize>>)]
    threads: NonZero<usize>,
    /// How long after the last look a request makes the scorer look again which version is live
    #[arg(
        long,
        value_name = "SECONDS",
        env = "IKAT_REFRESH_SECONDS",
        default_value = "30",
        value_parser = from_one::<NonZero<u32>>
    )]
    refresh: NonZero<u32>,
    /// Buckets that requests may name images in, with commas between them; a folder may follow: photos,archive/2026
    #[arg(long, value_name = "BUCKETS", env = "IKAT_ALLOWED_BUCKETS", default_value = "")]
    allowed_buckets: String,
    /// Serve only what one of these keys has signed: public keys as `trainer keygen` prints them, with commas between
    /// them
    #[arg(
        long = "trusted-key",
        value_name = "KEYS",
        env = "IKAT_TRUSTED_KEY",
        default_value = ""
    )]
    trusted: String,
    /// Longest time that a request may take, in seconds
    #[arg(long, value_name = "SECONDS", env = "IKAT_DEADLINE_SECONDS", default_value = "30", value_parser = deadline)]
    deadline: Duration,
    /// Requests that may wait, over plain HTTP, before others are refused with 429 [default: 8 for each core]
    #[arg(long, value_name = "N", env = "IKAT_QUEUE", value_parser = from_zero)]
    queue: Option<usize>,
    /// Namespace of the CloudWatch metrics that log lines carry; empty for none [default: Ikat as a Lambda function,
    /// else none]
    #[arg(long, value_name = "NAMESPACE", env = "IKAT_METRICS_NAMESPACE")]
    metrics_namespace: Option<String>,
}

/// What to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Where the model is, if that was said.
    pub model: Option<String>,
    /// A version to serve instead of the live one.
    pub pinned: Option<String>,
    /// Threads that the network of one image runs on.
    pub threads: usize,
    /// Images worked on at once.
    pub pipelines: usize,
    /// Time between two looks at which version is live.
    pub refresh: Duration,
    /// Buckets that requests may name images in.
    pub allowed: AllowedBuckets,
    /// Keys of which one must have signed what is served, if there are any.
    pub trusted: TrustedKeys,
    /// Longest time that a request may take.
    pub deadline: Duration,
    /// Requests that may wait while others are worked on.
    pub queue: usize,
    /// Namespace of the metrics; `None` where none are wanted.
    pub metrics: Option<String>,
}

/// What brings requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// AWS Lambda's Runtime API, one request at a time.
    Lambda,
    /// Plain HTTP.
    Http(SocketAddr),
}

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// No model is named.
    #[error("no model is named: set IKAT_MODEL to s3://bucket/prefix/name or to a folder that `trainer publish` wrote")]
    NoModel,
    /// What should be trusted is no key. Nothing is served rather than anything.
    #[error("--trusted-key (or IKAT_TRUSTED_KEY): {0}")]
    Trusted(#[from] TrustedKeysError),
    /// Started by hand without an address.
    #[error("this is not AWS Lambda: start with --listen 127.0.0.1:9000 to answer plain HTTP")]
    NoCarrier,
}

impl Configuration {
    /// What follows from flags and environment. A function without a model is no error here: it answers each
    /// request with what is missing.
    pub fn resolve(arguments: Arguments) -> Result<(Self, Carrier), ConfigurationError> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let carrier = match arguments.listen {
            Some(address) => Carrier::Http(address),
            None if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() => Carrier::Lambda,
            None => return Err(ConfigurationError::NoCarrier),
        };
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let model = some(arguments.model);
        if model.is_none() && carrier != Carrier::Lambda {
            return Err(ConfigurationError::NoModel);
        }
        let configuration = Self {
            model,
            pinned: some(arguments.pinned),
            threads: arguments.threads.get(),
            pipelines: if carrier == Carrier::Lambda { 1 } else { cores },
            refresh: Duration::from_secs(arguments.refresh.get().into()),
            allowed: AllowedBuckets::parse(&arguments.allowed_buckets),
            trusted: TrustedKeys::parse(&arguments.trusted)?,
            deadline: arguments.deadline,
            metrics: match arguments.metrics_namespace {
                None if carrier == Carrier::Lambda => Some("Ikat".to_owned()),
                namespace => some(namespace),
            },
            queue: arguments.queue.unwrap_or(WAITING * cores),
        };
        Ok((configuration, carrier))
    }

    /// The name that the model was published under, if one was said: the last part of its place.
    pub fn model_name(&self) -> Option<&str> {
        Path::new(self.model.as_deref()?).file_name()?.to_str()
    }
}

/// What is logged where IKAT_LOG is `text`, and what there is to warn of. A mistake in it silences nothing, and ends
/// nothing: to a function, a start that is refused is an outage.
pub fn log_filter(text: &str) -> (EnvFilter, Option<String>) {
    // A single word is a level or the name of a module, which then is all that would be heard of.
    let words = text.split(',').map(str::trim);
    let single = words.filter(|word| !word.is_empty() && !word.contains(['=', '[', ':']));
    let (levels, names): (Vec<&str>, Vec<&str>) = single.partition(|word| word.parse::<LevelFilter>().is_ok());
    let warning = names.first().map(|name| {
        format!(
            "IKAT_LOG: {name:?} is none of the levels off, error, warn, info, debug and trace, and taken for the name of a \
             module: write {name}=trace where one is meant"
        )
    });
    let filter = match (text.trim(), &warning) {
        ("", _) => LOG.to_owned(),
        (text, Some(_)) if levels.is_empty() => format!("{LOG},{text}"),
        (text, _) => text.to_owned(),
    };
    match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, warning),
        Err(error) => {
            let warning = format!("IKAT_LOG: {text:?} is no filter ({error}), and {LOG} is taken");
            (EnvFilter::new(LOG), Some(warning))
        }
    }
}

/// The arguments that the program was started with; ends it where they are none.
pub fn parse() -> Arguments {
    let words: Vec<OsString> = std::env::args_os().collect();
    read(&words).unwrap_or_else(|error| with_variable(error, &words).exit())
}

fn read(words: &[OsString]) -> Result<Arguments, clap::Error> {
    let matches = Arguments::command()
        .mut_args(unless_empty)
        .try_get_matches_from(words)?;
    Arguments::from_arg_matches(&matches)
}

/// `option` without its variable where that is empty, as the trainer takes its own. Metrics alone are turned off so.
fn unless_empty(option: Arg) -> Arg {
    let is_empty = |variable: &OsStr| std::env::var_os(variable) == Some(OsString::new());
    if option.get_long() != Some("metrics-namespace") && option.get_env().is_some_and(is_empty) {
        option.env(None::<&'static str>)
    } else {
        option
    }
}

/// `error`, with the variable that a refused value came from: clap names the flag, which nobody may have typed.
fn with_variable(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    if let Some(tip) = variable(&error, words) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn variable(error: &clap::Error, words: &[OsString]) -> Option<String> {
    // As `--name <VALUE>`.
    let ContextValue::String(shown) = error.get(ContextKind::InvalidArg)? else {
        return None;
    };
    let flag = shown.split_whitespace().next()?;
    let is_typed = |word: &OsString| word.to_str().is_some_and(|word| word.split('=').next() == Some(flag));
    if words.iter().any(is_typed) {
        return None;
    }
    let command = Arguments::command();
    let mut options = command.get_arguments();
    let option = options.find(|option| option.get_long() == flag.strip_prefix("--"))?;
    let variable = option.get_env()?.display();
    Some(format!("{flag} is set by the environment variable {variable}"))
}

fn from_one<N: FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse().map_err(|_| "give a whole number from 1")
}

fn from_zero(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "give a whole number from 0")
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = "give HOST:PORT, for example 127.0.0.1:9000 or localhost:9000";
    let found = text.to_socket_addrs().map_err(|error| format!("{error}; {expected}"))?;
    // Where a name has addresses of both kinds, every client tries the IPv4 one.
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| expected.to_owned())
}

fn deadline(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse::<f64>().ok();
    let deadline = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    deadline
        .filter(|deadline| !deadline.is_zero())
        .ok_or("give a number of seconds above 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_name() {
        assert_eq!(address("127.0.0.1:0"), Ok(SocketAddr::from(([127, 0, 0, 1], 0))));
        let local = address("localhost:9000").expect("every machine has one");
        assert!(local.ip().is_loopback() && local.port() == 9000, "{local}");
        for text in ["", "9000", "localhost", "localhost:port"] {
            let error = address(text).expect_err(text);
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn a_refused_value_is_said_to_come_from_where_it_came_from() {
        for (word, variable, taken) in [
            ("--refresh=abc", "IKAT_REFRESH_SECONDS", "a whole number from 1"),
            ("--threads=0", "IKAT_THREADS", "a whole number from 1"),
            ("--queue=-1", "IKAT_QUEUE", "a whole number from 0"),
            ("--deadline=x", "IKAT_DEADLINE_SECONDS", "seconds above 0"),
        ] {
            let said = |words: &[OsString]| {
                let error = Arguments::try_parse_from(["scorer", word]).expect_err(word);
                with_variable(error, words).to_string()
            };
            let (set, typed) = (said(&["scorer".into()]), said(&["scorer".into(), word.into()]));
            assert!(set.contains(taken) && set.contains(variable), "{set}");
            assert!(typed.contains(taken) && !typed.contains(variable), "{typed}");
        }
    }

    #[test]
    fn a_number_below_zero_is_refused_as_a_number() {
        for option in ["--refresh", "--threads", "--queue", "--deadline"] {
            let error = Arguments::try_parse_from(["scorer", option, "-1"]).expect_err(option);
            assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{error}");
        }
    }

    #[test]
    fn a_mistake_in_what_is_logged_silences_nothing() {
        for (text, filter) in [
            ("", LOG),
            ("debug", "debug"),
            ("WARN", "warn"),
            ("shared=debug", "shared=debug"),
            ("error,shared=debug", "error,shared=debug"),
            ("scorer::http", "scorer::http"),
        ] {
            let (found, warning) = log_filter(text);
            let expected = EnvFilter::new(filter).to_string();
            assert_eq!((found.to_string(), warning), (expected, None), "{text}");
        }
        for (text, filter) in [
            ("inof", "warn,scorer=info,inof"),
            ("scorer=debug,inof", "warn,scorer=debug,inof"),
            ("error,inof", "error,inof"),
            ("scorer=inof", LOG),
        ] {
            let (found, warning) = log_filter(text);
            assert_eq!(found.to_string(), EnvFilter::new(filter).to_string(), "{text}");
            assert!(warning.expect(text).contains("inof"), "{text}");
        }
    }

    #[test]
    fn a_model_is_called_by_the_last_part_of_its_place() {
        for (model, name) in [
            ("s3://bucket/team/photos", Some("photos")),
            ("store/photos/", Some("photos")),
            ("..", None),
        ] {
            let arguments = ["scorer", "--listen", "127.0.0.1:0", "--model", model];
            let arguments = Arguments::try_parse_from(arguments).expect("arguments");
            let (configuration, _) = Configuration::resolve(arguments).expect("a configuration");
            assert_eq!(configuration.model_name(), name, "{model}");
        }
    }
}
