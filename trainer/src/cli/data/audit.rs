use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::features::FeatureArguments;
use crate::audit::{self, Audit};
use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::{list_skipped, printable, printable_path};
use crate::cli::resources::{Resources, check_new, save, writable};
use crate::counted::counted;
use crate::dataset::{DEFAULT_DISTANCE, Dataset, HASH_SIZE, Picture, Skipped, Split};
use crate::report;

/// Tell what is wrong with a data set: files, balance, leakage, labels.
///
/// Lists unreadable files, wrong extensions, tiny pictures, rare classes, test images with a copy among the
/// training images, images with a copy in another class, and images like no other. Ranks the labels by how much a
/// classifier that did not see the image prefers another one. Changes nothing.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders, or a list of paths and labels (.csv, .tsv or metadata.jsonl)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Split file to check for copies on both sides
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,
    /// Pictures whose shorter side has fewer pixels are tiny
    #[arg(long, value_name = "PIXELS", default_value_t = 64)]
    smallest_side: u32,
    /// How many of each list are shown; --json has them all
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,
    /// Also write a page with the pictures; must not exist already
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Address that `trainer annotate` printed: the page's pictures lead there
    #[arg(long, value_name = "URL")]
    annotate: Option<reqwest::Url>,
    #[command(flatten)]
    features: FeatureArguments,
    #[command(flatten)]
    resources: Resources,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    audit: &'a Audit,
    unreadable: &'a [Skipped],
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if let Some(page) = &arguments.html {
        check_new(page, "--html")?;
        writable(page, "choose another file with --html")?;
    }
    session.warn_of_idle(&[("annotate", arguments.html.is_some(), "--html")]);
    let found = Dataset::scan(&arguments.data)?;
    if let Some(path) = &arguments.split {
        // What is wrong with it is told before the images are read; which of them are readable, only then.
        Split::load(path, &found)?;
    }
    let (dataset, pictures) = super::readable(&found, HASH_SIZE, &arguments.resources, session)?;
    let (mut featurized, features) =
        arguments
            .features
            .compute(&dataset, DEFAULT_DISTANCE, &arguments.resources, session)?;
    let pictures = only(&dataset, pictures, &featurized);
    let split = match &arguments.split {
        Some(path) => Some(Split::load(path, &featurized)?),
        None => None,
    };
    featurized.skipped.extend(split.iter().flat_map(Split::unknown));
    let audit = audit::audit(
        &featurized,
        &pictures,
        &features,
        split.as_ref(),
        arguments.smallest_side,
        &session.progress,
    )?;

    if let Some(path) = &arguments.html {
        let annotate = arguments.annotate.as_ref().map(reqwest::Url::as_str);
        let limits = arguments.resources.limits();
        let page = report::audit_page(&audit, &featurized.skipped, &featurized.root, annotate, limits)?;
        save(path, page.as_bytes(), "--html")?;
        session.remark(&format!("Page: {}", printable_path(path)));
    }
    list_skipped(&featurized.skipped);
    let document = Document {
        audit: &audit,
        unreadable: &featurized.skipped,
    };
    session.output.result(&document, &arguments.text(&document))?;
    Ok(Done::unless_left_out(&featurized.skipped))
}

/// The pictures of the images that `part` still has, in its order.
pub fn only(dataset: &Dataset, pictures: Vec<Picture>, part: &Dataset) -> Vec<Picture> {
    let paths: std::collections::HashSet<_> = part.items.iter().map(|item| &item.path).collect();
    let pairs = dataset.items.iter().zip(pictures);
    pairs
        .filter_map(|(item, picture)| paths.contains(&item.path).then_some(picture))
        .collect()
}

impl Arguments {
    fn text(&self, document: &Document) -> String {
        let audit = document.audit;
        let mut text = format!(
            "{}, {} left out\n\n",
            counted(audit.images, "image", "images"),
            counted(document.unreadable.len(), "file", "files")
        );
        for class in &audit.classes {
            let note = if class.rare { "  rare: collect more" } else { "" };
            let _ = writeln!(text, "{:>7}  {}{note}", class.images, printable(&class.label));
        }
        if let Some(note) = &audit.note {
            let _ = writeln!(text, "\n{}", printable(note));
        }
        if let Some(leakage) = &audit.leakage {
            let _ = writeln!(
                text,
                "\nLeakage: {} of {} test images ({:.1} %) have a near-duplicate among the training images",
                leakage.images.len(),
                leakage.test_images,
                100.0 * leakage.share
            );
            self.list(&mut text, "", leakage.images.iter().map(|path| printable(path)));
        }
        let wrong = audit.wrong_extensions.iter();
        let wrong = wrong.map(|file| format!("{}: its content is {}", printable(&file.path), file.content));
        self.list(&mut text, "Names that promise another format", wrong);
        let tiny = audit.tiny.iter();
        let tiny = tiny.map(|tiny| format!("{} ({} x {})", printable(&tiny.path), tiny.width, tiny.height));
        self.list(&mut text, "Tiny pictures", tiny);
        let conflicts = audit.conflicts.iter().map(|images| {
            let images = images.iter();
            let images = images.map(|image| format!("{} ({})", printable(&image.path), printable(&image.label)));
            images.collect::<Vec<_>>().join(", ")
        });
        self.list(&mut text, "Images that stand in more than one class", conflicts);
        let doubtful = audit.labels.iter().filter(|doubt| doubt.suspicion > 0.0);
        let doubtful = doubtful.map(|doubt| {
            let suggested = printable(&doubt.suggested);
            format!(
                "{:>6.2}  {}  rather {suggested}",
                doubt.suspicion,
                printable(&doubt.path)
            )
        });
        self.list(&mut text, "Doubtful labels, the most doubtful first", doubtful);
        let confused = audit::confused(&audit.labels).into_iter();
        let confused =
            confused.map(|(label, other, count)| format!("{count:>6}  {} for {}", printable(label), printable(other)));
        self.list(&mut text, "Classes that are confused", confused);
        let odd = audit.odd.iter();
        let odd = odd.map(|odd| format!("{:>6.2}  {}", odd.similarity, printable(&odd.path)));
        self.list(&mut text, "Images like no other, the oddest first", odd);
        text
    }

    fn list(&self, text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            return;
        }
        if !title.is_empty() {
            let _ = writeln!(text, "\n{title} ({}):", lines.len());
        }
        for line in lines.iter().take(self.show) {
            let _ = writeln!(text, "  {line}");
        }
        if lines.len() > self.show {
            let _ = writeln!(text, "  ... and {} more", lines.len() - self.show);
        }
    }
}
