//! Which feature vectors point the same way, by blocked matrix products: exact, and quick up to some tens of
//! thousands of images (50 000 vectors of 1280 features take 1.6e12 multiplications).

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use crate::dataset::Groups;
use crate::progress::{Progress, stage};

/// Rows multiplied at once. Fixed, so that sums are added up in the same order on every machine.
const BLOCK: usize = 256;

/// The group of each row: connected by steps of at least `threshold` cosine similarity. Rows (`n x d`) have length 1.
/// Groups are numbered by their first row.
pub fn similar_groups(rows: ArrayView2<f32>, threshold: f32, progress: &dyn Progress) -> Vec<usize> {
    let mut groups = Groups::new(rows.nrows());
    let starts: Vec<usize> = (0..rows.nrows()).step_by(BLOCK).collect();
    let _stage = stage(progress, "Comparing features", Some(starts.len() as u64));
    for top in &starts {
        let upper = block(&rows, *top);
        let pairs: Vec<(usize, usize)> = starts
            .par_iter()
            .filter(|left| *left >= top)
            .flat_map_iter(|left| {
                let products = upper.dot(&block(&rows, *left).t());
                let similar = products
                    .indexed_iter()
                    .filter(|(_, similarity)| **similarity >= threshold);
                let pairs: Vec<_> = similar.map(|((row, column), _)| (top + row, left + column)).collect();
                pairs
            })
            .collect();
        for (left, right) in pairs {
            groups.join(left, right);
        }
        progress.advance(1);
    }
    groups.numbered()
}

/// The mean cosine similarity of each row to the `count` rows most like it (fewer, where there are no more).
pub fn similarity_to_nearest(rows: ArrayView2<f32>, count: usize, progress: &dyn Progress) -> Vec<f32> {
    let starts: Vec<usize> = (0..rows.nrows()).step_by(BLOCK).collect();
    let _stage = stage(progress, "Comparing features", Some(starts.len() as u64));
    starts
        .par_iter()
        .flat_map_iter(|top| {
            let products = block(&rows, *top).dot(&rows.t());
            let means: Vec<f32> = products
                .axis_iter(Axis(0))
                .enumerate()
                .map(|(row, similarities)| {
                    let others = similarities
                        .iter()
                        .enumerate()
                        .filter(|(column, _)| *column != top + row);
                    let mut others: Vec<f32> = others.map(|(_, similarity)| *similarity).collect();
                    let count = count.min(others.len());
                    if count == 0 {
                        return 0.0;
                    }
                    others.select_nth_unstable_by(count - 1, |left, right| right.total_cmp(left));
                    others[..count].sort_unstable_by(f32::total_cmp);
                    others[..count].iter().sum::<f32>() / count as f32
                })
                .collect();
            progress.advance(1);
            means
        })
        .collect()
}

fn block<'a>(rows: &'a ArrayView2<f32>, start: usize) -> ArrayView2<'a, f32> {
    rows.slice_axis(Axis(0), (start..(start + BLOCK).min(rows.nrows())).into())
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::progress::Silent;

    /// Unit vectors, some of them close to an earlier one.
    fn rows(count: usize, size: usize) -> Array2<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut rows: Array2<f32> = Array2::from_shape_simple_fn((count, size), || random.random_range(-1.0..1.0));
        for row in (4..count).step_by(5) {
            let earlier = rows.row(row / 2).to_owned();
            let noise = 0.02 * &rows.row(row).to_owned();
            rows.row_mut(row).assign(&(earlier + noise));
        }
        for mut row in rows.rows_mut() {
            let length = row.dot(&row).sqrt();
            row.mapv_inplace(|value| value / length);
        }
        rows
    }

    #[test]
    fn groups_are_those_of_comparing_every_pair() {
        let rows = rows(600, 12);
        for threshold in [0.8, 0.99, 1.5] {
            let mut groups = Groups::new(rows.nrows());
            for left in 0..rows.nrows() {
                for right in left + 1..rows.nrows() {
                    if rows.row(left).dot(&rows.row(right)) >= threshold {
                        groups.join(left, right);
                    }
                }
            }
            let found = similar_groups(rows.view(), threshold, &Silent);
            assert_eq!(found, groups.numbered(), "{threshold}");
            assert!(threshold > 1.0 || found.iter().max() < Some(&599));
        }
    }

    #[test]
    fn the_nearest_are_found_and_a_row_is_not_its_own_neighbour() {
        let rows = ndarray::array![[1.0_f32, 0.0], [0.8, 0.6], [0.0, 1.0]];
        let means = similarity_to_nearest(rows.view(), 1, &Silent);
        for (mean, expected) in means.iter().zip([0.8, 0.8, 0.6]) {
            assert!((mean - expected).abs() < 1e-6, "{means:?}");
        }
        let alone = rows.slice_axis(Axis(0), (..1).into());
        assert_eq!(similarity_to_nearest(alone, 3, &Silent), [0.0]);
    }
}
