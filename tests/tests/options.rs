//! What the trainer makes of its options and its standard streams.

use end_to_end::workshop::Workshop;

#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_is_full_hinders_no_work_and_changes_no_exit_code() {
    let workshop = Workshop::new(8);
    let mut train = workshop.train("data", "run");
    let mut score = workshop.trainer(&["score", "--bundle", "nowhere", "photo.png"]);
    for (command, code) in [(&mut train, 0), (&mut score, 1)] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let status = command
            .stdout(std::process::Stdio::null())
            .stderr(full.expect("a device that is full"))
            .status()
            .expect("starts");
        assert_eq!(status.code(), Some(code), "{command:?}");
    }
    assert!(workshop.path("run/run.json").is_file());
}
