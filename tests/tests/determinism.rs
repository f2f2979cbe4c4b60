//! The same data, parameters and seed give the same model, whatever the number of threads.

use end_to_end::program::say_within;
use end_to_end::workshop::Workshop;

#[test]
fn split_c_and_bundle_do_not_depend_on_the_threads() {
    let workshop = Workshop::new(20);
    for (classifier, more) in [
        ("svm", &[][..]),
        ("svm", &["--quantize", "int8"]),
        ("dnn", &["--epochs", "3", "--trained", "all", "--device", "cpu"]),
        ("svm-refined", &["--epochs", "3", "--trained", "all", "--device", "cpu"]),
    ] {
        let mut first = None;
        for threads in ["1", "2", "3", "8"] {
            let run = format!("{classifier}-{}-{threads}", more.len());
            let mut train = workshop.train_by("convolutional.onnx", "data", &run);
            train
                .args(["--classifier", classifier, "--threads", threads, "--seed", "7"])
                .args(more)
                .env("RAYON_NUM_THREADS", threads)
                // Nothing is taken over from the run before.
                .env("IKAT_CACHE", workshop.path(&format!("cache-{run}")));
            let document = say_within(300, &train).ended_with(0).json();
            let file = |name: &str| std::fs::read(workshop.path(&run).join(name)).expect("a file");
            let found = (
                document["version"].clone(),
                document["metrics"]["chosen_c"].clone(),
                file("split.tsv"),
                file("predictions.csv"),
                file("bundle/model.onnx"),
            );
            let expected = first.get_or_insert_with(|| found.clone());
            assert!(found == *expected, "{run}: {} and {}", found.0, expected.0);
        }
    }
}
