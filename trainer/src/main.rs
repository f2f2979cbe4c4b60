//! The `trainer` program: parses, dispatches, and prints what went wrong.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::cli::run()
}
