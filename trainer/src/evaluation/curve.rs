//! The area under the receiver operating characteristic.

/// Area under the curve of `(score, is positive)` pairs: the share of (positive, negative) pairs in
/// which the positive has the higher score, an equal score counting half. That is the trapezoidal area
/// (Hanley and `McNeil` 1982), counted in whole numbers. Absent without a positive or without a negative.
pub(super) fn area_under_curve(mut scored: Vec<(f32, bool)>) -> Option<f64> {
    scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut negatives_below, mut positives, mut doubled) = (0_u128, 0_u128, 0_u128);
    #[expect(clippy::float_cmp, reason = "a tie is an equal score")]
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let own = tied.iter().filter(|(_, positive)| *positive).count() as u128;
        let others = tied.len() as u128 - own;
        doubled += own * (2 * negatives_below + others);
        positives += own;
        negatives_below += others;
    }
    let pairs = positives * negatives_below;
    (pairs > 0).then(|| doubled as f64 / (2 * pairs) as f64)
}
