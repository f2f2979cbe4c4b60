//! Trains on raw features for `tests/reference/svm_compare.py`, which compares with scikit-learn.
//!
//! `svm_compare FOLDER sweep|fit C`: reads `features.f32` (row-major, little-endian), `labels.u32` and
//! `groups.u32` of FOLDER and prints one JSON document; `threads` are set by `RAYON_NUM_THREADS`.

use std::path::Path;
use std::time::Instant;

use linfa::DatasetBase;
use linfa::traits::Fit;
use ndarray::{Array1, Array2};
use trainer::progress::Silent;
use trainer::svm::{Input, LinearSvm, Parameters, Solver, train};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, command, rest @ ..] = arguments.as_slice() else {
        return Err("usage: svm_compare FOLDER sweep | fit C [TOLERANCE] [SOLVER]".into());
    };
    let folder = Path::new(folder);
    let labels = integers(&folder.join("labels.u32"))?;
    let groups = integers(&folder.join("groups.u32"))?;
    let values: Vec<f32> = std::fs::read(folder.join("features.f32"))?
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    let columns = values.len() / labels.len().max(1);
    let features = Array2::from_shape_vec((labels.len(), columns), values)?;
    let mut parameters = Parameters::default();
    if let Some(tolerance) = rest.get(1) {
        // The tolerance alone is to end the search.
        parameters.tolerance = tolerance.parse()?;
        parameters.max_passes = 1_000_000;
    }
    if rest.get(2).is_some_and(|solver| solver == Solver::Smo.name()) {
        parameters.solver = Solver::Smo;
    }

    let begin = Instant::now();
    let answer = if command == "sweep" {
        let input = Input {
            features: features.view(),
            labels: &labels,
            groups: &groups,
            classes: labels.iter().max().map_or(0, |largest| largest + 1),
        };
        let trained = train(&input, &parameters, &Silent)?;
        serde_json::json!({
            "classifier": trained.classifier,
            "sweep": trained.sweep.entries,
            "chosen_c": trained.sweep.chosen_c,
            "out_of_fold_rows": trained.sweep.out_of_fold_rows,
            "out_of_fold_margins": trained.sweep.out_of_fold_margins.rows().into_iter()
                .map(|row| row.to_vec()).collect::<Vec<_>>(),
            "calibration": trained.calibration,
            "thresholds": trained.thresholds,
            "notes": trained.notes,
            "seconds": begin.elapsed().as_secs_f64(),
            "peak_megabytes": peak_megabytes(),
        })
    } else {
        let c = rest.first().ok_or("fit needs C")?.parse()?;
        let dataset = DatasetBase::new(features, Array1::from(labels));
        let model = LinearSvm::params().c(c).parameters(parameters).fit(&dataset)?;
        serde_json::json!({
            "classifier": model.classifier(),
            "seconds": begin.elapsed().as_secs_f64(),
            "peak_megabytes": peak_megabytes(),
        })
    };
    serde_json::to_writer(std::io::stdout().lock(), &answer)?;
    Ok(())
}

fn integers(path: &Path) -> Result<Vec<usize>, Failure> {
    Ok(std::fs::read(path)?
        .chunks_exact(4)
        .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        .collect())
}

/// Peak memory of this process as Linux tells it.
fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024.0)
}
