"""The choice of C beside scikit-learn's grid search."""

import time

import numpy as np

from workplace import BINARIES, row


def sweep(place, counts=(5_000, 20_000, 50_000)):
    """The choice of C by cross-validation, 1280 features, 10 classes; accuracy on 2000 further rows."""
    import svm_compare
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    rows = []
    grown = {"Ikat": {}, "scikit-learn": {}}
    for count in counts:
        values, labels, groups = svm_compare.random_problem(count + 2000, 1280, 10, 0, spread=0.4)
        train = place.folder / f"sweep-{count}"
        train.mkdir()
        svm_compare.write(train, values[:count], labels[:count], groups[:count])
        mine, cpu = svm_compare.ours(BINARIES / "examples/svm_compare", train, "sweep")
        search = GridSearchCV(
            svm_compare.theirs(1.0),
            {"C": svm_compare.GRID},
            cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
            n_jobs=-1,
        )
        begin = time.perf_counter()
        best = search.fit(values[:count], labels[:count], groups=groups[:count]).best_estimator_
        seconds = time.perf_counter() - begin
        right = float(np.mean(svm_compare.predict(mine["classifier"], values[count:]) == labels[count:]))
        other = float(np.mean(best.predict(values[count:]) == labels[count:]))
        if right < other - 0.003:
            raise SystemExit(f"accuracy {right:.4f} against {other:.4f} at {count} rows")
        note = (
            f"accuracy {100 * right:.1f} % against {100 * other:.1f} %; "
            f"ours {cpu:.0f} CPU s, {mine['peak_megabytes']:.0f} MiB"
        )
        grown["Ikat"][count], grown["scikit-learn"][count] = mine["seconds"], seconds
        work = f"choice of C, 5 folds x 7 values, {count} rows x 1280, 10 classes"
        ratio = seconds / mine["seconds"]
        rows.append(row(work, f"{mine['seconds']:.1f} s", f"{seconds:.1f} s", ratio, -5, note))
    place.growth.append(("choice of C: 5 folds, 7 values, 1280 features", "rows", grown))
    return rows
