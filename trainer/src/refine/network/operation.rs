//! The operators that can be refined, with their attributes read from the node.
//!
//! Meaning and defaults as in <https://github.com/onnx/onnx/blob/main/docs/Operators.md>, operator sets 7 to 22.

use super::{Each, GraphError, Pair};
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::{Constants, floats, integers, shape};

/// What an operator computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Two-dimensional convolution; inputs: map, kernel, and perhaps a bias.
    Convolution {
        /// Kernel positions.
        window: Window,
        /// Number of groups of channels.
        groups: usize,
    },
    /// Batch normalization; inputs: map, scale, shift, running mean, running variance.
    BatchNormalization {
        /// Added to the variance.
        epsilon: f32,
        /// Share of the old running statistic that is kept at each step.
        momentum: f32,
    },
    /// A function of each value by itself.
    Each(Each),
    /// A function of two values at the same place.
    Pair(Pair),
    /// Largest value under a window.
    MaxPool(Window),
    /// Mean under a window.
    AveragePool {
        /// Window positions.
        window: Window,
        /// Whether padding counts as zeros.
        include_padding: bool,
    },
    /// Mean over height and width.
    GlobalAveragePool {
        /// Whether height and width stay as dimensions of length 1.
        keep: bool,
    },
    /// A constant around the map: top, left, bottom, right.
    Pad([usize; 4], f32),
    /// One row per image.
    Flatten,
    /// A map of one cell per image.
    Cell,
    /// Matrix product with a parameter, `scale x (rows · matrix) + bias`.
    Linear {
        /// Whether the matrix is stored as `[outputs, inputs]`.
        transposed: bool,
        /// Factor of the product.
        scale: f32,
        /// Factor of the bias.
        bias_scale: f32,
    },
    /// Scales each row to Euclidean length 1.
    L2Normalization,
    /// Side by side along the channels.
    Concatenate,
    /// Sets a share of the values to zero while training.
    Dropout(f32),
    /// Nothing.
    Identity,
}

impl Operation {
    /// Whether it is a convolution or a linear layer.
    pub fn is_layer(&self) -> bool {
        matches!(self, Self::Convolution { .. } | Self::Linear { .. })
    }
}

/// How a kernel moves over a map: height first, then width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Size of the kernel; empty lists are not possible.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: [usize; 2],
    /// Distance between the kernel's points.
    pub dilation: [usize; 2],
    /// What surrounds the map.
    pub padding: Padding,
    /// Whether a last, incomplete position counts.
    pub ceil: bool,
}

/// What surrounds a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Top, left, bottom, right.
    Explicit([usize; 4]),
    /// As much as makes the output `ceil(input / stride)`; an odd rest goes to the end, or else to the beginning.
    Same {
        /// Whether the odd rest goes to the end.
        upper: bool,
    },
}

impl Padding {
    /// Top, left, bottom, right for a map of the given height and width.
    pub fn around(self, size: [usize; 2], window: &Window) -> [usize; 4] {
        match self {
            Self::Explicit(padding) => padding,
            Self::Same { upper } => {
                let mut padding = [0; 4];
                for axis in 0..2 {
                    let reach = window.reach(axis);
                    let positions = size[axis].div_ceil(window.stride[axis]);
                    let total = ((positions - 1) * window.stride[axis] + reach).saturating_sub(size[axis]);
                    let begin = if upper { total / 2 } else { total.div_ceil(2) };
                    padding[axis] = begin;
                    padding[axis + 2] = total - begin;
                }
                padding
            }
        }
    }
}

/// Where a window stands over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of positions, down and across.
    pub positions: [usize; 2],
    /// Top, left, bottom, right.
    pub padding: [usize; 4],
    /// How far the last positions reach beyond the padding, below and to the right.
    pub overhang: [usize; 2],
}

