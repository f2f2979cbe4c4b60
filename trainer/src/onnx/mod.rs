//! Reading, building, changing and writing ONNX files.

mod builder;
mod edit;
mod fold;
pub mod proto;
mod tensor;

pub(crate) use builder::float_value;
pub use builder::{Attribute, GraphBuilder};
pub use edit::{Form, add_initializer, add_node, add_output, add_tensor, fresh_name, prune, uses};
pub use fold::fold_batch_norm;
pub use tensor::{Constants, TensorError, floats, integers, shape, unify_constants};
