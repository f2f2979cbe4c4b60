use std::fmt::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use reqwest::Url;
use serde::Serialize;

use super::fetch::{TransferArguments, report};
use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::interruption;
use crate::cli::location::block_on;
use crate::cli::output::printable;
use crate::cli::values;
use crate::counted::counted;
use crate::fetch::{self, Ledger, Outcome};
use crate::search::{self, Name, Provider, Query, Unanswered};

/// Search for images and download them into class folders.
///
/// Every item with every attribute is a query ("striped dress"), the attribute names the class. What a provider found
/// is kept, so that an interrupted search spends no quota twice. Licence, maker and page of each image are kept in
/// .ikat/provenance.jsonl within the data folder, as far as the provider tells.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to search for, e.g. dress,skirt
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true, value_parser = values::words)]
    items: Vec<String>,
    /// What it should be like, e.g. striped,dotted; these name the classes [default: the items name them]
    #[arg(long, value_name = "X,Y", value_delimiter = ',')]
    attributes: Vec<String>,
    /// Images of each query, the first ones
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    per_query: u16,
    /// Who is asked
    #[arg(long, value_enum, default_value_t = ProviderName::Openverse)]
    provider: ProviderName,
    /// Only these licences, e.g. cc0,by,by-sa (Openverse)
    #[arg(long, value_name = "L,M", value_delimiter = ',')]
    licence: Vec<String>,
    /// Another address of the provider's interface
    #[arg(long, value_name = "URL", alias = "endpoint")]
    provider_endpoint: Option<Url>,
    /// Only show the queries and what they cost
    #[arg(long)]
    dry_run: bool,
    /// Ask the provider again what was asked before
    #[arg(long)]
    again: bool,
    /// Folder for the class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    transfer: TransferArguments,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProviderName {
    /// Openly licensed images; needs no key, OPENVERSE_TOKEN allows more
    Openverse,
    /// The media of Wikipedia; needs no key, WIKIMEDIA_TOKEN allows more
    WikimediaCommons,
    /// The web; key in BRAVE_API_KEY
    Brave,
    /// Google's image search; key in SERPAPI_API_KEY
    Serpapi,
    /// Stock photos; key in PEXELS_API_KEY
    Pexels,
}

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct Plan<'a> {
    provider: &'static str,
    queries: &'a [Query],
    requests_at_most: usize,
    images_at_most: usize,
    key: Option<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if !arguments.licence.is_empty() && arguments.provider != ProviderName::Openverse {
        return Err(Failure::usage(
            "only Openverse can be asked for licences: choose --provider openverse, or leave --licence out",
        ));
    }
    let queries =
        search::queries(&arguments.items, &arguments.attributes).map_err(|wrong| Failure::usage(wrong.to_string()))?;
    let provider = Provider::new(
        arguments.provider.name(),
        arguments.provider_endpoint.clone(),
        arguments.licence.clone(),
    );
    if arguments.dry_run {
        return arguments.plan(&provider, &queries, session);
    }
    provider.check_key()?;
    interruption::goes_on(session);
    let options = arguments.transfer.options();
    let found = block_on(search::search(
        &provider,
        &queries,
        arguments.per_query.into(),
        arguments.again,
        &arguments.data,
        &session.progress,
    ))??;
    for Unanswered { query, reason } in &found.unanswered {
        session.warn(&format!("no full answer to {:?}: {}", query.text, printable(reason)));
    }
    if let Some(remaining) = found.remaining {
        session.remark(&format!(
            "{} sent, {remaining} left",
            counted(found.requests, "request", "requests")
        ));
    }
    let outcome = if found.entries.is_empty() {
        // What fetches nothing makes no folder.
        Outcome {
            ledger: Ledger::place(&arguments.data),
            ..Outcome::default()
        }
    } else {
        let fetching = fetch::fetch(
            &found.entries,
            &found.left_out,
            &arguments.data,
            &options,
            &session.progress,
        );
        block_on(fetching)??
    };
    report(&outcome, &arguments.data, Some(&found.unanswered), session)
}

impl Arguments {
    fn plan(&self, provider: &Provider, queries: &[Query], session: &Session) -> Result<Done, Failure> {
        let key = provider.check_key().err().map(|missing| missing.to_string());
        let plan = Plan {
            provider: provider.title(),
            queries,
            requests_at_most: provider.cost(queries.len(), self.per_query.into()),
            images_at_most: queries.len() * provider.most(self.per_query.into()),
            key,
        };
        let lines = queries
            .iter()
            .map(|query| format!("{}  ->  {}", query.text, query.label));
        let mut text = lines.collect::<Vec<_>>().join("\n");
        let _ = write!(
            text,
            "\n\n{} to {}, at most {} and {}",
            counted(queries.len(), "query", "queries"),
            plan.provider,
            counted(plan.requests_at_most, "request", "requests"),
            counted(plan.images_at_most, "image", "images")
        );
        if let Some(missing) = &plan.key {
            session.warn(missing);
        }
        session.output.result(&plan, &text)?;
        Ok(Done::Complete)
    }
}

impl ProviderName {
    fn name(self) -> Name {
        match self {
            Self::Openverse => Name::Openverse,
            Self::WikimediaCommons => Name::WikimediaCommons,
            Self::Brave => Name::Brave,
            Self::Serpapi => Name::Serpapi,
            Self::Pexels => Name::Pexels,
        }
    }
}
