//! One network for many threads: what they ask for at the same time is computed as one batch.
//!
//! A graphics card is fast on many images at once, while each thread has but one. Batches always have the same size,
//! filled up with empty images where fewer threads wait: a card's library chooses its algorithms by the shape, and so
//! the vector of an image does not depend on what else happened to be asked for.

use std::iter::once;
use std::sync::mpsc::{Receiver, Sender, channel};

use shared::network::{Activations, Network, NetworkError, Outputs, Tensor};

/// A network that runs on a thread of its own; each thread that asks it has a clone. It ends with the last of them.
#[derive(Clone)]
pub struct SharedNetwork {
    requests: Sender<Request>,
}

/// An image and where its vector is waited for.
struct Request {
    image: Tensor,
    outputs: Outputs,
    answer: Sender<Result<Activations, NetworkError>>,
}

impl SharedNetwork {
    /// Runs `network` on batches of `size` images.
    ///
    /// # Errors
    /// [`NetworkError::Run`] where the system has no thread left.
    pub fn new(network: Box<dyn Network>, size: usize) -> Result<Self, NetworkError> {
        let (requests, waiting) = channel();
        std::thread::Builder::new()
            .name("shared network".to_owned())
            .spawn(move || serve(network, &waiting, size.max(1)))
            .map_err(|error| NetworkError::Run(error.to_string()))?;
        Ok(Self { requests })
    }
}

impl Network for SharedNetwork {
    /// Runs a single image; several are run one after the other.
    fn run(&mut self, images: &Tensor, outputs: Outputs) -> Result<Activations, NetworkError> {
        let gone = || NetworkError::Run("its thread has ended".to_owned());
        let [count, channels, height, width] = images.shape();
        let mut answers = Vec::with_capacity(count);
        for image in images.data().chunks_exact((images.data().len() / count.max(1)).max(1)) {
            let (answer, answered) = channel();
            let request = Request {
                image: Tensor::new([1, channels, height, width], image.to_vec()),
                outputs,
                answer,
            };
            self.requests.send(request).map_err(|_| gone())?;
            answers.push(answered.recv().map_err(|_| gone())??);
        }
        joined(answers).ok_or_else(|| NetworkError::Run("it was given no image".to_owned()))
    }
}

/// Answers requests until nobody is left who could send one.
fn serve(mut network: Box<dyn Network>, waiting: &Receiver<Request>, size: usize) {
    while let Ok(first) = waiting.recv() {
        let batch: Vec<Request> = once(first).chain(waiting.try_iter()).take(size).collect();
        let answers = match together(network.as_mut(), &batch, size) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            // One image may be at fault for all.
            Err(_) if batch.len() > 1 => batch.iter().map(|one| alone(network.as_mut(), one, size)).collect(),
            Err(error) => vec![Err(error)],
        };
        for (request, answer) in batch.into_iter().zip(answers) {
            // Whoever asked may have given up.
            let _ = request.answer.send(answer);
        }
    }
}

fn alone(network: &mut dyn Network, request: &Request, size: usize) -> Result<Activations, NetworkError> {
    let mut answers = together(network, std::slice::from_ref(request), size)?;
    Ok(answers.swap_remove(0))
}

/// What the network says of each image of a batch that is filled up to `size`.
fn together(network: &mut dyn Network, batch: &[Request], size: usize) -> Result<Vec<Activations>, NetworkError> {
    let [_, channels, height, width] = batch[0].image.shape();
    if batch
        .iter()
        .any(|request| request.image.shape() != batch[0].image.shape())
    {
        return Err(NetworkError::Run("images of different sizes make no batch".to_owned()));
    }
    let mut data = Vec::with_capacity(size * channels * height * width);
    for request in batch {
        data.extend_from_slice(request.image.data());
    }
    data.resize(size * channels * height * width, 0.0);
    let wanted = |request: &Request| request.outputs == Outputs::VectorsAndMap;
    let outputs = if batch.iter().any(wanted) {
        Outputs::VectorsAndMap
    } else {
        Outputs::Vectors
    };
    let activations = network.run(&Tensor::new([size, channels, height, width], data), outputs)?;
    let answer = |(index, request): (usize, &Request)| {
        let vector = index * activations.size..(index + 1) * activations.size;
        Activations {
            vectors: activations.vectors[vector].to_vec(),
            size: activations.size,
            map: activations
                .map
                .as_ref()
                .filter(|_| wanted(request))
                .map(|map| one_of(map, index)),
        }
    };
    Ok(batch.iter().enumerate().map(answer).collect())
}

