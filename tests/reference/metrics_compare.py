"""Compares every metric of `trainer::evaluation` with scikit-learn's, on random and adversarial cases.

    python3 -m venv venv && venv/bin/pip install scikit-learn
    cargo build -p trainer --example metrics_compare
    venv/bin/python tests/reference/metrics_compare.py [--binary target/debug/examples/metrics_compare]

Exits 1 on a difference above 1e-9. Where we say null, scikit-learn's `zero_division=nan` (or its error
for an AUC of one kind of label only) is expected.
"""

import argparse
import json
import math
import subprocess
import sys
import warnings

import numpy as np
from sklearn import metrics


def case(generator, count, classes, decimals=None, absent=(), never_predicted=(), constant=False):
    labels = [label for label in range(classes) if label not in absent]
    truths = generator.choice(labels, size=count)
    logits = generator.normal(size=(count, classes)) * 2
    logits[np.arange(count), truths] += 1.5
    logits[:, list(never_predicted)] -= 50
    if constant:
        logits[:] = 0
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if decimals is not None:
        probabilities = np.round(probabilities, decimals)
    probabilities = probabilities.astype(np.float32)
    return {
        "classes": [f"class {index}" for index in range(classes)],
        "truths": truths.tolist(),
        "best": probabilities.argmax(axis=1).tolist(),
        "probabilities": [[float(value) for value in row] for row in probabilities],
    }


def expected(problem):
    truths, best = np.array(problem["truths"]), np.array(problem["best"])
    probabilities = np.array(problem["probabilities"], dtype=np.float32)
    classes = len(problem["classes"])
    labels = list(range(classes))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truths, best, labels=labels, zero_division=np.nan
    )
    indicator = truths[:, None] == np.arange(classes)
    aucs = [area(indicator[:, label], probabilities[:, label]) for label in labels]
    per_class = {}
    for label, name in enumerate(problem["classes"]):
        # We follow scikit-learn's default of 0 where a class with images was never predicted.
        own = 0.0 if math.isnan(precision[label]) and support[label] > 0 else precision[label]
        per_class[name] = {
            "accuracy": recall[label],
            "precision": own,
            "recall": recall[label],
            "f1": f1[label],
            "auc": aucs[label],
            "support": support[label],
        }
    defined = [value for value in aucs if not math.isnan(value)]
    n, p, z = len(truths), np.mean(truths == best), 1.959963984540054
    centre, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {
        "accuracy": metrics.accuracy_score(truths, best),
        "class_averaged_accuracy": metrics.balanced_accuracy_score(truths, best),
        "accuracy_interval": [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)],
        "class_averaged_accuracy_interval": class_averaged_interval(truths, best),
        "per_class": per_class,
        "auc_macro": np.mean(defined) if defined else math.nan,
        "auc_micro": area(indicator.ravel(), probabilities.ravel()),
        "confusion": metrics.confusion_matrix(truths, best, labels=labels).tolist(),
        "classes": problem["classes"],
        "calibration": {"method": None, "ece": calibration_error(truths, best, probabilities)},
        "test_count": len(truths),
    }


def class_averaged_interval(truths, best):
    """The normal interval of the mean recall, each recall's variance that of a share after Agresti and Coull."""
    z = 1.959963984540054
    recalls, variances = [], []
    for label in np.unique(truths):
        n = np.sum(truths == label)
        hits = np.sum((truths == label) & (best == label))
        share = (hits + z * z / 2) / (n + z * z)
        recalls.append(hits / n)
        variances.append(share * (1 - share) / n)
    if not recalls:
        return math.nan
    half = z * math.sqrt(sum(variances)) / len(recalls)
    return [max(np.mean(recalls) - half, 0), min(np.mean(recalls) + half, 1)]


def area(truths, scores):
    if truths.all() or not truths.any():
        return math.nan
    return metrics.roc_auc_score(truths, scores)


def calibration_error(truths, best, probabilities, bins=15):
    confidence = probabilities[np.arange(len(best)), best].astype(np.float64)
    right = truths == best
    error = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins):
        inside = ((confidence > low) | (low == 0)) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def differences(ours, reference, path=""):
    if isinstance(reference, dict):
        assert ours.keys() == reference.keys(), (path, ours.keys(), reference.keys())
        return [found for key in reference for found in differences(ours[key], reference[key], f"{path}.{key}")]
    if isinstance(reference, list):
        assert len(ours) == len(reference), path
        pairs = zip(ours, reference)
        return [found for index, (a, b) in enumerate(pairs) for found in differences(a, b, f"{path}[{index}]")]
    if isinstance(reference, str) or reference is None:
        return [] if ours == reference else [(path, ours, reference)]
    if math.isnan(reference):
        return [] if ours is None else [(path, ours, reference)]
    return [] if ours is not None and abs(ours - reference) <= 1e-9 else [(path, ours, reference)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/debug/examples/metrics_compare")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    generator = np.random.default_rng(0)
    problems = [case(generator, int(generator.integers(1, 400)), int(generator.integers(2, 12))) for _ in range(200)]
    problems += [case(generator, 300, 5, decimals=decimals) for decimals in (0, 1, 2)]
    problems += [case(generator, 100, 6, absent=(2,)), case(generator, 100, 6, never_predicted=(1, 4))]
    problems += [case(generator, 100, 6, absent=(3,), never_predicted=(3,)), case(generator, 50, 4, absent=(1, 2, 3))]
    problems += [case(generator, 20, 1), case(generator, 1, 3), case(generator, 60, 4, constant=True)]
    problems += [case(generator, 5000, 40, decimals=2)]
    answer = subprocess.run(
        [arguments.binary], input=json.dumps(problems), capture_output=True, text=True, check=True
    ).stdout
    found = []
    for index, (ours, problem) in enumerate(zip(json.loads(answer), problems)):
        found += [(index, *difference) for difference in differences(ours, expected(problem))]
    for difference in found[:20]:
        print(*difference)
    print(f"{len(problems)} cases, {len(found)} differences")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
