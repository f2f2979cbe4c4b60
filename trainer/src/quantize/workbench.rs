//! Running a network over images, each core its share.

use prost::Message;
use shared::network::{Network, NetworkError, Outputs, Runtime, Tensor};

use crate::onnx::proto::ModelProto;
use crate::progress::Progress;

/// Where networks are tried.
pub struct Workbench<'a> {
    /// The loaded runtime library.
    pub runtime: &'a Runtime,
    /// Images worked on at once.
    pub threads: usize,
    /// Who is told of the progress.
    pub progress: &'a dyn Progress,
}

impl Workbench<'_> {
    /// The vector that `model` gives for each image, in order. Every network runs on one thread, so that the numbers do
    /// not depend on how many there are.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn vectors(&self, model: &ModelProto, images: &[Tensor]) -> Result<Vec<Vec<f32>>, NetworkError> {
        let model = model.encode_to_vec();
        let share = images.len().div_ceil(self.threads.max(1)).max(1);
        let run = |images: &[Tensor]| -> Result<Vec<Vec<f32>>, NetworkError> {
            let mut network = self.runtime.network(&model, 1)?;
            let vector = |image| Ok(network.run(image, Outputs::Vectors)?.vectors);
            images.iter().map(vector).collect()
        };
        let run = &run;
        std::thread::scope(|scope| {
            let workers: Vec<_> = images
                .chunks(share)
                .map(|images| scope.spawn(move || run(images)))
                .collect();
            let mut vectors = Vec::with_capacity(images.len());
            for worker in workers {
                vectors.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(vectors)
        })
    }
}
