//! One target of [`end_to_end::fuzz`], the one that `IKAT_FUZZ_TARGET` names, driven by libFuzzer: it changes inputs,
//! counts which branches each one takes, and keeps those that take new ones.
#![no_main]

use std::sync::LazyLock;

use end_to_end::fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("IKAT_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("IKAT_FUZZ_TARGET names no target: {wanted:?}"))
});

libfuzzer_sys::fuzz_target!(
    // A panic that is caught is none: the library's own hook would end the process before.
    init: drop(std::panic::take_hook()),
    |input: &[u8]| (TARGET.1)(input)
);
