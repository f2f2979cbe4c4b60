use std::path::PathBuf;

use super::Session;
use super::failure::{Done, Failure};
use super::location::{block_on, bundle, store};
use crate::publish;

/// Publish a bundle as the live version of a model.
///
/// The version is uploaded under the hash of its contents and never changes; the live alias moves to it
/// last, and only if nobody else moved it meanwhile.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A run or the bundle in it
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Where models are kept: s3://bucket/prefix or a folder
    #[arg(long, value_name = "STORE")]
    to: String,
    /// Name of the model there [default: the name in the bundle]
    #[arg(long)]
    name: Option<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let bundle = bundle(&arguments.bundle)?;
    let name = arguments.name.as_deref().unwrap_or(&bundle.manifest.name);
    let published = block_on(async {
        let store = store(&arguments.to).await?;
        publish::publish(&store, &bundle, name).await.map_err(Failure::from)
    })??;
    let model = format!("{}/{name}", arguments.to.trim_end_matches('/'));
    let text = format!(
        "Version {} is live at {model}\n\nServe it:  IKAT_MODEL={model} scorer --listen 127.0.0.1:9000",
        published.version
    );
    session.output.result(&published, &text)?;
    Ok(Done::Complete)
}
