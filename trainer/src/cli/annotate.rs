use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Session;
use super::failure::{Done, Failure};
use super::location::block_on;
use super::output::{list_skipped, printable, printable_path};
use super::resources::Resources;
use crate::annotate::server::Site;
use crate::annotate::{Desk, Thumbnails};
use crate::audit::Doubt;
use crate::dataset::Skipped;
use crate::shell;

/// Look through a data set and correct its labels, in the browser.
///
/// Prints the address of a page on this machine: browse, zoom, relabel (moves the file), exclude, undo. Every step can
/// be undone, also after a restart. Nothing is ever overwritten or deleted. Ends with Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// What `trainer data audit --json` printed: doubtful labels can then be looked at first
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Port of the page [default: any free one]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    #[command(flatten)]
    resources: Resources,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    url: &'a str,
    skipped: &'a [Skipped],
}

/// The part of an audit that counts here.
#[derive(Deserialize)]
struct Audit {
    labels: Vec<Doubt>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let doubts = match &arguments.audit {
        Some(path) => doubts(path)?,
        None => Vec::new(),
    };
    // Where each class has one image alone, an audit cannot doubt any label.
    let judges_some = !doubts.is_empty();
    let desk = Desk::open(&arguments.data, doubts)?;
    for made in desk.completed() {
        let (from, to) = (printable(&made.from), printable(&made.to));
        session.note(&format!("Completed a move that was cut off: {from} is now {to}"));
    }
    if let Some(audit) = &arguments.audit
        && judges_some
        && !desk.doubts_any()
    {
        session.warn(&format!(
            "{} tells of no image here with the label that it has: make it anew with `trainer data audit --data {} \
             --json`",
            printable_path(audit),
            shell::quote(&arguments.data)
        ));
    }
    let left_out = desk.left_out().to_vec();
    list_skipped(&left_out);
    let folder = session.cache()?.root().join("thumbnails");
    let thumbnails = Thumbnails::new(folder, arguments.resources.limits());
    block_on(async {
        let port = arguments.port.unwrap_or(0);
        let site = Site::bind(desk, thumbnails, port, arguments.resources.threads())
            .await
            .map_err(|error| Failure::failed(format!("port {port} of this machine: {error}")))?;
        let url = site.url();
        let hint = "\n\nOpen this address in a browser on this machine; Ctrl-C ends.";
        let document = Document {
            url: &url,
            skipped: &left_out,
        };
        session.output.result_with_hint(&document, &url, hint)?;
        // A browser that does not read on what it asked for would hold it up.
        let twice = async {
            interrupted().await;
            interrupted().await;
        };
        tokio::select! {
            served = site.serve(interrupted()) => served?,
            () = twice => {}
        }
        Ok::<_, Failure>(Done::unless_left_out(&left_out))
    })?
}

/// Waits for Ctrl-C.
async fn interrupted() {
    // Without a signal to wait for, it ends with the process.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn doubts(path: &Path) -> Result<Vec<Doubt>, Failure> {
    let failed = |reason: String| {
        Failure::failed(format!(
            "{}: {reason}; it should be what `trainer data audit --json` printed",
            path.display()
        ))
    };
    let json = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let audit: Audit = serde_json::from_slice(&json).map_err(|error| failed(error.to_string()))?;
    Ok(audit.labels)
}
