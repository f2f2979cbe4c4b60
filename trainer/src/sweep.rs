//! Many trainings side by side: every combination of network, resolution and classifier, repeated with other seeds.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;
use shared::bundle::{ClassifierKind, MANIFEST, Manifest};

use crate::backbone::{Backbone, BackboneError};
use crate::evaluation::{Evaluation, Spread};
use crate::report::{Figures, Group};
use crate::runs::{BUNDLE, Comparison, Entry, History, RunError, SPLIT, shortest};

/// Digits of a network's hash that tell it from another one of the same name.
const DIGITS: usize = 6;
const DIVISION: &str = "another division into training and test";
const UNREADABLE: &str = "unreadable";

/// One training of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Name of its folder within the sweep's.
    pub folder: String,
    /// The network, to be run at the resolution that was asked for.
    pub backbone: Backbone,
    /// What is trained.
    pub classifier: ClassifierKind,
    /// Seed of everything random.
    pub seed: u64,
}

/// Every combination once, the repeats of one beside each other. Without `resolutions`, each network has its own.
///
/// # Errors
/// [`BackboneError::Options`] for a network that takes another resolution alone.
pub fn settings(
    backbones: &[Backbone],
    resolutions: &[u32],
    classifiers: &[ClassifierKind],
    seed: u64,
    repeats: u64,
) -> Result<Vec<Setting>, BackboneError> {
    let resolutions: Vec<Option<u32>> = if resolutions.is_empty() {
        vec![None]
    } else {
        resolutions.iter().copied().map(Some).collect()
    };
    let mut settings = Vec::new();
    for network in backbones {
        let all = backbones.iter().map(|other| (&other.name[..], &other.sha256[..]));
        let name = distinct_name(&network.name, &network.sha256, all);
        for resolution in &resolutions {
            let backbone = match resolution {
                Some(side) => network.clone().at(*side)?,
                None => network.clone(),
            };
            let side = resolution.map(|side| format!("-{side}")).unwrap_or_default();
            for classifier in classifiers {
                settings.extend((0..repeats).map(|repeat| {
                    let seed = seed.wrapping_add(repeat);
                    Setting {
                        folder: format!("{name}{side}-{}-seed{seed}", classifier.name()),
                        backbone: backbone.clone(),
                        classifier: *classifier,
                        seed,
                    }
                }));
            }
        }
    }
    let mut folders = HashSet::new();
    settings.retain(|setting| folders.insert(setting.folder.clone()));
    Ok(settings)
}

/// The name of a network, with a few digits of its hash where another one of `all` names and hashes has the same name.
fn distinct_name<'a>(name: &str, sha256: &str, mut all: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    if all.any(|(other, hash)| other == name && hash != sha256) {
        format!("{name}-{}", sha256.get(..DIGITS).unwrap_or(sha256))
    } else {
        name.to_owned()
    }
}

/// What tells a finished run from the one that `setting` would give with these parameters, on images of this
/// fingerprint that are divided as this text of a split says; absent where nothing does.
///
/// # Errors
/// [`RunError::File`] and [`RunError::Unreadable`] where the parameters of the run cannot be read.
pub fn difference(
    entry: &Entry,
    setting: &Setting,
    parameters: &Value,
    fingerprint: &str,
    split: &str,
) -> Result<Option<&'static str>, RunError> {
    let record = &entry.record;
    let served = || {
        let manifest = std::fs::read(entry.folder.join(BUNDLE).join(MANIFEST)).ok()?;
        Some(Manifest::from_json(&manifest).ok()?.preprocessing)
    };
    Ok(if record.backbone.sha256 != setting.backbone.sha256 {
        Some("another network")
    } else if record.resolution != setting.backbone.preprocessing.resolution {
        Some("another resolution")
    } else if served().is_some_and(|served| served != setting.backbone.preprocessing) {
        Some("another --mean or --std")
    } else if shortest(entry.parameters()?) != shortest(parameters.clone()) {
        Some("other parameters")
    } else if record.data.fingerprint != fingerprint {
        Some("other images")
    } else if !std::fs::read(entry.folder.join(SPLIT)).is_ok_and(|stored| stored == split.as_bytes()) {
        // The parameters only name the file that lists the test images.
        Some(DIVISION)
    } else {
        None
    })
}