impl Window {
    /// Where the window stands over a map of the given height and width; `None` where it does not fit in once. As in
    /// PyTorch, no position begins beyond the map and the padding before it.
    pub fn layout(&self, size: [usize; 2]) -> Option<Layout> {
        let padding = self.padding.around(size, self);
        let mut layout = Layout {
            positions: [0; 2],
            padding,
            overhang: [0; 2],
        };
        for axis in 0..2 {
            let (stride, reach) = (self.stride[axis], self.reach(axis));
            let length = padding[axis] + size[axis] + padding[axis + 2];
            let room = length.checked_sub(reach)?;
            let mut steps = room / stride;
            if self.ceil && steps * stride < room && (steps + 1) * stride < size[axis] + padding[axis] {
                steps += 1;
            }
            layout.positions[axis] = steps + 1;
            layout.overhang[axis] = (steps * stride + reach).saturating_sub(length);
        }
        Some(layout)
    }

    /// Distance from the first to beyond the last point of the kernel.
    fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }
}

/// What people find a node by: its name or, where it has none, the name of what it makes.
pub(super) fn name(node: &NodeProto) -> String {
    let output = node.output.first().filter(|_| node.name.is_empty());
    output.unwrap_or(&node.name).clone()
}

/// What to do with a network that cannot be refined.
pub(super) const OTHERWISE: &str = "`--classifier svm` and `--trained head` can use this network all the same";

/// The error for a node in a form that is not known here.
pub(super) fn unknown_form(node: &NodeProto, reason: &str) -> GraphError {
    GraphError::Form {
        operator: node.op_type.clone(),
        node: name(node),
        reason: format!("{reason}; {OTHERWISE}"),
    }
}

/// Reads a node: its attributes and its constant inputs.
pub(super) struct Reader<'a> {
    pub node: &'a NodeProto,
    /// The constants of its graph.
    pub constants: &'a Constants<'a>,
}

