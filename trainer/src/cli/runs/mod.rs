//! The commands of the run history.

mod compare;
mod delete;
mod list;
mod show;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use shared::bundle::MANIFEST;

use super::Session;
use super::failure::{Done, Failure};
use crate::runs::{Entry, History, RECORD};

/// Look at finished runs, compare and delete them.
#[derive(Debug, Subcommand)]
pub enum Runs {
    List(list::Arguments),
    Show(show::Arguments),
    Compare(compare::Arguments),
    Delete(delete::Arguments),
}

/// Runs one of them.
pub fn run(runs: &Runs, session: &Session) -> Result<Done, Failure> {
    match runs {
        Runs::List(arguments) => list::run(arguments, session),
        Runs::Show(arguments) => show::run(arguments, session),
        Runs::Compare(arguments) => compare::run(arguments, session),
        Runs::Delete(arguments) => delete::run(arguments, session),
    }
}

/// Where runs are looked for.
#[derive(Debug, clap::Args)]
struct Place {
    /// Where to look for runs, up to two folders deep
    #[arg(long, value_name = "DIR", default_value = ".")]
    runs: PathBuf,
}

impl Place {
    /// The runs, with a warning for each folder that should be one and cannot be read.
    fn history(&self, session: &Session) -> Result<History, Failure> {
        let history = History::scan(&self.runs)?;
        for damaged in &history.damaged {
            session.warn(&format!(
                "{} is passed over: {}",
                damaged.folder.display(),
                damaged.reason
            ));
        }
        Ok(history)
    }

    /// The runs with these names, or around the bundles at these paths, as they are taken elsewhere.
    fn find(&self, names: &[String], session: &Session) -> Result<Vec<Entry>, Failure> {
        let names: Vec<String> = names.iter().map(|name| around(name)).collect();
        self.find_exactly(&names, session)
    }

    /// The runs with these names.
    fn find_exactly(&self, names: &[String], session: &Session) -> Result<Vec<Entry>, Failure> {
        let history = self.history(session)?;
        let find = |name: &String| {
            history.find(name).map_err(|error| {
                let hint = "`trainer runs list` shows the runs; --runs names another folder to look in";
                Failure::hinted(&error, hint)
            })
        };
        names.iter().map(find).collect()
    }
}

/// The folder of the run around the bundle at the path `name`, where it is one, or the name itself.
fn around(name: &str) -> String {
    let path = Path::new(name);
    match path.parent() {
        Some(run) if path.join(MANIFEST).is_file() && run.join(RECORD).is_file() => {
            // Around a name alone is the working folder.
            let run = if run == Path::new("") { Path::new(".") } else { run };
            run.to_string_lossy().into_owned()
        }
        _ => name.to_owned(),
    }
}
