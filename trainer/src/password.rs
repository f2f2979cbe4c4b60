//! Addresses as they are shown: what stands in them before an `@` is for the server alone.

use reqwest::Url;

/// `text`, which is an address or should be one, without the name and the password in it.
pub(crate) fn without_password(text: &str) -> String {
    if let Some(mut url) = Url::parse(text).ok().filter(Url::has_host) {
        if url.username().is_empty() && url.password().is_none() {
            return text.to_owned();
        }
        // What has a host can have neither.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        return url.into();
    }
    // A character in its password may be why it is no address.
    let start = text.find("://").map_or(0, |scheme| scheme + "://".len());
    match text[start..].rsplit_once('@') {
        Some((secret, host)) if start > 0 || secret.contains(':') => format!("{}...@{host}", &text[..start]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_whether_it_stands_in_an_address_or_in_what_is_none() {
        for (text, expected) in [
            ("http://user:secret@127.0.0.1:9000/a@b", "http://127.0.0.1:9000/a@b"),
            ("https://token@host/", "https://host/"),
            ("http://user:secret@host:99999", "http://...@host:99999"),
            ("https://user:se/cret@host/", "https://...@host/"),
            ("user:secret@host:9000", "...@host:9000"),
            ("http://host/a@b", "http://host/a@b"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("me@host", "me@host"),
            ("", ""),
        ] {
            assert_eq!(without_password(text), expected);
        }
    }
}
