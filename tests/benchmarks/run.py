"""Measures Ikat side by side with what one would use instead, and writes the table of BENCHMARKS.md.

    cargo xtask bench [ROW ...] [--write]

Rows: request, large, start, package, folder, sweep, copies. Without ROW all of them. Both sides of a row run in turn, on
the same machine and the same images; both must give the same answers, or the row fails.
"""

import argparse
import base64
import http.client
import io
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import images
import peer_function
from lambda_runtime import Runtime, peak_megabytes
from object_store import free_ports, object_store

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = ROOT / "target/release"
CORES = len(os.sched_getaffinity(0))


def trainer(*arguments, **options):
    """Runs the trainer and gives its standard output."""
    command = [BINARIES / "trainer", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options).stdout


class Workplace:
    """A trained bundle, published, in a folder that lasts as long as the benchmark."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        trainer("demo", "--dir", self.folder / "demo")
        self.bundle = next(self.folder.glob("demo/run/bundle"))
        self.model = next(self.folder.glob("demo/store/*"))


def spread(seconds):
    """Median with the quartiles, in milliseconds."""
    low, middle, high = (1000 * value for value in statistics.quantiles(seconds, n=4))
    return f"{middle:.1f} ms ({low:.1f}–{high:.1f})"


def row(work, ours, theirs, ratio, goal):
    return {"work": work, "ours": ours, "peer": theirs, "ratio": ratio, "goal": goal}


def warm_requests(place, width, height, work, goal, repeats):
    """Warm requests, one thread on both sides, taken in turn; ours over HTTP, the peer called in its own process."""
    photograph = images.photograph(width, height)
    event = {"image": base64.b64encode(photograph).decode()}
    body = json.dumps(event)
    (port,) = free_ports(1)
    environment = {**os.environ, "IKAT_LOG": "error", "IKAT_THREADS": "1"}
    command = [BINARIES / "scorer", "--listen", f"127.0.0.1:{port}", "--model", place.model]
    scorer = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peer = peer_function.Function(peer_function.reader_of_folder(place.bundle))
    try:
        for _ in range(300):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.connect()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)

        def ask():
            connection.request("POST", "/", body, {"content-type": "application/json"})
            return json.load(connection.getresponse())

        for _ in range(5):
            mine, other = ask(), peer.handle(json.loads(body))
        if mine["label"] != other["label"] or abs(mine["score"] - other["score"]) > 0.02:
            raise SystemExit(f"the answers differ: {mine} {other}")
        ours, theirs, parts = [], [], []
        for _ in range(repeats):
            begin = time.perf_counter()
            parts.append(ask()["timing_ms"])
            ours.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            peer.handle(json.loads(body))
            theirs.append(time.perf_counter() - begin)
    finally:
        scorer.kill()
        scorer.wait()
    ratio = statistics.median(ours) / statistics.median(theirs)
    part = {name: statistics.median(timing[name] for timing in parts) for name in parts[0]}
    limit = part["total"] / part["network"]
    rows = [row(work, spread(ours), spread(theirs), ratio, goal)]
    rows[0]["note"] = (
        f"decode {part['decode']:.1f}, preprocess {part['preprocess']:.1f}, network {part['network']:.1f}, "
        f"classify {part['classify']:.2f} ms; in all {limit:.2f} x the network"
    )
    return rows


def request(place):
    return warm_requests(place, 640, 480, "one warm request, 640 x 480 JPEG in base64, 1 thread", 0.75, 200)


def large(place):
    return warm_requests(place, 4000, 3000, "the same, JPEG of 12 megapixels", 0.4, 40)


def start(place, repeats=9):
    """Process start to first answer, the model in S3 on loopback; then the memory after 20 answers."""
    event = json.dumps({"image": base64.b64encode(images.photograph(640, 480)).decode()}).encode()
    commands = {
        "ours": [BINARIES / "scorer"],
        "peer": [sys.executable, pathlib.Path(peer_function.__file__)],
    }
    times = {name: [] for name in commands}
    memory = {name: [] for name in commands}
    with object_store("models") as environment:
        trainer("publish", "--bundle", place.bundle, "--to", "s3://models/live", "--name", "demo", env={**os.environ})
        environment = {**environment, "IKAT_MODEL": "s3://models/live/demo", "IKAT_LOG": "error"}
        for _ in range(repeats):
            for name, command in commands.items():
                runtime = Runtime()
                begin = time.perf_counter()
                process = runtime.start(command, environment)
                try:
                    _, at = runtime.invoke(event)
                    times[name].append(at - begin)
                    for _ in range(20):
                        runtime.invoke(event)
                    memory[name].append(peak_megabytes(process))
                finally:
                    process.kill()
                    process.wait()
                    runtime.stop()
    size = (place.bundle / "model.onnx").stat().st_size / 2**20
    medians = {name: statistics.median(values) for name, values in memory.items()}
    return [
        row(
            f"cold start: process to first answer, model of {size:.0f} MiB in S3 on loopback",
            spread(times["ours"]),
            spread(times["peer"]),
            statistics.median(times["ours"]) / statistics.median(times["peer"]),
            0.2,
        ),
        row(
            "largest memory of the function after 21 requests",
            f"{medians['ours']:.0f} MiB",
            f"{medians['peer']:.0f} MiB",
            medians["ours"] / medians["peer"],
            0.5,
        ),
    ]


def zipped(paths):
    """Size of a zip of these (file, name) pairs, in MiB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, name in paths:
            archive.write(path, name)
    return len(file.getvalue()) / 2**20