/// The map of one image.
fn one_of(maps: &Tensor, index: usize) -> Tensor {
    let [count, channels, height, width] = maps.shape();
    let length = maps.data().len() / count;
    let values = maps.data()[index * length..(index + 1) * length].to_vec();
    Tensor::new([1, channels, height, width], values)
}

/// Answers to single images as one answer; `None` where there are none.
fn joined(answers: Vec<Activations>) -> Option<Activations> {
    let mut answers = answers.into_iter();
    let mut all = answers.next()?;
    for answer in answers {
        all.vectors.extend(answer.vectors);
        all.map = all.map.zip(answer.map).map(|(all, one)| {
            let [count, channels, height, width] = all.shape();
            let values = [all.data(), one.data()].concat();
            Tensor::new([count + 1, channels, height, width], values)
        });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Gives each image's sum; its map is the image. Fails like a real one where a value is not finite, and where the
    /// batch has another size than it should.
    struct Sum {
        size: usize,
    }

    impl Network for Sum {
        fn run(&mut self, images: &Tensor, outputs: Outputs) -> Result<Activations, NetworkError> {
            assert_eq!(images.shape()[0], self.size);
            let length = images.data().len() / self.size;
            let vectors: Vec<f32> = images.data().chunks(length).map(|image| image.iter().sum()).collect();
            if vectors.iter().any(|value| !value.is_finite()) {
                return Err(NetworkError::NotFinite);
            }
            Ok(Activations {
                vectors,
                size: 1,
                map: (outputs == Outputs::VectorsAndMap).then(|| images.clone()),
            })
        }
    }

    fn image(value: f32) -> Tensor {
        Tensor::new([1, 1, 2, 2], vec![value, 1.0, 2.0, 3.0])
    }

    #[test]
    fn each_thread_gets_the_vector_of_its_own_image() {
        let shared = SharedNetwork::new(Box::new(Sum { size: 4 }), 4).expect("a thread");
        let wrong = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..16_u16 {
                let (mut network, wrong) = (shared.clone(), &wrong);
                scope.spawn(move || {
                    for number in 0..50_u16 {
                        let value = f32::from(thread * 100 + number);
                        let answer = network.run(&image(value), Outputs::Vectors).expect("a vector");
                        if answer.vectors != [value + 6.0] || answer.map.is_some() {
                            wrong.lock().expect("no panic").push(answer);
                        }
                    }
                });
            }
        });
        assert_eq!(wrong.into_inner().expect("no panic"), []);
    }

    #[test]
    fn an_image_at_fault_fails_alone() {
        let (answers, waiting) = channel();
        let (requests, served) = channel();
        let mut answered = Vec::new();
        for value in [1.0, f32::NAN, 3.0] {
            let (answer, receiver) = channel();
            answered.push(receiver);
            let request = Request {
                image: image(value),
                outputs: Outputs::Vectors,
                answer,
            };
            requests.send(request).expect("listened to");
        }
        drop(requests);
        std::thread::spawn(move || {
            serve(Box::new(Sum { size: 8 }), &served, 8);
            answers.send(()).expect("waited for");
        });
        waiting.recv().expect("ended with the last sender");
        let vectors: Vec<_> = answered.iter().map(|answer| answer.recv().expect("answered")).collect();
        assert_eq!(vectors[0].as_ref().expect("good").vectors, [7.0]);
        assert!(matches!(vectors[1], Err(NetworkError::NotFinite)));
        assert_eq!(vectors[2].as_ref().expect("good").vectors, [9.0]);
    }

    #[test]
    fn several_images_at_once_give_their_vectors_and_maps_in_order() {
        let mut shared = SharedNetwork::new(Box::new(Sum { size: 2 }), 2).expect("a thread");
        let images = Tensor::new(
            [3, 1, 2, 2],
            [image(1.0), image(2.0), image(3.0)]
                .map(|one| one.data().to_vec())
                .concat(),
        );
        let answer = shared.run(&images, Outputs::VectorsAndMap).expect("vectors");
        assert_eq!(answer.vectors, [7.0, 8.0, 9.0]);
        assert_eq!(answer.map, Some(images));
    }
}
