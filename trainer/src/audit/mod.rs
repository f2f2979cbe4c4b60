//! What is wrong with a data set: files, balance, leakage, labels.
//!
//! Labels are doubted where a classifier that did not see an image prefers another class (the out-of-fold margin;
//! the idea of Northcutt, Jiang and Chuang, "Confident Learning", 2021). An image is odd where nothing in the data
//! set resembles it.

use std::collections::BTreeMap;

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use shared::image::Format;

use crate::dataset::{Dataset, Picture, Split, escape};
use crate::features::{Features, similarity_to_nearest};
use crate::progress::Progress;
use crate::svm::{self, SvmError};

/// Neighbours that an image is compared with to tell whether it is odd.
const NEIGHBOURS: usize = 5;
/// An image is odd when its neighbours are less like it than usual by so many times the usual spread (the modified
/// z-score of Iglewicz and Hoaglin, 1993).
const ODD_SCORE: f32 = 3.5;
/// A class with fewer images than this share of the largest is rare.
const RARE_SHARE: f64 = 0.1;

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// Number of readable images.
    pub images: usize,
    /// Images of each class, in the order of names.
    pub classes: Vec<ClassCount>,
    /// Whether they look like something else than classes, for people to read.
    pub note: Option<String>,
    /// Names that promise another format than the content has.
    pub wrong_extensions: Vec<WrongExtension>,
    /// Pictures whose shorter side is below the limit.
    pub tiny: Vec<Tiny>,
    /// Near-duplicates on both sides of the split, where one was given.
    pub leakage: Option<Leakage>,
    /// Near-duplicates whose labels differ, by picture: one at most can be right.
    pub conflicts: Vec<Vec<Labelled>>,
    /// Every image that was held out once, the most doubtful first; none of a single class.
    pub labels: Vec<Doubt>,
    /// Images like no other, the oddest first.
    pub odd: Vec<Odd>,
}

/// How many images a class has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The class.
    pub label: String,
    /// Its readable images.
    pub images: usize,
    /// Whether it has less than a tenth of the images of the largest class.
    pub rare: bool,
}

/// A file whose name promises another format than its content has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrongExtension {
    /// Path below the data folder, escaped as in a split file.
    pub path: String,
    /// The extension of the content's format.
    pub content: &'static str,
}

/// A picture with few pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tiny {
    /// Path below the data folder, escaped as in a split file.
    pub path: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Near-duplicates on both sides of a split: what the test measures too well.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leakage {
    /// Test images with a near-duplicate among the training images, by their escaped paths.
    pub images: Vec<String>,
    /// Number of test images.
    pub test_images: usize,
    /// Share of the test images that have one.
    pub share: f64,
}

/// An image and its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Labelled {
    /// Path below the data folder, escaped as in a split file.
    pub path: String,
    /// Its label.
    pub label: String,
}

/// How doubtful a label is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Doubt {
    /// Path below the data folder, escaped as in a split file.
    pub path: String,
    /// The label it has.
    pub label: String,
    /// The class that the classifier prefers among the others.
    pub suggested: String,
    /// Margin of the suggested class less that of the label, by a classifier that did not see the image: above 0 it
    /// would have answered otherwise.
    pub suspicion: f32,
}

/// An image like no other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Odd {
    /// Path below the data folder, escaped as in a split file.
    pub path: String,
    /// Its label.
    pub label: String,
    /// Mean cosine similarity to the five images most like it.
    pub similarity: f32,
}

/// Looks at `dataset`, whose pictures and features (rows of length 1) stand in the same order. `smallest_side` is the
/// least number of pixels of a picture's shorter side.
///
/// # Errors
/// [`SvmError`], for example where a feature is not finite.
pub fn audit(
    dataset: &Dataset,
    pictures: &[Picture],
    features: &Features,
    split: Option<&Split>,
    smallest_side: u32,
    progress: &dyn Progress,
) -> Result<Audit, SvmError> {
    Ok(Audit {
        images: dataset.items.len(),
        classes: classes(dataset),
        note: dataset.note(),
        wrong_extensions: wrong_extensions(dataset, pictures),
        tiny: tiny(dataset, pictures, smallest_side),
        leakage: split.map(|split| leakage(dataset, &features.groups, split)),
        conflicts: conflicts(dataset, &features.groups),
        labels: doubts(dataset, features, progress)?,
        odd: odd(dataset, features.matrix.view(), progress),
    })
}

fn classes(dataset: &Dataset) -> Vec<ClassCount> {
    let mut counts = vec![0_usize; dataset.classes.len()];
    for item in &dataset.items {
        counts[item.class] += 1;
    }
    let largest = counts.iter().max().copied().unwrap_or(0);
    let labels = dataset.classes.iter().zip(counts);
    labels
        .map(|(label, images)| ClassCount {
            label: label.clone(),
            images,
            rare: (images as f64) < RARE_SHARE * largest as f64,
        })
        .collect()
}

fn wrong_extensions(dataset: &Dataset, pictures: &[Picture]) -> Vec<WrongExtension> {
    let named = dataset.items.iter().zip(pictures);
    named
        .filter(|(item, picture)| Format::from_path(&item.path) != Some(picture.format))
        .map(|(item, picture)| WrongExtension {
            path: escape(&item.path),
            content: picture.format.extension(),
        })
        .collect()
}

fn tiny(dataset: &Dataset, pictures: &[Picture], smallest_side: u32) -> Vec<Tiny> {
    let named = dataset.items.iter().zip(pictures);
    named
        .filter(|(_, picture)| picture.width.min(picture.height) < smallest_side)
        .map(|(item, picture)| Tiny {
            path: escape(&item.path),
            width: picture.width,
            height: picture.height,
        })
        .collect()
}

