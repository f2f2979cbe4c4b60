//! Reading, building and writing ONNX files.

mod builder;
pub mod proto;

pub(crate) use builder::float_value;
pub use builder::{Attribute, GraphBuilder};
