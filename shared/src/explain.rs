//! Where in a picture the evidence for a class is: class activation maps.
//!
//! A linear classifier over global average pooling is a mean of the same linear classifier over the cells of the
//! last feature map, so that a class's margin parts exactly into one contribution per cell: Zhou et al., "Learning
//! Deep Features for Discriminative Localization", 2016, <https://arxiv.org/abs/1512.04150>.

use std::io::Cursor;

use ::image::imageops::{self, FilterType};
use ::image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgba, RgbaImage};

use crate::classifier::{Head, l2_norm};
use crate::network::Activations;

/// Longest side of a drawn map, in pixels.
const DRAWN_SIDE: u32 = 256;
/// Opacity of the cell with the strongest evidence, of 255.
const OPACITY: f32 = 190.0;
/// How far the mean over a map may be from the feature that it should be, relative to the longest feature.
const POOLING_TOLERANCE: f32 = 1e-3;

/// The contribution of each cell of the last feature map to one class.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivationMap {
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// `height x width`, row-major. For a linear classifier beside the network, their mean and the class's intercept
    /// add up to its margin.
    pub values: Vec<f32>,
}

impl ActivationMap {
    /// The map of `class` for the only image of `activations`. `None` where the network offers no feature map, or
    /// where its features are something else than that map's means.
    pub(crate) fn of_class(activations: &Activations, head: &Head, class: usize) -> Option<Self> {
        let map = activations.map.as_ref()?;
        let [images, channels, height, width] = map.shape();
        let cells = height * width;
        if images != 1 || cells == 0 || class >= head.classes.len() {
            return None;
        }
        let values = match &head.classifier {
            Some(classifier) => {
                let features = &activations.vectors;
                if channels != features.len() || !pooled(map.data(), features, cells) {
                    return None;
                }
                let length = l2_norm(features);
                let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
                let mut values = vec![0.0_f64; cells];
                for (weight, plane) in classifier
                    .weights
                    .get(class)?
                    .iter()
                    .zip(map.data().chunks_exact(cells))
                {
                    for (value, activation) in values.iter_mut().zip(plane) {
                        *value += f64::from(*weight) * f64::from(*activation);
                    }
                }
                values.into_iter().map(|value| (scale * value) as f32).collect()
            }
            // A network with its own last layer gives a map per class.
            None if channels == head.classes.len() => map.data()[class * cells..(class + 1) * cells].to_vec(),
            None => return None,
        };
        Some(Self { width, height, values })
    }

    /// The evidence for the class in each cell, from 0 (none, or against it) to 255 (the strongest in this map).
    pub fn intensities(&self) -> Vec<u8> {
        let strongest = self.values.iter().copied().fold(0.0_f32, f32::max);
        let scale = if strongest > 0.0 { 255.0 / strongest } else { 0.0 };
        self.values
            .iter()
            .map(|value| (value.max(0.0) * scale).round() as u8)
            .collect()
    }

    /// Draws the evidence as a PNG with transparency, to be laid over a picture of `width x height` pixels that the
    /// network saw whole, centred in a square. It has the picture's proportions and at most 256 pixels a side.
    pub(crate) fn to_png(&self, width: u32, height: u32) -> Vec<u8> {
        let (columns, rows) = (self.width as u32, self.height as u32);
        let intensities = self.intensities();
        let cells: ImageBuffer<Luma<u8>, Vec<u8>> =
            ImageBuffer::from_raw(columns, rows, intensities).unwrap_or_else(|| ImageBuffer::new(1, 1));
        let longest = width.max(height).max(1);
        let side = DRAWN_SIDE.min(longest);
        let square = imageops::resize(&cells, side, side, FilterType::CatmullRom);
        let scaled = |length: u32| {
            let length = u64::from(length) * u64::from(side) / u64::from(longest);
            (length as u32).clamp(1, side)
        };
        let (width, height) = (scaled(width), scaled(height));
        let covered = imageops::crop_imm(&square, (side - width) / 2, (side - height) / 2, width, height).to_image();
        let drawn = RgbaImage::from_fn(width, height, |x, y| colour(covered.get_pixel(x, y).0[0]));
        let mut png = Cursor::new(Vec::new());
        // Writing to memory does not fail; an empty answer would be no worse than a panic.
        let _ = DynamicImage::from(drawn).write_to(&mut png, ImageFormat::Png);
        png.into_inner()
    }
}

