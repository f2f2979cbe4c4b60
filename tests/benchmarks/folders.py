"""Folders of images: features, scores, copies of one picture."""

import functools
import json
import os
import re
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import images
import peer_function
from workplace import BINARIES, CORES, measured, row, trainer


def vectors_by_pillow(bundle, device, paths):
    """Features by Pillow and ONNX Runtime, several images at once."""
    provider, size = ("CPUExecutionProvider", 8) if device == "cpu" else ("CUDAExecutionProvider", 32)
    function = peer_function.Function(peer_function.reader_of_folder(bundle), providers=[provider])
    vectors = []
    for begin in range(0, len(paths), size):
        tensors = [function.tensor(path.read_bytes()) for path in paths[begin : begin + size]]
        vectors.append(function.features(np.concatenate(tensors)))
    return np.concatenate(vectors)


def by_pillow(bundle, paths, device="cpu"):
    """The same on all cores; gives the paths in their new order, their features, and images a second."""
    parts = [paths[core::CORES] for core in range(CORES)]
    begin = time.perf_counter()
    with ProcessPoolExecutor(CORES) as pool:
        vectors = list(pool.map(functools.partial(vectors_by_pillow, bundle, device), parts))
    rate = len(paths) / (time.perf_counter() - begin)
    return [path for part in parts for path in part], np.concatenate(vectors), rate


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


def by_torch(bundle, paths, device="cpu"):
    """Images a second of the same network as timm builds it; its weights do not matter for its speed."""
    import timm
    import torch
    from torch.utils.data import DataLoader

    begin = time.perf_counter()
    constants = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["preprocessing"]
    torch.set_num_threads(CORES)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval().to(device)
    loader = DataLoader(TorchImages(paths, constants), batch_size=32, num_workers=CORES)
    with torch.inference_mode():
        for batch in loader:
            network(batch.to(device)).cpu()
    return len(paths) / (time.perf_counter() - begin)


def folder(place, device="cpu"):
    """Features of a folder of JPEGs on all cores, or on a card that all cores read for."""
    count = 1_200 if device == "cpu" else 20_000
    paths = images.folder_of_photographs(place.folder / "photographs", count)
    listing = "\n".join(map(str, paths))
    begin = time.perf_counter()
    lines = trainer("featurize", "--stdin", "--device", device, input=listing.encode()).splitlines()
    ours = count / (time.perf_counter() - begin)
    order, vectors, pillow = by_pillow(place.bundle, paths, device)
    mine = {record["item"]: record["features"] for record in map(json.loads, lines)}
    for path, vector in zip(order, vectors):
        other = np.array(mine[str(path)])
        cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
        if cosine < 0.995:
            raise SystemExit(f"{path}: the features differ (cosine {cosine:.4f})")
    where = f"{CORES} cores" if device == "cpu" else f"{CORES} cores and {device}"
    work = f"features of {count} JPEGs of 800 x 600, {where}: images/s"
    torch = by_torch(place.bundle, paths, device)
    return [
        row(f"{work}, against ONNX Runtime and Pillow", f"{ours:.0f}", f"{pillow:.0f}", ours / pillow, -1.2),
        row(f"{work}, against PyTorch", f"{ours:.0f}", f"{torch:.0f}", ours / torch, -1.8),
    ]


def batch(place, distinct=1_000, copies=10):
    """Scores of many images on this machine; the peers give their features alone."""
    few = place.folder / "few"
    many = place.folder / "many"
    paths = images.folder_of_photographs(few, distinct, 640, 480)
    for number in range(copies):
        (many / str(number)).mkdir(parents=True)
        for path in paths:
            os.link(path, many / str(number) / path.name)
    all_paths = sorted(many.glob("*/*"))
    _, _, pillow = by_pillow(place.bundle, all_paths)
    torch = by_torch(place.bundle, paths)
    rows = []
    for name, bundle in place.bundles.items():
        command = [BINARIES / "trainer", "batch", "--local", "--bundle", bundle, "--input"]
        _, _, _, little = measured([*command, few, "--output", place.folder / f"few-{name}"])
        _, seconds, processor, much = measured([*command, many, "--output", place.folder / f"many-{name}"])
        ours = len(all_paths) / seconds
        note = (
            f"cores busy {100 * processor / seconds / CORES:.0f} %; memory {little:.0f} MiB for {distinct} images, "
            f"{much:.0f} MiB for {len(all_paths)}"
        )
        work = f"scores of {len(all_paths)} JPEGs of 640 x 480, {CORES} cores: images/s, {name}"
        rows.append(row(f"{work}, against ONNX Runtime and Pillow", f"{ours:.0f}", f"{pillow:.0f}", ours / pillow, -1.2, note))
        rows.append(row(f"{work}, against PyTorch", f"{ours:.0f}", f"{torch:.0f}", ours / torch, -1.8))
    return rows


def copies(place, count=20_000):
    """Difference hashes of a folder and the search for near-duplicates."""
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


def each_with_each(count):
    """Seconds to compare `count` hashes of 256 bits, each with each."""
    import dedupe_speed

    bits = np.random.default_rng(0).integers(0, 2, (count, 256)).astype(np.float32)
    return dedupe_speed.timed(lambda: dedupe_speed.near_pairs(bits))[0]


def search(place, compared=20_000):
    """Near-duplicates among hashes alone, of 256 bits, beside comparing each with each."""
    lines = subprocess.run([BINARIES / "examples/near_duplicates"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(\d+) hashes: ([\d.]+) s", lines)
    ours = {int(count): float(taken) for count, taken in found}
    theirs = {count: each_with_each(count) for count in [compared // 2, compared, 2 * compared]}
    place.growth.append(("near-duplicates among hashes", "hashes", {"Ikat": ours, "numpy, each with each": theirs}))
    note = ", ".join(f"{count} hashes {taken:.2f} s" for count, taken in ours.items())
    work = f"near-duplicates among {compared} hashes, against numpy comparing each with each"
    mine, peer = ours[compared], theirs[compared]
    return [row(work, f"{1000 * mine:.0f} ms", f"{1000 * peer:.0f} ms", peer / mine, -10, note)]
