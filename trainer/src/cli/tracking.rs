//! Options about telling a tracking server of a run.

use std::path::Path;

use reqwest::Url;

use super::Session;
use super::location::block_on;
use super::values;
use crate::mlflow;

/// Where a finished run is also logged.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tracking")]
pub struct Tracking {
    /// Also log the run to this MLflow tracking server, e.g. http://127.0.0.1:5000
    #[arg(long, value_name = "URI", value_parser = values::address)]
    mlflow: Option<Url>,
    /// MLflow experiment that the run is logged to
    #[arg(long, value_name = "NAME", default_value = "ikat")]
    mlflow_experiment: String,
}

impl Tracking {
    /// Warns of what was typed for a server where none was named.
    pub fn warn_of_idle(&self, session: &Session) {
        session.warn_of_idle(&[("mlflow_experiment", self.mlflow.is_some(), "--mlflow")]);
    }

    /// Logs the run in `folder`, if a server was named. A server that is down or refuses costs a warning, never the
    /// run, which is on disk already.
    pub fn log(&self, folder: &Path, session: &Session) {
        let Some(uri) = &self.mlflow else { return };
        let logged = block_on(mlflow::log(uri, &self.mlflow_experiment, folder));
        match logged {
            Ok(Ok(run)) => session.remark(&format!("Logged to MLflow: {run}")),
            Ok(Err(error)) => session.warn(&format!(
                "the run was not logged to MLflow: {error}; everything is kept in {}",
                folder.display()
            )),
            // The run is there: its exit code is that of the training.
            Err(failure) => {
                let _ = failure.report();
            }
        }
    }
}