def package(_):
    """What is uploaded: program and runtime library against the handler with its packages, less what the Python
    runtime of Lambda brings (boto3)."""
    scorer = ROOT / "target/lambda/scorer"
    if not scorer.exists():
        scorer = BINARIES / "scorer"
    library = next(pathlib.Path(os.environ.get("IKAT_CACHE", "~/.cache/ikat")).expanduser().glob("runtime/*/*.so"))
    ours = zipped([(scorer, "bootstrap"), (library, "lib/libonnxruntime.so")])
    with tempfile.TemporaryDirectory() as folder:
        pinned = (ROOT / "tests/benchmarks/requirements.txt").read_text(encoding="utf-8")
        wanted = re.findall(r"^(?:numpy|onnxruntime|pillow)==.*$", pinned, re.MULTILINE)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *wanted]
        subprocess.run(pip, check=True)
        shutil.copy(peer_function.__file__, folder)
        files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        theirs = zipped([(path, path.relative_to(folder)) for path in files])
    return [row("the function's package, zipped", f"{ours:.1f} MiB", f"{theirs:.1f} MiB", ours / theirs, 0.25)]


def features_by_pillow(bundle, paths):
    function = peer_function.Function(peer_function.reader_of_folder(bundle))
    vectors = []
    for begin in range(0, len(paths), 8):
        tensors = [function.tensor(path.read_bytes()) for path in paths[begin : begin + 8]]
        vectors.append(function.features(np.concatenate(tensors)))
    return np.concatenate(vectors)


class TorchImages:
    """The pictures as torch's data loader reads them, prepared as the bundle says."""

    def __init__(self, paths, constants):
        self.paths, self.constants = paths, constants

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        import torch
        from PIL import Image
        from torchvision.transforms.functional import normalize, pil_to_tensor

        constants = self.constants
        with Image.open(self.paths[index]) as image:
            square = peer_function.letterbox(image.convert("RGB"), constants["resolution"], constants["background"])
        return normalize(pil_to_tensor(square).to(torch.float32), constants["mean"], constants["std"])


def features_by_torch(bundle, paths):
    """The same network as timm builds it; its weights do not matter for its speed."""
    import timm
    import torch
    from torch.utils.data import DataLoader

    constants = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["preprocessing"]
    torch.set_num_threads(CORES)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    loader = DataLoader(TorchImages(paths, constants), batch_size=32, num_workers=CORES)
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in loader]).numpy()


