use burn_flex::FlexDevice;
use burn_tensor::Distribution;

use super::super::Layers;
use super::*;

type Learning = Autodiff<Flex>;

/// Images, channels, height, width, outputs, kernel, stride, padding, dilation, groups.
const SHAPES: [[usize; 10]; 23] = [
    [2, 3, 9, 7, 4, 3, 1, 1, 1, 1],
    [3, 4, 8, 8, 6, 3, 2, 1, 1, 1],
    [1, 3, 23, 19, 5, 7, 2, 3, 1, 1],
    [2, 4, 9, 9, 4, 3, 1, 2, 2, 1],
    [2, 6, 7, 7, 4, 3, 1, 1, 1, 2],
    [2, 5, 6, 4, 3, 1, 1, 0, 1, 1],
    [2, 5, 7, 5, 3, 1, 2, 0, 1, 1],
    [2, 4, 6, 6, 6, 1, 1, 0, 1, 2],
    [3, 5, 16, 17, 4, 1, 1, 0, 1, 1],
    [3, 5, 7, 7, 5, 3, 1, 1, 1, 5],
    [2, 5, 14, 14, 5, 5, 2, 2, 1, 5],
    [2, 4, 9, 11, 8, 3, 2, 0, 1, 4],
    [2, 3, 12, 12, 3, 3, 1, 2, 2, 3],
    [2, 4, 2, 3, 4, 3, 2, 1, 1, 4],
    [1, 2, 1, 1, 2, 5, 1, 2, 1, 2],
    // More lines than are unfolded at once: tiles of several images, and of parts of them.
    [9, 128, 12, 12, 2, 3, 1, 1, 1, 1],
    [2, 64, 40, 64, 3, 3, 1, 1, 1, 1],
    // In tiles, with and without padding, to even and uneven sizes, in one block and in several.
    [2, 16, 13, 11, 17, 3, 1, 1, 1, 1],
    [3, 17, 14, 16, 16, 3, 1, 0, 1, 1],
    [2, 16, 11, 12, 16, 3, 1, 2, 1, 1],
    [1, 16, 9, 9, 16, 3, 1, 3, 1, 1],
    [1, 16, 3, 80, 16, 3, 1, 1, 1, 1],
    [5, 16, 12, 12, 16, 3, 1, 1, 1, 1],
];

fn random(shape: [usize; 4]) -> Tensor<Flex, 4> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &FlexDevice)
}

/// The convolution by `convolve`, and the gradients of its map and kernel where the output's is `slope`.
fn learned(
    convolve: impl Fn(Tensor<Learning, 4>, Tensor<Learning, 4>) -> Tensor<Learning, 4>,
    [map, kernel]: [&Tensor<Flex, 4>; 2],
    slope: &Tensor<Flex, 4>,
) -> [Vec<f32>; 3] {
    let map = Tensor::from_inner(map.clone()).require_grad();
    let kernel = Tensor::from_inner(kernel.clone()).require_grad();
    let output = convolve(map.clone(), kernel.clone());
    let gradients = (output.clone() * Tensor::from_inner(slope.clone())).sum().backward();
    let gradient = |of: &Tensor<Learning, 4>| numbers(&of.grad(&gradients).unwrap()).to_vec();
    [numbers(&output.inner()).to_vec(), gradient(&map), gradient(&kernel)]
}

#[test]
fn convolutions_and_their_gradients_are_those_of_the_backend() {
    for [
        images,
        channels,
        height,
        width,
        outputs,
        kernel,
        stride,
        padding,
        dilation,
        groups,
    ] in SHAPES
    {
        for after in [padding, padding + 1] {
            let options = ConvolutionOptions {
                stride: [stride; 2],
                padding: [padding, padding, padding, after],
                dilation: [dilation; 2],
                groups,
            };
            let map = random([images, channels, height, width]);
            let kernel = random([outputs, channels / groups, kernel, kernel]);
            let shape = by_backend(map.clone(), kernel.clone(), &options).dims();
            let slope = random(shape);
            let ours = learned(
                |map, kernel| Learning::convolve(map, kernel, options),
                [&map, &kernel],
                &slope,
            );
            let theirs = learned(|map, kernel| by_backend(map, kernel, &options), [&map, &kernel], &slope);
            for (what, (ours, theirs)) in ["output", "map", "kernel"].iter().zip(ours.iter().zip(&theirs)) {
                assert_eq!(ours.len(), theirs.len());
                let largest = theirs.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
                for (ours, theirs) in ours.iter().zip(theirs) {
                    assert!(
                        (ours - theirs).abs() < 2e-5 * largest,
                        "{what}: {ours} {theirs} {map:?} {kernel:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn only_what_is_asked_for_is_differentiated() {
    let options = ConvolutionOptions {
        stride: [1, 1],
        padding: [1; 4],
        dilation: [1, 1],
        groups: 1,
    };
    let map = Tensor::<Learning, 4>::from_inner(random([2, 3, 5, 5]));
    let kernel = Tensor::<Learning, 4>::from_inner(random([4, 3, 3, 3]));
    let asked = kernel.clone().require_grad();
    let gradients = Learning::convolve(map.clone(), asked.clone(), options).sum().backward();
    assert!(asked.grad(&gradients).is_some() && map.grad(&gradients).is_none());
    let asked = map.require_grad();
    let gradients = Learning::convolve(asked.clone(), kernel.clone(), options)
        .sum()
        .backward();
    assert!(asked.grad(&gradients).is_some() && kernel.grad(&gradients).is_none());
}

#[test]
fn sums_do_not_depend_on_the_number_of_threads() {
    let computed = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            [(3, 1, 1), (3, 2, 1), (3, 1, 48), (1, 1, 1)].map(|(taps, stride, groups)| {
                let wave = |shape: [usize; 4]| {
                    let count = shape.iter().product();
                    tensor((0..count).map(|i: usize| (i as f32 * 0.37).sin()).collect(), shape)
                };
                let options = ConvolutionOptions {
                    stride: [stride; 2],
                    padding: [taps / 2; 4],
                    dilation: [1, 1],
                    groups,
                };
                let map = wave([6, 48, 30, 30]);
                let kernel = wave([48, 48 / groups, taps, taps]);
                let slope = wave([6, 48, 30 / stride, 30 / stride]);
                learned(
                    |map, kernel| Learning::convolve(map, kernel, options),
                    [&map, &kernel],
                    &slope,
                )
            })
        })
    };
    assert_eq!(computed(1), computed(3));
}
