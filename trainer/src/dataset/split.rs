//! Dividing a data set: what is trained on, and what is kept for the test.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::near_duplicates::{DEFAULT_DISTANCE, Groups};
use super::{Dataset, DatasetError, Item, Skipped};

/// How a data set is divided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitParameters {
    /// Share of the images to train on, above 0 and below 1.
    pub ratio: f64,
    /// What is kept together.
    pub by: By,
    /// Seed of the draw.
    pub seed: u64,
    /// A file that names the test images, or an earlier split; nothing is drawn then.
    #[serde(serialize_with = "super::as_text")]
    pub dedicated: Option<PathBuf>,
    /// Whether near-duplicates are kept together.
    pub group: bool,
    /// Number of differing bits, of 256, up to which two images count as near-duplicates.
    pub distance: u32,
}

impl Default for SplitParameters {
    fn default() -> Self {
        Self {
            ratio: 0.75,
            by: By::Filename,
            seed: 1,
            dedicated: None,
            group: true,
            distance: DEFAULT_DISTANCE,
        }
    }
}

impl SplitParameters {
    /// Whether `dataset` can be divided so, as far as this can be told before its images were looked at.
    pub fn check(&self, dataset: &Dataset) -> Result<(), DatasetError> {
        let alone: Vec<usize> = (0..dataset.items.len()).collect();
        Split::new(dataset, &alone, self).map(drop)
    }
}

/// What is kept together on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Each image alone.
    Filename,
    /// Each subfolder of a class folder.
    Subdir,
}

/// A side of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To train on.
    Train,
    /// For the test.
    Test,
}

/// An assignment of images to sides. An image is on one side or, if a split file does not name it, on none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub(super) entries: Vec<Entry>,
    pub(super) unknown: Vec<(Side, Skipped)>,
}

/// One image of a split, in the order of the data set's items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: PathBuf,
    pub class: String,
    pub side: Option<Side>,
    pub group: usize,
}

impl Split {
    /// Divides `dataset`, whose images have the near-duplicate groups `groups`.
    ///
    /// Each class is divided by itself, as near to the ratio as its units allow; a unit is an image, or whatever the
    /// parameters keep together. A class of at least two units has an image on each side; one of a single unit is
    /// trained on. Where a unit has images of several classes, this holds for the one that it is drawn with, and every
    /// class still has an image to train on. The draw depends on the seed, the names of the classes and the paths of
    /// the images, on nothing else.
    ///
    /// # Errors
    /// A ratio out of range, or what [`Split::load`] says of the dedicated file.
    pub fn new(dataset: &Dataset, groups: &[usize], parameters: &SplitParameters) -> Result<Self, DatasetError> {
        if let Some(path) = &parameters.dedicated {
            return Self::dedicated(path, dataset, groups);
        }
        if !(parameters.ratio > 0.0 && parameters.ratio < 1.0) {
            return Err(DatasetError::Ratio(parameters.ratio));
        }
        let units = units(dataset, groups, parameters);
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, unit) in units.iter().enumerate() {
            members.entry(*unit).or_default().push(row);
        }
        // A unit whose images have several labels is drawn with the class of its first image.
        let mut of_class = vec![Vec::new(); dataset.classes.len()];
        for rows in members.into_values() {
            of_class[dataset.items[rows[0]].class].push(rows);
        }
        let mut sides = vec![Side::Train; dataset.items.len()];
        for (class, units) in dataset.classes.iter().zip(of_class) {
            for row in draw(units, parameters.ratio, generator(parameters.seed, class))
                .into_iter()
                .flatten()
            {
                sides[row] = Side::Test;
            }
        }
        train_every_class(dataset, &units, &mut sides);
        Ok(Self::of(dataset, groups, |row, _| Some(sides[row])))
    }

    pub(super) fn of(dataset: &Dataset, groups: &[usize], side: impl Fn(usize, &Item) -> Option<Side>) -> Self {
        let entry = |(row, item): (usize, &Item)| Entry {
            path: item.path.clone(),
            class: dataset.classes[item.class].clone(),
            side: side(row, item),
            group: groups[row],
        };
        Self {
            entries: dataset.items.iter().enumerate().map(entry).collect(),
            unknown: Vec::new(),
        }
    }

    /// Indices of the data set's items to train on, ascending.
    pub fn train_rows(&self) -> Vec<usize> {
        self.rows(Side::Train)
    }

    /// Indices of the data set's items for the test, ascending.
    pub fn test_rows(&self) -> Vec<usize> {
        self.rows(Side::Test)
    }

    /// The test images, by their rows, that have a near-duplicate among the training images; near-duplicates have the
    /// same number in `groups`.
    pub fn leaking(&self, groups: &[usize]) -> Vec<usize> {
        let trained: HashSet<usize> = self.train_rows().into_iter().map(|row| groups[row]).collect();
        let mut test = self.test_rows();
        test.retain(|row| trained.contains(&groups[*row]));
        test
    }

    /// The side of each of the data set's items.
    pub fn sides(&self) -> impl Iterator<Item = Option<Side>> + '_ {
        self.entries.iter().map(|entry| entry.side)
    }

    /// Names in the split's file that stand for no image of the data set.
    pub fn unknown(&self) -> impl Iterator<Item = Skipped> + '_ {
        self.unknown.iter().map(|(_, name)| name.clone())
    }

    /// Those of [`Self::unknown`] that the file puts into the test part.
    pub fn unknown_in_test(&self) -> impl Iterator<Item = Skipped> + '_ {
        let test = self.unknown.iter().filter(|(side, _)| *side == Side::Test);
        test.map(|(_, name)| name.clone())
    }

    /// A division with every image in the test part.
    pub fn all_for_the_test(dataset: &Dataset) -> Self {
        let groups: Vec<usize> = (0..dataset.items.len()).collect();
        Self::of(dataset, &groups, |_, _| Some(Side::Test))
    }

    fn rows(&self, side: Side) -> Vec<usize> {
        (0..self.entries.len())
            .filter(|row| self.entries[*row].side == Some(side))
            .collect()
    }
}

