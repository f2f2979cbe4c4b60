//! Where a kernel stands over a map.

use std::ops::Range;

use super::ConvolutionOptions;

/// Height or width of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    /// Points of the map.
    pub size: usize,
    /// Points of the kernel.
    pub taps: usize,
    /// Places of the kernel, which are the points of the output.
    pub places: usize,
    pub stride: usize,
    /// Points before the map.
    pub padding: usize,
    /// From one point of the kernel to the next.
    pub dilation: usize,
}

impl Axis {
    /// What is under `tap` at `place`, where that is no padding.
    pub fn under(&self, place: usize, tap: usize) -> Option<usize> {
        let point = (place * self.stride + tap * self.dilation).checked_sub(self.padding)?;
        (point < self.size).then_some(point)
    }

    /// The places at which `tap` is over the map.
    pub fn inside(&self, tap: usize) -> Range<usize> {
        let before = self.padding.saturating_sub(tap * self.dilation);
        let end = (self.size + self.padding).saturating_sub(tap * self.dilation);
        let end = end.div_ceil(self.stride).min(self.places);
        before.div_ceil(self.stride).min(end)..end
    }

    /// Points from the first to the last that the kernel reaches, padding and all.
    pub fn reach(&self) -> usize {
        self.span() + (self.taps - 1) * self.dilation
    }

    /// Points from the kernel's first place to its last.
    pub fn span(&self) -> usize {
        (self.places.max(1) - 1) * self.stride + 1
    }
}

/// A convolution's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub images: usize,
    pub channels: usize,
    pub outputs: usize,
    pub groups: usize,
    pub height: Axis,
    pub width: Axis,
}

impl Geometry {
    /// Of a map `[images, channels, height, width]` and a kernel `[outputs, channels / groups, height, width]`.
    pub fn new(map: [usize; 4], kernel: [usize; 4], options: &ConvolutionOptions) -> Self {
        let axis = |axis: usize| {
            let (size, taps) = (map[2 + axis], kernel[2 + axis].max(1));
            let (stride, dilation) = (options.stride[axis].max(1), options.dilation[axis]);
            let (padding, after) = (options.padding[axis], options.padding[axis + 2]);
            let room = (padding + size + after).checked_sub((taps - 1) * dilation + 1);
            Axis {
                size,
                taps,
                places: room.map_or(0, |room| room / stride + 1),
                stride,
                padding,
                dilation,
            }
        };
        Self {
            images: map[0],
            channels: map[1],
            outputs: kernel[0],
            groups: options.groups.max(1),
            height: axis(0),
            width: axis(1),
        }
    }

    /// Points of one channel of one image.
    pub fn points(&self) -> usize {
        self.height.size * self.width.size
    }

    /// Places of the kernel in one image.
    pub fn places(&self) -> usize {
        self.height.places * self.width.places
    }

    /// Points of the kernel in one channel.
    pub fn taps(&self) -> usize {
        self.height.taps * self.width.taps
    }

    /// Numbers that one output is the sum of.
    pub fn depth(&self) -> usize {
        self.channels / self.groups * self.taps()
    }

    pub fn map_shape(&self) -> [usize; 4] {
        [self.images, self.channels, self.height.size, self.width.size]
    }

    pub fn output_shape(&self) -> [usize; 4] {
        [self.images, self.outputs, self.height.places, self.width.places]
    }

    pub fn kernel_shape(&self) -> [usize; 4] {
        let channels = self.channels / self.groups;
        [self.outputs, channels, self.height.taps, self.width.taps]
    }

    /// Whether each output is made from one channel.
    pub fn is_depthwise(&self) -> bool {
        self.channels == self.groups && self.groups > 1
    }

    /// Whether each output is made from one point of each channel, the output's own.
    pub fn is_pointwise(&self) -> bool {
        let own = |axis: Axis| axis.taps == 1 && axis.stride == 1 && axis.padding == 0 && axis.places == axis.size;
        self.groups == 1 && own(self.height) && own(self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_inside_where_it_has_a_point_under_it() {
        for (size, taps, stride, padding, dilation) in [
            (7, 3, 1, 1, 1),
            (7, 5, 2, 2, 1),
            (4, 3, 3, 0, 2),
            (2, 5, 1, 4, 1),
            (9, 2, 2, 3, 3),
        ] {
            let options = ConvolutionOptions {
                stride: [stride; 2],
                padding: [padding, padding, padding + 1, padding],
                dilation: [dilation; 2],
                groups: 1,
            };
            let axis = Geometry::new([1, 1, size, size], [1, 1, taps, taps], &options).height;
            for tap in 0..taps {
                let inside: Vec<usize> = (0..axis.places)
                    .filter(|place| axis.under(*place, tap).is_some())
                    .collect();
                assert_eq!(axis.inside(tap).collect::<Vec<_>>(), inside, "{axis:?} {tap}");
            }
        }
    }
}
