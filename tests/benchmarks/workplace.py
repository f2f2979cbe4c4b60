"""What every row needs: the programs, a trained bundle in floats and one in integers, and how a row is written."""

import contextlib
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from lambda_runtime import peak_megabytes

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = ROOT / "target/release"
SCORER = ROOT / "target/lambda/scorer"
CACHE = pathlib.Path(os.environ.get("IKAT_CACHE", "~/.cache/ikat")).expanduser()
CORES = len(os.sched_getaffinity(0))
TEMPLATE = (ROOT / "infra/template.yaml").read_text(encoding="utf-8")
# What the deployment gives the function besides its model.
DEPLOYED = {"GLIBC_TUNABLES": re.search(r"glibc\.malloc\.\S+", TEMPLATE)[0]}

# What measures the same for other tables.
sys.path.append(str(ROOT / "tests/reference"))


def trainer(*arguments, **options):
    """Runs the trainer and gives its standard output."""
    command = [BINARIES / "trainer", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options).stdout


def measured(command):
    """Runs a program; gives what it prints, the seconds it took, its processor time, and its largest memory in MiB."""
    # What the system counts for a process begins with the memory of the one that started it.
    before, memory = resource.getrusage(resource.RUSAGE_CHILDREN), 0
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):
                memory = peak_megabytes(process)
            time.sleep(0.01)
        seconds = time.perf_counter() - begin
        if process.returncode != 0:
            raise SystemExit(f"{command} ended with {process.returncode}")
        output.seek(0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return output.read(), seconds, processor, memory


class Workplace:
    """Trained bundles in a folder that lasts as long as the benchmark."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        trainer("demo", "--dir", self.folder / "demo")
        data, integers = self.folder / "demo/data", self.folder / "int8"
        trainer("train", "--data", data, "--quantize", "int8", "--out", integers, "--name", "demo")
        self.bundle = self.folder / "demo/run/bundle"
        # By what their networks compute with.
        self.bundles = {"float": self.bundle, "int8": integers / "bundle"}
        # Panels of the drawing of how time grows: title, what is counted, seconds by count for each line.
        self.growth = []

    def accuracies(self):
        """The share of the test images that each recognizes."""
        read = lambda run: json.loads((run / "metrics.json").read_text(encoding="utf-8"))["accuracy"]
        return {name: read(bundle.parent) for name, bundle in self.bundles.items()}


def spread(seconds):
    """Median with the quartiles, in milliseconds."""
    low, middle, high = (1000 * value for value in statistics.quantiles(seconds, n=4))
    return f"{middle:.1f} ms ({low:.1f}–{high:.1f})"


def row(work, ours, theirs, ratio, goal, note=None):
    """One line of the table. A negative goal is one to exceed; `None` is none."""
    return {"work": work, "ours": ours, "peer": theirs, "ratio": ratio, "goal": goal, "note": note}
