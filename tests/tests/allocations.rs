//! What the hot paths take of memory: counts that do not depend on how fast or busy the machine is, so that a step that
//! begins to copy, or to decode what nobody needs, is noticed at once. Bounds stand a quarter above what was measured.

use allocation_counter::{AllocationInfo, measure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use end_to_end::bundles::{noise, service};
use end_to_end::encoded;
use ndarray::Array2;
use shared::image::Limits;
use shared::service::Request;
use trainer::progress::Silent;
use trainer::svm::{Input, Parameters, train};

/// A request that carries a JPEG with enough detail to weigh what a photo does.
fn request(width: u32, height: u32) -> Request {
    let patches = noise(7, 64 * 64);
    let pixels = image::RgbImage::from_fn(width, height, |x, y| {
        let patch = patches[(y as usize / 8 % 64) * 64 + x as usize / 8 % 64];
        image::Rgb([patch, patch / 2, 255 - patch])
    });
    let body = serde_json::json!({ "image": STANDARD.encode(encoded(pixels, image::ImageFormat::Jpeg)) });
    Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        content_type: Some("application/json".to_owned()),
        body: Bytes::from(body.to_string()),
    }
}

/// What a warm request allocates, and the bytes of its body.
fn of_request(width: u32, height: u32) -> (AllocationInfo, u64) {
    let service = service(Limits::default(), 224);
    let request = request(width, height);
    assert_eq!(service.answer(&request).status, 200);
    (measure(|| drop(service.answer(&request))), request.body.len() as u64)
}

#[track_caller]
fn at_most(what: &str, found: u64, bound: u64) {
    assert!(found <= bound, "{what}: {found}, more than {bound}");
}

#[test]
fn a_warm_request() {
    let (found, body) = of_request(640, 480);
    println!("{found:?} for a body of {body} bytes");
    at_most("allocations", found.count_total, 550);
    at_most("bytes in all", found.bytes_total, 2_700_000);
    at_most("bytes at once", found.bytes_max, 2_100_000);
    assert_eq!(found.bytes_current, 0, "what a request takes it gives back");
}

/// In all, and not at once: what the decoder hands to other threads, coefficients for every pixel, is given back there.
#[test]
fn a_large_photo_is_read_at_a_reduced_size() {
    let (found, body) = of_request(4000, 3000);
    println!("{found:?} for a body of {body} bytes");
    at_most("bytes in all", found.bytes_total, 97_000_000);
}

#[test]
fn the_choice_of_c() {
    let (rows, features, classes) = (400, 1280, 4);
    let values = noise(3, rows * features)
        .into_iter()
        .map(|value| f32::from(value) / 4096.0);
    let labels: Vec<usize> = (0..rows).map(|row| row % classes).collect();
    let mut matrix = Array2::from_shape_vec((rows, features), values.collect()).expect("as many as said");
    for (row, label) in labels.iter().enumerate() {
        matrix[[row, *label]] += 1.0;
    }
    let groups: Vec<usize> = (0..rows).collect();
    let parameters = Parameters::default();
    let input = Input {
        features: matrix.view(),
        labels: &labels,
        groups: &groups,
        classes,
    };
    // All on the thread that counts.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    let found = pool.install(|| measure(|| drop(train(&input, &parameters, &Silent).expect("trained"))));
    let input = (rows * features * size_of::<f32>()) as u64;
    println!("{found:?} for features of {input} bytes");
    at_most("allocations", found.count_total, 3_800);
    at_most("bytes at once", found.bytes_max, 2_000_000);
}
