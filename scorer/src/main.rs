//! The scoring function, as a program: everything is in the library.

fn main() -> std::process::ExitCode {
    scorer::run()
}
