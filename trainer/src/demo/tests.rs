use super::*;
use crate::progress::Silent;

fn encoded(class: DemoClass, index: u32, seed: u64) -> Vec<u8> {
    encode(
        &scene(class, index, seed, &Difficulty::default()),
        Path::new("test.jpg"),
    )
    .expect("encodable")
}

#[test]
fn a_picture_depends_on_seed_class_and_index_alone() {
    let picture = draw(DemoClass::Leopard, 4, 1);
    assert_eq!(picture.dimensions(), (WIDTH, HEIGHT));
    assert_eq!(picture, draw(DemoClass::Leopard, 4, 1));
    assert_ne!(picture, draw(DemoClass::Leopard, 5, 1));
    assert_ne!(picture, draw(DemoClass::Leopard, 4, 2));
    assert_ne!(picture, draw(DemoClass::Dotted, 4, 1));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let write = |threads: usize| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a thread pool");
        let paths = pool
            .install(|| generate(folder.path(), 2, 9, &Silent))
            .expect("generated");
        let files: Vec<(PathBuf, Vec<u8>)> = paths
            .into_iter()
            .map(|path| {
                let bytes = std::fs::read(&path).expect("readable");
                let name = path.strip_prefix(folder.path()).expect("inside").to_owned();
                (name, bytes)
            })
            .collect();
        files
    };
    let files = write(1);
    assert_eq!(files, write(3));
    let names: Vec<_> = files.iter().map(|(name, _)| name.to_string_lossy()).collect();
    assert_eq!(names[0], "dotted/dotted_000.jpg");
    assert_eq!(names[5], "striped/striped_001.jpg");
    assert!(names.is_sorted());
}

#[test]
fn an_interrupted_set_is_completed_and_what_is_there_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let paths = generate(folder.path(), 1, 3, &Silent).expect("generated");
    let written = std::fs::metadata(&paths[0])
        .expect("present")
        .modified()
        .expect("a time");
    std::fs::remove_file(&paths[1]).expect("removable");
    assert_eq!(generate(folder.path(), 1, 3, &Silent).expect("completed"), paths);
    assert!(paths[1].exists());
    let after = std::fs::metadata(&paths[0])
        .expect("present")
        .modified()
        .expect("a time");
    assert_eq!(written, after, "an intact file was written again");
}

#[test]
fn a_file_in_the_way_is_named_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("leopard/leopard_000.jpg");
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(&path, b"holiday").expect("written");
    let error = generate(folder.path(), 1, 3, &Silent).expect_err("must not overwrite");
    assert!(error.to_string().contains("leopard_000.jpg"), "{error}");
    assert_eq!(std::fs::read(&path).expect("readable"), b"holiday");
}

#[test]
fn absurd_numbers_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = generate(folder.path(), u32::MAX, 3, &Silent).expect_err("too many");
    assert!(matches!(error, DemoError::TooMany { .. }));
}

/// The drawn set is part of what the demo's numbers mean: a change has to be made on purpose.
#[test]
fn the_set_is_the_same_as_ever() {
    let hash = |class| shared::files::sha256_hex(&draw(class, 0, 1));
    let hashes = DemoClass::ALL.map(hash);
    assert_eq!(
        hashes,
        [
            "dc1e6412ef496a42df0dae2bde8d82ed79ef22fb1a34cc68304addc64e9044c5",
            "a81900cdae22b4cff31f8b27d89ab7da8a187d02ec6b829f2434f67207b53079",
            "b40e572bcf012b4fc71523bb698a1d37564a1f2db09d7140b679f918d246ceed",
        ]
    );
}

#[test]
fn pictures_are_of_the_size_of_ordinary_photographs() {
    for class in DemoClass::ALL {
        let size = encoded(class, 1, 1).len();
        assert!((4_000..150_000).contains(&size), "{} has {size} bytes", class.name());
    }
}
