use std::path::{Path, PathBuf};

use shared::store::versions::Canary;

use super::Session;
use super::failure::{Done, Failure};
use super::location::{BundleArguments, block_on, store};
use super::output::percent;
use super::resources::check_changeable;
use super::values;
use crate::publish::{self, PublishError, Published};
use crate::shell;
use crate::signing::SigningKey;

/// Publish a bundle as the live version of a model.
///
/// The version is uploaded under the hash of its contents and never changes; the live alias moves to it
/// last, and only if nobody else moved it meanwhile. Running scorers follow within their refresh interval.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    bundle: BundleArguments,
    /// Sign it with the private key in this file (`trainer keygen` makes one), so that whoever trusts the key can tell
    /// that it is yours
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
    /// Where models are kept: s3://bucket/prefix or a folder
    #[arg(long, value_name = "STORE", value_parser = values::store)]
    to: String,
    /// Name of the model there [default: the name in the bundle]
    #[arg(long, value_parser = values::model_name)]
    name: Option<String>,
    /// Put the version on trial: it answers for this share of the images (above 0, below 1), beside the live
    /// version. Publish it without this to make it live, or end the trial with `trainer rollback`
    #[arg(long, value_name = "SHARE", value_parser = share)]
    canary: Option<f64>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    check_changeable(Path::new(&arguments.to), "--to")?;
    let mut bundle = arguments.bundle.read_any()?;
    if let Some(path) = &arguments.sign {
        SigningKey::read(path)?.vouch_for(&mut bundle);
    }
    // Those who trust a key would refuse to serve what it has not signed: better it is not published at all.
    let trusted = arguments.bundle.trusted();
    trusted.check(&bundle.manifest.to_json(), bundle.signature.as_deref())?;
    let name = arguments.name.as_deref().unwrap_or(&bundle.manifest.name);
    let published = block_on(async {
        let store = store(&arguments.to).await?;
        let published = match arguments.canary {
            Some(share) => publish::publish_canary(&store, &bundle, name, share).await,
            None => publish::publish(&store, &bundle, name).await,
        };
        published.map_err(Failure::from)
    })??;
    let model = format!("{}/{name}", arguments.to.trim_end_matches('/'));
    let ended = ended_trial(&published);
    let (text, hint) = match &published.canary {
        Some(canary) => (
            format!(
                "Version {} answers for {} of the images at {model}; version {} is live.{ended}",
                canary.version,
                percent(canary.share),
                published.version
            ),
            format!(
                "\n\nMake it live:   the same command without --canary\n\
                End the trial:  trainer rollback --to {} --name {}",
                shell::quote(&arguments.to),
                shell::quote(name)
            ),
        ),
        None => (
            format!("Version {} is live at {model}{ended}", published.version),
            format!(
                "\n\nServe it:  IKAT_MODEL={} scorer --listen 127.0.0.1:9000",
                shell::quote(&model)
            ),
        ),
    };
    session.output.result_with_hint(&published, &text, &hint)?;
    Ok(Done::Complete)
}

/// A line about the trial that ended, if one did.
pub fn ended_trial(published: &Published) -> String {
    let line = |version: &String| format!("\nThe trial of version {version} has ended");
    published.ended_trial.as_ref().map(line).unwrap_or_default()
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if Canary::is_share(share) {
        Ok(share)
    } else {
        Err(PublishError::Share(share).to_string())
    }
}
