//! Copies of one picture within a data set: finding them, choosing which to keep, setting the others aside.
//!
//! Two measures find them. The difference hash sees the same picture in another size or quality; the network's
//! features also see it cropped, brightened or turned a little. [`quarantine`] moves files, reversibly; nothing is
//! ever deleted.

pub mod quarantine;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use ndarray::ArrayView2;

use crate::dataset::{Dataset, Groups, Picture, inside, near_duplicate_groups};
use crate::features::similar_groups;
use crate::progress::Progress;

/// When two pictures count as copies of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Criteria {
    /// Most differing bits of their difference hashes.
    pub distance: u32,
    /// Least cosine similarity of their features, where there are features.
    pub similarity: f32,
}

/// The best copy of a picture, and the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Duplicates {
    /// Row of the copy to keep: the one with the most pixels, then bytes, then the label that most of its
    /// cluster have, then a file before a link, then the first name.
    pub kept: usize,
    /// The other copies, the best first.
    pub copies: Vec<Duplicate>,
    /// Whether the copies carry different labels.
    pub conflict: bool,
    /// Whether nothing but names tells which of those labels to keep: as good a copy has another that is as frequent.
    pub undecided: bool,
}

/// A copy, and how like the kept one it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Duplicate {
    /// Row of the copy.
    pub row: usize,
    /// Differing bits of the difference hashes.
    pub distance: u32,
    /// Cosine similarity of the features, where there are features.
    pub similarity: Option<f32>,
}

/// Finds the copies among the images of `dataset`, whose pictures and features (rows of length 1) stand in the same
/// order. Those with different labels come first, then by name.
///
/// Likeness is no equivalence: over many steps it leads from one picture to quite another. So a picture is a copy of
/// a kept one only if it is itself within the criteria of it, not if a third one is in between.
pub fn find(
    dataset: &Dataset,
    pictures: &[Picture],
    features: Option<ArrayView2<f32>>,
    criteria: Criteria,
    progress: &dyn Progress,
) -> Vec<Duplicates> {
    let hashes: Vec<_> = pictures.iter().map(|picture| &picture.hash).collect();
    let mut groups = Groups::new(pictures.len());
    join(&mut groups, &near_duplicate_groups(&hashes, criteria.distance));
    if let Some(features) = features {
        join(&mut groups, &similar_groups(features, criteria.similarity, progress));
    }
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, group) in groups.numbered().into_iter().enumerate() {
        members.entry(group).or_default().push(row);
    }

    let compare = |row: usize, kept: usize| {
        let duplicate = Duplicate {
            row,
            distance: pictures[row].hash.distance(&pictures[kept].hash),
            similarity: features.map(|features| features.row(row).dot(&features.row(kept))),
        };
        let similar = duplicate
            .similarity
            .is_some_and(|similarity| similarity >= criteria.similarity);
        (duplicate.distance <= criteria.distance || similar).then_some(duplicate)
    };
    let linked = linked(dataset);
    let class = |row: usize| dataset.items[row].class;
    let mut found: Vec<Duplicates> = Vec::new();
    for mut rows in members.into_values().filter(|rows| rows.len() > 1) {
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for row in &rows {
            *votes.entry(class(*row)).or_default() += 1;
        }
        let worth = |row: usize| {
            let picture = &pictures[row];
            let pixels = u64::from(picture.width) * u64::from(picture.height);
            (pixels, picture.bytes, votes[&class(row)])
        };
        rows.sort_by_key(|row| (Reverse(worth(*row)), linked[*row], &dataset.items[*row].path));
        let mut stars: Vec<Duplicates> = Vec::new();
        for row in rows {
            let star = stars
                .iter_mut()
                .find_map(|star| compare(row, star.kept).map(|duplicate| (star, duplicate)));
            match star {
                Some((star, duplicate)) => {
                    let differs = class(row) != class(star.kept);
                    star.conflict |= differs;
                    star.undecided |= differs && worth(row) == worth(star.kept);
                    star.copies.push(duplicate);
                }
                None => stars.push(Duplicates {
                    kept: row,
                    copies: Vec::new(),
                    conflict: false,
                    undecided: false,
                }),
            }
        }
        found.extend(stars.into_iter().filter(|star| !star.copies.is_empty()));
    }
    found.sort_by_key(|star| (!star.conflict, &dataset.items[star.kept].path));
    found
}

/// Where each image's file really is; `None` where that cannot be told.
fn real_files(dataset: &Dataset) -> Vec<Option<PathBuf>> {
    let files = dataset.items.iter().map(|item| dataset.root.join(&item.path));
    files.map(|file| fs::canonicalize(file).ok()).collect()
}

/// Which images are reached by a link, to the file or to a folder.
fn linked(dataset: &Dataset) -> Vec<bool> {
    let root = fs::canonicalize(&dataset.root).unwrap_or_default();
    let files = dataset.items.iter().zip(real_files(dataset));
    files
        .map(|(item, real)| real.is_some_and(|real| real != root.join(&item.path)))
        .collect()
}

/// Which images can be set aside: those whose file lies in the data set's folder and has one name in it. Any other
/// would be gone from under its other name, or from where somebody else keeps it.
pub fn movable(dataset: &Dataset) -> Vec<bool> {
    let real = real_files(dataset);
    let mut names: BTreeMap<&PathBuf, usize> = BTreeMap::new();
    for file in real.iter().flatten() {
        *names.entry(file).or_default() += 1;
    }
    let images = dataset.items.iter().zip(&real);
    images
        .map(|(item, file)| {
            let single = file.as_ref().is_some_and(|file| names[file] == 1);
            single && inside(&dataset.root, &item.path).is_ok()
        })
        .collect()
}

