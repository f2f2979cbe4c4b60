//! Image search: every item with every attribute as a query, through a provider's public interface.
//!
//! What a provider found is kept in the data set's own folder, page by page, so that an interrupted search spends no
//! quota twice; the images themselves are fetched as those of any list.

mod provider;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::causes::chain;
use shared::files::{FileError, at, write_atomically};

pub use provider::{Hit, Name, Provider, SearchRequest};

use crate::dataset::{CaseClash, DatasetError, OWN_FOLDER, below, check_case, check_folders, check_labels, is_label};
use crate::fetch::{Entry, Kind, LeftOut};
use crate::progress::{Progress, stage};
use crate::web_answers::{body, may_pass, not_now, retry_after};

/// Folder of what was found, within the folder that the scanner passes over.
const FOLDER: &str = "searches";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Who is not reached by then is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a busy provider is asked.
const ATTEMPTS: u32 = 4;
/// Largest answer that is read, in bytes.
const MOST_BYTES: usize = 32 << 20;

/// A question and the class that its images are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Query {
    /// What is asked.
    pub text: String,
    /// The class folder of what is found.
    pub label: String,
}

/// A query without an answer, or with a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// Which one.
    #[serde(flatten)]
    pub query: Query,
    /// Why, for people to read.
    pub reason: String,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// Images to fetch, each address once.
    pub entries: Vec<Entry>,
    /// Addresses that were found for another label too, which the image does not get.
    pub left_out: Vec<LeftOut>,
    /// Queries without an answer, or with a part of it.
    pub unanswered: Vec<Unanswered>,
    /// Requests that were sent.
    pub requests: usize,
    /// How many more the provider allows, where it tells.
    pub remaining: Option<u64>,
}

