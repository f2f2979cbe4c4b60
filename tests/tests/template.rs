//! The deployment's template as Amazon's own tools see it, and what its function brings along.

use std::process::Command;

use end_to_end::colours::library;
use end_to_end::program::say;
use end_to_end::{root, tool};

#[test]
fn the_linters_find_nothing() {
    let template = root().join("infra/template.yaml");
    if let Some(cfn_lint) = tool("cfn-lint") {
        let said = say(Command::new(cfn_lint)
            .args(["--include-checks", "I", "--"])
            .arg(&template));
        assert_eq!((said.code, said.stdout.trim()), (0, ""), "{said:?}");
    }
    if let Some(sam) = tool("sam") {
        let home = tempfile::tempdir().expect("a folder");
        let said = say(Command::new(sam)
            .args(["validate", "--lint", "--template"])
            .arg(&template)
            .env("SAM_CLI_TELEMETRY", "0")
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("HOME", home.path()));
        assert_eq!(said.code, 0, "{said:?}");
    }
}

/// What `provided.al2023` has, after the documentation of Amazon Linux 2023: glibc 2.34 and the libraries of gcc 11.
const AMAZON_LINUX_2023: [(&str, [u32; 3]); 3] = [
    ("GLIBC_", [2, 34, 0]),
    ("GLIBCXX_", [3, 4, 29]),
    ("CXXABI_", [1, 3, 13]),
];

#[test]
fn the_runtime_library_asks_for_no_newer_system_than_lambda_has() {
    let library = std::fs::read(library()).expect("the library");
    for (prefix, newest) in AMAZON_LINUX_2023 {
        let asked = versions(&library, prefix);
        let most = asked.iter().max().unwrap_or_else(|| panic!("no {prefix} at all"));
        assert!(most <= &newest, "{prefix}{most:?} is newer than {newest:?}");
    }
}

/// The versions of symbols that a library names in its tables, found as text.
fn versions(library: &[u8], prefix: &str) -> Vec<[u32; 3]> {
    let matches = library.windows(prefix.len()).enumerate();
    let matches = matches.filter(|(_, window)| *window == prefix.as_bytes());
    let read = |(start, _): (usize, &[u8])| {
        let text = &library[start + prefix.len()..];
        let text = &text[..text.iter().position(|byte| *byte == 0)?];
        let mut version = [0; 3];
        for (place, part) in version.iter_mut().zip(std::str::from_utf8(text).ok()?.split('.')) {
            *place = part.parse().ok()?;
        }
        Some(version)
    };
    matches.filter_map(read).collect()
}
