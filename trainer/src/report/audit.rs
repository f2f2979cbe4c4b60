//! The page of an audit: what is wrong with a data set, in pictures.

use std::collections::BTreeSet;
use std::path::Path;

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::image::Limits;

use super::gallery::thumbnail;
use super::{ReportError, STYLE};
use crate::audit::{self, Audit, ClassCount, Labelled};
use crate::counted::counted;
use crate::dataset::{Skipped, text_of, unescape};

/// Pictures of one section at most.
const PICTURES: usize = 120;
/// Longest side of a picture, in pixels.
const SIDE: u32 = 160;

#[derive(Template)]
#[template(path = "audit.html")]
struct Page<'a> {
    title: String,
    style: &'a str,
    /// Address of the annotation page; empty where there is none.
    annotate: &'a str,
    classes: &'a [ClassCount],
    /// Whether they look like something else than classes.
    note: Option<&'a str>,
    leakage: String,
    sections: Vec<Section>,
    lists: Vec<List>,
}

struct Section {
    title: &'static str,
    count: usize,
    explanation: &'static str,
    cards: Vec<Card>,
}

struct Card {
    path: String,
    link: String,
    headline: String,
    thumbnail: String,
}

struct List {
    title: &'static str,
    lines: Vec<(String, String)>,
}

/// The page of `audit` of the images below `root`, each leading to the annotation page at `annotate` where one is
/// named.
///
/// # Errors
/// [`ReportError::Page`].
pub fn audit_page(
    audit: &Audit,
    unreadable: &[Skipped],
    root: &Path,
    annotate: Option<&str>,
    limits: Limits,
) -> Result<String, ReportError> {
    let draw = |path: &str, headline: String| {
        let file = unescape(path).map(|path| root.join(path));
        let jpeg = file.and_then(|file| thumbnail(&file, SIDE, limits)).unwrap_or_default();
        Card {
            link: form_urlencoded(path),
            path: path.to_owned(),
            headline,
            thumbnail: STANDARD.encode(jpeg),
        }
    };
    let page = Page {
        title: format!("Audit of {}", counted(audit.images, "image", "images")),
        style: STYLE,
        annotate: annotate.unwrap_or_default(),
        classes: &audit.classes,
        note: audit.note.as_deref(),
        leakage: audit.leakage.as_ref().map_or_else(String::new, |leakage| {
            format!(
                "{} of {} test images ({:.1} %) have a near-duplicate among the training images.",
                leakage.images.len(),
                leakage.test_images,
                100.0 * leakage.share
            )
        }),
        sections: sections(audit, draw),
        lists: lists(audit, unreadable),
    };
    page.render().map_err(|error| ReportError::Page(error.to_string()))
}

/// What is shown in pictures, which `draw` makes of a path and a headline.
fn sections(audit: &Audit, draw: impl Fn(&str, String) -> Card) -> Vec<Section> {
    let doubtful: Vec<_> = audit.labels.iter().filter(|doubt| doubt.suspicion > 0.0).collect();
    let labels = doubtful
        .iter()
        .take(PICTURES)
        .map(|doubt| draw(&doubt.path, format!("{}: rather {}?", doubt.label, doubt.suggested)));
    let odd = audit.odd.iter().take(PICTURES);
    let odd = odd.map(|odd| draw(&odd.path, format!("similarity {:.2}", odd.similarity)));
    let sections = [
        Section {
            title: "Doubtful labels",
            count: doubtful.len(),
            explanation: "A classifier that did not see the image would have answered otherwise; the most doubtful \
                          first.",
            cards: labels.collect(),
        },
        Section {
            title: "Images like no other",
            count: audit.odd.len(),
            explanation: "By the features of the pre-trained network; the oddest first.",
            cards: odd.collect(),
        },
    ];
    sections.into_iter().filter(|section| section.count > 0).collect()
}

/// What is listed by its name.
fn lists(audit: &Audit, unreadable: &[Skipped]) -> Vec<List> {
    let confused = audit::confused(&audit.labels).into_iter();
    let lists = [
        List {
            title: "Classes that are confused",
            lines: confused
                .map(|(label, other, count)| (format!("{label}, rather {other}"), counted(count, "image", "images")))
                .collect(),
        },
        List {
            title: "Files that cannot be read",
            lines: unreadable
                .iter()
                .map(|item| (text_of(&item.path), item.reason.clone()))
                .collect(),
        },
        List {
            title: "Names that promise another format",
            lines: audit
                .wrong_extensions
                .iter()
                .map(|file| (file.path.clone(), format!("its content is {}", file.content)))
                .collect(),
        },
        List {
            title: "Tiny pictures",
            lines: audit
                .tiny
                .iter()
                .map(|tiny| (tiny.path.clone(), format!("{} x {} pixels", tiny.width, tiny.height)))
                .collect(),
        },
        List {
            title: "Images that stand in more than one class",
            lines: audit.conflicts.iter().map(|images| conflict(images)).collect(),
        },
        List {
            title: "Test images with a copy among the training images",
            lines: audit
                .leakage
                .iter()
                .flat_map(|leakage| &leakage.images)
                .map(|path| (path.clone(), String::new()))
                .collect(),
        },
    ];
    lists.into_iter().filter(|list| !list.lines.is_empty()).collect()
}

/// The paths of near-duplicates and their labels.
fn conflict(images: &[Labelled]) -> (String, String) {
    let paths: Vec<&str> = images.iter().map(|image| image.path.as_str()).collect();
    let labels: BTreeSet<&str> = images.iter().map(|image| image.label.as_str()).collect();
    let labels: Vec<&str> = labels.into_iter().collect();
    (paths.join(", "), labels.join(" or "))
}

/// A path as a value in an address.
fn form_urlencoded(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