/// Why a search cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Nothing to ask for.
    #[error("give at least one item")]
    NoItems,
    /// An item or attribute cannot name a class folder.
    #[error("{0:?} cannot be the name of a class folder")]
    Label(String),
    /// Items or attributes cannot name class folders beside each other.
    #[error(transparent)]
    Labels(#[from] CaseClash),
    /// The provider needs a key.
    #[error("{provider} needs a key: set {variable} to yours")]
    NoKey {
        /// Which provider.
        provider: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// The key is not taken, or nobody without one.
    #[error("{provider} refused the request: status {status}; {way_out}")]
    Denied {
        /// Which provider.
        provider: &'static str,
        /// HTTP status.
        status: StatusCode,
        /// What to do, for people to read.
        way_out: String,
    },
    /// The data set's labels are no folders, or the new ones cannot be beside them.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(reqwest::Error),
    /// What was found cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Every item with every attribute, for the attribute's class; without attributes, every item for its own. A word that
/// is given twice counts once.
///
/// # Errors
/// [`SearchError::NoItems`], [`SearchError::Label`] and [`SearchError::Labels`].
pub fn queries(items: &[String], attributes: &[String]) -> Result<Vec<Query>, SearchError> {
    let plain = |words: &[String]| -> Vec<String> {
        let mut seen = HashSet::new();
        let words = words.iter().map(|word| word.trim().to_owned());
        words
            .filter(|word| !word.is_empty() && seen.insert(word.clone()))
            .collect()
    };
    let (items, attributes) = (plain(items), plain(attributes));
    if items.is_empty() {
        return Err(SearchError::NoItems);
    }
    let labels = if attributes.is_empty() { &items } else { &attributes };
    if let Some(label) = labels.iter().find(|label| !is_label(label)) {
        return Err(SearchError::Label(label.clone()));
    }
    check_case(labels.iter().map(String::as_str))?;
    if attributes.is_empty() {
        let of_item = |item: String| Query {
            text: item.clone(),
            label: item,
        };
        return Ok(items.into_iter().map(of_item).collect());
    }
    let combined = attributes.iter().flat_map(|attribute| {
        items.iter().map(move |item| Query {
            text: format!("{attribute} {item}"),
            label: attribute.clone(),
        })
    });
    Ok(combined.collect())
}

/// Asks `provider` for the first `per_query` images of each query; with `again`, also what was asked before.
///
/// # Errors
/// See [`SearchError`]; a query that gets no answer, or a part of it, is listed.
pub async fn search(
    provider: &Provider,
    queries: &[Query],
    per_query: usize,
    again: bool,
    data: &Path,
    progress: &dyn Progress,
) -> Result<Found, SearchError> {
    check_folders(data)?;
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(TIMEOUT)
        .user_agent(concat!(
            "ikat-trainer/",
            env!("CARGO_PKG_VERSION"),
            " (image data sets)"
        ))
        .build()
        .map_err(SearchError::Setup)?;
    let mut asking = Asking {
        provider,
        client,
        found: Found::default(),
        unreachable: None,
    };
    let folder = data.join(OWN_FOLDER).join(FOLDER);
    if data.exists() {
        check_labels(queries.iter().map(|query| query.label.as_str()), data)?;
        // Whoever shares the data set may have put a link there.
        below(data, &folder.join("any")).map_err(at(&folder))?;
    }
    let mut labels_of: HashMap<reqwest::Url, Vec<&str>> = HashMap::new();
    let _stage = stage(progress, "Searching", Some(queries.len() as u64));
    for query in queries {
        let path = folder.join(provider.file_name(&query.text, per_query));
        let (hits, problem) = match kept::<Vec<Hit>>(&path).filter(|_| !again) {
            Some(hits) => (hits, None),
            None => asking.ask(&query.text, per_query, &path, again).await?,
        };
        match problem {
            Some(reason) => asking.found.unanswered.push(Unanswered {
                query: query.clone(),
                reason,
            }),
            // That there was nothing is kept too, but makes no folder for a data set.
            None if !hits.is_empty() || data.exists() => {
                keep(&path, &hits)?;
                let _ = std::fs::remove_file(begun(&path));
            }
            None => {}
        }
        let found = &mut asking.found;
        for hit in hits {
            let line = found.entries.len() + found.left_out.len() + 1;
            let Some(entry) = entry(hit, &query.label, line) else {
                continue;
            };
            let labels = labels_of.entry(entry.url.clone()).or_default();
            if labels.contains(&query.label.as_str()) {
                continue;
            }
            labels.push(&query.label);
            if labels.len() == 1 {
                found.entries.push(entry);
            } else {
                let reason = format!(
                    "it was found for {} and for {}; the first label counts",
                    labels[0], query.label
                );
                found.left_out.push(entry.left_out(Kind::Duplicate, reason));
            }
        }
        progress.status(&format!("{} images", found.entries.len()));
        progress.advance(1);
    }
    Ok(asking.found)
}

/// What was found before, with whatever else a file may hold taken for nothing.
fn kept<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Where the pages of a query are kept whose hits will be at `path` once there are all.
fn begun(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn keep(path: &Path, found: &impl Serialize) -> Result<(), SearchError> {
    let json = serde_json::to_vec_pretty(found).map_err(|error| at(path)(error.into()))?;
    Ok(write_atomically(path, &json).map_err(at(path))?)
}

fn entry(hit: Hit, label: &str, line: usize) -> Option<Entry> {
    let url = reqwest::Url::parse(&hit.url).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| Entry {
        label: label.to_owned(),
        url,
        line,
        credits: hit.credits,
    })
}

/// A provider that is being asked.
struct Asking<'a> {
    provider: &'a Provider,
    client: reqwest::Client,
    found: Found,
    /// Why no other query needs to be sent: nobody was there, however often one was.
    unreachable: Option<String>,
}

impl Asking<'_> {
    /// The hits of one query, page by page, which are kept beside `path` as they come, and why there are not all. The
    /// error ends the search.
    async fn ask(
        &mut self,
        query: &str,
        per_query: usize,
        path: &Path,
        again: bool,
    ) -> Result<(Vec<Hit>, Option<String>), SearchError> {
        let path = begun(path);
        let mut pages: Vec<Vec<Hit>> = kept(&path).filter(|_| !again).unwrap_or_default();
        let mut problem = None;
        while pages.iter().map(Vec::len).sum::<usize>() < per_query {
            match self.page(query, pages.len(), per_query).await {
                Ok((new, more)) => {
                    let is_last = new.is_empty() || !more;
                    pages.push(new);
                    if is_last {
                        break;
                    }
                    keep(&path, &pages)?;
                }
                Err(Miss::Query(reason)) => {
                    problem = Some(reason);
                    break;
                }
                Err(Miss::Search(error)) => return Err(error),
            }
        }
        Ok((pages.into_iter().flatten().take(per_query).collect(), problem))
    }

    /// The hits of one page, and whether there may be more.
    async fn page(&mut self, query: &str, page: usize, per_query: usize) -> Result<(Vec<Hit>, bool), Miss> {
        if self.found.remaining == Some(0) {
            return Err("the provider's quota is used up".to_owned().into());
        }
        if let Some(reason) = &self.unreachable {
            return Err(reason.clone().into());
        }
        let request = self.provider.request(query, page, per_query)?;
        let answer = self.send(&request).await?;
        Ok(self.provider.read(&answer)?)
    }

    async fn send(&mut self, request: &SearchRequest) -> Result<Value, Miss> {
        let mut wait = Duration::from_secs(1);
        let mut reason = String::new();
        let mut reached = false;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(wait).await;
            }
            wait *= 2;
            self.found.requests += 1;
            let sending = request
                .headers
                .iter()
                .fold(self.client.get(request.url.clone()), |sending, (name, value)| {
                    sending.header(*name, value)
                });
            let response = match sending.send().await {
                Ok(response) => response,
                Err(error) => {
                    reached |= !error.is_connect();
                    // The address holds the key of some providers.
                    reason = chain(&error.without_url());
                    continue;
                }
            };
            reached = true;
            let status = response.status();
            self.found.remaining = self.provider.remaining(response.headers()).or(self.found.remaining);
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                return Err(Miss::Search(self.provider.denial(status)));
            }
            let wished = retry_after(&response);
            if may_pass(status) {
                reason = format!("the provider answered {status}");
            } else {
                let body = match body(response, MOST_BYTES).await {
                    Ok(Some(body)) => body,
                    Ok(None) => return Err("the provider's answer is too large".to_owned().into()),
                    Err(error) => {
                        reason = chain(&error.without_url());
                        continue;
                    }
                };
                let json: Value = serde_json::from_slice(&body)
                    .map_err(|_| format!("the provider answered {status}, but nothing that can be read"))?;
                match (status.is_success(), provider::complaint(&json)) {
                    // A wiki that is busy says so with status 200.
                    (true, Some(complaint)) if wished.is_some() => reason = complaint,
                    (true, _) => return Ok(json),
                    (false, complaint) => {
                        let complaint = complaint.map(|complaint| format!(": {complaint}"));
                        return Err(format!("the provider answered {status}{}", complaint.unwrap_or_default()).into());
                    }
                }
            }
            if let Some(said) = not_now(wished, &reason) {
                return Err(said.into());
            }
            wait = wished.unwrap_or(wait);
            // A window that is full is no used-up quota.
            self.found.remaining = None;
        }
        if !reached {
            self.unreachable = Some(reason.clone());
        }
        Err(reason.into())
    }
}

