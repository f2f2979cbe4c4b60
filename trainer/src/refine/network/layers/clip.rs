//! Rectifiers: what is beyond a limit is at the limit.

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::{Flex, FlexTensor};
use burn_tensor::activation::relu;
use burn_tensor::backend::Backend;
use burn_tensor::{Tensor, TensorPrimitive};
use rayon::prelude::*;

use super::{NUMBERS_A_THREAD, Numbers, wrapped};

/// See [`super::Layers::clip`].
pub(super) fn by_backend<B: Backend, const D: usize>(values: Tensor<B, D>, low: f32, high: f32) -> Tensor<B, D> {
    if low == 0.0 && high == f32::INFINITY {
        relu(values)
    } else {
        values.clamp(low, high)
    }
}

/// The same on a processor.
pub(super) fn computed<const D: usize>(values: Tensor<Flex, D>, low: f32, high: f32) -> Tensor<Flex, D> {
    wrapped(clipped(values.into_primitive().tensor(), low, high))
}

/// The same, with its way back.
pub(super) fn differentiated<const D: usize>(
    values: Tensor<Autodiff<Flex>, D>,
    low: f32,
    high: f32,
) -> Tensor<Autodiff<Flex>, D> {
    let values = values.into_primitive().tensor();
    let node = Clip.prepare::<NoCheckpointing>([values.node.clone()]).compute_bound();
    let output = clipped(values.primitive, low, high);
    let tracked = match node.stateful() {
        OpsKind::Tracked(node) => {
            let kept = State {
                output: output.clone(),
                low,
                high,
            };
            node.finish(kept, output)
        }
        OpsKind::UnTracked(node) => node.finish(output),
    };
    Tensor::from_primitive(TensorPrimitive::Float(tracked))
}

#[derive(Debug)]
struct Clip;

/// What the gradient is made of. The output is kept, and not the input, since the next layer keeps it too.
#[derive(Debug, Clone)]
struct State {
    output: FlexTensor,
    low: f32,
    high: f32,
}

impl Backward<Flex, 1> for Clip {
    type State = State;

    fn backward(self, ops: Ops<State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let State { output, low, high } = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            let (mut gradient, output) = (Numbers::from(gradient), Numbers::from(output));
            let pieces = gradient.par_chunks_mut(NUMBERS_A_THREAD);
            let pieces = pieces.zip(output.par_chunks(NUMBERS_A_THREAD));
            pieces.for_each(|(gradient, output)| {
                for (gradient, output) in gradient.iter_mut().zip(output) {
                    let inside = low < *output && *output < high;
                    *gradient = if inside { *gradient } else { 0.0 };
                }
            });
            gradient.0
        });
    }
}

fn clipped(values: FlexTensor, low: f32, high: f32) -> FlexTensor {
    let mut values = Numbers::from(values);
    values.par_chunks_mut(NUMBERS_A_THREAD).for_each(|values| {
        for value in values {
            // What is no number stays so, and is told of.
            let above = if *value < low { low } else { *value };
            *value = if above > high { high } else { above };
        }
    });
    values.0
}

#[cfg(test)]
mod tests {
    use super::super::{Layers, numbers, tensor};
    use super::*;

    type Learning = Autodiff<Flex>;

    #[test]
    fn only_what_is_within_the_limits_has_a_gradient() {
        for (low, high, values, slopes) in [
            (0.0, 6.0, [0.0, 0.0, 0.5, 6.0, 6.0], [0.0, 0.0, 3.0, 0.0, 0.0]),
            (0.0, f32::INFINITY, [0.0, 0.0, 0.5, 6.0, 7.0], [0.0, 0.0, 3.0, 4.0, 5.0]),
            // As the standard of ONNX has it.
            (1.0, -1.0, [-1.0; 5], [0.0; 5]),
        ] {
            let given = Tensor::<Learning, 1>::from_inner(tensor(vec![-1.0, 0.0, 0.5, 6.0, 7.0], [5])).require_grad();
            let clipped = Learning::clip(given.clone(), low, high);
            let slope = Tensor::from_inner(tensor(vec![1.0, 2.0, 3.0, 4.0, 5.0], [5]));
            let gradients = (clipped.clone() * slope).sum().backward();
            assert_eq!(*numbers(&clipped.inner()), values);
            assert_eq!(*numbers(&given.grad(&gradients).unwrap()), slopes);
            // What was given is as it was: its tensor is another's, too.
            assert_eq!(*numbers(&given.inner()), [-1.0, 0.0, 0.5, 6.0, 7.0]);
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let clipped = Flex::clip(tensor(vec![f32::NAN, f32::NEG_INFINITY], [2]), 0.0, 6.0);
        assert!(numbers(&clipped)[0].is_nan());
        assert_eq!(numbers(&clipped)[1].to_bits(), 0.0_f32.to_bits());
    }
}
