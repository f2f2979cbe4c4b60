//! Progress on a terminal: a bar with rate and time left, on standard error.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::output::{printable_lines, tell};
use crate::progress::Progress;
use crate::threads::lock;

/// A bar of known length.
const COUNTED: &str = "{msg} {prefix}{wide_bar} {pos}/{len} {rate} {eta} left";

/// Draws bars on a terminal; elsewhere, prints one line when a stage begins.
pub struct Bar {
    quiet: bool,
    current: Mutex<Option<ProgressBar>>,
}

impl Bar {
    /// A bar that tells nothing of the work when `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            current: Mutex::new(None),
        }
    }

    /// Prints a line, whether quiet or not, past the bar; what would command the terminal is escaped.
    pub fn say(&self, text: &str) {
        self.print(&printable_lines(text));
    }

    /// Prints a line as it is, whether quiet or not, past the bar.
    pub fn print(&self, text: &str) {
        self.with_current(|current| match current {
            Some(bar) => bar.suspend(|| tell(text)),
            None => tell(text),
        });
    }

    fn with_current(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        act(&mut lock(&self.current));
    }
}

impl Progress for Bar {
    fn begin(&self, stage: &str, total: Option<u64>) {
        if self.quiet {
            return;
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(COUNTED)),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg} {prefix}{elapsed}")),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            let steps = total.map_or_else(String::new, |total| format!(" ({total})"));
            tell(&format!("{stage}{steps}"));
        }
        bar.set_message(stage.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.with_current(|current| *current = Some(bar));
    }

    fn total(&self, total: u64) {
        self.with_current(|current| {
            if let Some(bar) = current {
                bar.set_style(style(COUNTED));
                bar.set_length(total);
                bar.reset_eta();
            }
        });
    }

    fn advance(&self, steps: u64) {
        self.with_current(|current| {
            if let Some(bar) = current {
                bar.inc(steps);
            }
        });
    }

    fn status(&self, text: &str) {
        self.with_current(|current| {
            if let Some(bar) = current {
                bar.set_prefix(format!("({text}) "));
            }
        });
    }

    fn end(&self) {
        self.with_current(|current| {
            if let Some(bar) = current.take() {
                bar.finish_and_clear();
            }
        });
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
        let _ = text.write_str(&rate(state.per_sec()));
    })
}

/// Steps a second, in three digits that mean something.
fn rate(per_second: f64) -> String {
    if !per_second.is_finite() || per_second < 0.001 {
        return "0/s".to_owned();
    }
    let decimals = 2 - per_second.log10().floor() as i32;
    let scale = 10_f64.powi(decimals);
    let rounded = (per_second * scale).round() / scale;
    let decimals = usize::try_from(decimals).unwrap_or(0);
    format!("{rounded:.decimals$}/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        for (per_second, expected) in [
            (7122.2504, "7120/s"),
            (712.25, "712/s"),
            (71.225, "71.2/s"),
            (0.071_225, "0.0712/s"),
            (0.0, "0/s"),
            (f64::NAN, "0/s"),
        ] {
            assert_eq!(rate(per_second), expected);
        }
    }
}
