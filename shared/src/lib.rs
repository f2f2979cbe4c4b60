//! From image bytes to scores: everything that the trainer and the scorer have in common.
//!
//! The whole way lives here once, so that a model cannot be served differently from how it was
//! trained: [`image`] decodes and turns upright, [`preprocessing`] fits the picture to the network's
//! input, [`network`] runs it, [`classifier`] turns features into margins and probabilities, and
//! [`pipeline`] puts the four in a row. [`explain`] tells which part of a picture spoke for a class.
//! [`bundle`] is the trained model as files, [`store`] the place where bundles are published, and
//! [`service`] the request and response of the scoring function, independent of whether Lambda, HTTP or a
//! test carries them. Beside these, [`files`] writes files whole or not at all, [`buckets`] reads images from
//! S3, [`aws`] finds its credentials, and [`causes`] puts an error and its causes into one line.
//!
//! Nothing here knows of training, command lines or terminals.

pub mod aws;
pub mod buckets;
pub mod bundle;
pub mod causes;
pub mod classifier;
pub mod explain;
pub mod files;
pub mod image;
pub mod network;
pub mod pipeline;
pub mod preprocessing;
pub mod service;
pub mod store;
