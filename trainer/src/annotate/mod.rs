//! Looking through a data set and correcting its labels, on a page of this machine's own.
//!
//! A label is the folder that an image is in, so that every change is a move of files. [`Desk`] makes them: each step
//! is in a journal on disk before its first file moves, nothing is ever written over, and any step can be undone, also
//! after a restart. [`server`] shows it to the browser of whoever has the token of this start, and to nobody else.

mod desk;
mod journal;
mod moves;
pub mod server;
mod thumbnails;

pub use desk::Desk;
pub use thumbnails::Thumbnails;

#[cfg(test)]
mod tests;
