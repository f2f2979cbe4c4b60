//! What the end-to-end tests have in common: real servers, and bundles small enough to make by hand.

pub mod bundles;
pub mod seaweedfs;
