//! The function on this machine in one command, as the documentation promises.

use std::process::Command;

use end_to_end::colours::{COLOURS, bundle, png};
use end_to_end::program::{program, say};
use end_to_end::tool;

#[test]
fn one_command_publishes_a_model_and_calls_the_function() {
    if tool("weed").is_none() || tool("cargo-lambda").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("bundle");
    bundle("local").write(&run).expect("written");
    let image = folder.path().join("blue.png");
    std::fs::write(&image, png(COLOURS[2].1)).expect("written");
    let said = say(Command::new(program("examples/local"))
        .arg("--once")
        .args([&run, &image])
        .env("NO_COLOR", "1"));
    let said = said.ended_with(0);
    assert!(said.stdout.contains("local-blue"), "{said:?}");
    assert!(said.stdout.contains("5 of 5 calls answered"), "{said:?}");
}
