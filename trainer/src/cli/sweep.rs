use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use shared::bundle::ClassifierKind;
use shared::network::Runtime;

use super::Session;
use super::failure::{Done, Failure};
use super::interruption;
use super::network::NormalizationArguments;
use super::output::{list_skipped_of_runs, printable, printable_path};
use super::resources::{Resources, check_changeable, claim_folder, save, writable};
use super::training::{Classifier, TrainingArguments};
use super::values;
use crate::backbone::{self, Backbone};
use crate::dataset::{Dataset, Skipped, Split};
use crate::evaluation;
use crate::report::{self, Group};
use crate::runs::{Comparison, DataSummary, Entry, RECORD};
use crate::setup::Cache;
use crate::sweep::{self, Setting};
use crate::training::{self, Parameters, Workplace};

/// What to do where a run that is there is not the one that is wanted.
const OTHERWISE: &str = "choose another folder with --out, or delete that run";

/// Train with every combination of networks, resolutions and classifiers, and compare.
///
/// Each combination is repeated with other seeds, which draw other divisions into training and test. Every training is
/// a run of its own in the folder; interrupted, the sweep goes on with the first that is missing when the same command
/// is run again. It ends in one page, comparison.html, with mean and spread, also of what earlier sweeps of the same
/// images left in the folder.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of class folders, or a list of paths and labels (.csv, .tsv or metadata.jsonl)
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Folder for the runs and the comparison
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Networks: names from the catalogue, or ONNX files
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', default_value = backbone::DEFAULT,
          value_parser = values::network)]
    backbone: Vec<String>,
    /// Sides of the network's square input, in pixels [default: each network's own]
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(32..=2048))]
    resolution: Vec<u32>,
    /// What is trained
    #[arg(long, value_delimiter = ',', default_value = "svm", value_parser = kind())]
    classifier: Vec<ClassifierKind>,
    /// How often each combination is trained, with seeds from --seed upwards
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeats: u64,
    #[command(flatten)]
    normalization: NormalizationArguments,
    #[command(flatten)]
    training: TrainingArguments,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    page: &'a Path,
    groups: &'a [Group],
    #[serde(serialize_with = "crate::dataset::as_text")]
    runs: Vec<&'a Path>,
    skipped: &'a [Skipped],
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let training = &arguments.training;
    let kinds = &arguments.classifier;
    training.check(kinds.iter().any(|kind| *kind != ClassifierKind::Svm), session)?;
    check_changeable(&arguments.out, "--out")?;
    training.check_places(Some(&arguments.out), &arguments.data)?;
    interruption::goes_on(session);
    let page = arguments.out.join("comparison.html");
    writable(&page, "choose another folder with --out")?;
    let dataset = Dataset::scan(&arguments.data)?;
    training.warn_of(&dataset, session);
    let cache = session.cache()?;
    let runtime = Resources::runtime_for(&training.recipe.device, &cache, session)?;
    let mut sweep = Sweep {
        arguments,
        session,
        dataset,
        runtime: &runtime,
        cache: &cache,
        readable: BTreeMap::new(),
    };
    let networks = &arguments.normalization.obtain(&arguments.backbone, &cache, session)?;
    let seed = training.split.seed();
    let settings = sweep::settings(networks, &arguments.resolution, kinds, seed, arguments.repeats)?;
    for alike in settings.chunk_by(|one, other| one.backbone == other.backbone) {
        alike[0].backbone.try_out(&runtime)?;
    }
    let mut entries = Vec::new();
    let mut skipped: Vec<Skipped> = Vec::new();
    for (number, setting) in settings.iter().enumerate() {
        let (entry, left_out) = sweep.entry(setting, &format!("{} of {}", number + 1, settings.len()))?;
        entries.push(entry);
        for item in left_out {
            if !skipped.contains(&item) {
                skipped.push(item);
            }
        }
    }

    let (earlier, uncompared) = sweep::earlier(&arguments.out, &entries, |kind, seed| {
        serde_json::to_value(training.parameters(&arguments.data, kind, seed)).ok()
    })?;
    for name in &uncompared {
        session.note(&format!("Not compared: {name}"));
    }
    entries.extend(earlier);
    let groups = sweep::groups(&entries);
    let html = report::comparison(&Comparison::new(&entries)?, &groups, &uncompared)?;
    save(&page, html.as_bytes(), "--out")?;
    list_skipped_of_runs(&skipped, &arguments.out);
    let document = Document {
        page: &page,
        groups: &groups,
        runs: entries.iter().map(|entry| entry.folder.as_path()).collect(),
        skipped: &skipped,
    };
    session.output.result(&document, &text(&groups, &page))?;
    Ok(Done::unless_left_out(&skipped))
}

