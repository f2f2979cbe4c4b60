use std::path::{Path, PathBuf};

use serde::Serialize;
use shared::bundle::ClassifierKind;
use shared::files;

use super::Session;
use super::failure::{Done, Failure};
use super::network;
use super::output::{list_skipped, printable};
use super::resources::Resources;
use super::training::{Classifier, TrainingArguments};
use super::values;
use crate::backbone;
use crate::dataset::Dataset;
use crate::evaluation;
use crate::report::{self, Group};
use crate::runs::{Comparison, Entry, RECORD};
use crate::setup::Cache;
use crate::sweep::{self, Setting};
use crate::training::{self, Workplace};

/// Train with every combination of networks, resolutions and classifiers, and compare.
///
/// Each combination is repeated with other seeds, which draw other divisions into training and test. Every training is
/// a run of its own in the folder; interrupted, the sweep goes on with the first that is missing when the same command
/// is run again. It ends in one page, comparison.html, with mean and spread.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the runs and the comparison
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Networks: names from the catalogue, or ONNX files
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', default_value = backbone::DEFAULT, value_parser = values::network)]
    backbone: Vec<String>,
    /// Sides of the network's square input, in pixels [default: each network's own]
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(32..=2048))]
    resolution: Vec<u32>,
    /// What is trained
    #[arg(long, value_enum, value_delimiter = ',', default_value = "svm")]
    classifier: Vec<Classifier>,
    /// How often each combination is trained, with seeds from --seed upwards
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeats: u64,
    #[command(flatten)]
    training: TrainingArguments,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    page: &'a Path,
    groups: &'a [Group],
    runs: Vec<&'a Path>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let training = &arguments.training;
    training.check()?;
    let dataset = Dataset::scan(&arguments.data)?;
    let kinds: Vec<ClassifierKind> = arguments
        .classifier
        .iter()
        .map(|classifier| classifier.kind())
        .collect::<Option<_>>()
        .ok_or_else(|| Failure::usage("a sweep compares classifiers: name them instead of `auto`"))?;
    let settings = sweep::settings(
        &arguments.backbone,
        &arguments.resolution,
        &kinds,
        training.split.seed(),
        arguments.repeats,
    );
    let cache = session.cache()?;
    let runtime = Resources::runtime_for(&training.recipe.device, &cache, session)?;
    let workplace = training.workplace(&runtime, &cache, session);
    let mut entries = Vec::new();
    let mut done = Done::Complete;
    for (number, setting) in settings.iter().enumerate() {
        let folder = arguments.out.join(setting.folder());
        let place = format!("{} of {}: {}", number + 1, settings.len(), setting.folder());
        let entry = if let Some(entry) = finished(arguments, setting, &folder)? {
            session.note(&format!("{place} was done already"));
            entry
        } else {
            session.note(&place);
            done = done.and(arguments.train(setting, &folder, &dataset, &cache, &workplace, session)?);
            Entry::load(&folder)?
        };
        entries.push(entry);
    }

    let groups = sweep::groups(&entries);
    let page = arguments.out.join("comparison.html");
    let html = report::comparison(&Comparison::new(&entries)?, &groups)?;
    files::write_atomically(&page, html.as_bytes())?;
    let document = Document {
        page: &page,
        groups: &groups,
        runs: entries.iter().map(|entry| entry.folder.as_path()).collect(),
    };
    session.output.result(&document, &text(&groups, &page))?;
    Ok(done)
}

/// The run in `folder`, where it was made by the same command.
fn finished(arguments: &Arguments, setting: &Setting, folder: &Path) -> Result<Option<Entry>, Failure> {
    if !folder.join(RECORD).is_file() {
        return Ok(None);
    }
    let entry = Entry::load(folder)?;
    let parameters = arguments
        .training
        .parameters(&arguments.data, setting.classifier, setting.seed);
    if sweep::was_made_with(&entry, &serde_json::to_value(parameters)?) {
        return Ok(Some(entry));
    }
    Err(Failure::failed(format!(
        "{} was made with other parameters: choose another folder with --out, or delete that run",
        folder.display()
    )))
}

impl Arguments {
    fn train(
        &self,
        setting: &Setting,
        folder: &Path,
        dataset: &Dataset,
        cache: &Cache,
        workplace: &Workplace,
        session: &Session,
    ) -> Result<Done, Failure> {
        let training = &self.training;
        let backbone = network::obtain(&setting.backbone, None, None, setting.resolution, cache, session)?;
        let parameters = training.parameters(&self.data, setting.classifier, setting.seed);
        let run = training::train(dataset, &backbone, &parameters, workplace)?;
        let saved = run.save(Some(folder), training.report_images, workplace)?;
        training.tracking.log(&saved.folder, session);
        list_skipped(&run.skipped);
        Ok(Done::unless_left_out(&run.skipped))
    }
}

fn text(groups: &[Group], page: &Path) -> String {
    let header = [
        "setting",
        "repeats",
        "accuracy",
        "least to most",
        "class-averaged",
        "AUC macro",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(groups.iter().map(|group| {
        vec![
            printable(&group.setting),
            group.repeats.to_string(),
            group.accuracy.clone(),
            group.range.clone(),
            group.class_averaged.clone(),
            group.auc.clone(),
        ]
    }));
    format!(
        "{}\nComparison: {}",
        evaluation::aligned(&rows),
        printable(&page.to_string_lossy())
    )
}
