//! Addresses of the web: what can be asked over HTTP.

use reqwest::Url;

/// Reads an address of the web; the error is what else `text` is.
pub(crate) fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("the scheme is {other}, not http or https")),
    }
}
