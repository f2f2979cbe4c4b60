//! Reading, building, changing and writing ONNX files.

mod builder;
mod edit;
pub mod proto;

pub(crate) use builder::float_value;
pub use builder::{Attribute, GraphBuilder};
pub use edit::{Form, add_initializer, add_node, add_output, prune};