fn leakage(dataset: &Dataset, groups: &[usize], split: &Split) -> Leakage {
    let test_images = split.test_rows().len();
    let leaking = split.leaking(groups).into_iter();
    let images: Vec<String> = leaking.map(|row| escape(&dataset.items[row].path)).collect();
    Leakage {
        share: images.len() as f64 / test_images.max(1) as f64,
        test_images,
        images,
    }
}

fn conflicts(dataset: &Dataset, groups: &[usize]) -> Vec<Vec<Labelled>> {
    let labelled = |row: usize| {
        let item = &dataset.items[row];
        Labelled {
            path: escape(&item.path),
            label: dataset.classes[item.class].clone(),
        }
    };
    let conflicts = dataset.conflicts(groups).into_iter();
    conflicts.map(|rows| rows.into_iter().map(labelled).collect()).collect()
}

/// Images of near-duplicate groups are held out together, or a wrong label would be confirmed by its copy.
fn doubts(dataset: &Dataset, features: &Features, progress: &dyn Progress) -> Result<Vec<Doubt>, SvmError> {
    if dataset.classes.len() < 2 {
        return Ok(Vec::new());
    }
    let input = svm::Input {
        features: features.matrix.view(),
        labels: &features.labels,
        groups: &features.groups,
        classes: dataset.classes.len(),
    };
    let trained = svm::train(&input, &svm::Parameters::default(), progress)?;
    let rows = trained.sweep.out_of_fold_rows.iter();
    let margins = trained.sweep.out_of_fold_margins.rows();
    let mut doubts: Vec<Doubt> = rows
        .zip(margins)
        .filter_map(|(row, margins)| {
            let label = features.labels[*row];
            let others = margins.iter().enumerate().filter(|(class, _)| *class != label);
            let (suggested, margin) = others.max_by(|left, right| left.1.total_cmp(right.1))?;
            Some(Doubt {
                path: escape(&dataset.items[*row].path),
                label: dataset.classes[label].clone(),
                suggested: dataset.classes[suggested].clone(),
                suspicion: margin - margins[label],
            })
        })
        .collect();
    doubts.sort_by(|left, right| right.suspicion.total_cmp(&left.suspicion));
    Ok(doubts)
}

fn odd(dataset: &Dataset, features: ArrayView2<f32>, progress: &dyn Progress) -> Vec<Odd> {
    let similarities = similarity_to_nearest(features, NEIGHBOURS, progress);
    let usual = median(similarities.clone());
    let spread = median(similarities.iter().map(|value| (value - usual).abs()).collect());
    let mut odd: Vec<Odd> = dataset
        .items
        .iter()
        .zip(similarities)
        .filter(|(_, similarity)| 0.6745 * (usual - similarity) > ODD_SCORE * spread)
        .map(|(item, similarity)| Odd {
            path: escape(&item.path),
            label: dataset.classes[item.class].clone(),
            similarity,
        })
        .collect();
    odd.sort_by(|left, right| left.similarity.total_cmp(&right.similarity));
    odd
}

fn median(mut values: Vec<f32>) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Labels that the classifier would have answered otherwise, by pair of label and suggestion, the most frequent
/// first: classes that are confused rather than mislabelled show here.
pub fn confused(doubts: &[Doubt]) -> Vec<(&str, &str, usize)> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for doubt in doubts.iter().filter(|doubt| doubt.suspicion > 0.0) {
        *counts.entry((&doubt.label, &doubt.suggested)).or_default() += 1;
    }
    let mut pairs: Vec<_> = counts
        .into_iter()
        .map(|((label, other), count)| (label, other, count))
        .collect();
    pairs.sort_by_key(|(label, other, count)| (std::cmp::Reverse(*count), *label, *other));
    pairs
}

#[cfg(test)]
mod tests {
    use shared::image::RgbImage;

    use super::*;
    use crate::dataset::{Item, dhash, unescape};
    use crate::progress::Silent;

    /// A small picture that is called something else than its format.
    fn picture() -> Picture {
        Picture {
            hash: dhash(&RgbImage::new(17, 16), 16),
            width: 9,
            height: 9,
            bytes: 1,
            format: Format::Jpeg,
        }
    }

    #[test]
    fn all_but_the_labels_of_a_single_class_is_looked_at() {
        let dataset = Dataset {
            root: "data".into(),
            classes: vec!["a".to_owned()],
            items: ["a/1.png", "a/2.jpg"]
                .map(|path| Item {
                    path: path.into(),
                    class: 0,
                })
                .into(),
            skipped: Vec::new(),
        };
        let features = Features {
            matrix: ndarray::array![[1.0], [1.0]],
            labels: vec![0, 0],
            groups: vec![0, 1],
            contents: Vec::new(),
        };
        let found = audit(&dataset, &[picture(), picture()], &features, None, 64, &Silent).expect("an audit");
        assert_eq!((found.wrong_extensions.len(), found.tiny.len()), (1, 2));
        assert!(found.labels.is_empty(), "{:?}", found.labels);
    }

    #[test]
    fn whoever_reads_an_audit_finds_the_files_that_it_names() {
        let path = std::path::PathBuf::from("a/b\tc\\x41.png");
        let dataset = Dataset {
            root: "data".into(),
            classes: vec!["a".to_owned()],
            items: vec![Item {
                path: path.clone(),
                class: 0,
            }],
            skipped: Vec::new(),
        };
        let pictures = [picture()];
        assert_eq!(unescape(&tiny(&dataset, &pictures, 64)[0].path), Some(path.clone()));
        assert_eq!(unescape(&wrong_extensions(&dataset, &pictures)[0].path), Some(path));
    }
}
