//! From a folder of labelled images to a published classifier.
//!
//! Data flows one way: [`dataset`] finds images and splits them, [`features`] runs the backbone over
//! them, [`svm`] chooses C and fits, [`evaluation`] measures, `training` puts these in a row and
//! hands back a bundle, whose network [`quantize`] makes small and fast where that is asked for, [`runs`]
//! keeps it with its [`report`], [`publish`] brings it to a store. [`setup`] and [`backbone`] obtain what a
//! run needs: the runtime library and the pre-trained network. [`demo`] draws a picture set to try it all
//! on, and `configuration` lays the parameter file and the environment under the commands' options.
//! Nothing but `configuration` and [`cli`] knows of the command line, and [`cli`] alone of a terminal.

mod annotate;
mod append_log;
mod audit;
pub mod backbone;
mod batch;
pub mod cli;
pub mod client;
mod configuration;
mod conveyor;
mod counted;
pub mod dataset;
pub mod demo;
mod destination;
pub mod device;
mod duplicates;
pub mod evaluation;
mod feature_rows;
pub mod features;
mod fetch;
mod float_bytes;
mod image_reader;
mod mlflow;
pub mod onnx;
mod password;
pub mod progress;
pub mod publish;
pub mod quantize;
pub mod refine;
pub mod report;
pub mod runs;
mod scoring;
mod search;
pub mod setup;
mod shell;
mod signing;
mod small_copy;
pub mod svm;
mod sweep;
mod threads;
mod training;
mod web_answers;
pub mod workbench;