/// Reads a classifier, but for `auto`, which would compare them itself.
fn kind() -> impl TypedValueParser<Value = ClassifierKind> {
    let named = Classifier::value_variants()
        .iter()
        .filter(|classifier| classifier.kind().is_some());
    PossibleValuesParser::new(named.filter_map(Classifier::to_possible_value))
        .try_map(|name| Classifier::from_str(&name, false).and_then(|classifier| classifier.kind().ok_or(name)))
}

/// A sweep under way.
struct Sweep<'a> {
    arguments: &'a Arguments,
    session: &'a Session,
    dataset: Dataset,
    runtime: &'a Runtime,
    cache: &'a Cache,
    /// By the hash of a network and its resolution.
    readable: BTreeMap<(String, u32), Readable>,
}

/// The images that a network can be trained on.
struct Readable {
    /// Their fingerprint, as a run keeps it.
    fingerprint: String,
    /// The near-duplicate group of each.
    groups: Vec<usize>,
    /// They themselves, and what is left out.
    dataset: Dataset,
}

impl Sweep<'_> {
    /// The run of a setting, made now where it is not there yet, and what it left out; `place` is its place in the
    /// sweep.
    fn entry(&mut self, setting: &Setting, place: &str) -> Result<(Entry, Vec<Skipped>), Failure> {
        let folder = self.arguments.out.join(&setting.folder);
        let place = format!("{place}: {}", setting.folder);
        if folder.join(RECORD).is_file() {
            let finished = self.finished(setting, &folder)?;
            self.session.remark(&format!("{place} was done already"));
            return Ok(finished);
        }
        self.session.remark(&place);
        let skipped = self.train(setting, &folder)?;
        Ok((Entry::load(&folder)?, skipped))
    }

    /// The run in `folder`, if it is what the setting would give.
    fn finished(&mut self, setting: &Setting, folder: &Path) -> Result<(Entry, Vec<Skipped>), Failure> {
        let entry = Entry::load(folder)?;
        let parameters = self.parameters(setting);
        let readable = self.readable(&setting.backbone, &parameters)?;
        let split = Split::new(&readable.dataset, &readable.groups, &parameters.split)?;
        let (parameters, division) = (serde_json::to_value(&parameters)?, split.to_text());
        let difference = sweep::difference(&entry, setting, &parameters, &readable.fingerprint, &division);
        match difference.map_err(|error| Failure::hinted(&error, OTHERWISE))? {
            None => {
                let skipped = readable.dataset.skipped.iter().cloned();
                Ok((entry, skipped.chain(split.unknown()).collect()))
            }
            Some(difference) => Err(Failure::failed(format!(
                "{} was made with {difference}: {OTHERWISE}",
                folder.display()
            ))),
        }
    }

    /// What `backbone` can read of the data set. Its features are in the cache where a run is finished.
    fn readable(&mut self, backbone: &Backbone, parameters: &Parameters) -> Result<&Readable, Failure> {
        let key = (backbone.sha256.clone(), backbone.preprocessing.resolution);
        let slot = match self.readable.entry(key) {
            Slot::Occupied(known) => return Ok(known.into_mut()),
            Slot::Vacant(slot) => slot,
        };
        let training = &self.arguments.training;
        let workplace = training.workplace(self.runtime, self.cache, self.session);
        let (limits, distance) = (parameters.limits, parameters.split.distance);
        let (dataset, features) = workplace.featurize(&self.dataset, backbone, limits, distance)?;
        Ok(slot.insert(Readable {
            fingerprint: DataSummary::fingerprint(&dataset, &features.contents),
            groups: features.groups,
            dataset,
        }))
    }

    fn train(&self, setting: &Setting, folder: &Path) -> Result<Vec<Skipped>, Failure> {
        let training = &self.arguments.training;
        let workplace = training.workplace(self.runtime, self.cache, self.session);
        // Of each training in a folder of its own, as TensorBoard takes them apart.
        let workplace = Workplace {
            events: workplace.events.map(|events| events.join(&setting.folder)),
            ..workplace
        };
        let parameters = self.parameters(setting);
        let _claim = claim_folder(
            folder,
            self.cache,
            "choose another folder with --out, or empty that one",
        )?;
        let run = training::train(&self.dataset, &setting.backbone, &parameters, &workplace)?;
        let saved = run.save(Some(folder), training.report_images, &workplace)?;
        training.tracking.log(&saved.folder, self.session);
        Ok(run.skipped)
    }

    fn parameters(&self, setting: &Setting) -> Parameters {
        let training = &self.arguments.training;
        training.parameters(&self.arguments.data, setting.classifier, setting.seed)
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
    format!("{}\nComparison: {}", evaluation::aligned(&rows), printable_path(page))
}