/// Why there is no page of hits.
enum Miss {
    /// Nothing can be searched for.
    Search(SearchError),
    /// The query gets no answer, in words for people.
    Query(String),
}

impl From<SearchError> for Miss {
    fn from(error: SearchError) -> Self {
        Self::Search(error)
    }
}

impl From<String> for Miss {
    fn from(reason: String) -> Self {
        Self::Query(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn words(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    /// What comes of a search for dresses where nobody answers.
    async fn asking_nobody(data: &Path) -> Result<Found, SearchError> {
        let nobody = reqwest::Url::parse("http://127.0.0.1:1/").expect("an address");
        let provider = Provider::new(Name::Openverse, Some(nobody), Vec::new());
        let queries = queries(&words("dress"), &[]).expect("queries");
        search(&provider, &queries, 5, false, data, &Silent).await
    }

    #[test]
    fn seven_garments_in_three_textures_are_twenty_one_queries() {
        let items = words("t-shirt,blouse,sweater,hoodie,cardigan,dress,skirt");
        let found = queries(&items, &words("striped, dotted,leopard")).expect("queries");
        assert_eq!(found.len(), 21);
        assert_eq!((&found[7].text[..], &found[7].label[..]), ("dotted t-shirt", "dotted"));
        let alone = queries(&words("cat,dog"), &[]).expect("queries");
        assert_eq!((&alone[1].text[..], &alone[1].label[..]), ("dog", "dog"));
        let twice = queries(&words("cat, cat"), &words("striped,striped ")).expect("queries");
        assert_eq!(twice.len(), 1, "a word that is given twice costs no request more");
    }

    #[test]
    fn labels_that_lead_elsewhere_and_no_items_are_refused() {
        assert!(matches!(
            queries(&words("dress"), &words("../x")),
            Err(SearchError::Label(_))
        ));
        assert!(matches!(queries(&words(" ,"), &words("x")), Err(SearchError::NoItems)));
        assert!(matches!(
            queries(&words("dress"), &words("dotted,Dotted")),
            Err(SearchError::Labels(_))
        ));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_was_found_is_kept_behind_no_link() {
        let (data, elsewhere) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        std::fs::create_dir(data.path().join(OWN_FOLDER)).expect("a folder");
        let link = data.path().join(OWN_FOLDER).join(FOLDER);
        std::os::unix::fs::symlink(elsewhere.path(), link).expect("a link");
        let found = asking_nobody(data.path()).await;
        assert!(matches!(found, Err(SearchError::File(_))), "{found:?}");
    }

    #[tokio::test]
    async fn no_quota_is_spent_for_a_data_set_that_gets_no_class_folders() {
        let data = tempfile::tempdir().expect("a folder");
        let list = data.path().join("metadata.jsonl");
        std::fs::write(&list, "").expect("a list");
        let found = asking_nobody(data.path()).await;
        assert!(
            matches!(found, Err(SearchError::Dataset(DatasetError::Listed(_)))),
            "{found:?}"
        );
        std::fs::remove_file(list).expect("removed");
        std::fs::create_dir(data.path().join("Dress")).expect("a class folder");
        let found = asking_nobody(data.path()).await;
        assert!(
            matches!(found, Err(SearchError::Dataset(DatasetError::CaseClash(_)))),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn an_image_that_two_labels_are_answered_with_is_listed() {
        let data = tempfile::tempdir().expect("a folder");
        let provider = Provider::new(Name::Openverse, None, Vec::new());
        let queries = queries(&words("dress,skirt"), &words("striped,dotted")).expect("queries");
        let folder = data.path().join(OWN_FOLDER).join(FOLDER);
        for query in &queries {
            let hits = ["shared", &*query.label].map(|name| Hit {
                url: format!("https://a.example/{name}.jpg"),
                ..Hit::default()
            });
            keep(&folder.join(provider.file_name(&query.text, 5)), &hits).expect("kept");
        }
        let found = search(&provider, &queries, 5, false, data.path(), &Silent).await;
        let found = found.expect("nobody is asked");
        let entries = found.entries.iter().map(|entry| (entry.line, entry.label.as_str()));
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [(1, "striped"), (2, "striped"), (4, "dotted")]
        );
        let shared = LeftOut {
            line: 3,
            url: "https://a.example/shared.jpg".to_owned(),
            kind: Kind::Duplicate,
            reason: "it was found for striped and for dotted; the first label counts".to_owned(),
        };
        assert_eq!(found.left_out, [shared]);
    }

    #[tokio::test]
    async fn nobody_is_asked_again_for_every_other_query() {
        let data = tempfile::tempdir().expect("a folder");
        let nobody = reqwest::Url::parse("http://127.0.0.1:1/").expect("an address");
        let provider = Provider::new(Name::Openverse, Some(nobody), Vec::new());
        let queries = queries(&words("dress,skirt,blouse"), &[]).expect("queries");
        let found = search(&provider, &queries, 5, false, data.path(), &Silent).await;
        let found = found.expect("listed");
        assert_eq!((found.requests, found.unanswered.len()), (ATTEMPTS as usize, 3));
    }

    #[tokio::test]
    async fn an_error_is_told_with_its_causes_and_without_a_key() {
        let asked = reqwest::get("http://127.0.0.1:1/?key=secret").await;
        let text = chain(&asked.expect_err("nobody is there").without_url());
        assert!(text.contains("refused") && !text.contains("secret"), "{text}");
    }
}