/// The finished runs of `folder` beside `entries`, which earlier sweeps left there: those that this sweep could have
/// made too, with other networks, resolutions, classifiers or seeds, and the names of the others, each with the reason.
/// `parameters` gives those of this sweep for a classifier and a seed.
///
/// # Errors
/// [`RunError::File`] where the folder cannot be listed.
pub fn earlier(
    folder: &Path,
    entries: &[Entry],
    parameters: impl Fn(ClassifierKind, u64) -> Option<Value>,
) -> Result<(Vec<Entry>, Vec<String>), RunError> {
    let own: HashSet<&Path> = entries.iter().map(|entry| entry.folder.as_path()).collect();
    let is_beside = |path: &Path| path.parent() == Some(folder) && !own.contains(path);
    // One run of this sweep for each set of images.
    let images = entries.iter().map(|own| (own.record.data.fingerprint.as_str(), own));
    let images: HashMap<&str, &Entry> = images.collect();
    let division = |entry: &Entry| std::fs::read(entry.folder.join(SPLIT)).ok();
    let named = |path: &Path, reason: &str| {
        let name = path.file_name().unwrap_or_default();
        format!("{} ({reason})", name.to_string_lossy())
    };
    let history = History::scan(folder)?;
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    for entry in history.entries.into_iter().filter(|entry| is_beside(&entry.folder)) {
        let Some(&alike) = images.get(entry.record.data.fingerprint.as_str()) else {
            left_out.push(named(&entry.folder, "other images"));
            continue;
        };
        let Ok(stored) = entry.parameters().map(shortest) else {
            left_out.push(named(&entry.folder, UNREADABLE));
            continue;
        };
        let seed = stored["split"]["seed"].as_u64();
        let expected = seed
            .and_then(|seed| parameters(entry.record.classifier, seed))
            .map(shortest);
        // The parameters only name the file; the runs of this sweep are divided as it says now.
        let dedicated = expected.as_ref().map(|now| &now["split"]["dedicated"]);
        let by_file = dedicated.is_some_and(Value::is_string);
        if expected.as_ref() != Some(&stored) {
            left_out.push(named(&entry.folder, "other parameters"));
        } else if by_file && division(alike) != division(&entry) {
            left_out.push(named(&entry.folder, DIVISION));
        } else if Comparison::new(std::slice::from_ref(&entry)).is_err() {
            left_out.push(named(&entry.folder, UNREADABLE));
        } else {
            found.push(entry);
        }
    }
    let damaged = history.damaged.iter().map(|damaged| damaged.folder.as_path());
    left_out.extend(
        damaged
            .filter(|path| is_beside(path))
            .map(|path| named(path, UNREADABLE)),
    );
    Ok((found, left_out))
}

/// The runs by network, resolution and classifier, in the order of their first occurrence.
pub fn groups(entries: &[Entry]) -> Vec<Group> {
    let mut found: Vec<(String, Vec<&Evaluation>)> = Vec::new();
    for entry in entries {
        let record = &entry.record;
        let all = entries.iter().map(|other| &other.record.backbone);
        let all = all.map(|other| (&other.name[..], &other.sha256[..]));
        let setting = format!(
            "{}, {} pixels, {}",
            distinct_name(&record.backbone.name, &record.backbone.sha256, all),
            record.resolution,
            record.classifier.name()
        );
        let evaluation = &entry.metrics.evaluation;
        match found.iter_mut().find(|(name, _)| *name == setting) {
            Some((_, repeats)) => repeats.push(evaluation),
            None => found.push((setting, vec![evaluation])),
        }
    }
    found
        .into_iter()
        .map(|(setting, repeats)| group(setting, &repeats))
        .collect()
}

fn group(setting: String, repeats: &[&Evaluation]) -> Group {
    let spread = |figure: fn(&Evaluation) -> Option<f64>| {
        let values: Vec<f64> = repeats.iter().filter_map(|evaluation| figure(evaluation)).collect();
        Spread::of(&values)
    };
    let figures = Figures {
        accuracy: spread(|evaluation| evaluation.accuracy),
        class_averaged_accuracy: spread(|evaluation| evaluation.class_averaged_accuracy),
        auc_macro: spread(|evaluation| evaluation.auc_macro),
    };
    let range = |spread: Spread| format!("{:.1} to {:.1} %", 100.0 * spread.least, 100.0 * spread.most);
    Group {
        setting,
        repeats: repeats.len(),
        range: figures.accuracy.map(range).unwrap_or_default(),
        accuracy: mean_and_spread(figures.accuracy, 100.0, " %"),
        class_averaged: mean_and_spread(figures.class_averaged_accuracy, 100.0, " %"),
        auc: mean_and_spread(figures.auc_macro, 1.0, ""),
        figures,
    }
}

