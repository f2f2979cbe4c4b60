use super::Session;
use super::failure::{Done, Failure};
use super::location::{block_on, store};
use super::values;
use crate::publish;

/// Make an earlier version of a model live again, or end the trial of a new one.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where models are kept: s3://bucket/prefix or a folder
    #[arg(long, value_name = "STORE", alias = "from")]
    to: String,
    /// Name of the model there
    #[arg(long, value_parser = values::model_name)]
    name: String,
    /// The version to go back to [default: the one that was live before; while a version is on trial, the live
    /// one alone]
    #[arg(value_name = "VERSION")]
    target: Option<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let published = block_on(async {
        let store = store(&arguments.to).await?;
        publish::rollback(&store, &arguments.name, arguments.target.as_deref())
            .await
            .map_err(Failure::from)
    })??;
    let text = format!("Version {} of {} is live", published.version, arguments.name);
    session.output.result(&published, &text)?;
    Ok(Done::Complete)
}
