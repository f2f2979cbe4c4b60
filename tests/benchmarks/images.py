"""Pictures to measure with: drawn, with the detail and noise of photographs."""

import functools
import io
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image


def photograph(width, height, seed=0, quality=90):
    """A JPEG of soft shapes, a fine weave and sensor noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    period = max(width, height) / random.uniform(30, 90)
    weave = np.sin(2 * np.pi * rows / period) * np.sin(2 * np.pi * columns / period)
    picture = picture + 24 * weave[..., None] + random.normal(0, 3, (height, width, 3)).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_photograph(folder, width, height, number):
    path = folder / f"{number + 1}.jpg"
    path.write_bytes(photograph(width, height, number))
    return path


def folder_of_photographs(folder, count, width=800, height=600):
    """Writes `count` pictures as 1.jpg, 2.jpg, ...; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        return list(pool.map(functools.partial(write_photograph, folder, width, height), range(count), chunksize=16))