/// Mean and sample standard deviation, as people read them.
fn mean_and_spread(spread: Option<Spread>, scale: f64, unit: &str) -> String {
    let decimals = if scale > 1.0 { 1 } else { 3 };
    let Some(spread) = spread else {
        return "–".to_owned();
    };
    let deviation = spread.standard_deviation.map(|deviation| scale * deviation);
    let deviation = deviation.map_or_else(String::new, |deviation| format!(" ± {deviation:.decimals$}"));
    format!("{:.decimals$}{deviation}{unit}", scale * spread.mean)
}

#[cfg(test)]
mod tests {
    use shared::preprocessing::{ChannelOrder, Geometry, Preprocessing};

    use super::*;
    use crate::evaluation::Metrics;
    use crate::runs::tests::{predictions, record, save};
    use crate::runs::{PARAMETERS, RECORD};

    fn backbone(name: &str, sha256: &str) -> Backbone {
        Backbone {
            name: name.to_owned(),
            own: None,
            onnx: "served.onnx".into(),
            sha256: sha256.to_owned(),
            trainable: "trainable.onnx".into(),
            licence: None,
            feature_size: 8,
            fixed_resolution: None,
            preprocessing: Preprocessing {
                resolution: 224,
                geometry: Geometry::Letterbox,
                background: [0; 3],
                channels: ChannelOrder::Rgb,
                mean: [0.0; 3],
                std: [1.0; 3],
            },
            notes: Vec::new(),
        }
    }

    #[test]
    fn every_combination_occurs_once_and_has_a_folder_of_its_own() {
        let networks = [
            backbone("resnet18", "aaaaaaaa"),
            backbone("own", "bbbbbbbb"),
            backbone("own", "cccccccc"),
            backbone("own", "bbbbbbbb"),
        ];
        let kinds = [ClassifierKind::Svm, ClassifierKind::SvmRefined, ClassifierKind::Svm];
        let settings = settings(&networks, &[224, 448, 224], &kinds, 7, 3).expect("settings");
        assert_eq!(settings.len(), 36);
        let folders: HashSet<&str> = settings.iter().map(|setting| &setting.folder[..]).collect();
        assert_eq!(folders.len(), 36);
        for folder in [
            "resnet18-448-svm-seed7",
            "own-bbbbbb-448-svm-refined-seed9",
            "own-cccccc-224-svm-seed8",
        ] {
            assert!(folders.contains(folder), "{folders:?}");
        }
    }

    #[test]
    fn a_network_that_takes_one_resolution_alone_is_swept_over_no_other() {
        let fixed = Backbone {
            fixed_resolution: Some(64),
            ..backbone("own", "bbbbbbbb")
        };
        let sweep = |sides: &[u32]| settings(std::slice::from_ref(&fixed), sides, &[ClassifierKind::Svm], 1, 1);
        assert!(sweep(&[]).is_ok() && sweep(&[64]).is_ok());
        let reason = sweep(&[64, 96]).expect_err("another resolution").to_string();
        assert!(
            reason.contains("64 x 64 pixels alone: leave --resolution away"),
            "{reason}"
        );
    }

