"""Compares our dual coordinate descent with scikit-learn's LinearSVC: coefficients, accuracy, time.

    python3 -m venv venv && venv/bin/pip install scikit-learn
    cargo build --release -p trainer --example svm_compare
    venv/bin/python tests/reference/svm_compare.py [--binary target/release/examples/svm_compare]
        [--random 5000 | --features FOLDER [--test FOLDER]] [--sweep] [--c 1.0]

Without --random and --features: a few small random problems, every coefficient compared; exits 1 on a
difference. A FOLDER holds features.f32 (row-major), labels.u32 and groups.u32. With --sweep, C is chosen
by both sides by stratified grouped five-fold cross-validation and the test accuracies are compared.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.svm import LinearSVC

GRID = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]


def random_problem(count, features, classes, seed, spread=1.0, imbalance=0.0):
    """Gaussian classes on a low-dimensional subspace with heavy noise, rows of length 1, non-negative."""
    generator = np.random.default_rng(seed)
    shares = np.exp(-imbalance * np.arange(classes))
    labels = generator.choice(classes, size=count, p=shares / shares.sum())
    labels[:classes] = np.arange(classes)
    centres = generator.normal(size=(classes, features)) * spread
    values = np.maximum(generator.normal(size=(count, features), scale=3.0) + centres[labels], 0)
    values = values.astype(np.float32)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return values, labels.astype(np.uint32), np.arange(count, dtype=np.uint32)


def write(folder, values, labels, groups):
    values.astype("<f4").tofile(folder / "features.f32")
    labels.astype("<u4").tofile(folder / "labels.u32")
    groups.astype("<u4").tofile(folder / "groups.u32")


def read(folder):
    labels = np.fromfile(folder / "labels.u32", "<u4")
    groups = np.fromfile(folder / "groups.u32", "<u4")
    return np.fromfile(folder / "features.f32", "<f4").reshape(len(labels), -1), labels, groups


def ours(binary, folder, *arguments):
    """The program's answer and CPU seconds."""
    with subprocess.Popen([binary, str(folder), *map(str, arguments)], stdout=subprocess.PIPE) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{binary} failed")
    return json.loads(output), usage.ru_utime + usage.ru_stime


def theirs(c, tolerance=1e-4):
    return LinearSVC(loss="squared_hinge", dual=True, class_weight="balanced", C=c, tol=tolerance, max_iter=20000)


def predict(classifier, values):
    weights = np.array(classifier["weights"])
    return np.argmax(values @ weights.T + np.array(classifier["intercepts"]), axis=1)


def check_small(binary):
    worst = 0.0
    for seed, (count, features, classes, imbalance) in enumerate(
        [(60, 5, 2, 0.0), (60, 5, 2, 1.0), (200, 20, 3, 0.7), (300, 64, 6, 0.3), (150, 200, 10, 0.0)]
    ):
        values, labels, groups = random_problem(count, features, classes, seed, imbalance=imbalance)
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), values, labels, groups)
            for c in GRID:
                answer, _ = ours(binary, name, "fit", c, 1e-7)
                reference = theirs(c, 1e-8)
                reference.max_iter = 200000
                reference.fit(values.astype(np.float64), labels)
                coefficients, intercepts = reference.coef_, reference.intercept_
                if classes == 2:
                    coefficients = np.vstack([-coefficients, coefficients])
                    intercepts = np.concatenate([-intercepts, intercepts])
                mine = np.column_stack([answer["classifier"]["weights"], answer["classifier"]["intercepts"]])
                other = np.column_stack([coefficients, intercepts])
                difference = np.abs(mine - other).max() / np.abs(other).max()
                worst = max(worst, difference)
                print(f"n={count} d={features} k={classes} C={c:g}: largest relative difference {difference:.1e}")
    print(f"worst {worst:.1e}")
    return worst < 1e-4


def compare(binary, folder, test, c, sweep):
    values, labels, groups = read(folder)
    if sweep:
        answer, cpu = ours(binary, folder, "sweep")
        c = answer["chosen_c"]
        print("ours:", json.dumps(answer["sweep"]), f"C={c:g}", *answer["notes"], sep="\n  ")
    else:
        answer, cpu = ours(binary, folder, "fit", c)
    print(f"ours: {answer['seconds']:.2f} s, {cpu:.2f} CPU s in all, peak {answer['peak_megabytes']:.0f} MB")
    begin = time.process_time()
    if sweep:
        search = GridSearchCV(theirs(1.0), {"C": GRID}, cv=StratifiedGroupKFold(5, shuffle=True, random_state=0))
        reference = search.fit(values, labels, groups=groups).best_estimator_
        print("scikit-learn:", dict(zip(GRID, search.cv_results_["mean_test_score"])), search.best_params_)
    else:
        reference = theirs(c).fit(values, labels)
    seconds = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"scikit-learn: {seconds:.2f} CPU s, peak {peak:.0f} MB")
    test_values, test_labels, _ = read(test) if test else (values, labels, groups)
    mine = np.mean(predict(answer["classifier"], test_values) == test_labels)
    other = np.mean(reference.predict(test_values) == test_labels)
    print(f"accuracy on {'test' if test else 'training'} features: ours {mine:.4f}, scikit-learn {other:.4f}")
    return mine >= other - 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/examples/svm_compare")
    parser.add_argument("--random", type=int)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--c", type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.features:
        good = compare(arguments.binary, arguments.features, arguments.test, arguments.c, arguments.sweep)
    elif arguments.random:
        values, labels, groups = random_problem(arguments.random + 2000, 1280, 10, 0, spread=0.4)
        with tempfile.TemporaryDirectory() as train, tempfile.TemporaryDirectory() as test:
            write(Path(train), values[:-2000], labels[:-2000], groups[:-2000])
            write(Path(test), values[-2000:], labels[-2000:], groups[-2000:])
            del values
            good = compare(arguments.binary, Path(train), Path(test), arguments.c, arguments.sweep)
    else:
        good = check_small(arguments.binary)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