def folder(place, count=1200):
    """Features of a folder of JPEGs on all cores."""
    paths = images.folder_of_photographs(place.folder / "photographs", count)
    listing = "\n".join(map(str, paths))
    begin = time.perf_counter()
    lines = trainer("featurize", "--stdin", input=listing.encode()).splitlines()
    ours = count / (time.perf_counter() - begin)
    begin = time.perf_counter()
    with ProcessPoolExecutor(CORES) as pool:
        parts = [paths[core::CORES] for core in range(CORES)]
        vectors = list(pool.map(features_by_pillow, [place.bundle] * CORES, parts))
    by_pillow = count / (time.perf_counter() - begin)
    mine = {row["item"]: row["features"] for row in map(json.loads, lines)}
    expected = dict(zip((str(path) for part in parts for path in part), np.concatenate(vectors)))
    for path, vector in expected.items():
        other = np.array(mine[path])
        cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
        if cosine < 0.995:
            raise SystemExit(f"{path}: the features differ (cosine {cosine:.4f})")
    rows = []
    work = f"features of {count} JPEGs of 800 x 600, {CORES} cores: images/s"
    rows.append(row(f"{work}, against ONNX Runtime and Pillow", f"{ours:.0f}", f"{by_pillow:.0f}", ours / by_pillow, -1.2))
    begin = time.perf_counter()
    features_by_torch(place.bundle, paths)
    by_torch = count / (time.perf_counter() - begin)
    rows.append(row(f"{work}, against PyTorch", f"{ours:.0f}", f"{by_torch:.0f}", ours / by_torch, -1.8))
    return rows


def sweep(place, counts=(5_000, 20_000, 50_000)):
    """The choice of C by cross-validation, 1280 features, 10 classes; accuracy on 2000 further rows."""
    sys.path.insert(0, str(ROOT / "tests/reference"))
    import svm_compare
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    rows = []
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
        rows.append(
            row(
                f"choice of C, 5 folds x 7 values, {count} rows x 1280, 10 classes",
                f"{mine['seconds']:.1f} s",
                f"{seconds:.1f} s",
                seconds / mine["seconds"],
                -5,
            )
        )
        rows[-1]["note"] = (
            f"accuracy {100 * right:.1f} % against {100 * other:.1f} %; "
            f"ours {cpu:.0f} CPU s, {mine['peak_megabytes']:.0f} MiB"
        )
    return rows


def copies(place, count=2_000):
    """Difference hashes of a folder and the search for near-duplicates."""
    sys.path.insert(0, str(ROOT / "tests/reference"))
    import dedupe_speed

    data = place.folder / "copies"
    paths = images.folder_of_photographs(data / "all", count, 640, 480)
    ours, _ = dedupe_speed.timed(lambda: dedupe_speed.by_ikat(BINARIES / "trainer", data))
    rows = []
    for name, work in [
        ("imagehash", lambda: dedupe_speed.by_imagehash(paths)),
        ("imagededup", lambda: dedupe_speed.by_imagededup(data / "all")),
    ]:
        seconds, _ = dedupe_speed.timed(work)
        work = f"difference hashes of {count} JPEGs of 640 x 480 and their near-duplicates, against {name}"
        rows.append(row(work, f"{ours:.1f} s", f"{seconds:.1f} s", seconds / ours, -10))
    return rows


ROWS = [request, large, start, package, folder, sweep, copies]


def table(rows):
    """The rows as Markdown. A negative goal is one to exceed."""
    lines = ["| work | Ikat | peer | ratio | goal |", "| --- | ---: | ---: | ---: | ---: |"]
    for entry in rows:
        goal = f"≤ {entry['goal']} x" if entry["goal"] > 0 else f"≥ {-entry['goal']} x"
        note = f"<br>{entry['note']}" if "note" in entry else ""
        lines.append(
            f"| {entry['work']}{note} | {entry['ours']} | {entry['peer']} | {entry['ratio']:.2f} x | {goal} |"
        )
    return "\n".join(lines)


def machine():
    """What ran the benchmark."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*: (.*)", text)
    pinned = (ROOT / "tests/benchmarks/requirements.txt").read_text(encoding="utf-8").split()
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{CORES} cores of {model[1] if model else 'an unknown processor'}; Python {python}, {', '.join(pinned)}."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; all without")
    parser.add_argument("--write", action="store_true", help="put the table into BENCHMARKS.md")
    arguments = parser.parse_args()
    known = {work.__name__: work for work in ROWS}
    unknown = [name for name in arguments.rows if name not in known]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(known)}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(folder)
        for name in arguments.rows or known:
            print(f"{name} ...", file=sys.stderr)
            results += known[name](place)
    text = f"{table(results)}\n\n{machine()}"
    print(text)
    if arguments.write:
        path = ROOT / "BENCHMARKS.md"
        begin, end = "<!-- table -->", "<!-- end of table -->"
        before, _, rest = path.read_text(encoding="utf-8").partition(begin)
        _, _, after = rest.partition(end)
        path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
