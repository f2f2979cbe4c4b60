//! Global average pooling. The processor backend's gradient is one number for many points, which it then takes one at a
//! time to where each is to lie.

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::Flex;
use burn_tensor::backend::Backend;
use burn_tensor::{Tensor, TensorPrimitive};

use super::{Numbers, tensor};

/// See [`super::Layers::average`].
pub(super) fn by_backend<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 2> {
    let [images, channels, height, width] = map.dims();
    let means = map.reshape([images, channels, height * width]).mean_dim(2);
    means.reshape([images, channels])
}

/// The same with its way back on a processor.
pub(super) fn differentiated(map: Tensor<Autodiff<Flex>, 4>) -> Tensor<Autodiff<Flex>, 2> {
    let shape = map.dims();
    let output = by_backend(map.clone().inner()).into_primitive().tensor();
    let map = map.into_primitive().tensor();
    let node = Average.prepare::<NoCheckpointing>([map.node]).compute_bound();
    let tracked = match node.stateful() {
        OpsKind::Tracked(node) => node.finish(shape, output),
        OpsKind::UnTracked(node) => node.finish(output),
    };
    Tensor::from_primitive(TensorPrimitive::Float(tracked))
}

#[derive(Debug)]
struct Average;

impl Backward<Flex, 1> for Average {
    type State = [usize; 4];

    fn backward(self, ops: Ops<[usize; 4], 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let shape @ [_, _, height, width] = ops.state;
        let points = height * width;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            let means = Numbers::from(gradient);
            let of_points = means.iter().map(|gradient| gradient / points as f32);
            let of_map = of_points.flat_map(|gradient| std::iter::repeat_n(gradient, points));
            tensor(of_map.collect(), shape).into_primitive().tensor()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layers, numbers};
    use super::*;

    type Learning = Autodiff<Flex>;

    #[test]
    fn every_point_has_its_share_of_the_gradient() {
        let map = Tensor::<Learning, 4>::from_inner(tensor((0..24).map(|value| value as f32).collect(), [2, 2, 3, 2]));
        let map = map.require_grad();
        let means = Learning::average(map.clone());
        let slope = Tensor::from_inner(tensor(vec![6.0, 12.0, 18.0, 24.0], [2, 2]));
        let gradients = (means.clone() * slope).sum().backward();
        assert_eq!(*numbers(&means.inner()), [2.5, 8.5, 14.5, 20.5]);
        let expected: Vec<f32> = (0..24).map(|point| (1 + point / 6) as f32).collect();
        assert_eq!(*numbers(&map.grad(&gradients).unwrap()), expected[..]);
    }
}
