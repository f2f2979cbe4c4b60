//! Stratified, grouped folds.
//!
//! Near-duplicates must not be on both sides of a fold, or the cross-validation measures memory; and
//! every class should be spread over the folds as evenly as its groups allow.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// One fold: which rows train, which are held out. Every row is in exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// Rows to train on, ascending.
    pub train: Vec<usize>,
    /// Rows to measure on, ascending.
    pub held_out: Vec<usize>,
}

/// Folds, and what they could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folds {
    /// Empty where there is nothing to hold out.
    pub folds: Vec<Fold>,
    /// Classes whose images are all in one group. They always train and are never measured: held out,
    /// they could only be got wrong, and at every C alike.
    pub never_held_out: Vec<usize>,
}

/// A group with the number of its rows of each class.
struct Group {
    rows: Vec<usize>,
    counts: BTreeMap<usize, usize>,
}

/// Deals the rows into `count` folds (or fewer, where no class has so many groups). Rows of equal
/// `groups` stay together. Groups are dealt largest first, in an order drawn from `seed`, each to the
/// fold that has the smallest share of the group's classes so far, and never all images of a class to one.
pub fn stratified_grouped(labels: &[usize], groups: &[usize], classes: usize, count: usize, seed: u64) -> Folds {
    let mut by_group: BTreeMap<usize, Group> = BTreeMap::new();
    let mut totals = vec![0_usize; classes];
    for (row, (label, group)) in labels.iter().zip(groups).enumerate() {
        let group = by_group.entry(*group).or_insert_with(|| Group {
            rows: Vec::new(),
            counts: BTreeMap::new(),
        });
        group.rows.push(row);
        *group.counts.entry(*label).or_default() += 1;
        totals[*label] += 1;
    }
    let (movable, fixed): (Vec<Group>, Vec<Group>) = by_group
        .into_values()
        .partition(|group| group.counts.iter().all(|(class, count)| *count < totals[*class]));
    let mut never_held_out: Vec<usize> = fixed
        .iter()
        .flat_map(|group| group.counts.iter())
        .filter(|(class, count)| **count == totals[**class])
        .map(|(class, _)| *class)
        .collect();
    never_held_out.sort_unstable();

    let mut groups_of_class = vec![0_usize; classes];
    for class in movable.iter().flat_map(|group| group.counts.keys()) {
        groups_of_class[*class] += 1;
    }
    let count = count.min(groups_of_class.into_iter().max().unwrap_or(0));
    if count < 2 {
        return Folds {
            folds: Vec::new(),
            never_held_out,
        };
    }
    let fold_of_row = deal(movable, &totals, labels.len(), count, seed);
    let folds = (0..count)
        .map(|fold| {
            let (held_out, train) = (0..labels.len()).partition(|row| fold_of_row[*row] == Some(fold));
            Fold { train, held_out }
        })
        .collect();
    Folds { folds, never_held_out }
}

