"""Measures Ikat side by side with what one would use instead, and writes the table and the curves of BENCHMARKS.md.

    cargo xtask bench [ROW ...] [--device cuda] [--write]

Rows: request, large, start, package, folder, batch, copies, search, sweep, refine. Without ROW all of them, or with a device
those that can use one: folder and refine. Both sides of a row run in turn, on the same machine and the same images; both
must give the same answers, or the row fails. For a CUDA device, put onnxruntime-gpu in the place of onnxruntime in the
environment of the peers (`target/bench-venv`).
"""

import argparse
import functools
import pathlib
import re
import sys
import tempfile

from choice import sweep
from folders import batch, copies, folder, search
from function import large, package, request, start
from growth import draw
from refinement import refine
from workplace import CORES, ROOT, Workplace

ROWS = [request, large, start, package, folder, batch, copies, search, sweep, refine]
RESULTS = ROOT / "BENCHMARKS.md"
GROWTH = ROOT / "resources/growth.svg"
# What the processor says it has, and its name, the widest first.
VECTORS = {"avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx2": "AVX2"}
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def line(entry):
    """A row as Markdown."""
    goal = entry["goal"]
    if goal is not None:
        goal = f"≤ {goal} x" if goal > 0 else f"≥ {-goal} x"
    note = f"<br>{entry['note']}" if entry["note"] else ""
    return f"| {entry['work']}{note} | {entry['ours']} | {entry['peer']} | {entry['ratio']:.2f} x | {goal or ''} |"


def machine():
    """What ran the benchmark."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*: (.*)", text)
    vectors = [name for flag, name in VECTORS.items() if re.search(rf"\b{flag}\b", text)]
    units = f" with {vectors[0]}" if vectors else ""
    pinned = (ROOT / "tests/benchmarks/requirements.txt").read_text(encoding="utf-8").split()
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{CORES} cores of {model[1] if model else 'an unknown processor'}{units}; Python {python}, {', '.join(pinned)}."


def work(line):
    """What a line of the table measures."""
    return line.split("|")[1].split("<br>")[0].strip()


def table(lines):
    return "\n".join(["| work | Ikat | peer | ratio | goal |", "| --- | ---: | ---: | ---: | ---: |", *lines])


def write(lines, footer, whole):
    """Puts the lines into the document's table, in the place of all others or of those that measured the same."""
    before, _, rest = RESULTS.read_text(encoding="utf-8").partition(BEGIN)
    known, _, after = rest.partition(END)
    if not whole:
        kept = {work(line): line for line in known.splitlines()[3:] if line.startswith("| ")}
        lines = (kept | {work(line): line for line in lines}).values()
    RESULTS.write_text(f"{before}{BEGIN}\n{table(lines)}\n\n{footer}\n{END}{after}", encoding="utf-8")


def asked():
    """The arguments, and the rows that they choose from. Asked before anything is built, too."""
    parser = argparse.ArgumentParser(
        prog="cargo xtask bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; all without")
    parser.add_argument("--device", help="the processor without")
    parser.add_argument("--write", action="store_true", help="put the table, or the rows named, into BENCHMARKS.md")
    arguments = parser.parse_args()
    known = {work.__name__: work for work in ROWS}
    if arguments.device:
        known = {work.__name__: functools.partial(work, device=arguments.device) for work in [folder, refine]}
    unknown = [name for name in arguments.rows if name not in known]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments, known


def main():
    arguments, known = asked()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Workplace(scratch)
        for name in arguments.rows or known:
            print(f"{name} ...", file=sys.stderr)
            measured = [line(entry) for entry in known[name](place)]
            print("\n".join(measured), file=sys.stderr)
            lines += measured
        accuracies = ", ".join(f"{100 * share:.1f} % in {name}" for name, share in place.accuracies().items())
    footer = f"{machine()} The demo's model recognizes {accuracies} of its test images."
    print(f"{table(lines)}\n\n{footer}")
    if arguments.write:
        write(lines, footer, whole=not arguments.rows)
        if place.growth:
            draw(GROWTH, place.growth)


if __name__ == "__main__":
    main()
