mod restore;

use std::fmt::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::features::FeatureArguments;
use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::{list_skipped, printable};
use crate::cli::resources::Resources;
use crate::counted::counted;
use crate::dataset::{self, Dataset, FolderLock, HASH_SIZE, Picture, Skipped};
use crate::duplicates::quarantine;
use crate::duplicates::{self, Criteria, Duplicates};
use crate::shell;

/// Find copies of one picture, keep the best and set the others aside.
///
/// Two pictures are copies when their difference hashes differ in few bits (the same picture in another
/// size or quality) or when a network sees the same in them (also cropped or brightened). The copy with
/// the most pixels stays. The others move to a quarantine within the data folder, from where --restore
/// brings them back. Nothing is deleted. A file that has two names by a link is listed and stays.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Rows and columns of the difference hash
    #[arg(long, value_name = "N", default_value_t = HASH_SIZE, value_parser = clap::value_parser!(u32).range(2..=64))]
    hash_size: u32,
    /// Largest number of differing bits between copies [default: a sixteenth of the bits]
    #[arg(long, value_name = "BITS")]
    distance: Option<u32>,
    /// Smallest cosine similarity of the network's features between copies
    #[arg(long, value_name = "COSINE", default_value_t = 0.94)]
    similarity: f32,
    /// Compare hashes alone, without a network
    #[arg(long)]
    no_features: bool,
    /// What to do with copies that carry different labels
    #[arg(long, value_enum, default_value_t = Conflicts::KeepBest)]
    conflicts: Conflicts,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Put back what an earlier call set aside: the latest, or the one of this name
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = LATEST, conflicts_with = "dry_run")]
    restore: Option<String>,
    #[command(flatten)]
    features: FeatureArguments,
    #[command(flatten)]
    resources: Resources,
}

const LATEST: &str = "latest";

/// What to do with copies that carry different labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Conflicts {
    /// The best copy stays; of equal ones that with the most frequent label, or all
    KeepBest,
    /// All of them stay, for you to decide
    Leave,
    /// None of them stays
    SetAside,
}

#[derive(Serialize)]
struct Document<'a> {
    groups: Vec<Group<'a>>,
    moved: usize,
    /// Name of the quarantine; null where nothing moved.
    quarantine: Option<&'a str>,
    dry_run: bool,
    skipped: &'a [Skipped],
}

#[derive(Serialize)]
struct Group<'a> {
    conflict: bool,
    /// No copy is better than those with another label, and no label more frequent.
    undecided: bool,
    kept: Entry<'a>,
    copies: Vec<Copy<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    path: String,
    label: &'a str,
    width: u32,
    height: u32,
    moved: bool,
    /// It stays in any case: its file has another name in the data set, or lies outside of it.
    fixed: bool,
}

#[derive(Serialize)]
struct Copy<'a> {
    #[serde(flatten)]
    entry: Entry<'a>,
    distance: u32,
    similarity: Option<f32>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if let Some(name) = &arguments.restore {
        return restore::restore(
            &arguments.data,
            Some(name.as_str()).filter(|name| *name != LATEST),
            session,
        );
    }
    let of_features = ["similarity", "backbone", "weights", "resolution", "mean", "std"];
    session.warn_of_idle(&of_features.map(|option| (option, !arguments.no_features, "a comparison of features")));
    if !(arguments.similarity > 0.0 && arguments.similarity <= 1.0) {
        return Err(Failure::usage("--similarity is a cosine above 0 and at most 1"));
    }
    let bits = arguments.hash_size * arguments.hash_size;
    if arguments.distance.is_some_and(|distance| distance >= bits) {
        return Err(Failure::usage(format!(
            "--distance must be below {bits}, the bits of a hash: any two pictures would be copies"
        )));
    }
    if let Some(list) = dataset::list_of(&arguments.data).filter(|_| !arguments.dry_run) {
        return Err(Failure::failed(format!(
            "{} lists the labels, and would still name what is set aside: find copies with --dry-run, or make class \
             folders with `trainer data export --format folder`",
            list.display()
        )));
    }
    let found = Dataset::scan(&arguments.data)?;
    let lock = if arguments.dry_run {
        None
    } else {
        Some(FolderLock::acquire(&arguments.data)?)
    };
    let (dataset, pictures, duplicates) = arguments.find(&found, session)?;
    let movable = duplicates::movable(&dataset);
    let moving = arguments.moving(&duplicates, &movable);
    let paths: Vec<PathBuf> = moving.iter().map(|row| dataset.items[*row].path.clone()).collect();
    let name = match &lock {
        Some(lock) if !paths.is_empty() => Some(quarantine::set_aside(&arguments.data, &paths, lock)?),
        _ => None,
    };

    list_skipped(&dataset.skipped);
    let entry = |row: usize| Entry {
        path: dataset::text_of(&dataset.items[row].path),
        label: &dataset.classes[dataset.items[row].class],
        width: pictures[row].width,
        height: pictures[row].height,
        moved: moving.binary_search(&row).is_ok(),
        fixed: !movable[row],
    };
    let group = |duplicates: &Duplicates| Group {
        conflict: duplicates.conflict,
        undecided: duplicates.undecided,
        kept: entry(duplicates.kept),
        copies: duplicates
            .copies
            .iter()
            .map(|copy| Copy {
                entry: entry(copy.row),
                distance: copy.distance,
                similarity: copy.similarity,
            })
            .collect(),
    };
    let document = Document {
        groups: duplicates.iter().map(group).collect(),
        moved: paths.len(),
        quarantine: name.as_deref(),
        dry_run: arguments.dry_run,
        skipped: &dataset.skipped,
    };
    let hint = name.as_ref().map_or_else(String::new, |name| {
        let data = shell::quote(&arguments.data);
        format!("\n\nUndo:  trainer data dedupe --data {data} --restore {name}")
    });
    let text = text(&document, &dataset);
    session.output.result_with_hint(&document, &text, &hint)?;
    Ok(Done::unless_left_out(&dataset.skipped))
}