impl Reader<'_> {
    /// The operation, and how many of the node's inputs it takes as values or parameters.
    pub fn operation(&self) -> Result<(Operation, usize), GraphError> {
        let all = self.node.input.len();
        Ok(match self.node.op_type.as_str() {
            "Conv" => {
                let kernel = self.kernel_of_weight()?;
                let groups = usize::try_from(self.node.int("group", 1)).unwrap_or(0);
                if groups == 0 {
                    return Err(self.form("no groups"));
                }
                let window = self.window(kernel)?;
                (Operation::Convolution { window, groups }, all)
            }
            "BatchNormalization" => {
                let epsilon = self.node.float("epsilon", 1e-5);
                let momentum = self.node.float("momentum", 0.9);
                (Operation::BatchNormalization { epsilon, momentum }, 5)
            }
            "Relu" => (Operation::Each(Each::Relu), 1),
            "LeakyRelu" => (Operation::Each(Each::LeakyRelu(self.node.float("alpha", 0.01))), 1),
            "Clip" => (Operation::Each(self.clip()?), 1),
            "Sigmoid" => (Operation::Each(Each::Sigmoid), 1),
            "HardSigmoid" => {
                let (alpha, beta) = (self.node.float("alpha", 0.2), self.node.float("beta", 0.5));
                (Operation::Each(Each::HardSigmoid(alpha, beta)), 1)
            }
            "HardSwish" => (Operation::Each(Each::HardSwish), 1),
            "Add" => (Operation::Pair(Pair::Add), 2),
            "Sub" => (Operation::Pair(Pair::Subtract), 2),
            "Mul" => (Operation::Pair(Pair::Multiply), 2),
            "Div" => (Operation::Pair(Pair::Divide), 2),
            "MaxPool" => (Operation::MaxPool(self.window(self.kernel()?)?), 1),
            "AveragePool" => {
                let window = self.window(self.kernel()?)?;
                let include_padding = self.node.int("count_include_pad", 0) != 0;
                (
                    Operation::AveragePool {
                        window,
                        include_padding,
                    },
                    1,
                )
            }
            "GlobalAveragePool" => (Operation::GlobalAveragePool { keep: true }, 1),
            "ReduceMean" => (self.reduce_mean()?, 1),
            "Pad" => (self.pad()?, 1),
            "Flatten" => match self.node.int("axis", 1) {
                1 => (Operation::Flatten, 1),
                axis => return Err(self.form(&format!("axis {axis}; 1 is expected"))),
            },
            "Reshape" => (self.reshape()?, 1),
            "Squeeze" => (Operation::Flatten, 1),
            "Gemm" => {
                if self.node.int("transA", 0) != 0 {
                    return Err(self.form("transA"));
                }
                let transposed = self.node.int("transB", 0) != 0;
                let (scale, bias_scale) = (self.node.float("alpha", 1.0), self.node.float("beta", 1.0));
                let linear = Operation::Linear {
                    transposed,
                    scale,
                    bias_scale,
                };
                (linear, all)
            }
            "MatMul" => {
                let linear = Operation::Linear {
                    transposed: false,
                    scale: 1.0,
                    bias_scale: 1.0,
                };
                (linear, 2)
            }
            "LpNormalization" => match (self.node.int("p", 2), self.node.int("axis", -1)) {
                (2, 1 | -1) => (Operation::L2Normalization, 1),
                _ => return Err(self.form("a norm other than the Euclidean one of each row")),
            },
            "Concat" => match self.node.int("axis", 0) {
                1 | -3 => (Operation::Concatenate, all),
                axis => return Err(self.form(&format!("axis {axis}; 1 is expected"))),
            },
            "Dropout" => (self.dropout(), 1),
            "Identity" => (Operation::Identity, 1),
            other => {
                return Err(GraphError::Operator {
                    operator: other.to_owned(),
                    node: name(self.node),
                });
            }
        })
    }

    fn form(&self, reason: &str) -> GraphError {
        unknown_form(self.node, reason)
    }

    /// A list of lengths: as many as `N`, or `default` where there is none.
    fn lengths<const N: usize>(&self, name: &str, default: usize) -> Result<[usize; N], GraphError> {
        let Some(attribute) = self.node.attribute(name) else {
            return Ok([default; N]);
        };
        let lengths: Option<Vec<usize>> = attribute
            .ints
            .iter()
            .map(|value| usize::try_from(*value).ok())
            .collect();
        lengths
            .and_then(|lengths| lengths.try_into().ok())
            .ok_or_else(|| self.form(&format!("{name} {:?}; {N} lengths are expected", attribute.ints)))
    }

    /// The constant behind an input, which must not depend on the images.
    fn constant<T>(
        &self,
        input: usize,
        read: impl FnOnce(&TensorProto) -> Option<Vec<T>>,
    ) -> Result<Option<Vec<T>>, GraphError> {
        match self.node.input.get(input).filter(|name| !name.is_empty()) {
            None => Ok(None),
            Some(name) => match self.constants.get(name).and_then(read) {
                Some(values) => Ok(Some(values)),
                None => Err(self.form(&format!("its input {name} is computed; a constant is expected"))),
            },
        }
    }

    /// A number that is an input or, in earlier operator sets, an attribute.
    fn number(&self, input: usize, attribute: &str, default: f32) -> Result<f32, GraphError> {
        let given = self.constant(input, |tensor| floats(tensor).ok())?;
        let given = given.and_then(|values| values.first().copied());
        Ok(given.unwrap_or_else(|| self.node.float(attribute, default)))
    }

    /// Integers that are an input or, in earlier operator sets, an attribute.
    fn list(&self, input: usize, attribute: &str) -> Result<Vec<i64>, GraphError> {
        let given = self.constant(input, integers)?;
        let earlier = || self.node.attribute(attribute).map(|list| list.ints.clone());
        Ok(given.or_else(earlier).unwrap_or_default())
    }

    fn kernel_of_weight(&self) -> Result<[usize; 2], GraphError> {
        let weight = self.node.input.get(1).and_then(|name| self.constants.get(name));
        let shape = weight.and_then(|weight| shape(weight).ok());
        match shape.as_deref() {
            Some([_, _, height, width]) => Ok([*height, *width]),
            Some(shape) => Err(self.form(&format!("a kernel of shape {shape:?}; four dimensions are expected"))),
            None => Err(self.form("its kernel is computed; a constant is expected")),
        }
    }

    fn kernel(&self) -> Result<[usize; 2], GraphError> {
        let kernel = self.lengths("kernel_shape", 0)?;
        if kernel.contains(&0) {
            return Err(self.form("it has no kernel_shape"));
        }
        Ok(kernel)
    }

    fn window(&self, kernel: [usize; 2]) -> Result<Window, GraphError> {
        let auto = self.node.attribute("auto_pad").map_or("NOTSET", |attribute| {
            std::str::from_utf8(&attribute.s).unwrap_or("NOTSET")
        });
        let padding = match auto {
            "SAME_UPPER" => Padding::Same { upper: true },
            "SAME_LOWER" => Padding::Same { upper: false },
            "VALID" => Padding::Explicit([0; 4]),
            _ => Padding::Explicit(self.lengths("pads", 0)?),
        };
        let stride: [usize; 2] = self.lengths("strides", 1)?;
        let dilation: [usize; 2] = self.lengths("dilations", 1)?;
        for (name, lengths) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if lengths.contains(&0) {
                return Err(self.form(&format!("a {name} of zero")));
            }
        }
        Ok(Window {
            kernel,
            stride,
            dilation,
            padding,
            ceil: self.node.int("ceil_mode", 0) != 0,
        })
    }

    fn clip(&self) -> Result<Each, GraphError> {
        Ok(Each::Clip(
            self.number(1, "min", f32::NEG_INFINITY)?,
            self.number(2, "max", f32::INFINITY)?,
        ))
    }

    fn reduce_mean(&self) -> Result<Operation, GraphError> {
        let mut axes = self.list(1, "axes")?;
        for axis in &mut axes {
            if *axis < 0 {
                *axis += 4;
            }
        }
        axes.sort_unstable();
        if axes != [2, 3] {
            return Err(self.form(&format!("axes {axes:?}; height and width are expected")));
        }
        Ok(Operation::GlobalAveragePool {
            keep: self.node.int("keepdims", 1) != 0,
        })
    }

    fn pad(&self) -> Result<Operation, GraphError> {
        let mode = self.node.attribute("mode").map(|mode| mode.s.as_slice());
        if mode.is_some_and(|mode| mode != b"constant") {
            return Err(self.form("it pads with something else than a constant"));
        }
        let pads = self.list(1, "pads")?;
        let value = self.number(2, "value", 0.0)?;
        let lengths: Vec<usize> = pads.iter().filter_map(|pad| usize::try_from(*pad).ok()).collect();
        match lengths[..] {
            [0, 0, top, left, 0, 0, bottom, right] => Ok(Operation::Pad([top, left, bottom, right], value)),
            _ => Err(self.form(&format!("pads {pads:?}; height and width of [N, C, H, W] are expected"))),
        }
    }

    /// A reshape is understood where it makes one row per image, or one cell as squeeze-and-excitation does.
    fn reshape(&self) -> Result<Operation, GraphError> {
        let shape = self.constant(1, integers)?.unwrap_or_default();
        match shape[..] {
            [_, _] => Ok(Operation::Flatten),
            [_, _, 1, 1] => Ok(Operation::Cell),
            _ => Err(self.form(&format!(
                "the shape {shape:?}; one row or one cell per image is expected"
            ))),
        }
    }

    fn dropout(&self) -> Operation {
        let ratio = self.node.input.get(1).and_then(|name| self.constants.floats(name));
        let ratio = ratio.and_then(|values| values.first().copied());
        Operation::Dropout(ratio.unwrap_or_else(|| self.node.float("ratio", 0.5)))
    }
}
