"""Compares trained runs with scikit-learn's LinearSVC on the same features and split.

For each run made by `trainer train`: features come from the feature cache by the hash of each image, the split and the
near-duplicate groups from the run's split.tsv; C is chosen by stratified, grouped 5-fold cross-validation over the same
values. Prints the accuracy of both on the test part and the difference in percentage points.

    VENV/bin/python tests/reference/train_compare.py CACHE DATA RUN [RUN ...]      (needs numpy and scikit-learn)
"""
import hashlib
import json
import pathlib
import re
import struct
import sys
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

warnings.simplefilter("ignore", ConvergenceWarning)
GRID = [1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100]


def records(cache):
    """Features by SHA-256 of the image, of the largest cache file."""
    path = max((cache / "features").glob("*.features"), key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    (size,) = struct.unpack("<I", data[12:16])
    length = 64 + 4 * size + 4
    offsets = range(16, len(data) - length + 1, length)
    return {data[at : at + 32]: np.frombuffer(data, np.float32, size, at + 64) for at in offsets}


def unescape(path):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())


cache, data = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
known = records(cache)
for run in map(pathlib.Path, sys.argv[3:]):
    rows = [line.split("\t") for line in (run / "split.tsv").read_text().splitlines()[1:]]
    read = lambda path: (data / unescape(path).decode()).read_bytes()
    features = normalize(np.stack([known[hashlib.sha256(read(row[0])).digest()] for row in rows]))
    labels, sides, groups = (np.array([row[column] for row in rows]) for column in (1, 2, 3))
    train, test = sides == "train", sides == "test"
    search = GridSearchCV(
        LinearSVC(class_weight="balanced", max_iter=5000),
        {"C": GRID},
        scoring="balanced_accuracy",
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=1),
        n_jobs=1,
    )
    search.fit(features[train], labels[train], groups=groups[train])
    theirs = search.best_estimator_.score(features[test], labels[test])
    metrics = json.loads((run / "metrics.json").read_text())
    ours = metrics["accuracy"]
    print(
        f"{run}: Ikat {100 * ours:.1f} % (C {metrics['chosen_c']}), LinearSVC {100 * theirs:.1f} % "
        f"(C {search.best_params_['C']}), difference {100 * (ours - theirs):+.1f} points on {test.sum()} images"
    )