impl Arguments {
    /// The readable part of the data set, its pictures, and the copies among them.
    fn find(&self, found: &Dataset, session: &Session) -> Result<(Dataset, Vec<Picture>, Vec<Duplicates>), Failure> {
        let (mut dataset, mut pictures) = super::readable(found, self.hash_size, &self.resources, session)?;
        let criteria = Criteria {
            distance: self.distance.unwrap_or(self.hash_size * self.hash_size / 16),
            similarity: self.similarity,
        };
        let features = if self.no_features {
            None
        } else {
            // Its groups are not asked for: hashes are compared here, of another size perhaps.
            let (readable, features) = self.features.compute(&dataset, 0, &self.resources, session)?;
            // What the network could not read is left out, so that rows agree again.
            pictures = super::audit::only(&dataset, pictures, &readable);
            dataset = readable;
            Some(features)
        };
        let matrix = features.as_ref().map(|features| features.matrix.view());
        let duplicates = duplicates::find(&dataset, &pictures, matrix, criteria, &session.progress);
        Ok((dataset, pictures, duplicates))
    }

    /// Rows to set aside, ascending.
    fn moving(&self, duplicates: &[Duplicates], movable: &[bool]) -> Vec<usize> {
        let mut rows: Vec<usize> = duplicates
            .iter()
            .flat_map(|duplicates| {
                let copies = duplicates.copies.iter().map(|copy| copy.row);
                match self.conflicts {
                    Conflicts::Leave if duplicates.conflict => Vec::new(),
                    Conflicts::KeepBest if duplicates.undecided => Vec::new(),
                    Conflicts::SetAside if duplicates.conflict => copies.chain([duplicates.kept]).collect(),
                    _ => copies.collect(),
                }
            })
            .filter(|row| movable[*row])
            .collect();
        rows.sort_unstable();
        rows
    }
}

fn text(document: &Document, dataset: &Dataset) -> String {
    let mut text = String::new();
    let line = |entry: &Entry, note: &str| {
        let action = if entry.moved { "moves" } else { "stays" };
        let fixed = if entry.fixed { ", linked" } else { "" };
        format!(
            "  {action}  {} ({} x {}){note}{fixed}\n",
            printable(&entry.path),
            entry.width,
            entry.height
        )
    };
    for (kind, title) in [
        (
            (true, true),
            "Copies with different labels, and nothing tells which is right:",
        ),
        ((true, false), "Copies with different labels:"),
        ((false, false), "Copies:"),
    ] {
        let groups = document.groups.iter();
        let mut groups = groups
            .filter(|group| (group.conflict, group.undecided) == kind)
            .peekable();
        if groups.peek().is_some() {
            let _ = writeln!(text, "{title}");
        }
        for group in groups {
            text.push_str(&line(&group.kept, ""));
            for copy in &group.copies {
                let similarity = copy.similarity.map(|cosine| format!(", similarity {cosine:.3}"));
                let note = format!(
                    ", {}{}",
                    counted(copy.distance, "bit differs", "bits differ"),
                    similarity.unwrap_or_default()
                );
                text.push_str(&line(&copy.entry, &note));
            }
            text.push('\n');
        }
    }
    let conflicts = document.groups.iter().filter(|group| group.conflict).count();
    let _ = write!(
        text,
        "{}; {}, {conflicts} of them with different labels",
        counted(dataset.items.len(), "image", "images"),
        counted(document.groups.len(), "picture has copies", "pictures have copies"),
    );
    let _ = match document.quarantine {
        Some(_) => write!(
            text,
            "\n{} set aside",
            counted(document.moved, "file was", "files were")
        ),
        None if document.moved > 0 => {
            let files = counted(document.moved, "file", "files");
            write!(text, "\n{files} would be set aside (dry run)")
        }
        None => write!(text, "\nNothing was moved"),
    };
    text
}
