"""Times finding near-duplicates by difference hash beside imagehash and imagededup, in one run on one machine.

    python3 -m venv venv && venv/bin/pip install imagehash imagededup
    cargo build --release -p trainer
    venv/bin/python tests/reference/dedupe_speed.py DATA [--trainer target/release/trainer]

DATA is a folder of class folders. imagededup's hashes have 64 bits, imagehash's and ours 256; all sides decode every
image, hash it and list the pairs within the same share of differing bits. Prints seconds and ratios.
"""

import argparse
import contextlib
import io
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

import imagehash
import numpy as np
from PIL import Image, ImageOps


def timed(work):
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def near_pairs(bits, most=16):
    """How many pairs of rows differ in at most so many bits: each is compared with each, a thousand rows at a time."""
    found, ones = 0, bits.sum(1)
    for first in range(0, len(bits), 1000):
        part = slice(first, first + 1000)
        distances = ones[part, None] + ones - 2 * bits[part] @ bits.T
        found += len(np.argwhere(distances <= most))
    return (found - len(bits)) // 2


def by_imagehash(paths):
    hashes = np.array([imagehash.dhash(ImageOps.exif_transpose(Image.open(path)), 16).hash.ravel() for path in paths])
    return near_pairs(hashes.astype(np.float32))


def by_imagededup(folder):
    from imagededup.methods import DHash

    with contextlib.redirect_stderr(io.StringIO()):
        found = DHash(verbose=False).find_duplicates(image_dir=str(folder), max_distance_threshold=4)
    return sum(len(others) for others in found.values()) // 2


def by_ikat(trainer, data):
    command = [trainer, "data", "dedupe", "--data", data, "--no-features", "--dry-run", "--json", "--quiet"]
    output = subprocess.run(command, capture_output=True, check=False).stdout
    return len(json.loads(output)["groups"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--trainer", default="target/release/trainer")
    arguments = parser.parse_args()
    paths = sorted(path for path in pathlib.Path(arguments.data).glob("*/*") if path.is_file())
    with tempfile.TemporaryDirectory() as flat:
        for number, path in enumerate(paths):
            shutil.copy(path, f"{flat}/{number}{path.suffix}")
        own, groups = timed(lambda: by_ikat(arguments.trainer, arguments.data))
        sides = {
            "imagehash": timed(lambda: by_imagehash(paths)),
            "imagededup": timed(lambda: by_imagededup(flat)),
        }
    print(f"{len(paths)} images; ikat {own:.2f} s, {groups} groups")
    for name, (seconds, pairs) in sides.items():
        print(f"{name}: {seconds:.2f} s, {pairs} pairs, {seconds / own:.1f} times ours")


if __name__ == "__main__":
    main()
