//! Tells an MLflow tracking server of a finished run, over its REST API (version 2.0).
//!
//! The run is on disk before this begins, and everything is read from there. Parameters, metrics (with the epoch or the
//! place in the sweep of C as the step), tags, and the files of the run as artifacts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde_json::{Value, json};
use shared::files::{FileError, at};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::password::without_password;
use crate::refine::History;
use crate::runs::{EPOCHS, Entry, RECORD, RunError, flatten};
use crate::web_answers::innermost;

/// Most parameters, and most metrics, of one request.
const BATCH: (usize, usize) = (100, 900);
/// Longest parameter value that every server of the version takes.
const VALUE: usize = 500;
const CONNECT: Duration = Duration::from_secs(5);
const WHOLE_REQUEST: Duration = Duration::from_mins(2);

/// Why a run was not logged.
#[derive(Debug, thiserror::Error)]
pub enum MlflowError {
    /// The run on disk.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file of the run cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No connection, or it broke.
    #[error("cannot reach {uri}: {reason}")]
    Unreachable {
        /// The server.
        uri: String,
        /// What the system said.
        reason: String,
    },
    /// The server refused.
    #[error("{uri} refused {what}: status {status}, {message}")]
    Refused {
        /// The server.
        uri: String,
        /// Which request.
        what: String,
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// Whoever is there answers, and is no tracking server: a page to sign in at, for example.
    #[error("{0} answered, but not like an MLflow server: check the address, and whether it wants you to sign in")]
    NotMlflow(String),
}

/// Logs the run in `folder` to the experiment of this name on the server at `uri`; gives the address of its page.
///
/// Credentials come from `MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
pub async fn log(uri: &Url, experiment: &str, folder: &Path) -> Result<String, MlflowError> {
    let entry = Entry::load(folder)?;
    let server = Server::new(uri)?;
    let experiment = server.experiment(experiment).await?;
    let ended = OffsetDateTime::parse(&entry.record.created, &Rfc3339).unwrap_or_else(|_| OffsetDateTime::now_utc());
    let milliseconds = |seconds: f64| ended.unix_timestamp() * 1000 - (1000.0 * seconds) as i64;
    let seconds = entry.metrics.seconds;
    let spent: f64 = [seconds.featurize, seconds.refine, seconds.svm, seconds.evaluate]
        .iter()
        .flatten()
        .sum();
    let created = server
        .post(
            "runs/create",
            &json!({
                "experiment_id": experiment,
                "run_name": format!("{} {}", entry.record.name, entry.record.id),
                "start_time": milliseconds(spent),
                "tags": tags(&entry),
            }),
        )
        .await?;
    let info = &created["run"]["info"];
    let run = info["run_id"].as_str();
    let run = run.ok_or_else(|| MlflowError::NotMlflow(server.shown.clone()))?;
    let artifacts = info["artifact_uri"].as_str().unwrap_or_default();

    let outcome = server.fill(run, artifacts, &entry, milliseconds(0.0)).await;
    let status = if outcome.is_ok() { "FINISHED" } else { "FAILED" };
    let finish = json!({ "run_id": run, "status": status, "end_time": milliseconds(0.0) });
    outcome.and(server.post("runs/update", &finish).await)?;
    Ok(format!("{}/#/experiments/{experiment}/runs/{run}", server.shown))
}

struct Server {
    uri: String,
    /// The same for people to read.
    shown: String,
    http: reqwest::Client,
}

impl Server {
    fn new(uri: &Url) -> Result<Self, MlflowError> {
        let shown = without_password(uri.as_str()).trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(WHOLE_REQUEST)
            .build()
            .map_err(|error| unreachable_server(&shown, &error))?;
        Ok(Self {
            uri: uri.as_str().trim_end_matches('/').to_owned(),
            shown,
            http,
        })
    }

