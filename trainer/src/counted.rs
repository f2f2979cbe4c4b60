//! A number of things, in words.

use std::fmt::Display;

/// `count` and what is counted: `one` of it, or `many`.
pub(crate) fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let what = if count == N::from(1) { one } else { many };
    format!("{count} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        for (count, expected) in [(0_usize, "0 images"), (1, "1 image"), (2, "2 images")] {
            assert_eq!(counted(count, "image", "images"), expected);
        }
    }
}
