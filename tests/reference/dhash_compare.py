"""Compares difference hashes with those of the Python package imagehash, and times both with imagededup.

Decoders of JPEG differ by a step here and there, so that every readable image of the folders is first written again as a
PNG, which all decode alike. Prints how many hashes are equal and the seconds that each took, decoding included, on one
thread. imagededup is timed where it can be imported.

    VENV/bin/python tests/reference/dhash_compare.py target/release/examples/dhash FOLDER [FOLDER ...]
    (needs pillow and imagehash; first `cargo build --release --example dhash`)
"""
import pathlib
import subprocess
import sys
import tempfile
import time

import imagehash
from PIL import Image, ImageOps

program, folders = sys.argv[1], sys.argv[2:]
with tempfile.TemporaryDirectory() as folder:
    paths, sources = [], []
    for source in sorted(path for root in folders for path in pathlib.Path(root).rglob("*") if path.is_file()):
        try:
            with Image.open(source) as image:
                if image.width * image.height > 20_000_000:
                    continue
                pixels = ImageOps.exif_transpose(image).convert("RGB")
        except Exception:
            continue
        paths.append(pathlib.Path(folder) / f"{len(paths):05}.png")
        sources.append(source)
        # Pixels alone: a colour key or an orientation that is carried along would be applied once more.
        Image.frombytes("RGB", pixels.size, pixels.tobytes()).save(paths[-1], compress_level=1)

    start = time.perf_counter()
    theirs = [str(imagehash.dhash(Image.open(path), 16)) for path in paths]
    imagehash_seconds = time.perf_counter() - start
    start = time.perf_counter()
    output = subprocess.run([program, folder], check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - start
    ours = [line.split("\t")[1] for line in sorted(output.splitlines())]
    equal = sum(left == right for left, right in zip(ours, theirs, strict=True))
    print(f"{equal} of {len(theirs)} hashes are equal; Ikat {seconds:.2f} s, imagehash {imagehash_seconds:.2f} s")
    for source, left, right in zip(sources, ours, theirs):
        if left != right:
            print(f"{source}: {left} here, {right} there")
    try:
        from imagededup.methods import DHash
    except ImportError as error:
        print(f"imagededup was not timed: {error}")
    else:
        method = DHash(verbose=False)
        start = time.perf_counter()
        for path in paths:
            method.encode_image(image_file=path)
        print(f"imagededup {time.perf_counter() - start:.2f} s (8 x 8 bits, another resize)")
sys.exit(equal != len(theirs))