    #[test]
    fn a_run_of_another_network_resolution_data_set_or_division_is_not_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let parameters = serde_json::json!({ "seed": 1 });
        std::fs::write(folder.path().join(PARAMETERS), parameters.to_string()).expect("written");
        let entry = Entry {
            folder: folder.path().to_path_buf(),
            record: record("1", "2026-01-01T00:00:00Z"),
            metrics: Metrics::from(Evaluation::new(&predictions(&[true]))),
        };
        std::fs::write(folder.path().join(SPLIT), "as drawn").expect("written");
        let (network, data) = ("aa".repeat(32), "bb".repeat(32));
        let divided = |network: &str, resolution: u32, data: &str, parameters: &Value, split: &str| {
            let all = settings(
                &[backbone("resnet18", network)],
                &[resolution],
                &[ClassifierKind::Svm],
                1,
                1,
            )
            .expect("settings");
            difference(&entry, &all[0], parameters, data, split)
        };
        let with = |network: &str, resolution: u32, data: &str, parameters: &Value| {
            divided(network, resolution, data, parameters, "as drawn").expect("readable")
        };
        assert_eq!(with(&network, 224, &data, &parameters), None);
        assert_eq!(with("cc", 224, &data, &parameters), Some("another network"));
        assert_eq!(with(&network, 448, &data, &parameters), Some("another resolution"));
        assert_eq!(with(&network, 224, "cc", &parameters), Some("other images"));
        assert_eq!(with(&network, 224, &data, &Value::Null), Some("other parameters"));
        assert_eq!(
            divided(&network, 224, &data, &parameters, "drawn anew").expect("readable"),
            Some("another division into training and test")
        );
        std::fs::write(folder.path().join(PARAMETERS), "{").expect("written");
        let damaged = divided(&network, 224, &data, &parameters, "as drawn").expect_err("damaged");
        assert!(damaged.to_string().contains(PARAMETERS), "{damaged}");
    }

    #[test]
    fn earlier_runs_that_can_be_compared_stand_beside_the_new_ones() {
        let place = tempfile::tempdir().expect("a folder");
        let made = |name: &str, images: &str, parameters: &Value| {
            let mut record = record(name, "2026-01-01T00:00:00Z");
            record.data.fingerprint = images.repeat(32);
            let folder = place.path().join(name);
            save(&folder, record, &[true; 4], parameters);
            folder
        };
        let parameters = |folds: u32, seed: u64| serde_json::json!({ "folds": folds, "split": { "seed": seed } });
        let own = made("new", "aa", &parameters(5, 1));
        let same = made("again", "aa", &parameters(5, 7));
        let cut = made("cut", "aa", &parameters(5, 7));
        std::fs::write(cut.join(PARAMETERS), "{").expect("written");
        made("folds", "aa", &parameters(3, 7));
        made("grown", "bb", &parameters(5, 7));
        std::fs::create_dir(place.path().join("broken")).expect("a folder");
        std::fs::write(place.path().join("broken").join(RECORD), "{").expect("written");
        let own = Entry::load(&own).expect("a run");
        let now = |_, seed| Some(parameters(5, seed));
        let (found, left_out) = earlier(place.path(), &[own], now).expect("listed");
        let found: Vec<&Path> = found.iter().map(|entry| entry.folder.as_path()).collect();
        assert_eq!(found, [same.as_path()]);
        assert_eq!(
            left_out,
            [
                "cut (unreadable)",
                "folds (other parameters)",
                "grown (other images)",
                "broken (unreadable)"
            ]
        );
    }

    #[test]
    fn earlier_runs_that_a_file_divided_otherwise_are_not_compared() {
        let place = tempfile::tempdir().expect("a folder");
        let parameters = |seed: u64| serde_json::json!({ "split": { "seed": seed, "dedicated": "test.txt" } });
        let made = |name: &str, seed: u64, split: &str| {
            let folder = place.path().join(name);
            save(
                &folder,
                record(name, "2026-01-01T00:00:00Z"),
                &[true; 4],
                &parameters(seed),
            );
            std::fs::write(folder.join(SPLIT), split).expect("a split");
            Entry::load(&folder).expect("a run")
        };
        let own = made("new", 1, "as it is");
        let same = made("same", 2, "as it is");
        made("otherwise", 3, "as it was");
        let (found, left_out) = earlier(place.path(), &[own], |_, seed| Some(parameters(seed))).expect("listed");
        let found: Vec<&Path> = found.iter().map(|entry| entry.folder.as_path()).collect();
        assert_eq!(found, [same.folder.as_path()]);
        assert_eq!(left_out, [format!("otherwise ({DIVISION})")]);
    }

    #[test]
    fn groups_have_their_figures_as_text_and_as_numbers() {
        let entry = |sha256: &str, right: &[bool]| {
            let mut record = record("1", "2026-01-01T00:00:00Z");
            record.backbone.sha256 = sha256.repeat(8);
            Entry {
                folder: "run".into(),
                record,
                metrics: Metrics::from(Evaluation::new(&predictions(right))),
            }
        };
        let entries = [
            entry("aa", &[true, true]),
            entry("aa", &[true, false]),
            entry("bb", &[true, true]),
        ];
        let groups = groups(&entries);
        assert_eq!(groups.len(), 2, "networks of one name are two");
        assert_eq!(groups[0].setting, "resnet18-aaaaaa, 224 pixels, svm");
        assert_eq!(groups[0].accuracy, "75.0 ± 35.4 %");
        assert_eq!(groups[0].range, "50.0 to 100.0 %");
        assert_eq!(groups[0].figures.accuracy, Spread::of(&[1.0, 0.5]));
        assert_eq!(groups[1].accuracy, "100.0 %");
        assert_eq!(mean_and_spread(None, 1.0, ""), "–");
    }
}
