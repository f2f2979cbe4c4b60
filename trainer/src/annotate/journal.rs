//! The steps that were made, on disk before they are.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::moves::is_named_inside;
use crate::append_log::{AppendLog, lines};

/// A file's move, by its paths below the data folder, escaped as in a split file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it was.
    pub from: String,
    /// Where it went.
    pub to: String,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    /// A step.
    Done(Vec<Move>),
    /// The last step, taken back.
    Undone(Vec<Move>),
    /// A step that was taken back, made again.
    Redone(Vec<Move>),
    /// What of the last event could be carried out, in its place.
    Amended(Vec<Move>),
    /// The last event was carried out.
    Settled,
}

impl Event {
    fn moves(&self) -> &[Move] {
        match self {
            Self::Done(moves) | Self::Undone(moves) | Self::Redone(moves) | Self::Amended(moves) => moves,
            Self::Settled => &[],
        }
    }
}

/// What can be undone and redone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// The last one last.
    pub done: Vec<Vec<Move>>,
    /// The one to redo next last.
    pub undone: Vec<Vec<Move>>,
    /// The moves that a killed program can have left half carried out: those of the last event, unless it is settled.
    pub open: Vec<Move>,
    /// Which stack the last event went to.
    last_undone: bool,
}

impl Steps {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Done(moves) => {
                self.undone.clear();
                self.done.push(moves.clone());
            }
            Event::Undone(moves) => {
                self.done.pop();
                self.undone.push(inverse(moves));
            }
            Event::Redone(moves) => {
                self.undone.pop();
                self.done.push(moves.clone());
            }
            Event::Amended(moves) => {
                let (stack, moves) = if self.last_undone {
                    (&mut self.undone, inverse(moves))
                } else {
                    (&mut self.done, moves.clone())
                };
                stack.pop();
                if !moves.is_empty() {
                    stack.push(moves);
                }
            }
            Event::Settled => {}
        }
        match event {
            Event::Done(moves) | Event::Redone(moves) => (self.last_undone, self.open) = (false, moves.clone()),
            Event::Undone(moves) => (self.last_undone, self.open) = (true, moves.clone()),
            Event::Amended(_) | Event::Settled => self.open.clear(),
        }
    }
}

/// The moves that take these back, the last one first.
pub(super) fn inverse(moves: &[Move]) -> Vec<Move> {
    let back = |made: &Move| Move {
        from: made.to.clone(),
        to: made.from.clone(),
    };
    moves.iter().rev().map(back).collect()
}

/// The journal's file.
#[derive(Debug)]
pub(super) struct Journal {
    log: AppendLog,
}

impl Journal {
    /// Opens or makes the journal at `path`, and reads its steps. A last line that a killed program left incomplete is
    /// cut off: its step was not begun. Whoever shares a data set may have written the journal, so every move must name
    /// places in it. The links on the way are looked at when a file is moved.
    pub fn open(path: &Path) -> io::Result<(Self, Steps)> {
        let (log, text) = AppendLog::open(path)?;
        let mut steps = Steps::default();
        for (number, line) in lines(&text) {
            let event = read(line).map_err(|error| {
                let reason = format!("line {number}: {error}; mend the line or move the file away");
                io::Error::new(io::ErrorKind::InvalidData, reason)
            })?;
            steps.take(&event);
        }
        Ok((Self { log }, steps))
    }

    /// Adds a line and sees that it is on disk.
    pub fn append(&mut self, event: &Event) -> io::Result<()> {
        self.log.append(event)
    }
}

fn read(line: &[u8]) -> io::Result<Event> {
    let event: Event = serde_json::from_slice(line)?;
    if event.moves().iter().all(is_named_inside) {
        Ok(event)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a path leads out of the data set",
        ))
    }
}
