use std::fmt::Write;

use shared::store::versions::{VersionError, live_key};

use super::Session;
use super::failure::{Done, Failure};
use super::location::{block_on, store};
use super::output::percent;
use super::values;
use crate::publish;

/// List the published versions of a model.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where models are kept: s3://bucket/prefix or a folder
    #[arg(long, value_name = "STORE", alias = "from")]
    to: String,
    /// Name of the model there
    #[arg(long, value_parser = values::model_name)]
    name: String,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let versions = block_on(async {
        let store = store(&arguments.to).await?;
        let versions = publish::versions(&store, &arguments.name).await?;
        if versions.is_empty() {
            return Err(Failure::from(VersionError::NotPublished {
                place: store.place(&live_key(&arguments.name)),
                name: arguments.name.clone(),
            }));
        }
        Ok::<_, Failure>(versions)
    })??;
    let mut text = String::new();
    for version in &versions {
        let mark = match version.canary_share {
            Some(share) => format!("trial {}", percent(share)),
            None if version.live => "live".to_owned(),
            None => String::new(),
        };
        let state = if version.complete { "" } else { "incomplete" };
        let accuracy = version
            .accuracy
            .map_or_else(String::new, |accuracy| format!("{:.1} %", 100.0 * accuracy));
        let _ = writeln!(text, "{}  {accuracy:>7}  {mark:<11}  {state}", version.version);
    }
    session.output.result(&versions, &text)?;
    Ok(Done::Complete)
}
