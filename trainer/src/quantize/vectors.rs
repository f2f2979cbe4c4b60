//! Running a network over images, each core its share.

use prost::Message;
use shared::network::{Network, NetworkError, OnnxRuntime, Outputs, Tensor};

use crate::onnx::proto::ModelProto;
use crate::threads::try_by_workers;
use crate::workbench::Workbench;

impl Workbench<'_> {
    /// The vector that `model` gives for each image, in order. Every network runs on one thread, so that the numbers do
    /// not depend on how many there are.
    pub(super) fn vectors(&self, model: &ModelProto, images: &[Tensor]) -> Result<Vec<Vec<f32>>, NetworkError> {
        let model = model.encode_to_vec();
        let mut networks: Vec<Option<OnnxRuntime>> = Vec::new();
        networks.resize_with(self.threads.clamp(1, images.len().max(1)), || None);
        try_by_workers(&mut networks, images, |network, image| {
            let network = match network {
                Some(network) => network,
                none => none.insert(self.runtime.network(&model, 1)?),
            };
            Ok(network.run(image, Outputs::Vectors)?.vectors)
        })
    }
}
