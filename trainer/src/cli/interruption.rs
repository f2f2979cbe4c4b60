//! What is said where somebody presses Ctrl-C.

use std::process::exit;

use super::Session;
use super::output::tell;

/// What shells report of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Lets an interruption of the command that runs say that it goes on where it was. Nothing is put in order before it ends:
/// what is written may be cut off anywhere.
pub fn goes_on(session: &Session) {
    let quiet = session.progress.is_quiet();
    std::thread::spawn(move || {
        // Without a runtime the signal does what it does everywhere.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            if !quiet {
                tell("\ninterrupted; the same command goes on where it was");
            }
            end();
        }
    });
}

/// Ends as by the signal, which a script must see to end too, and while other threads still work with what an exit would
/// take down.
fn end() -> ! {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let _ = std::process::Command::new("/bin/sh")
            .args(["-c", "kill -INT $$"])
            .exec();
    }
    exit(INTERRUPTED)
}
