//! Many trainings side by side: every combination of network, resolution and classifier, repeated with other seeds.

use serde_json::Value;
use shared::bundle::ClassifierKind;

use crate::evaluation::Evaluation;
use crate::report::Group;
use crate::runs::{Entry, PARAMETERS};

/// One training of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name of the network, or its file.
    pub backbone: String,
    /// Side of its input in pixels; `None` for what it was trained with.
    pub resolution: Option<u32>,
    /// What is trained.
    pub classifier: ClassifierKind,
    /// Seed of everything random.
    pub seed: u64,
}

/// Every combination, the repeats of one beside each other.
pub fn settings(
    backbones: &[String],
    resolutions: &[u32],
    classifiers: &[ClassifierKind],
    seed: u64,
    repeats: u64,
) -> Vec<Setting> {
    let resolutions: Vec<Option<u32>> = if resolutions.is_empty() {
        vec![None]
    } else {
        resolutions.iter().copied().map(Some).collect()
    };
    let mut settings = Vec::new();
    for backbone in backbones {
        for resolution in &resolutions {
            for classifier in classifiers {
                settings.extend((0..repeats).map(|repeat| Setting {
                    backbone: backbone.clone(),
                    resolution: *resolution,
                    classifier: *classifier,
                    seed: seed.wrapping_add(repeat),
                }));
            }
        }
    }
    settings
}

impl Setting {
    /// Name of its folder within the sweep's.
    pub fn folder(&self) -> String {
        let stem = std::path::Path::new(&self.backbone)
            .file_stem()
            .map_or_else(|| "own".into(), |stem| stem.to_string_lossy());
        let resolution = self.resolution.map(|side| format!("-{side}")).unwrap_or_default();
        format!("{stem}{resolution}-{}-seed{}", self.classifier.name(), self.seed)
    }
}

/// Whether a finished run was made with just these parameters.
pub fn was_made_with(entry: &Entry, parameters: &Value) -> bool {
    let json = std::fs::read(entry.folder.join(PARAMETERS)).unwrap_or_default();
    serde_json::from_slice::<Value>(&json).is_ok_and(|stored| stored == *parameters)
}

/// The runs by network, resolution and classifier, in the order of their first occurrence.
pub fn groups(entries: &[Entry]) -> Vec<Group> {
    let mut found: Vec<(String, Vec<&Evaluation>)> = Vec::new();
    for entry in entries {
        let record = &entry.record;
        let setting = format!(
            "{}, {} pixels, {}",
            record.backbone.name,
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
        .map(|(setting, repeats)| {
            let values = |figure: fn(&Evaluation) -> Option<f64>| -> Vec<f64> {
                repeats.iter().filter_map(|evaluation| figure(evaluation)).collect()
            };
            let accuracy = values(|evaluation| evaluation.accuracy);
            let least = accuracy.iter().copied().fold(f64::INFINITY, f64::min);
            let most = accuracy.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            Group {
                setting,
                repeats: repeats.len(),
                range: if accuracy.is_empty() {
                    String::new()
                } else {
                    format!("{:.1} to {:.1} %", 100.0 * least, 100.0 * most)
                },
                accuracy: mean_and_spread(&accuracy, 100.0, " %"),
                class_averaged: mean_and_spread(&values(|evaluation| evaluation.class_averaged_accuracy), 100.0, " %"),
                auc: mean_and_spread(&values(|evaluation| evaluation.auc_macro), 1.0, ""),
            }
        })
        .collect()
}

/// Mean and sample standard deviation, as people read them.
fn mean_and_spread(values: &[f64], scale: f64, unit: &str) -> String {
    let count = values.len() as f64;
    if values.is_empty() {
        return "–".to_owned();
    }
    let mean = values.iter().sum::<f64>() / count;
    let decimals = if scale > 1.0 { 1 } else { 3 };
    if values.len() == 1 {
        return format!("{:.decimals$}{unit}", scale * mean);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0)).sqrt();
    format!("{:.decimals$} ± {:.decimals$}{unit}", scale * mean, scale * deviation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_occurs_once_and_has_a_folder_of_its_own() {
        let settings = settings(
            &["resnet18".to_owned(), "nets/own.onnx".to_owned()],
            &[224, 448],
            &[ClassifierKind::Svm, ClassifierKind::SvmRefined],
            7,
            3,
        );
        assert_eq!(settings.len(), 24);
        let folders: std::collections::BTreeSet<_> = settings.iter().map(Setting::folder).collect();
        assert_eq!(folders.len(), 24);
        assert!(folders.contains("own-448-svm-refined-seed9"), "{folders:?}");
    }

    #[test]
    fn the_spread_is_the_sample_standard_deviation() {
        assert_eq!(mean_and_spread(&[0.8, 0.9, 1.0], 100.0, " %"), "90.0 ± 10.0 %");
        assert_eq!(mean_and_spread(&[0.5], 1.0, ""), "0.500");
        assert_eq!(mean_and_spread(&[], 1.0, ""), "–");
    }
}
