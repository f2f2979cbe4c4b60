use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::Session;
use crate::cli::failure::{Done, Failure};
use crate::cli::output::{list_skipped, printable_path};
use crate::cli::resources::{Resources, check_new, writable};
use crate::cli::values;
use crate::counted::counted;
use crate::dataset::{self, Dataset, Skipped, Split, SplitParameters};

/// Divide a data set into a training and a test part and write the assignment to a file.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders, or a list of paths and labels (.csv, .tsv or metadata.jsonl)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Where to write the assignment
    #[arg(long, value_name = "FILE", default_value = "split.tsv")]
    out: PathBuf,
    #[command(flatten)]
    split: SplitArguments,
    #[command(flatten)]
    resources: Resources,
}

/// What is kept together on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Each image alone, but for near-duplicates
    Filename,
    /// Every subfolder of a class, as from one photographer or one shop
    Subdir,
}

/// How a data set is divided.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Split")]
pub struct SplitArguments {
    /// Share of the images to train on
    #[arg(long, value_name = "SHARE", default_value_t = 0.75,
          value_parser = values::number("a number above 0 and below 1", |share: &f64| *share > 0.0 && *share < 1.0))]
    ratio: f64,
    /// What is kept together: each image alone, or each subfolder of a class
    #[arg(long, value_enum, default_value_t = By::Filename)]
    by: By,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A file that names the test images, one path below the data folder per line, or a split file
    #[arg(long, value_name = "FILE")]
    dedicated: Option<PathBuf>,
    /// Let near-duplicates stand on both sides (the figures then flatter)
    #[arg(long)]
    no_group: bool,
    /// Largest number of differing bits, of 256, between near-duplicates
    #[arg(long, value_name = "BITS", default_value_t = dataset::DEFAULT_DISTANCE,
          value_parser = clap::value_parser!(u32).range(..=256))]
    near_duplicate_distance: u32,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    split: &'a Path,
    train: usize,
    test: usize,
    groups: usize,
    skipped: &'a [Skipped],
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    check_new(&arguments.out, "--out")?;
    writable(&arguments.out, "choose another file with --out")?;
    arguments.split.warn_of_idle(session);
    let found = Dataset::scan(&arguments.data)?;
    let parameters = arguments.split.parameters(arguments.split.seed());
    parameters.check(&found)?;
    let (mut dataset, pictures) = super::readable(&found, dataset::HASH_SIZE, &arguments.resources, session)?;
    let hashes: Vec<_> = pictures.iter().map(|picture| &picture.hash).collect();
    let groups = dataset::near_duplicate_groups(&hashes, parameters.distance);
    let split = Split::new(&dataset, &groups, &parameters)?;
    split.save(&arguments.out)?;
    dataset.skipped.extend(split.unknown());

    list_skipped(&dataset.skipped);
    let of_file = parameters.file_notes(&dataset, &groups, &split);
    for note in parameters.notes(&dataset).into_iter().chain(of_file) {
        session.note(&note);
    }
    let document = Document {
        split: &arguments.out,
        train: split.train_rows().len(),
        test: split.test_rows().len(),
        groups: groups.iter().collect::<BTreeSet<_>>().len(),
        skipped: &dataset.skipped,
    };
    let text = format!(
        "{} to train on, {} to test with, in {} of near-duplicates\n\nSplit:  {}",
        counted(document.train, "image", "images"),
        document.test,
        counted(document.groups, "group", "groups"),
        printable_path(&arguments.out)
    );
    session.output.result(&document, &text)?;
    Ok(Done::unless_left_out(&dataset.skipped))
}

impl SplitArguments {
    /// The parameters that these options stand for, with another seed.
    pub fn parameters(&self, seed: u64) -> SplitParameters {
        SplitParameters {
            ratio: self.ratio,
            by: match self.by {
                By::Filename => dataset::By::Filename,
                By::Subdir => dataset::By::Subdir,
            },
            seed,
            dedicated: self.dedicated.clone(),
            group: !self.no_group,
            distance: self.near_duplicate_distance,
        }
    }

    /// Warns of what was typed for a division that is drawn where a file tells it.
    pub fn warn_of_idle(&self, session: &Session) {
        let is_drawn = self.dedicated.is_none();
        session.warn_of_idle(&["ratio", "by"].map(|option| (option, is_drawn, "divisions without --dedicated")));
    }

    /// Seed of everything random.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}
