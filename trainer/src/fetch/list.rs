//! Lists of labels and addresses: `label<TAB>url`, a line each.

use std::collections::HashMap;

use reqwest::Url;

use super::{Credits, Kind, LeftOut};
use crate::dataset::{CaseClash, check_case, is_label};

/// An image to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its class.
    pub label: String,
    /// Where it is.
    pub url: Url,
    /// Line of the list, or place among what a search found, from 1.
    pub line: usize,
    /// Whose it is.
    pub credits: Credits,
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not one line of it is a label and an address.
    #[error("no line is a label, a tab and an address; the first one: {0}")]
    Nothing(String),
    /// It is empty.
    #[error("the list is empty")]
    Empty,
    /// Two labels differ in upper and lower case alone.
    #[error(transparent)]
    CaseClash(#[from] CaseClash),
}

/// Reads a list. Empty lines and those that begin with `#` are passed over; an address that occurs twice with one
/// label is taken once.
///
/// # Errors
/// See [`ListError`]; single lines at fault are given beside the entries.
pub fn parse(text: &str) -> Result<(Vec<Entry>, Vec<LeftOut>), ListError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut left_out = Vec::new();
    let mut seen: HashMap<Url, (String, usize)> = HashMap::new();
    // Some spreadsheets end lines as old Macs did; within an address, a line break would be passed over.
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    for (index, line) in text.split(['\n', '\r']).enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        match entry(line, number) {
            Ok(entry) => match seen.get(&entry.url) {
                None => {
                    seen.insert(entry.url.clone(), (entry.label.clone(), number));
                    entries.push(entry);
                }
                Some((label, _)) if *label == entry.label => {}
                Some((label, first)) => {
                    let reason = format!("line {first} calls the same address {label}");
                    left_out.push(entry.left_out(Kind::Duplicate, reason));
                }
            },
            Err(reason) => left_out.push(LeftOut {
                line: number,
                url: line.to_owned(),
                kind: Kind::Invalid,
                reason,
            }),
        }
    }
    check_case(entries.iter().map(|entry| entry.label.as_str()))?;
    match (entries.is_empty(), left_out.first()) {
        (true, None) => Err(ListError::Empty),
        (true, Some(first)) => Err(ListError::Nothing(first.reason.clone())),
        _ => Ok((entries, left_out)),
    }
}

fn entry(line: &str, number: usize) -> Result<Entry, String> {
    let (label, url) = line.split_once('\t').ok_or("it has no tab")?;
    let (label, url) = (label.trim(), url.split('\t').next().unwrap_or_default().trim());
    // What stands for bytes that were none of a text.
    if label.contains(char::REPLACEMENT_CHARACTER) {
        return Err(format!("{label:?} is not what was written: save the list as UTF-8"));
    }
    if !is_label(label) {
        return Err(format!("{label:?} cannot be the name of a class folder"));
    }
    let url = Url::parse(url).map_err(|error| format!("{url:?} is no address ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{url} is no web address"));
    }
    Ok(Entry {
        label: label.to_owned(),
        url,
        line: number,
        credits: Credits::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_lines_are_read_and_bad_ones_named() {
        let text = "\u{feff}# a list\ndotted\thttp://a.example/1.jpg\n\ndotted\thttp://a.example/1.jpg\r\n../x\thttp://a.example/2.jpg\n\
                    striped http://a.example/3.jpg\nstriped\tfile:///etc/passwd\nleopard\thttps://b.example/\textra\n\
                    striped\thttp://a.example/1.jpg\n";
        let (entries, left_out) = parse(text).expect("a list");
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (entry.line, &entry.label[..], entry.url.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (2, "dotted", "http://a.example/1.jpg"),
                (8, "leopard", "https://b.example/")
            ]
        );
        let lines: Vec<_> = left_out.iter().map(|left_out| (left_out.line, left_out.kind)).collect();
        let (invalid, duplicate) = (Kind::Invalid, Kind::Duplicate);
        assert_eq!(lines, [(5, invalid), (6, invalid), (7, invalid), (9, duplicate)]);
        assert_eq!(left_out[3].url, "http://a.example/1.jpg");
    }

    #[test]
    fn lines_end_as_on_any_system() {
        let lines = [
            "dotted\thttp://a.example/1.jpg",
            "",
            "striped\thttp://a.example/2.jpg",
            "",
        ];
        for end in ["\n", "\r\n", "\r"] {
            let (entries, left_out) = parse(&lines.join(end)).expect("a list");
            let found: Vec<_> = entries.iter().map(|entry| (entry.line, entry.url.path())).collect();
            assert_eq!(
                (found, left_out.len()),
                (vec![(1, "/1.jpg"), (3, "/2.jpg")], 0),
                "{end:?}"
            );
        }
    }

    #[test]
    fn a_label_in_another_encoding_makes_no_folder_of_another_name() {
        let text = String::from_utf8_lossy(b"dotted\thttp://a.example/\xf6.jpg\nGr\xf6\xdfe\thttp://a.example/1.jpg\n");
        let (entries, left_out) = parse(&text).expect("a list");
        assert_eq!(entries.len(), 1, "an address may hold anything");
        assert!(left_out[0].reason.contains("UTF-8"), "{left_out:?}");
    }

    #[test]
    fn a_list_without_an_entry_or_with_labels_alike_is_an_error() {
        assert_eq!(parse("\n\n"), Err(ListError::Empty));
        let clash = parse("dotted\thttp://a.example/1.jpg\nDotted\thttp://a.example/2.jpg\n");
        assert!(matches!(clash, Err(ListError::CaseClash { .. })), "{clash:?}");
        assert!(matches!(parse("nothing here"), Err(ListError::Nothing(_))));
    }
}
