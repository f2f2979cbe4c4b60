use super::Session;
use super::failure::{Done, Failure};
use super::location::{TrustArguments, block_on, store};
use super::publish::ended_trial;
use super::values;
use crate::publish;

/// Make an earlier version of a model live again, or end the trial of a new one.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where models are kept: s3://bucket/prefix or a folder
    #[arg(long, value_name = "STORE", value_parser = values::store, alias = "from")]
    to: String,
    /// Name of the model there
    #[arg(long, value_parser = values::model_name)]
    name: String,
    /// The version to go back to [default: the one that was live before; while a version is on trial, the live
    /// one alone]
    #[arg(value_name = "VERSION", conflicts_with = "version")]
    target: Option<String>,
    /// The version to go back to, named as an option
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
}

impl Arguments {
    fn version(&self) -> Option<&str> {
        self.target.as_deref().or(self.version.as_deref())
    }
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let published = block_on(async {
        let store = store(&arguments.to).await?;
        let trusted = arguments.trust.trusted();
        publish::rollback(&store, &arguments.name, arguments.version(), &trusted)
            .await
            .map_err(Failure::from)
    })??;
    let ended = ended_trial(&published);
    let text = format!("Version {} of {} is live{ended}", published.version, arguments.name);
    session.output.result(&published, &text)?;
    Ok(Done::Complete)
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{Args, FromArgMatches};

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        let always = ["rollback", "--to", "store", "--name", "m"];
        let command = Arguments::augment_args(clap::Command::new("rollback"));
        let matches = command.try_get_matches_from([&always[..], words].concat())?;
        Arguments::from_arg_matches(&matches)
    }

    #[test]
    fn the_version_is_named_in_either_way_and_not_in_both() {
        for (words, version) in [
            (&[][..], None),
            (&["one"][..], Some("one")),
            (&["--version", "one"][..], Some("one")),
        ] {
            let arguments = parse(words).expect("arguments");
            assert_eq!(arguments.version(), version, "{words:?}");
        }
        let error = parse(&["one", "--version", "one"]).expect_err("both");
        assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
    }
}
