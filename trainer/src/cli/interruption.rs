//! What is said where somebody presses Ctrl-C.

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::Session;
use super::output::tell;

/// Lets an interruption of the command that runs say that it goes on where it was.
pub fn goes_on(session: &Session) {
    says("the same command goes on where it was", session);
}

/// Lets an interruption of the command that runs say that nothing can be done with what it leaves.
pub fn begins_anew(session: &Session) {
    says(
        "the same command begins anew, and removes what this one leaves",
        session,
    );
}

/// Nothing is put in order before the command ends: what is written may be cut off anywhere.
fn says(next: &'static str, session: &Session) {
    let quiet = session.output.is_quiet();
    // Without a handler the signal does what it does everywhere.
    let Ok(mut signals) = Signals::new([SIGINT]) else {
        return;
    };
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            if !quiet {
                tell(&format!("\ninterrupted; {next}"));
            }
            // By the signal itself, which a script must see to end, too.
            let _ = emulate_default_handler(SIGINT);
        }
    });
}