/// The fold that holds each row out, if any does. No fold gets all rows of a class, or there would be none to train on;
/// a group that every fold would get the last rows of a class with always trains.
fn deal(mut groups: Vec<Group>, totals: &[usize], rows: usize, count: usize, seed: u64) -> Vec<Option<usize>> {
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    groups.sort_by_key(|group| std::cmp::Reverse(group.rows.len()));
    let mut dealt = vec![vec![0_usize; totals.len()]; count];
    let mut sizes = vec![0_usize; count];
    let mut fold_of_row = vec![None; rows];
    for group in groups {
        let share = |fold: usize| -> f64 {
            group
                .counts
                .iter()
                .map(|(class, own)| (*own * dealt[fold][*class]) as f64 / totals[*class] as f64)
                .sum()
        };
        let leaves_some = |fold: &usize| {
            let mut counts = group.counts.iter();
            counts.all(|(class, own)| dealt[*fold][*class] + own < totals[*class])
        };
        let Some(chosen) = (0..count)
            .filter(leaves_some)
            .min_by(|a, b| share(*a).total_cmp(&share(*b)).then(sizes[*a].cmp(&sizes[*b])))
        else {
            continue;
        };
        for (class, own) in &group.counts {
            dealt[chosen][*class] += own;
        }
        sizes[chosen] += group.rows.len();
        for row in group.rows {
            fold_of_row[row] = Some(chosen);
        }
    }
    fold_of_row
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::RngExt;

    use super::*;

    /// Groups of 1 to 4 rows; classes of unequal size.
    fn grouped() -> (Vec<usize>, Vec<usize>) {
        let mut labels = Vec::new();
        let mut groups = Vec::new();
        for group in 0..90 {
            for _ in 0..=group % 4 {
                labels.push([0, 0, 0, 1, 1, 2][group % 6]);
                groups.push(group * 7);
            }
        }
        (labels, groups)
    }

    #[test]
    fn every_row_is_held_out_once_and_no_group_is_split() {
        let (labels, groups) = grouped();
        let folds = stratified_grouped(&labels, &groups, 3, 5, 1).folds;
        assert_eq!(folds.len(), 5);
        let mut held_out: Vec<usize> = folds.iter().flat_map(|fold| fold.held_out.clone()).collect();
        held_out.sort_unstable();
        assert_eq!(held_out, (0..labels.len()).collect::<Vec<_>>());
        for fold in &folds {
            assert_eq!(fold.train.len() + fold.held_out.len(), labels.len());
            let train: BTreeSet<usize> = fold.train.iter().map(|row| groups[*row]).collect();
            assert!(fold.held_out.iter().all(|row| !train.contains(&groups[*row])));
        }
    }

    #[test]
    fn classes_are_spread_evenly() {
        let (labels, groups) = grouped();
        for fold in stratified_grouped(&labels, &groups, 3, 5, 1).folds {
            for class in 0..3 {
                let of = |rows: &[usize]| rows.iter().filter(|row| labels[**row] == class).count() as f64;
                let all = of(&fold.train) + of(&fold.held_out);
                let share = of(&fold.held_out) / all;
                assert!((share - 0.2).abs() < 0.08, "class {class}: {share}");
            }
        }
    }

    #[test]
    fn single_rows_are_stratified_to_within_one() {
        let labels: Vec<usize> = (0..103).map(|row| usize::from(row % 4 == 0)).collect();
        let groups: Vec<usize> = (0..103).collect();
        for fold in stratified_grouped(&labels, &groups, 2, 5, 9).folds {
            let rare = fold.held_out.iter().filter(|row| labels[**row] == 1).count();
            assert!((5..=6).contains(&rare), "{rare}");
        }
    }

    #[test]
    fn the_seed_decides() {
        let (labels, groups) = grouped();
        let with = |seed| stratified_grouped(&labels, &groups, 3, 5, seed);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn every_class_is_trained_in_every_fold_even_where_groups_hold_several() {
        let mut generator = ChaCha8Rng::seed_from_u64(3);
        for seed in 0..500 {
            let mut draw = |below: usize| -> Vec<usize> { (0..20).map(|_| generator.random_range(0..below)).collect() };
            let (labels, groups) = (draw(6), draw(8));
            let all: BTreeSet<usize> = labels.iter().copied().collect();
            for fold in stratified_grouped(&labels, &groups, 6, 2, seed).folds {
                let trained: BTreeSet<usize> = fold.train.iter().map(|row| labels[*row]).collect();
                assert_eq!(trained, all, "{labels:?} {groups:?}");
            }
        }
    }

    #[test]
    fn few_groups_make_few_folds_and_a_single_group_always_trains() {
        let folds = stratified_grouped(&[0, 0, 0, 1, 1, 2], &[0, 1, 2, 3, 4, 5], 3, 5, 0);
        assert_eq!(folds.folds.len(), 3);
        assert_eq!(folds.never_held_out, [2]);
        for fold in &folds.folds {
            assert!(fold.train.contains(&5));
            let trained: BTreeSet<usize> = fold.train.iter().map(|row| [0, 0, 0, 1, 1, 2][*row]).collect();
            assert_eq!(trained.len(), 3, "every class is trained");
        }
        let none = stratified_grouped(&[0, 0, 1], &[0, 0, 1], 2, 5, 0);
        assert!(none.folds.is_empty());
        assert_eq!(none.never_held_out, [0, 1]);
    }
}
