//! The end of a training and of a measurement: the run on disk, and all that is said of it.

use std::path::Path;

use super::Session;
use super::failure::Failure;
use super::output::list_skipped_of_run;
use super::tracking::Tracking;
use crate::training::{Run, Saved, Workplace};

/// Writes `run` with at most `pictures` test images in its report, tells the tracking server, and says what was left
/// out and what the user should know. Gives the advice too, which the run itself does not hold.
pub fn finish(
    run: &Run,
    out: Option<&Path>,
    pictures: usize,
    workplace: &Workplace,
    tracking: &Tracking,
    session: &Session,
) -> Result<(Saved, Vec<String>), Failure> {
    let saved = run.save(out, pictures, workplace)?;
    tracking.log(&saved.folder, session);

    list_skipped_of_run(&run.skipped, &saved.folder);
    let advice = saved.record.advice(&run.metrics);
    for note in run.notes.iter().chain(&advice) {
        session.note(note);
    }
    Ok((saved, advice))
}
