//! The providers' interfaces, as each of them documents it.

use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::files;

use super::SearchError;
use crate::fetch::Credits;

/// A provider of image search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Openly licensed images of many collections; no key needed (`OPENVERSE_TOKEN` allows more).
    Openverse,
    /// The media of Wikipedia and its sisters; no key needed (`WIKIMEDIA_TOKEN` allows more).
    WikimediaCommons,
    /// The web, by `BRAVE_API_KEY`.
    Brave,
    /// Google's image search, by `SERPAPI_API_KEY`.
    Serpapi,
    /// Stock photos, by `PEXELS_API_KEY`.
    Pexels,
}

/// What is fixed about a provider.
struct Facts {
    title: &'static str,
    endpoint: &'static str,
    /// Environment variable of the key.
    variable: &'static str,
    needs_key: bool,
    page_size: usize,
    /// Response header that tells how many requests are left; the last of several numbers counts for the longest time.
    remaining: Option<&'static str>,
}

/// A provider, ready to be asked.
pub struct Provider {
    name: Name,
    endpoint: Url,
    key: Option<String>,
    licences: Vec<String>,
}

/// One page of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRequest {
    /// Where to ask.
    pub url: Url,
    /// What to say besides.
    pub headers: Vec<(&'static str, String)>,
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hit {
    /// The image.
    pub url: String,
    /// Whose it is, as far as the provider tells.
    #[serde(flatten)]
    pub credits: Credits,
}

impl Name {
    fn facts(self) -> Facts {
        match self {
            Self::Openverse => Facts {
                title: "Openverse",
                endpoint: "https://api.openverse.org/v1/images/",
                variable: "OPENVERSE_TOKEN",
                needs_key: false,
                page_size: 20,
                remaining: Some("x-ratelimit-available-anon_sustained"),
            },
            Self::WikimediaCommons => Facts {
                title: "Wikimedia Commons",
                endpoint: "https://commons.wikimedia.org/w/api.php",
                variable: "WIKIMEDIA_TOKEN",
                needs_key: false,
                page_size: 50,
                remaining: None,
            },
            Self::Brave => Facts {
                title: "Brave Image Search",
                endpoint: "https://api.search.brave.com/res/v1/images/search",
                variable: "BRAVE_API_KEY",
                needs_key: true,
                page_size: 200,
                remaining: Some("x-ratelimit-remaining"),
            },
            Self::Serpapi => Facts {
                title: "SerpApi",
                endpoint: "https://serpapi.com/search.json",
                variable: "SERPAPI_API_KEY",
                needs_key: true,
                page_size: 100,
                remaining: None,
            },
            Self::Pexels => Facts {
                title: "Pexels",
                endpoint: "https://api.pexels.com/v1/search",
                variable: "PEXELS_API_KEY",
                needs_key: true,
                page_size: 80,
                remaining: Some("x-ratelimit-remaining"),
            },
        }
    }
}

impl Provider {
    /// The provider with its key from the environment. `endpoint` is another address of it; `licences` are those asked
    /// for, where it can be asked for some.
    ///
    /// # Panics
    /// Never: the fixed addresses are addresses.
    pub fn new(name: Name, endpoint: Option<Url>, licences: Vec<String>) -> Self {
        let facts = name.facts();
        let key = std::env::var(facts.variable).ok().filter(|key| !key.is_empty());
        Self {
            name,
            endpoint: endpoint.unwrap_or_else(|| Url::parse(facts.endpoint).expect("a fixed address")),
            key,
            licences,
        }
    }

    /// What people call it.
    pub fn title(&self) -> &'static str {
        self.name.facts().title
    }

    /// Environment variable of its key.
    pub fn variable(&self) -> &'static str {
        self.name.facts().variable
    }

    /// Whether it can be asked, as far as keys go.
    ///
    /// # Errors
    /// [`SearchError::NoKey`].
    pub fn check_key(&self) -> Result<(), SearchError> {
        if self.name.facts().needs_key && self.key.is_none() {
            return Err(SearchError::NoKey {
                provider: self.title(),
                variable: self.variable(),
            });
        }
        Ok(())
    }

    /// What it means that it answers with this status to whoever is not allowed to ask.
    pub(super) fn denial(&self, status: StatusCode) -> SearchError {
        let variable = self.variable();
        let way_out = if self.key.is_some() {
            format!("check the key in {variable}")
        } else {
            format!("it lets not everybody ask without a key: ask again later, or set {variable} to yours")
        };
        SearchError::Denied {
            provider: self.title(),
            status,
            way_out,
        }
    }

    /// How many of the `per_query` images that a query asks for it gives at most.
    pub fn most(&self, per_query: usize) -> usize {
        match self.name {
            // One page is all it gives.
            Name::Brave => per_query.min(self.name.facts().page_size),
            _ => per_query,
        }
    }

    /// Requests that `queries` queries for `per_query` images each take at most.
    pub fn cost(&self, queries: usize, per_query: usize) -> usize {
        queries * self.most(per_query).div_ceil(self.name.facts().page_size)
    }

    /// Under which name the hits of a query are kept.
    pub(super) fn file_name(&self, query: &str, per_query: usize) -> String {
        let identity = format!(
            "{:?} {} {:?} {per_query} {query}",
            self.name, self.endpoint, self.licences
        );
        format!("{}.json", &files::sha256_hex(identity.as_bytes())[..24])
    }

    /// The request for one page of a query, counted from 0.
    ///
    /// # Errors
    /// [`SearchError::NoKey`].
    pub fn request(&self, query: &str, page: usize, per_query: usize) -> Result<SearchRequest, SearchError> {
        self.check_key()?;
        let Facts {
            page_size: size,
            needs_key,
            ..
        } = self.name.facts();
        let wanted = per_query.min(size).to_string();
        let (key, next) = (self.key.clone().unwrap_or_default(), (page + 1).to_string());
        let mut headers = Vec::new();
        // Who asks for no key takes the token of an application (OAuth 2).
        if !needs_key && !key.is_empty() {
            headers.push(("authorization", format!("Bearer {key}")));
        }
        let mut url = self.endpoint.clone();
        let mut parameters = url.query_pairs_mut();
        match self.name {
            Name::Openverse => {
                parameters
                    .append_pair("q", query)
                    .append_pair("page_size", &wanted)
                    .append_pair("page", &next);
                if !self.licences.is_empty() {
                    parameters.append_pair("license", &self.licences.join(","));
                }
            }
            Name::WikimediaCommons => {
                parameters.extend_pairs([
                    ("action", "query"),
                    ("format", "json"),
                    ("formatversion", "2"),
                    ("generator", "search"),
                    ("gsrsearch", &format!("filetype:bitmap {query}")),
                    ("gsrnamespace", "6"),
                    ("gsrlimit", &wanted),
                    ("gsroffset", &(page * per_query.min(size)).to_string()),
                    ("prop", "imageinfo"),
                    ("iiprop", "url|extmetadata"),
                    ("iiurlwidth", "1280"),
                    ("maxlag", "5"),
                ]);
            }
            Name::Brave => {
                parameters
                    .append_pair("q", query)
                    .append_pair("count", &wanted)
                    .append_pair("safesearch", "strict");
                headers.push(("x-subscription-token", key));
            }
            Name::Serpapi => {
                parameters.extend_pairs([
                    ("engine", "google_images"),
                    ("q", query),
                    ("ijn", &page.to_string()),
                    ("api_key", &key),
                ]);
            }
            Name::Pexels => {
                parameters
                    .append_pair("query", query)
                    .append_pair("per_page", &wanted)
                    .append_pair("page", &next);
                headers.push(("authorization", key));
            }
        }
        drop(parameters);
        Ok(SearchRequest { url, headers })
    }

    /// The hits of an answer, and whether there may be more.
    ///
    /// # Errors
    /// What the provider says is wrong, for people.
    pub fn read(&self, answer: &Value) -> Result<(Vec<Hit>, bool), String> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let hits = match self.name {
            Name::Openverse if answer["results"].is_array() => {
                let hits = list(&answer["results"]).iter().filter_map(openverse).collect();
                let more = answer["page"].as_u64() < answer["page_count"].as_u64();
                Some((hits, more))
            }
            Name::WikimediaCommons if answer["error"].is_null() => {
                let mut pages = list(&answer["query"]["pages"]);
                pages.sort_by_key(|page| page["index"].as_i64());
                Some((
                    pages.iter().filter_map(commons).collect(),
                    answer["continue"].is_object(),
                ))
            }
            Name::Brave if answer["results"].is_array() => {
                Some((list(&answer["results"]).iter().filter_map(brave).collect(), false))
            }
            Name::Serpapi if answer["images_results"].is_array() => Some((
                list(&answer["images_results"]).iter().filter_map(serpapi).collect(),
                true,
            )),
            Name::Serpapi
                if text(&answer["error"]).is_some_and(|error| error.contains("hasn't returned any results")) =>
            {
                Some((Vec::new(), false))
            }
            Name::Pexels if answer["photos"].is_array() => {
                let hits = list(&answer["photos"]).iter().filter_map(pexels).collect();
                Some((hits, answer["next_page"].is_string()))
            }
            _ => None,
        };
        hits.ok_or_else(|| {
            complaint(answer).unwrap_or_else(|| format!("{} answered otherwise than it documents", self.title()))
        })
    }

    /// How many requests are left, where the answer's headers tell. For a plan that is billed by use, Brave tells of a
    /// limit of 0, which bounds nothing.
    pub fn remaining(&self, headers: &HeaderMap) -> Option<u64> {
        let last = |name: &str| -> Option<u64> {
            let value = headers.get(name)?.to_str().ok()?;
            value.rsplit(',').next()?.trim().parse().ok()
        };
        let remaining = last(self.name.facts().remaining?)?;
        (last("x-ratelimit-limit") != Some(0)).then_some(remaining)
    }
}

