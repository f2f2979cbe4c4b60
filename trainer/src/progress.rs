//! How library code tells of long work, without knowing who listens.

/// Listens to long work. The command line draws a bar; tests and scripts use [`Silent`].
pub trait Progress: Sync {
    /// A stage begins, of `total` steps where the number is known: see [`stage`].
    fn begin(&self, stage: &str, total: Option<u64>);
    /// The number of steps of a stage that began without one is known now.
    fn total(&self, _: u64) {}
    /// `steps` more are done.
    fn advance(&self, steps: u64);
    /// How the stage stands, in a few words.
    fn status(&self, _: &str) {}
    /// The stage that began last is over.
    fn end(&self);
    /// Something worth one line.
    fn note(&self, text: &str);
}

/// A stage that has begun and is over when this is dropped, however the work ends.
#[must_use = "the stage is over at once"]
pub struct Stage<'a>(&'a dyn Progress);

/// Begins a stage of `total` steps, where the number is known.
pub fn stage<'a>(progress: &'a dyn Progress, name: &str, total: Option<u64>) -> Stage<'a> {
    progress.begin(name, total);
    Stage(progress)
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::threads::lock;

    /// What was told.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Progress for Told {
        fn begin(&self, stage: &str, total: Option<u64>) {
            lock(&self.0).push(format!("{stage} {total:?}"));
        }

        fn advance(&self, steps: u64) {
            lock(&self.0).push(steps.to_string());
        }

        fn end(&self) {
            lock(&self.0).push("end".to_owned());
        }

        fn note(&self, text: &str) {
            lock(&self.0).push(text.to_owned());
        }
    }

    #[test]
    fn a_stage_is_over_although_the_work_fails() {
        let told = Told::default();
        let work = || -> Result<(), String> {
            let _stage = stage(&told, "Working", Some(2));
            told.advance(1);
            Err("no more".to_owned())
        };
        told.note(&work().expect_err("a failure"));
        assert_eq!(*lock(&told.0), ["Working Some(2)", "1", "end", "no more"]);
    }
}