    /// Identifier of the experiment, made where there is none of this name.
    async fn experiment(&self, name: &str) -> Result<String, MlflowError> {
        let found = self
            .request(Method::GET, "api/2.0/mlflow/experiments/get-by-name")
            .query(&[("experiment_name", name)]);
        match self.send(found, "experiments/get-by-name").await {
            Ok(found) => Ok(text(&found["experiment"]["experiment_id"])),
            Err(MlflowError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {
                let made = self.post("experiments/create", &json!({ "name": name })).await?;
                Ok(text(&made["experiment_id"]))
            }
            Err(error) => Err(error),
        }
    }

    /// Parameters, metrics and files.
    async fn fill(&self, run: &str, artifacts: &str, entry: &Entry, now: i64) -> Result<Value, MlflowError> {
        let parameters = parameters(entry)?;
        for part in parameters.chunks(BATCH.0) {
            self.post("runs/log-batch", &json!({ "run_id": run, "params": part }))
                .await?;
        }
        let metrics = metrics(entry, now);
        for part in metrics.chunks(BATCH.1) {
            self.post("runs/log-batch", &json!({ "run_id": run, "metrics": part }))
                .await?;
        }
        // Any other place is for clients with their own access to it, which a tracking address does not give.
        if let Some(below) = artifacts.strip_prefix("mlflow-artifacts:/") {
            let names = entry.record.files.keys().map(String::as_str);
            for name in names.chain([RECORD]) {
                self.upload(below.trim_start_matches('/'), name, &entry.folder.join(name))
                    .await?;
            }
        }
        Ok(Value::Null)
    }

    async fn upload(&self, below: &str, name: &str, path: &Path) -> Result<(), MlflowError> {
        let contents = tokio::fs::read(path).await.map_err(at(path))?;
        let put = self
            .request(
                Method::PUT,
                &format!("api/2.0/mlflow-artifacts/artifacts/{below}/{name}"),
            )
            .body(contents);
        self.send(put, name).await.map(|_| ())
    }

    async fn post(&self, what: &str, body: &Value) -> Result<Value, MlflowError> {
        let request = self.request(Method::POST, &format!("api/2.0/mlflow/{what}")).json(body);
        self.send(request, what).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/{path}", self.uri));
        let secret = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match (secret("MLFLOW_TRACKING_TOKEN"), secret("MLFLOW_TRACKING_USERNAME")) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Some(user)) => request.basic_auth(user, secret("MLFLOW_TRACKING_PASSWORD")),
            (None, None) => request,
        }
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Value, MlflowError> {
        let response = request
            .send()
            .await
            .map_err(|error| unreachable_server(&self.shown, &error))?;
        let status = response.status();
        let answer = response
            .text()
            .await
            .map_err(|error| unreachable_server(&self.shown, &error))?;
        if !status.is_success() {
            let said: Value = serde_json::from_str(&answer).unwrap_or_default();
            let message = said["message"].as_str().unwrap_or(&answer);
            return Err(MlflowError::Refused {
                uri: self.shown.clone(),
                what: what.to_owned(),
                status,
                message: message.chars().take(300).collect(),
            });
        }
        Ok(serde_json::from_str(&answer).unwrap_or_default())
    }
}

fn unreachable_server(uri: &str, error: &reqwest::Error) -> MlflowError {
    MlflowError::Unreachable {
        uri: uri.to_owned(),
        reason: innermost(error),
    }
}

/// Identifiers are text; some servers write them as numbers.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[derive(Debug, PartialEq, Serialize)]
struct Pair {
    key: String,
    value: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Metric {
    key: String,
    value: f64,
    timestamp: i64,
    step: usize,
}

fn tags(entry: &Entry) -> Vec<Pair> {
    let record = &entry.record;
    [
        ("ikat.id", &record.id),
        ("ikat.model_version", &record.version),
        ("ikat.data_fingerprint", &record.data.fingerprint),
        ("ikat.data_root", &record.data.root),
        ("ikat.backbone_sha256", &record.backbone.sha256),
        ("ikat.program", &record.program),
        ("ikat.kind", &record.kind.name().to_owned()),
    ]
    .map(|(key, value)| Pair {
        key: key.to_owned(),
        value: value.clone(),
    })
    .into()
}

fn parameters(entry: &Entry) -> Result<Vec<Pair>, RunError> {
    let mut flat = BTreeMap::from([
        ("backbone".to_owned(), entry.record.backbone.name.clone()),
        ("resolution".to_owned(), entry.record.resolution.to_string()),
    ]);
    flatten("", &entry.parameters()?, &mut flat);
    let pairs = flat.into_iter().map(|(key, value)| Pair {
        key: allowed(&key),
        value: value.chars().take(VALUE).collect(),
    });
    Ok(pairs.collect())
}

fn metrics(entry: &Entry, now: i64) -> Vec<Metric> {
    let mut found = Vec::new();
    let mut add = |key: String, value: Option<f64>, step: usize| {
        if let Some(value) = value {
            found.push(Metric {
                key,
                value,
                timestamp: now,
                step,
            });
        }
    };
    let (metrics, evaluation) = (&entry.metrics, &entry.metrics.evaluation);
    let seconds = metrics.seconds;
    let times = [
        ("seconds.featurize", seconds.featurize),
        ("seconds.svm", seconds.svm),
        ("seconds.evaluate", seconds.evaluate),
        ("seconds.refine", seconds.refine),
    ];
    for (key, value) in metrics.figures().into_iter().chain(times) {
        add(key.to_owned(), value, 0);
    }
    let mut taken = BTreeSet::new();
    for (number, label) in evaluation.classes.iter().enumerate() {
        let Some(of_class) = evaluation.per_class.get(label) else {
            continue;
        };
        // Two labels may become one where characters are replaced.
        let mut name = allowed(label);
        if !taken.insert(name.clone()) {
            name = format!("{name}_{number}");
        }
        for (figure, value) in [
            ("precision", of_class.precision),
            ("recall", of_class.recall),
            ("f1", of_class.f1),
            ("auc", of_class.auc),
        ] {
            add(format!("{figure}/{name}"), value, 0);
        }
    }
    for (step, swept) in metrics.c_sweep.iter().enumerate() {
        add("c_sweep.c".to_owned(), Some(swept.c), step);
        add("c_sweep.cv_accuracy".to_owned(), Some(swept.cv_accuracy), step);
        add("c_sweep.train_accuracy".to_owned(), Some(swept.train_accuracy), step);
        let class_averaged = swept.cv_class_averaged_accuracy;
        add("c_sweep.cv_class_averaged_accuracy".to_owned(), class_averaged, step);
    }
    let epochs = std::fs::read(entry.folder.join(EPOCHS)).unwrap_or_default();
    let history: History = serde_json::from_slice(&epochs).unwrap_or_default();
    if let Some(before) = history.before {
        add("validation_loss".to_owned(), Some(before.loss.into()), 0);
        add("validation_error".to_owned(), Some(before.error.into()), 0);
    }
    for (step, epoch) in history.epochs.iter().enumerate() {
        add("train_loss".to_owned(), Some(epoch.train_loss.into()), step + 1);
        add("train_error".to_owned(), Some(epoch.train_error.into()), step + 1);
        add(
            "validation_loss".to_owned(),
            epoch.validation_loss.map(Into::into),
            step + 1,
        );
        add(
            "validation_error".to_owned(),
            epoch.validation_error.map(Into::into),
            step + 1,
        );
    }
    found
}

/// The characters that MLflow takes in a name.
fn allowed(name: &str) -> String {
    let keep = |character: char| character.is_ascii_alphanumeric() || "_-. /".contains(character);
    let mut text: String = name
        .chars()
        .map(|character| if keep(character) { character } else { '_' })
        .take(200)
        .collect();
    // A name that could be taken for a path out of the run is refused there.
    if text.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        text = text.replace(['/', '.'], "_");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::PARAMETERS;
    use crate::runs::tests::{record, save};

    #[test]
    fn parameters_that_cannot_be_read_are_named_by_their_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().join("run");
        save(&run, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
        std::fs::write(run.join(PARAMETERS), "{").expect("written");
        let error = parameters(&Entry::load(&run).expect("a run")).expect_err("damaged");
        assert!(error.to_string().contains(PARAMETERS), "{error}");
    }

    #[tokio::test]
    async fn what_answers_like_no_tracking_server_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().join("run");
        save(&run, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let page = axum::Router::new().fallback(|| async { "<html>Sign in</html>" });
        tokio::spawn(async move { axum::serve(listener, page).await });
        let address = Url::parse(&address).expect("an address");
        let error = log(&address, "ikat", &run).await.expect_err("nothing was logged");
        assert!(matches!(error, MlflowError::NotMlflow(_)), "{error}");
    }

    #[tokio::test]
    async fn a_password_in_the_address_of_the_server_is_not_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().join("run");
        save(&run, record("1", "2026-01-01T00:00:00Z"), &[true; 4], &json!({}));
        let address = Url::parse("http://user:secret@127.0.0.1:9/").expect("an address");
        let logged = log(&address, "ikat", &run).await;
        let error = logged.expect_err("nobody is there").to_string();
        assert!(
            error.contains("http://127.0.0.1:9") && !error.contains("secret"),
            "{error}"
        );
    }
}
