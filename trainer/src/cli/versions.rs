use shared::store::versions::{Canary, VersionError, live_key};

use super::Session;
use super::failure::{Done, Failure};
use super::location::{block_on, store};
use super::output::{percent, printable};
use super::values;
use crate::evaluation::aligned;
use crate::publish::{self, ModelInfo, VersionInfo};

/// List the published versions of a model, or the models in a store.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where models are kept: s3://bucket/prefix or a folder
    #[arg(long, value_name = "STORE", value_parser = values::store, alias = "from")]
    to: String,
    /// Name of the model there [default: none; all models are listed]
    #[arg(long, value_parser = values::model_name)]
    name: Option<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if let Some(name) = &arguments.name {
        let versions = block_on(versions(&arguments.to, name))??;
        for problem in versions.iter().filter_map(|version| version.problem.as_ref()) {
            session.warn(problem);
        }
        session.output.result(&versions, &versions_text(&versions))?;
    } else {
        let models = block_on(models(&arguments.to))??;
        for problem in models.iter().filter_map(|model| model.problem.as_ref()) {
            session.warn(problem);
        }
        session.output.result(&models, &models_text(&models))?;
    }
    Ok(Done::Complete)
}

async fn versions(to: &str, name: &str) -> Result<Vec<VersionInfo>, Failure> {
    let store = store(to).await?;
    let versions = publish::versions(&store, name).await?;
    if versions.is_empty() {
        return Err(Failure::from(VersionError::NotPublished {
            place: store.place(&live_key(name)),
            name: name.to_owned(),
        }));
    }
    Ok(versions)
}

async fn models(to: &str) -> Result<Vec<ModelInfo>, Failure> {
    let store = store(to).await?;
    let models = publish::models(&store).await?;
    if models.is_empty() {
        return Err(Failure::failed(format!(
            "no model is published in {store}: give the place that `trainer publish --to` was given"
        )));
    }
    Ok(models)
}

fn versions_text(versions: &[VersionInfo]) -> String {
    let mut rows = vec![
        ["version", "published", "test accuracy", "state"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(versions.iter().map(|version| {
        let state = match version.canary_share {
            Some(share) => format!("trial {}", percent(share)),
            None if version.live => "live".to_owned(),
            None => String::new(),
        };
        let incomplete = if version.complete { "" } else { "incomplete" };
        let accuracy = version.accuracy.map(|accuracy| format!("{:.1} %", 100.0 * accuracy));
        vec![
            version.version.clone(),
            version.created.as_deref().map_or_else(unknown, to_the_second),
            accuracy.unwrap_or_else(unknown),
            format!("{state} {incomplete}").trim().to_owned(),
        ]
    }));
    aligned(&rows)
}

fn models_text(models: &[ModelInfo]) -> String {
    let mut rows = vec![
        ["model", "live version", "since", "on trial"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(models.iter().map(|model| {
        let trial = |canary: &Canary| format!("{} {}", canary.version, percent(canary.share));
        vec![
            model.name.clone(),
            model.version.clone().unwrap_or_else(unknown),
            model.published_at.as_deref().map_or_else(unknown, to_the_second),
            model.canary.as_ref().map(trial).unwrap_or_default(),
        ]
    }));
    aligned(&rows)
}

/// A time without what is less than a second.
fn to_the_second(time: &str) -> String {
    let whole = time.split_once('.').map(|(whole, _)| format!("{whole}Z"));
    printable(&whole.unwrap_or_else(|| time.to_owned()))
}

fn unknown() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_say_what_they_hold() {
        let version = |name: &str, live: bool| VersionInfo {
            version: name.to_owned(),
            live,
            canary_share: (!live).then_some(0.1),
            complete: live,
            problem: None,
            created: live.then(|| "2026-01-01T00:00:00Z".to_owned()),
            accuracy: live.then_some(0.89),
        };
        let text = versions_text(&[version("0123", true), version("4567", false)]);
        let rows: Vec<Vec<&str>> = text.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["version", "published", "test", "accuracy", "state"]);
        assert_eq!(rows[1], ["0123", "2026-01-01T00:00:00Z", "89.0", "%", "live"]);
        assert_eq!(rows[2], ["4567", "-", "-", "trial", "10", "%", "incomplete"]);

        let model = |name: &str, version: Option<&str>| ModelInfo {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            canary: None,
            published_at: version.map(|_| "2026-01-01T00:00:00.123456Z".to_owned()),
            problem: version.is_none().then(|| "damaged".to_owned()),
        };
        let text = models_text(&[model("photos", Some("0123")), model("prints", None)]);
        let rows: Vec<Vec<&str>> = text.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[0][0], "model");
        assert_eq!(rows[1], ["photos", "0123", "2026-01-01T00:00:00Z"]);
        assert_eq!(rows[2], ["prints", "-", "-"]);
    }
}
