"""The scoring function beside the same function in Python, both behind the same Runtime API."""

import base64
import contextlib
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

import images
import peer_function
from lambda_runtime import Runtime, peak_megabytes
from object_store import object_store
from workplace import CACHE, DEPLOYED, ROOT, SCORER, row, spread, trainer

# The program and the environment that it is deployed with; the peer's is the ordinary one.
OURS = [SCORER], DEPLOYED
PEER = [sys.executable, pathlib.Path(peer_function.__file__)], {}


@contextlib.contextmanager
def started(side, environment, log=subprocess.DEVNULL):
    """A function that is ready to be invoked, and its process."""
    runtime = Runtime()
    command, deployed = side
    process = runtime.start(command, {**deployed, **environment}, log)
    try:
        yield runtime, process
    finally:
        process.kill()
        process.wait()
        runtime.stop()


def timed(runtime, event):
    """An answer, and the seconds it took."""
    begin = time.perf_counter()
    answer, at = runtime.invoke(event)
    return answer, at - begin


def warm_requests(place, width, height, work, goal, repeats):
    """Warm requests, one thread on all sides, taken in turn."""
    event = json.dumps({"image": base64.b64encode(images.photograph(width, height)).decode()}).encode()
    with contextlib.ExitStack() as stack:
        enter = lambda side, environment: stack.enter_context(started(side, environment))[0]
        environment = {"IKAT_LOG": "error", "IKAT_THREADS": "1"}
        ours = {
            name: enter(OURS, {**environment, "IKAT_MODEL": str(bundle)}) for name, bundle in place.bundles.items()
        }
        sides = {**ours, "peer": enter(PEER, {"IKAT_BUNDLE": str(place.bundle)})}
        answers = {name: [timed(side, event)[0] for _ in range(5)][-1] for name, side in sides.items()}
        if any(answer["label"] != answers["peer"]["label"] for answer in answers.values()):
            raise SystemExit(f"the answers differ: {answers}")
        if abs(answers["float"]["score"] - answers["peer"]["score"]) > 0.02:
            raise SystemExit(f"the scores differ: {answers}")
        seconds = {name: [] for name in sides}
        parts = {name: [] for name in ours}
        for _ in range(repeats):
            for name, side in sides.items():
                answer, taken = timed(side, event)
                seconds[name].append(taken)
                if name in parts:
                    parts[name].append(answer["timing_ms"])
    rows = []
    for name, timings in parts.items():
        part = {stage: statistics.median(timing[stage] for timing in timings) for stage in timings[0]}
        note = (
            f"decode {part['decode']:.1f}, preprocess {part['preprocess']:.1f}, network {part['network']:.1f}, "
            f"classify {part['classify']:.2f} ms; in all {part['total'] / part['network']:.2f} x the network"
        )
        ratio = statistics.median(seconds[name]) / statistics.median(seconds["peer"])
        rows.append(row(f"{work}, {name}", spread(seconds[name]), spread(seconds["peer"]), ratio, goal, note))
    return rows


def request(place):
    return warm_requests(place, 640, 480, "one warm request, 640 x 480 JPEG in base64, 1 thread", 0.75, 200)


def large(place):
    return warm_requests(place, 4000, 3000, "the same, JPEG of 12 megapixels", 0.4, 40)


def stages(log):
    """Milliseconds of each stage of a start, from the lines that the scorer logs."""
    known = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("message") == "ONNX Runtime is loaded":
            known["runtime"] = entry["ms"]
        elif "proof_ms" in entry:
            known |= {stage: entry[f"{stage}_ms"] for stage in ("fetch", "network", "proof", "total")}
        elif "milliseconds" in entry:
            known.setdefault("answer", entry["milliseconds"])
    return known


def start(place, repeats=15):
    """Process start to first answer, the model in S3 on loopback; then the memory after 20 answers."""
    event = json.dumps({"image": base64.b64encode(images.photograph(640, 480)).decode()}).encode()
    sides = {**dict.fromkeys(place.bundles, OURS), "peer": PEER}
    times, memory = ({name: [] for name in sides} for _ in range(2))
    parts = {name: [] for name in place.bundles}
    log = place.folder / "start.log"
    with object_store("models") as environment:
        for name, bundle in place.bundles.items():
            trainer("publish", "--bundle", bundle, "--to", "s3://models/live", "--name", name, env={**os.environ})
        for _ in range(repeats):
            for name, side in sides.items():
                model = f"s3://models/live/{name if name in parts else 'float'}"
                begin = time.perf_counter()
                with (
                    open(log, "w", encoding="utf-8") as file,
                    started(side, {**environment, "IKAT_MODEL": model}, file) as (runtime, process),
                ):
                    _, at = runtime.invoke(event)
                    times[name].append(at - begin)
                    for _ in range(20):
                        runtime.invoke(event)
                    memory[name].append(peak_megabytes(process))
                if name in parts:
                    parts[name].append(stages(log) | {"all": 1000 * times[name][-1]})
    rows = []
    for name, bundle in place.bundles.items():
        size = (bundle / "model.onnx").stat().st_size / 2**20
        part = {stage: statistics.median(one[stage] for one in parts[name]) for stage in parts[name][0]}
        rest = part["all"] - part["total"] - part["answer"]
        note = (
            f"the model's way {part['fetch']:.0f} (beside it the runtime library, {part['runtime']:.0f}), "
            f"network {part['network']:.0f}, golden images {part['proof']:.0f}, first answer {part['answer']:.0f}, "
            f"process and Runtime API {rest:.0f} ms"
        )
        work = f"cold start: process to first answer, model of {size:.0f} MiB in S3 on loopback, {name}"
        ratio = statistics.median(times[name]) / statistics.median(times["peer"])
        rows.append(row(work, spread(times[name]), spread(times["peer"]), ratio, 0.2, note))
    medians = {name: statistics.median(values) for name, values in memory.items()}
    for name in parts:
        work = f"largest memory of the function after 21 requests, {name}"
        ratio = medians[name] / medians["peer"]
        rows.append(row(work, f"{medians[name]:.0f} MiB", f"{medians['peer']:.0f} MiB", ratio, 0.5))
    return rows


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
    library = next(CACHE.glob("runtime/*/*.so"))
    ours = zipped([(SCORER, "bootstrap"), (library, "lib/libonnxruntime.so")])
    with tempfile.TemporaryDirectory() as folder:
        pinned = (ROOT / "tests/benchmarks/requirements.txt").read_text(encoding="utf-8")
        wanted = re.findall(r"^(?:numpy|onnxruntime|pillow)==.*$", pinned, re.MULTILINE)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *wanted]
        subprocess.run(pip, check=True)
        shutil.copy(peer_function.__file__, folder)
        files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        theirs = zipped([(path, path.relative_to(folder)) for path in files])
    return [row("the function's package, zipped", f"{ours:.1f} MiB", f"{theirs:.1f} MiB", ours / theirs, 0.25)]