/// What an answer says is wrong, where it does, in any of the providers' forms. Of a parameter, Openverse says it by its
/// name: an object, of which the JSON is told.
pub(super) fn complaint(answer: &Value) -> Option<String> {
    let said = [
        &answer["error"]["info"],
        &answer["error"]["detail"],
        &answer["detail"],
        &answer["error"],
    ];
    let by_name = || answer["detail"].is_object().then(|| answer["detail"].to_string());
    said.into_iter().find_map(text).or_else(by_name)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn openverse(found: &Value) -> Option<Hit> {
    let version = text(&found["license_version"])
        .map(|version| format!(" {version}"))
        .unwrap_or_default();
    Some(Hit {
        url: text(&found["url"])?,
        credits: Credits {
            page: text(&found["foreign_landing_url"]),
            licence: text(&found["license"]).map(|licence| format!("{licence}{version}")),
            creator: text(&found["creator"]),
            attribution: text(&found["attribution"]),
        },
    })
}

fn commons(found: &Value) -> Option<Hit> {
    let info = &found["imageinfo"][0];
    let told = |field: &str| text(&info["extmetadata"][field]["value"]).map(|html| without_markup(&html));
    Some(Hit {
        // The scaled copy is a picture also where the original is a TIFF of 100 megapixels.
        url: text(&info["thumburl"]).or_else(|| text(&info["url"]))?,
        credits: Credits {
            page: text(&info["descriptionurl"]),
            licence: told("LicenseShortName"),
            creator: told("Artist"),
            attribution: told("Attribution").or_else(|| told("Credit")),
        },
    })
}

fn brave(found: &Value) -> Option<Hit> {
    Some(Hit {
        url: text(&found["properties"]["url"])?,
        credits: Credits {
            page: text(&found["url"]),
            ..Credits::default()
        },
    })
}

fn serpapi(found: &Value) -> Option<Hit> {
    Some(Hit {
        url: text(&found["original"])?,
        credits: Credits {
            page: text(&found["link"]),
            licence: text(&found["license_details_url"]),
            creator: text(&found["source"]),
            attribution: None,
        },
    })
}

fn pexels(found: &Value) -> Option<Hit> {
    let creator = text(&found["photographer"]);
    Some(Hit {
        url: text(&found["src"]["large2x"]).or_else(|| text(&found["src"]["original"]))?,
        credits: Credits {
            page: text(&found["url"]),
            licence: Some("Pexels License".to_owned()),
            attribution: creator.as_ref().map(|creator| format!("Photo by {creator} on Pexels")),
            creator,
        },
    })
}

/// The text of a little HTML.
fn without_markup(html: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for character in html.chars() {
        match character {
            '<' => inside = true,
            '>' if inside => inside = false,
            _ if !inside => plain.push(character),
            _ => {}
        }
    }
    let plain = plain
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    plain
        .replace("&amp;", "&")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_provider_of_one_page_promises_no_more_than_that() {
        let plan = |name, per_query| {
            let provider = Provider::new(name, None, Vec::new());
            (provider.most(per_query), provider.cost(3, per_query))
        };
        assert_eq!(plan(Name::Brave, 1000), (200, 3));
        assert_eq!(plan(Name::Brave, 50), (50, 3));
        assert_eq!(plan(Name::Openverse, 50), (50, 9));
    }

    #[test]
    fn what_is_wrong_with_a_parameter_is_told() {
        let answer = json!({ "detail": { "license": ["License 'cc-by' does not exist."] } });
        let complaint = complaint(&answer).expect("a complaint");
        assert!(complaint.contains("License 'cc-by' does not exist."), "{complaint}");
        assert_eq!(super::complaint(&json!({ "results": [] })), None);
    }

    #[test]
    fn a_plan_without_a_quota_is_not_used_up() {
        let brave = Provider::new(Name::Brave, None, Vec::new());
        let remaining = |limit, left| {
            let told = [("x-ratelimit-limit", limit), ("x-ratelimit-remaining", left)].into_iter();
            let headers: HeaderMap = told
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            brave.remaining(&headers)
        };
        assert_eq!(remaining("50, 0", "49, 0"), None);
        assert_eq!(remaining("1, 2000", "0, 77"), Some(77));
        assert_eq!(remaining("1, 2000", "0, 0"), Some(0));
    }

    #[test]
    fn a_token_is_sent_to_whoever_needs_no_key_and_doubted_where_it_was() {
        for name in [Name::Openverse, Name::WikimediaCommons] {
            let mut provider = Provider::new(name, None, Vec::new());
            for (key, headers) in [
                (
                    Some("token".to_owned()),
                    vec![("authorization", "Bearer token".to_owned())],
                ),
                (None, Vec::new()),
            ] {
                provider.key = key;
                let request = provider.request("dress", 0, 20).expect("a request");
                assert_eq!(request.headers, headers, "{name:?}");
                let denial = provider.denial(StatusCode::FORBIDDEN).to_string();
                let is_checked = denial.contains("check the key in ");
                assert!(
                    is_checked != headers.is_empty() && denial.contains("_TOKEN"),
                    "{denial}"
                );
            }
        }
    }
}