/// The unit of each item: a number that the items that stay together share.
fn units(dataset: &Dataset, groups: &[usize], parameters: &SplitParameters) -> Vec<usize> {
    let mut units = Groups::new(dataset.items.len());
    let mut first_of_group = BTreeMap::new();
    let mut first_of_folder = BTreeMap::new();
    for (row, item) in dataset.items.iter().enumerate() {
        if parameters.group {
            units.join(row, *first_of_group.entry(groups[row]).or_insert(row));
        }
        if let (By::Subdir, Some(folder)) = (parameters.by, item.subfolder()) {
            units.join(row, *first_of_folder.entry(folder).or_insert(row));
        }
    }
    units.numbered()
}

impl Item {
    /// The class folder and the subfolder of it that the image lies in, if any.
    pub(super) fn subfolder(&self) -> Option<(Component<'_>, Component<'_>)> {
        let mut parts = self.path.components();
        let folder = (parts.next()?, parts.next()?);
        // At least a file in it.
        parts.next().map(|_| folder)
    }
}

/// Units for the test, such that about `1 - ratio` of the images are in them.
fn draw(mut units: Vec<Vec<usize>>, ratio: f64, mut random: ChaCha8Rng) -> Vec<Vec<usize>> {
    units.shuffle(&mut random);
    let images: usize = units.iter().map(Vec::len).sum();
    let wanted = ((1.0 - ratio) * images as f64).round().max(1.0) as usize;
    let mut test = Vec::new();
    let mut rest = Vec::new();
    let mut taken = 0;
    for unit in units {
        if taken + unit.len() <= wanted {
            taken += unit.len();
            test.push(unit);
        } else {
            rest.push(unit);
        }
    }
    if rest.is_empty() {
        // Everything fitted, which two images can bring about: one unit is needed to train on.
        rest.extend(test.pop());
    } else if test.is_empty() && rest.len() > 1 {
        let smallest = (0..rest.len()).min_by_key(|index| rest[*index].len()).unwrap_or(0);
        test.push(rest.swap_remove(smallest));
    }
    test
}

/// Takes a unit back from the test for each class that has no image to train on: those of all its images were drawn
/// with other classes.
fn train_every_class(dataset: &Dataset, units: &[usize], sides: &mut [Side]) {
    let mut trained = vec![false; dataset.classes.len()];
    for (item, side) in dataset.items.iter().zip(sides.iter()) {
        trained[item.class] |= *side == Side::Train;
    }
    for (item, unit) in dataset.items.iter().zip(units) {
        if trained[item.class] {
            continue;
        }
        for (row, other) in units.iter().enumerate() {
            if other == unit {
                sides[row] = Side::Train;
                trained[dataset.items[row].class] = true;
            }
        }
    }
}

