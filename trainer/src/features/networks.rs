//! The networks of a featurization: one for each thread on the processor, or one on each card that the threads share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use shared::network::{Network, NetworkError, Runtime};

use super::FeatureError;
use super::shared_network::SharedNetwork;
use crate::device::{Device, DeviceError};
use crate::onnx::proto::{DimensionValue, ModelProto};

/// Images that a card computes at once, where the network takes any number.
const BATCH: usize = 32;

/// Makes the networks that threads compute features with.
pub struct Networks<'a> {
    runtime: &'a Runtime,
    model: &'a [u8],
    cards: Vec<Card>,
    next: AtomicUsize,
}

/// A card, and the network on it once somebody asked for one, or why there is none: who asks next is told the same.
struct Card {
    number: usize,
    network: OnceLock<Result<SharedNetwork, NetworkError>>,
}

impl<'a> Networks<'a> {
    /// The network of an ONNX file on `device`: on the CUDA cards that are named there, else on the processor.
    pub fn new(runtime: &'a Runtime, model: &'a [u8], device: &Device) -> Self {
        let card = |number: &usize| Card {
            number: *number,
            network: OnceLock::new(),
        };
        Self {
            runtime,
            model,
            cards: device.named_cards().iter().map(card).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// A network for one more thread. On the processor each runs on a single thread, so that the numbers do not depend
    /// on how many there are.
    ///
    /// # Errors
    /// [`FeatureError::Network`], or [`FeatureError::Device`] where a card cannot be had.
    pub fn network(&self) -> Result<Box<dyn Network>, FeatureError> {
        if self.cards.is_empty() {
            return Ok(Box::new(self.runtime.network(self.model, 1)?));
        }
        let card = &self.cards[self.next.fetch_add(1, Ordering::Relaxed) % self.cards.len()];
        Ok(Box::new(self.on(card)?))
    }

    fn on(&self, card: &Card) -> Result<SharedNetwork, FeatureError> {
        let network = card.network.get_or_init(|| {
            let network = self.runtime.network_on_cuda(self.model, card.number)?;
            SharedNetwork::new(Box::new(network), batch(self.model))
        });
        network.clone().map_err(|error| unusable(card.number, error))
    }

    /// How many threads keep `cores` busy: on a card half of them wait for their vectors.
    pub fn threads(&self, cores: usize) -> usize {
        if self.cards.is_empty() { cores } else { 2 * cores }
    }
}

/// How many images of a batch are computed at once by a network as a file: one where it takes no more.
fn batch(model: &[u8]) -> usize {
    let model = ModelProto::decode(model).unwrap_or_default();
    let input = model.graph.as_ref().and_then(|graph| graph.input.first());
    let told = input.and_then(|input| input.dimensions()?.first()?.value.as_ref());
    if told == Some(&DimensionValue::Fixed(1)) {
        1
    } else {
        BATCH
    }
}

fn unusable(card: usize, error: NetworkError) -> FeatureError {
    match error {
        NetworkError::Cuda(reason) => FeatureError::Device(DeviceError::Unusable {
            device: Device::Cuda(vec![card]).to_string(),
            reason: format!(
                "{reason} (features on a card need CUDA 12 and cuDNN 9 in the loader's path, LD_LIBRARY_PATH)"
            ),
        }),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{GraphBuilder, float_value};

    #[test]
    fn a_network_of_single_images_gets_single_images() {
        let mut graph = GraphBuilder::new("own");
        let pooled = graph.node("pooled", "GlobalAveragePool", &["image"], &[]);
        let mut model = graph.finish("image", &[(&pooled, &[])], &[]);
        assert_eq!(batch(&model.encode_to_vec()), BATCH);
        let one = [1, 3, 64, 64].map(DimensionValue::Fixed);
        model.graph.as_mut().expect("a graph").input[0] = float_value("image", &one);
        assert_eq!(batch(&model.encode_to_vec()), 1);
    }
}
