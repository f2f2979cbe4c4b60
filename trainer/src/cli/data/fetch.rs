use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::value_parser;
use serde::Serialize;
use shared::image::Limits;

use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::interruption;
use crate::cli::location::block_on;
use crate::cli::output::{IN_JSON, list_left_out, printable, printable_path};
use crate::counted::counted;
use crate::fetch::{self, Downloader, Kind, LeftOut, Options, Outcome};
use crate::password::without_password;
use crate::search::Unanswered;
use crate::shell;

/// Largest list, in bytes.
const MOST_BYTES: usize = 64 << 20;

/// Download the images of a list of labels and addresses into class folders.
///
/// Each line of the list is a label, a tab and an address. Dead addresses, what is no image, and copies are left out
/// and listed. Interrupted, or run again later, it asks only for what it does not have yet. Where each image came from
/// is kept in .ikat/provenance.jsonl within the data folder.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The list: a file, or its address
    #[arg(long, value_name = "FILE_OR_URL")]
    urls: String,
    /// Folder for the class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    transfer: TransferArguments,
}

/// How images are downloaded.
#[derive(Debug, clap::Args)]
pub struct TransferArguments {
    /// Images whose longer side has more pixels are scaled down to it
    #[arg(long, value_name = "PIXELS", default_value_t = 1000, value_parser = value_parser!(u32).range(32..=20_000))]
    max_side: u32,
    /// Addresses asked at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Addresses of one host asked at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(1..=64))]
    per_host: u16,
    /// Seconds that one attempt may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// How often an address is asked that is busy or breaks off
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=20))]
    attempts: u32,
    /// Largest file that is taken, in megabytes
    #[arg(long, value_name = "MEGABYTES", default_value_t = 30, value_parser = value_parser!(u16).range(1..=2000))]
    max_megabytes: u16,
    /// Also ask addresses in private networks
    #[arg(long)]
    allow_private: bool,
    /// Ask again where there was nothing, or no image, the last time
    #[arg(long)]
    retry_dead: bool,
}

impl TransferArguments {
    /// As the library takes them.
    pub fn options(&self) -> Options {
        Options {
            max_side: self.max_side,
            limits: Limits {
                max_bytes: usize::from(self.max_megabytes) << 20,
                ..Limits::default()
            },
            jobs: self.jobs.into(),
            per_host: self.per_host.into(),
            timeout: Duration::from_secs(self.timeout),
            attempts: self.attempts,
            allow_private: self.allow_private,
            retry_dead: self.retry_dead,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    data: &'a Path,
    #[serde(flatten)]
    outcome: &'a Outcome,
    /// Of a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered: Option<&'a [Unanswered]>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    interruption::goes_on(session);
    let options = arguments.transfer.options();
    let outcome = block_on(async {
        let text = list(&arguments.urls, &options).await?;
        let (entries, left_out) = fetch::parse(&text).map_err(|error| failed(&arguments.urls, &error))?;
        Ok::<_, Failure>(fetch::fetch(&entries, &left_out, &arguments.data, &options, &session.progress).await?)
    })??;
    report(&outcome, &arguments.data, None, session)
}

/// Prints what became of a list, or of a search with the queries that got no answer.
pub fn report(
    outcome: &Outcome,
    data: &Path,
    unanswered: Option<&[Unanswered]>,
    session: &Session,
) -> Result<Done, Failure> {
    let is_list = unanswered.is_none();
    let lines = outcome.left_out.iter().map(|left_out| told(left_out, is_list));
    list_left_out("address(es)", IN_JSON, lines);
    let folder = printable_path(data);
    let nothing = outcome.kept + outcome.known == 0 && !has_copy(&outcome.left_out);
    // A list without an address is refused before, so that this is a search.
    let nothing_found = nothing && outcome.left_out.is_empty();
    let text = if nothing_found {
        "0 images found".to_owned()
    } else {
        format!(
            "{} new, {} there already, {} left out\n\nImages:     {folder}\nProvenance: {}",
            counted(outcome.kept, "image", "images"),
            outcome.known,
            counted(outcome.left_out.len(), "address", "addresses"),
            printable_path(&outcome.ledger),
        )
    };
    let hint = if nothing {
        String::new()
    } else {
        format!("\nNext:       trainer data dedupe --data {}", shell::quote(data))
    };
    let document = Document {
        data,
        outcome,
        unanswered,
    };
    session.output.result_with_hint(&document, &text, &hint)?;
    let complete = outcome.left_out.is_empty() && unanswered.is_none_or(<[_]>::is_empty);
    match (nothing, complete) {
        (true, false) if nothing_found => Err(Failure::failed(
            "no query found an image: see above why some have no answer, and run the same command again",
        )),
        (true, true) if nothing_found => Err(Failure::failed(
            "no query found an image: try other words, fewer --licence, or another --provider",
        )),
        (true, _) => Err(Failure::failed(format!("no address gave an image for {folder}"))),
        (false, true) => Ok(Done::Complete),
        (false, false) => Ok(Done::Partly),
    }
}

/// What is the matter with an address, and where it stands in the list, if there is one.
fn told(left_out: &LeftOut, is_list: bool) -> String {
    let line = if is_list {
        format!("line {}: ", left_out.line)
    } else {
        String::new()
    };
    let (url, reason) = (printable(&left_out.url), printable(&left_out.reason));
    format!("{line}{url}: {}: {reason}", left_out.kind.name())
}

/// Whether any image is there under another name. An address with two labels may have none under either.
fn has_copy(left_out: &[LeftOut]) -> bool {
    let (copies, others): (Vec<_>, Vec<_>) = left_out.iter().partition(|item| item.kind == Kind::Duplicate);
    let without: HashSet<&str> = others.iter().map(|item| &*item.url).collect();
    copies.iter().any(|item| !without.contains(&*item.url))
}

/// Why the list at `place` gives nothing.
fn failed(place: &str, reason: &impl Display) -> Failure {
    Failure::failed(format!("{}: {reason}", printable(&without_password(place))))
}

/// The text of a list.
async fn list(place: &str, options: &Options) -> Result<String, Failure> {
    let bytes = match reqwest::Url::parse(place) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            // The user named it, so that it may be anywhere.
            Downloader::new(options.timeout, options.attempts, options.per_host, true)?
                .get(&url, MOST_BYTES, None)
                .await
                .map_err(|error| failed(place, &error))?
        }
        _ => {
            let unread = |error: std::io::Error| failed(place, &error);
            let length = std::fs::metadata(place).map_err(unread)?.len();
            if length > MOST_BYTES as u64 {
                return Err(Failure::failed(format!(
                    "{} is larger than {} MB: divide it into several lists",
                    printable(place),
                    MOST_BYTES >> 20
                )));
            }
            std::fs::read(place).map_err(unread)?
        }
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(kind: Kind) -> LeftOut {
        LeftOut {
            line: 3,
            url: "http://a.example/1.jpg".to_owned(),
            kind,
            reason: "gone".to_owned(),
        }
    }

    #[test]
    fn only_what_stands_in_a_list_has_a_line() {
        let dead = left_out(Kind::Dead);
        assert_eq!(told(&dead, true), "line 3: http://a.example/1.jpg: dead: gone");
        assert_eq!(told(&dead, false), "http://a.example/1.jpg: dead: gone");
    }

    #[test]
    fn a_dead_address_with_two_labels_is_no_copy() {
        assert!(has_copy(&[left_out(Kind::Duplicate)]));
        assert!(!has_copy(&[left_out(Kind::Dead), left_out(Kind::Duplicate)]));
    }
}
