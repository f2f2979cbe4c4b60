"""Images a second that a refinement learns from, beside PyTorch on the same device, network and minibatch.

    cargo build --release -p trainer --example refine_speed --example backbone
    VENV/bin/python tests/benchmarks/refinement.py [--device cuda] [--precision f32 bf16] [--minibatch 64 256]

On the processor it is the row `refine` of `cargo xtask bench`. For a CUDA device build with `--features cuda` and install a
PyTorch with CUDA. Networks have random weights, which do not matter here; memory is the process's largest on the processor,
the device's own is not measured.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from workplace import BINARIES, CACHE, CORES, measured, row

EXAMPLES = BINARIES / "examples"
CLASSES = 10
# Network, what of it is trained, and whether batch normalization takes the statistics of the batch.
WORKS = [
    ("resnet18", "all", True),
    ("resnet18", "last-stage", False),
    ("efficientnet-lite0", "all", True),
    ("efficientnet-lite0", "last-stage", False),
    ("resnet50", "last-stage", False),
]


def module(network, trained):
    """The network, or its last stage, as torchvision or timm builds it."""
    import timm
    import torch
    import torchvision

    if network.startswith("resnet"):
        whole = getattr(torchvision.models, network)(num_classes=CLASSES)
        upper = torch.nn.Sequential(whole.layer4, whole.avgpool, torch.nn.Flatten(), whole.fc)
    else:
        whole = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=CLASSES)
        upper = torch.nn.Sequential(
            *whole.blocks[5:], whole.conv_head, whole.bn2, whole.global_pool, whole.classifier
        )
    return whole if trained == "all" else upper


def torch_steps(work):
    """Seconds of each step in PyTorch; the work is that of `refine_speed`, with the shape of an input beside it."""
    import torch

    torch.manual_seed(1)
    torch.set_num_threads(CORES)
    device = torch.device(work["device"])
    network = module(work["network"], work["trained"]).to(device)
    network.train(work["statistics"] == "batch")
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    inputs = torch.rand([work["minibatch"], *work["shape"]], device=device)
    targets = torch.randint(0, CLASSES, [work["minibatch"]], device=device)
    seconds = []
    for _ in range(work["steps"] + 1):
        begin = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=work["precision"] == "bf16"):
            logits = network(inputs)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds[1:]}


def onnx_file(network, folder):
    """The catalogue's network as it is refined, from random weights."""
    import torch

    weights = []
    if network.startswith("resnet"):
        import torchvision

        torch.manual_seed(1)
        weights = [folder / f"{network}.pth"]
        torch.save(getattr(torchvision.models, network)().state_dict(), weights[0])
    command = [EXAMPLES / "backbone", CACHE, network, *weights]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[2]


def refine(place, device="cpu", precisions=("f32",), minibatches=(16,), steps=12):
    """Rows of the table, in images a second."""
    rows = []
    for network, trained, batch_statistics in WORKS:
        path = onnx_file(network, place.folder)
        for precision, minibatch in ((one, other) for one in precisions for other in minibatches):
            work = {
                "resolution": 224,
                "trained": trained,
                "minibatch": minibatch,
                "steps": steps,
                "device": device,
                "precision": precision,
                "statistics": "batch" if batch_statistics else "frozen",
            }
            mine, _, _, memory = measured([EXAMPLES / "refine_speed", CACHE, path, json.dumps(work)])
            mine = json.loads(mine)
            asked = {**work, "network": network, "shape": mine["shape"]}
            theirs, _, _, other = measured([sys.executable, __file__, "--torch", json.dumps(asked)])
            theirs = json.loads(theirs)
            rate = lambda answer: minibatch / statistics.median(answer["seconds"])
            what = "whole" if trained == "all" else "last stage, on activations kept from below"
            text = f"refinement of {network}, {what}: images/s, minibatch {minibatch}, {precision}, {device}"
            note = f"memory {memory:.0f} MiB against {other:.0f} MiB"
            rows.append(row(text, f"{rate(mine):.1f}", f"{rate(theirs):.1f}", rate(mine) / rate(theirs), None, note))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["f32"])
    parser.add_argument("--minibatch", nargs="+", type=int, default=[16])
    parser.add_argument("--torch", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        print(json.dumps(torch_steps(json.loads(arguments.torch))))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = argparse.Namespace(folder=pathlib.Path(folder))
        for entry in refine(place, arguments.device, arguments.precision, arguments.minibatch):
            print(f"{entry['work']}: {entry['ours']} against {entry['peer']} ({entry['ratio']:.2f}); {entry['note']}")


if __name__ == "__main__":
    main()
