//! From upright pixels to the tensor that a network expects.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::image::{self, ImageError, Limits, RgbImage};
use crate::network::Tensor;

/// The largest side of an input, in pixels.
const MAX_RESOLUTION: u32 = 4096;

/// Every constant between decoded pixels and the network's input. Stored in the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Side of the square input, in pixels.
    pub resolution: u32,
    /// How a picture that is not square becomes square.
    pub geometry: Geometry,
    /// Colour that fills what the picture does not cover, 8-bit RGB.
    pub background: [u8; 3],
    /// Order of the colour channels in the tensor.
    pub channels: ChannelOrder,
    /// Subtracted from each channel, in the tensor's channel order, in units of 8-bit values (0 to 255).
    pub mean: [f32; 3],
    /// Divides each channel after the mean was subtracted, in units of 8-bit values.
    pub std: [f32; 3],
}

/// How a picture that is not square becomes square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Geometry {
    /// The whole picture, scaled to fit, centred on the background: nothing is cropped away.
    Letterbox,
}

/// Order of the colour channels in the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as in networks that came from Caffe.
    Bgr,
}

impl Preprocessing {
    /// Checks that every image gets a tensor of numbers, of a size that memory is taken for.
    ///
    /// # Errors
    /// What is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let Self {
            resolution, mean, std, ..
        } = self;
        if !(1..=MAX_RESOLUTION).contains(resolution) {
            return Err(format!(
                "images of {resolution} x {resolution} pixels; 1 to {MAX_RESOLUTION} a side are expected"
            ));
        }
        if mean.iter().any(|mean| !mean.is_finite()) {
            return Err(format!("the means {mean:?}; finite numbers are expected"));
        }
        if std.iter().any(|std| !std.is_normal() || *std < 0.0) {
            return Err(format!("the standard deviations {std:?}; numbers above 0 are expected"));
        }
        Ok(())
    }

    /// Decodes an image with as many pixels as [`Self::tensor`] has a use for.
    pub fn decode(&self, bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
        image::decode_to_fit(bytes, limits, self.resolution)
    }

    /// The network input for `image`: shape `[1, 3, resolution, resolution]`, `(pixel - mean) / std`.
    pub fn tensor(&self, image: &RgbImage) -> Tensor {
        let side = self.resolution;
        let fitted = match self.geometry {
            Geometry::Letterbox => image::letterbox(image, side, side, self.background),
        };
        let plane = (side * side) as usize;
        let mut data = Vec::with_capacity(3 * plane);
        for channel in 0..3 {
            let source = match self.channels {
                ChannelOrder::Rgb => channel,
                ChannelOrder::Bgr => 2 - channel,
            };
            let (mean, scale) = (self.mean[channel], 1.0 / self.std[channel]);
            let pixels = fitted.as_raw().chunks_exact(3);
            data.extend(pixels.map(|pixel| (f32::from(pixel[source]) - mean) * scale));
        }
        Tensor::new([1, 3, side as usize, side as usize], data)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Pictures in a square of this side, on black, their values as they are.
    pub(crate) fn plain(resolution: u32) -> Preprocessing {
        Preprocessing {
            resolution,
            geometry: Geometry::Letterbox,
            background: [0; 3],
            channels: ChannelOrder::Rgb,
            mean: [0.0; 3],
            std: [1.0; 3],
        }
    }

    #[test]
    fn values_are_normalized_channel_by_channel_in_the_order_of_the_tensor() {
        let image = RgbImage::from_fn(2, 2, |x, y| {
            ::image::Rgb([10, 20, 30].map(|value| value + (x + 2 * y) as u8))
        });
        let tensor = |channels| {
            let preprocessing = Preprocessing {
                channels,
                mean: [8.0, 16.0, 24.0],
                std: [1.0, 2.0, 4.0],
                ..plain(2)
            };
            preprocessing.tensor(&image)
        };
        let rgb = tensor(ChannelOrder::Rgb);
        assert_eq!(rgb.shape(), [1, 3, 2, 2]);
        assert_eq!(
            rgb.data(),
            [2.0, 3.0, 4.0, 5.0, 2.0, 2.5, 3.0, 3.5, 1.5, 1.75, 2.0, 2.25]
        );
        // Mean and scale belong to the tensor's channels, so that blue meets the first of each.
        assert_eq!(
            tensor(ChannelOrder::Bgr).data(),
            [22.0, 23.0, 24.0, 25.0, 2.0, 2.5, 3.0, 3.5, -3.5, -3.25, -3.0, -2.75]
        );
    }

    #[test]
    fn what_gives_no_numbers_or_too_many_is_refused() {
        let reason = |change: &dyn Fn(&mut Preprocessing)| {
            let mut preprocessing = plain(4096);
            change(&mut preprocessing);
            preprocessing.check().expect_err("unusable")
        };
        assert_eq!(plain(4096).check(), Ok(()));
        for resolution in [0, 4097] {
            let reason = reason(&|preprocessing: &mut Preprocessing| preprocessing.resolution = resolution);
            assert!(reason.contains("; 1 to 4096 a side are expected"), "{reason}");
        }
        for std in [0.0, -1.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY] {
            let reason = reason(&|preprocessing: &mut Preprocessing| preprocessing.std[1] = std);
            assert!(reason.ends_with("numbers above 0 are expected"), "{reason}");
        }
        let reason = reason(&|preprocessing: &mut Preprocessing| preprocessing.mean[2] = f32::NAN);
        assert_eq!(reason, "the means [0.0, 0.0, NaN]; finite numbers are expected");
    }

    #[test]
    fn what_is_not_square_stands_on_the_background() {
        let preprocessing = Preprocessing {
            background: [5; 3],
            ..plain(4)
        };
        let tensor = preprocessing.tensor(&RgbImage::from_pixel(4, 2, ::image::Rgb([100; 3])));
        let rows: Vec<f32> = tensor.data().chunks(4).map(|row| row.iter().sum()).collect();
        assert_eq!(rows, [20.0, 400.0, 400.0, 20.0].repeat(3));
    }
}