fn join(groups: &mut Groups, numbers: &[usize]) {
    let mut firsts = BTreeMap::new();
    for (row, number) in numbers.iter().enumerate() {
        groups.join(row, *firsts.entry(number).or_insert(row));
    }
}

#[cfg(test)]
mod tests {
    use shared::image::{Format, RgbImage};

    use super::*;
    use crate::dataset::{Item, dhash};
    use crate::progress::Silent;

    /// A picture whose hash has the first `ones` bits of its last row set, at a width.
    fn picture(ones: u32, width: u32) -> Picture {
        let image = RgbImage::from_fn(17, 16, |x, y| {
            let value = if y == 15 { x.min(ones) * 15 } else { 0 };
            ::image::Rgb([value as u8; 3])
        });
        Picture {
            hash: dhash(&image, 16),
            width,
            height: 10,
            bytes: 100,
            format: Format::Png,
        }
    }

    fn dataset(classes: &[usize]) -> Dataset {
        let item = |(row, class): (usize, &usize)| Item {
            path: format!("{class}/{row}.png").into(),
            class: *class,
        };
        Dataset {
            root: "data".into(),
            classes: vec!["0".to_owned(), "1".to_owned()],
            items: classes.iter().enumerate().map(item).collect(),
            skipped: Vec::new(),
        }
    }

    #[test]
    fn the_largest_is_kept_and_a_chain_does_not_make_its_ends_copies() {
        let pictures = [picture(0, 20), picture(3, 50), picture(6, 30), picture(16, 90)];
        let criteria = Criteria {
            distance: 3,
            similarity: 1.0,
        };
        let found = find(&dataset(&[0, 0, 0, 0]), &pictures, None, criteria, &Silent);
        // The middle one is the largest of its chain: both ends are copies of it.
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kept, 1);
        assert_eq!(found[0].copies.iter().map(|copy| copy.row).collect::<Vec<_>>(), [2, 0]);

        let pictures = [picture(0, 50), picture(3, 20), picture(6, 30)];
        let found = find(&dataset(&[0, 0, 0]), &pictures, None, criteria, &Silent);
        // An end is the largest: the other end is no copy of it, and stays.
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].kept, found[0].copies[0].row, found[0].copies[0].distance),
            (0, 1, 3)
        );
        assert_eq!(found[0].copies.len(), 1);
    }

    #[test]
    fn features_find_what_hashes_miss_and_different_labels_come_first() {
        let pictures = [picture(0, 9), picture(0, 9), picture(8, 9), picture(16, 9)];
        let features = ndarray::array![[1.0_f32, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]];
        let criteria = Criteria {
            distance: 0,
            similarity: 0.9,
        };
        let found = find(
            &dataset(&[0, 0, 0, 1]),
            &pictures,
            Some(features.view()),
            criteria,
            &Silent,
        );
        assert_eq!(
            found.iter().map(|star| (star.kept, star.conflict)).collect::<Vec<_>>(),
            [(2, true), (0, false)]
        );
        assert_eq!(found[0].copies[0].similarity, Some(1.0));
        assert_eq!(found[0].copies[0].distance, 8);
    }

    #[test]
    fn of_equal_copies_the_most_frequent_label_stays_and_of_equal_labels_none() {
        let criteria = Criteria {
            distance: 0,
            similarity: 1.0,
        };
        let kept = |classes: &[usize], widths: &[u32]| {
            let pictures: Vec<_> = widths.iter().map(|width| picture(0, *width)).collect();
            let found = find(&dataset(classes), &pictures, None, criteria, &Silent);
            (found[0].kept, found[0].conflict, found[0].undecided)
        };
        assert_eq!(kept(&[0, 1, 1], &[9, 9, 9]), (1, true, false));
        assert_eq!(kept(&[0, 1], &[9, 9]), (0, true, true));
        assert_eq!(kept(&[0, 1], &[9, 10]), (1, true, false), "the larger one is the best");
        assert_eq!(kept(&[0, 0], &[9, 9]), (0, false, false));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_with_two_names_stays_and_is_kept_by_its_own() {
        use std::os::unix::fs::symlink;
        let (folder, elsewhere) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let at = |path: &str| folder.path().join(path);
        for path in ["b", "d"] {
            fs::create_dir(at(path)).expect("a folder");
        }
        for path in ["b/1.png", "b/2.png", "d/1.png"] {
            fs::write(at(path), path).expect("a file");
        }
        fs::write(elsewhere.path().join("1.png"), "elsewhere").expect("a file");
        symlink("b", at("a")).expect("a link");
        symlink("../d/1.png", at("d/2.png")).expect("a link");
        symlink(elsewhere.path(), at("e")).expect("a link");
        symlink(elsewhere.path().join("1.png"), at("d/3.png")).expect("a link");
        fs::hard_link(at("d/1.png"), at("d/4.png")).expect("a name");
        let dataset = Dataset::scan(folder.path()).expect("a data set");
        let movable = movable(&dataset);
        let rows = dataset.items.iter().zip(movable);
        let stay: Vec<_> = rows
            .filter(|(_, movable)| !movable)
            .map(|(item, _)| item.path.display().to_string())
            .collect();
        assert_eq!(
            stay,
            [
                "a/1.png", "a/2.png", "b/1.png", "b/2.png", "d/1.png", "d/2.png", "d/3.png", "e/1.png"
            ]
        );
        let pictures: Vec<_> = dataset.items.iter().map(|_| picture(0, 9)).collect();
        let criteria = Criteria {
            distance: 0,
            similarity: 1.0,
        };
        let found = find(&dataset, &pictures, None, criteria, &Silent);
        // Four of the nine have the label d.
        assert_eq!(dataset.items[found[0].kept].path, PathBuf::from("d/1.png"));
    }
}
