//! From image files to what the trained part of the network takes: decoded once, varied, prepared, and passed
//! through the part of the network that stays as it is.

use std::collections::HashMap;
use std::sync::Mutex;

use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use shared::image::{self as images, ImageError};
use shared::network::{Network, NetworkError, Outputs};

use super::engine::Inputs;
use super::run::Task;
use super::{RefineError, stream};
use crate::dataset::read;
use crate::threads::lock;

/// Bytes of decoded images, and of activations, that are kept in memory; beyond, they are computed again.
const KEPT_BYTES: usize = 1 << 30;

/// How an image is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// As the scoring function sees it.
    Plain,
    /// Variation with a number.
    Varied(usize),
}

/// The frozen part of the network, one for each thread that asks.
pub type Lower<'a> = dyn Fn() -> Result<Box<dyn Network>, NetworkError> + Sync + 'a;

/// Shape and values of one input.
type Row = (Vec<usize>, Vec<f32>);

/// The images of a training.
pub struct Views<'a> {
    task: &'a Task<'a>,
    /// Makes the frozen part; `None` where the whole network is trained.
    lower: Option<&'a Lower<'a>>,
    store: Store,
}

/// What was computed before.
#[derive(Default)]
struct Store {
    decoded: Mutex<Kept<usize, RgbImage>>,
    inputs: Mutex<Kept<(usize, View), Row>>,
    networks: Mutex<Vec<Box<dyn Network>>>,
}

struct Kept<K, V> {
    values: HashMap<K, V>,
    bytes: usize,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<K: std::hash::Hash + Eq, V: Clone> Kept<K, V> {
    fn keep(&mut self, key: K, value: &V, bytes: usize) {
        if self.bytes + bytes <= KEPT_BYTES {
            self.bytes += bytes;
            self.values.insert(key, value.clone());
        }
    }
}

impl<'a> Views<'a> {
    /// Nothing is decoded yet.
    pub fn new(task: &'a Task<'a>, lower: Option<&'a Lower<'a>>) -> Self {
        Self {
            task,
            lower,
            store: Store::default(),
        }
    }

    /// The inputs of some images, in the given order, computed on every core.
    ///
    /// # Errors
    /// [`RefineError::Image`] or [`RefineError::Network`].
    pub fn inputs(&self, wanted: &[(usize, View)]) -> Result<Inputs, RefineError> {
        let rows: Vec<Row> = wanted
            .par_iter()
            .map(|(index, view)| self.input(*index, *view))
            .collect::<Result<_, _>>()?;
        let shape = rows.first().map(|(shape, _)| shape.clone()).unwrap_or_default();
        Ok(Inputs {
            shape,
            values: rows.into_iter().flat_map(|(_, values)| values).collect(),
        })
    }

    fn input(&self, index: usize, view: View) -> Result<Row, RefineError> {
        if let Some(known) = lock(&self.store.inputs).values.get(&(index, view)) {
            return Ok(known.clone());
        }
        let task = self.task;
        let varied = match view {
            View::Plain => self.decode(index, |bytes| task.preprocessing.decode(bytes, &task.limits))?,
            View::Varied(number) => {
                let image = self.decoded(index)?;
                let mut generator = ChaCha8Rng::seed_from_u64(task.recipe.seed);
                generator.set_stream(stream(number, index));
                task.recipe.augmentation.apply(&image, &mut generator)
            }
        };
        let tensor = task.preprocessing.tensor(&varied);
        let Some(lower) = self.lower else {
            return Ok((tensor.shape()[1..].to_vec(), tensor.data().to_vec()));
        };
        let waiting = lock(&self.store.networks).pop();
        let mut network = match waiting {
            Some(network) => network,
            None => lower()?,
        };
        let activations = network.run(&tensor, Outputs::VectorsAndMap)?;
        lock(&self.store.networks).push(network);
        let shape = match &activations.map {
            Some(map) => map.shape()[1..].to_vec(),
            None => vec![activations.size],
        };
        let input = (shape, activations.vectors);
        lock(&self.store.inputs).keep((index, view), &input, 4 * input.1.len());
        Ok(input)
    }

    /// Reads and decodes an image.
    fn decode(
        &self,
        index: usize,
        decode: impl FnOnce(&[u8]) -> Result<RgbImage, ImageError>,
    ) -> Result<RgbImage, RefineError> {
        let path = &self.task.paths[index];
        let failed = |reason: String| RefineError::Image {
            path: path.clone(),
            reason,
        };
        let bytes = read(path, self.task.limits).map_err(|error| failed(error.to_string()))?;
        decode(&bytes).map_err(|error| failed(error.to_string()))
    }

    /// The decoded image, no larger than is useful for variations.
    fn decoded(&self, index: usize) -> Result<RgbImage, RefineError> {
        if let Some(image) = lock(&self.store.decoded).values.get(&index) {
            return Ok(image.clone());
        }
        let task = self.task;
        let useful = f64::from(task.recipe.augmentation.scale) * f64::from(task.preprocessing.resolution);
        let image = self.decode(index, |bytes| {
            images::decode_to_fit(bytes, &task.limits, useful.ceil() as u32)
        })?;
        let scale = useful / f64::from(image.width().max(image.height()));
        let image = if scale < 1.0 {
            let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
            images::letterbox(
                &image,
                side(image.width()),
                side(image.height()),
                task.preprocessing.background,
            )
        } else {
            image
        };
        lock(&self.store.decoded).keep(index, &image, image.as_raw().len());
        Ok(image)
    }
}