/// From transparent over yellow to red.
fn colour(intensity: u8) -> Rgba<u8> {
    let share = f32::from(intensity) / 255.0;
    let green = (220.0 * (1.0 - share)).round() as u8;
    Rgba([255, green, 0, (OPACITY * share).round() as u8])
}

/// Whether `features` are the means of the planes of `map`.
fn pooled(map: &[f32], features: &[f32], cells: usize) -> bool {
    let largest = features.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    map.chunks_exact(cells).zip(features).all(|(plane, feature)| {
        let mean = plane.iter().map(|value| f64::from(*value)).sum::<f64>() / cells as f64;
        (mean as f32 - feature).abs() <= POOLING_TOLERANCE * largest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::{Calibration, LinearClassifier, Thresholds};
    use crate::network::Tensor;

    fn head(classifier: Option<LinearClassifier>) -> Head {
        Head {
            classes: vec!["a".to_owned(), "b".to_owned()],
            classifier,
            calibration: Calibration::Temperature { scale: 1.0 },
            thresholds: Thresholds {
                probability: 0.0,
                margin: 0.0,
            },
        }
    }

    fn linear() -> LinearClassifier {
        LinearClassifier {
            weights: vec![vec![1.0, -1.0], vec![0.5, 2.0]],
            intercepts: vec![0.25, -0.5],
            c: 1.0,
            solver: "by-hand".to_owned(),
        }
    }

    /// Two channels of 1 x 3 cells, and their means.
    fn activations() -> Activations {
        Activations {
            vectors: vec![2.0, 1.0],
            size: 2,
            map: Some(Tensor::new([1, 2, 1, 3], vec![6.0, 0.0, 0.0, 0.0, 0.0, 3.0])),
        }
    }

    #[test]
    fn contributions_and_intercept_add_up_to_the_margin() {
        let head = head(Some(linear()));
        let activations = activations();
        let prediction = head.predict(&activations.vectors);
        for class in 0..2 {
            let map = ActivationMap::of_class(&activations, &head, class).expect("a map");
            let mean = map.values.iter().sum::<f32>() / 3.0;
            let margin = mean + linear().intercepts[class];
            assert!((margin - prediction.margins[class]).abs() < 1e-6);
        }
        let map = ActivationMap::of_class(&activations, &head, 0).expect("a map");
        assert_eq!(map.intensities(), [255, 0, 0]);
    }

    #[test]
    fn a_network_with_its_own_layer_gives_a_map_per_class() {
        let map = ActivationMap::of_class(&activations(), &head(None), 1).expect("a map");
        assert_eq!(map.values, [0.0, 0.0, 3.0]);
    }

    #[test]
    fn features_that_are_no_means_have_no_map() {
        let mut other = activations();
        other.vectors = vec![2.0, 9.0];
        assert_eq!(ActivationMap::of_class(&other, &head(Some(linear())), 0), None);
        other.map = None;
        assert_eq!(ActivationMap::of_class(&other, &head(Some(linear())), 0), None);
    }

    #[test]
    fn a_drawn_map_has_the_pictures_proportions() {
        let map = ActivationMap::of_class(&activations(), &head(Some(linear())), 0).expect("a map");
        for (size, drawn) in [((4000, 2000), (256, 128)), ((10, 30), (10, 30)), ((5000, 1), (256, 1))] {
            let png = ::image::load_from_memory(&map.to_png(size.0, size.1)).expect("a PNG");
            assert_eq!((png.width(), png.height()), drawn);
        }
    }
}
