//! How library code tells of long work, without knowing who listens.

/// Listens to long work. The command line draws a bar; tests and scripts use [`Silent`].
pub trait Progress: Sync {
    /// A stage of `total` steps begins (0 where the number is unknown).
    fn begin(&self, stage: &str, total: u64);
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

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
}
