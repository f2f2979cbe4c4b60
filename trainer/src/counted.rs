//! A number of things, and many of them, in words.

use std::fmt::Display;

/// `count` and what is counted: `one` of it, or `many`.
pub(crate) fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let what = if count == N::from(1) { one } else { many };
    format!("{count} {what}")
}

/// The first `most` of these names, and how many more there are.
pub(crate) fn listed(names: &[impl AsRef<str>], most: usize) -> String {
    listed_with(", ", names, most)
}

/// The same with another separator, as for names that hold commas.
pub(crate) fn listed_with(separator: &str, names: &[impl AsRef<str>], most: usize) -> String {
    let shown: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    let shown = shown.join(separator);
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_has_an_end() {
        let names = ["a", "b", "c"];
        for (most, expected) in [
            (1, "a and 2 more"),
            (2, "a, b and 1 more"),
            (3, "a, b, c"),
            (4, "a, b, c"),
        ] {
            assert_eq!(listed(&names, most), expected);
        }
        assert_eq!(listed_with("; ", &["a, b", "c", "d"], 2), "a, b; c and 1 more");
    }

    #[test]
    fn one_is_not_many() {
        for (count, expected) in [(0_usize, "0 images"), (1, "1 image"), (2, "2 images")] {
            assert_eq!(counted(count, "image", "images"), expected);
        }
    }
}