/// Random numbers for one class, whatever other classes there are.
fn generator(seed: u64, class: &str) -> ChaCha8Rng {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(class.as_bytes());
    ChaCha8Rng::from_seed(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(counts: &[(&str, usize)]) -> Dataset {
        let classes = counts.iter().map(|(class, _)| (*class).to_owned()).collect();
        let items = counts.iter().enumerate().flat_map(|(number, (class, count))| {
            (0..*count).map(move |index| Item {
                path: format!("{class}/s{}/{index:03}.jpg", index / 4).into(),
                class: number,
            })
        });
        Dataset {
            root: "data".into(),
            classes,
            items: items.collect(),
            skipped: Vec::new(),
        }
    }

    fn split(dataset: &Dataset, groups: &[usize], parameters: &SplitParameters) -> (Vec<usize>, Vec<usize>) {
        let split = Split::new(dataset, groups, parameters).expect("a split");
        (split.train_rows(), split.test_rows())
    }

    #[test]
    fn each_class_is_divided_by_the_ratio_and_every_image_is_on_one_side() {
        let dataset = dataset(&[("a", 40), ("b", 12), ("c", 2), ("d", 1)]);
        let groups: Vec<usize> = (0..55).collect();
        let (train, test) = split(&dataset, &groups, &SplitParameters::default());
        let count = |rows: &[usize], class| rows.iter().filter(|row| dataset.items[**row].class == class).count();
        assert_eq!([0, 1, 2, 3].map(|class| count(&train, class)), [30, 9, 1, 1]);
        assert_eq!([0, 1, 2, 3].map(|class| count(&test, class)), [10, 3, 1, 0]);
        let mut all = [train, test].concat();
        all.sort_unstable();
        assert_eq!(all, groups);
    }

    #[test]
    fn what_belongs_together_stays_together() {
        let dataset = dataset(&[("a", 60), ("b", 60)]);
        let groups: Vec<usize> = (0..120).map(|row| row / 3).collect();
        for by in [By::Filename, By::Subdir] {
            for seed in 0..20 {
                let parameters = SplitParameters {
                    by,
                    seed,
                    ..SplitParameters::default()
                };
                let (train, test) = split(&dataset, &groups, &parameters);
                let folder = |row: &usize| dataset.items[*row].path.parent().map(PathBuf::from);
                for row in &test {
                    assert!(train.iter().all(|other| groups[*other] != groups[*row]));
                    assert!(by == By::Filename || train.iter().all(|other| folder(other) != folder(row)));
                }
                // Groups and folders together make units of twelve.
                assert!((24..=36).contains(&test.len()), "{by:?} {}", test.len());
            }
        }
    }

    #[test]
    fn a_class_whose_only_image_is_a_copy_of_another_class_is_trained_on() {
        let dataset = dataset(&[("a", 40), ("b", 1)]);
        let groups: Vec<usize> = (0..40).chain([7]).collect();
        for seed in 0..20 {
            let parameters = SplitParameters {
                seed,
                ..SplitParameters::default()
            };
            let (train, _) = split(&dataset, &groups, &parameters);
            assert!(train.contains(&7) && train.contains(&40), "{seed}");
        }
    }

    #[test]
    fn the_seed_decides_and_other_classes_do_not() {
        let groups: Vec<usize> = (0..80).collect();
        let draw = |counts: &[(&str, usize)], seed| {
            split(
                &dataset(counts),
                &groups,
                &SplitParameters {
                    seed,
                    ..SplitParameters::default()
                },
            )
            .1
        };
        let alone = draw(&[("a", 40)], 1);
        assert_eq!(alone, draw(&[("a", 40)], 1));
        assert_ne!(alone, draw(&[("a", 40)], 2));
        let beside: Vec<usize> = draw(&[("a", 40), ("b", 40)], 1)
            .into_iter()
            .filter(|row| *row < 40)
            .collect();
        assert_eq!(alone, beside);
    }

    #[test]
    fn a_ratio_out_of_range_is_refused() {
        for ratio in [0.0, 1.0, -0.5, f64::NAN] {
            let parameters = SplitParameters {
                ratio,
                ..SplitParameters::default()
            };
            assert!(matches!(
                Split::new(&dataset(&[("a", 4)]), &[0, 1, 2, 3], &parameters),
                Err(DatasetError::Ratio(_))
            ));
        }
    }
}
