"""Compares the refinement with PyTorch: every operator's output and gradient, and whole steps of whole networks.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 torchvision==0.24.1 onnx safetensors
    cargo build -p trainer --example refine_step --example backbone
    venv/bin/python tests/reference/refine_compare.py [--examples target/debug/examples] [--cache FOLDER]

Every operator stands in a network of its own: images + offset, the operator, a linear layer, cross-entropy. The gradient of
the offset is that of the operator's input. ResNet-18 (torchvision's own module, random weights) and EfficientNet-Lite0 (the
catalogue's weights) take one step of SGD with momentum and weight decay in training mode, with the statistics of the batch;
gradients, parameters, running statistics and logits are compared. Differences are relative to the largest value of each
tensor. Exits 1 where one is above 1e-4.

The gradients of whole networks are compared with smooth activations in place of ReLUs and clips: at their corners the gradient
jumps, where one rounding decides, and PyTorch's own in single precision was up to 17 % off its own in double precision. What
the real networks compute, and what they are after the step, is compared too.

Measured with PyTorch 2.9.1: 1.1e-6 at most for the operators' first step and 1.5e-5 after three steps of AdamW, 1.1e-5 for
ResNet-18, 5.2e-5 for EfficientNet-Lite0.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F

LIMIT = 1e-4
CLASSES = 3
# A gradient that is zero in theory is rounding alone: what is smaller than this share of the largest is not compared.
NOISE = 1e-3


def attributes_of(node):
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def padding(attributes, size, kernel, stride, dilation):
    """Left, right, top, bottom, as F.pad wants it."""
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        around = []
        for axis in (1, 0):
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            total = max((-(-size[axis] // stride[axis]) - 1) * stride[axis] + reach - size[axis], 0)
            small, large = total // 2, total - total // 2
            around += [small, large] if auto == "SAME_UPPER" else [large, small]
        return around
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    return [left, right, top, bottom]


def average(value, attributes, kernel, stride, dilation):
    """By unfolding, so that nothing is taken over from a pooling operator."""
    around = padding(attributes, value.shape[2:], kernel, stride, dilation)
    included = bool(attributes.get("count_include_pad", 0))
    counted = F.pad(torch.ones_like(value[:1, :1]), around, value=float(included))
    padded = F.pad(value, around)
    reach = [(kernel[axis] - 1) * dilation[axis] + 1 for axis in range(2)]
    overhang, positions = [0, 0], [0, 0]
    for axis in range(2):
        room = padded.shape[2 + axis] - reach[axis]
        steps = room // stride[axis]
        begin = around[2] if axis == 0 else around[0]
        if attributes.get("ceil_mode", 0) and steps * stride[axis] < room:
            if (steps + 1) * stride[axis] < value.shape[2 + axis] + begin:
                steps += 1
        positions[axis] = steps + 1
        overhang[axis] = max(steps * stride[axis] + reach[axis] - padded.shape[2 + axis], 0)
    beyond = [0, overhang[1], 0, overhang[0]]
    windows = F.unfold(F.pad(padded, beyond), kernel, dilation=dilation, stride=stride)
    counts = F.unfold(F.pad(counted, beyond), kernel, dilation=dilation, stride=stride)
    images, channels = value.shape[:2]
    sums = windows.reshape(images, channels, kernel[0] * kernel[1], -1).sum(2)
    return (sums / counts.sum(1, keepdim=True)).reshape(images, channels, *positions)


def run(model, parameters, image, training):
    """The network's last output by PyTorch; running statistics in `parameters` follow where `training` is set."""
    values = {model.graph.input[0].name: image, **parameters}
    for tensor in model.graph.initializer:
        values.setdefault(tensor.name, torch.from_numpy(numpy_helper.to_array(tensor).copy()))
    for node in model.graph.node:
        inputs = [values[name] if name else None for name in node.input]
        attributes = attributes_of(node)
        values[node.output[0]] = operate(node.op_type, inputs, attributes, training)
    return values


def operate(operator, inputs, attributes, training):
    value = inputs[0]
    stride = attributes.get("strides", [1, 1])
    dilation = attributes.get("dilations", [1, 1])
    match operator:
        case "Conv":
            around = padding(attributes, value.shape[2:], inputs[1].shape[2:], stride, dilation)
            bias = inputs[2] if len(inputs) > 2 else None
            groups = attributes.get("group", 1)
            return F.conv2d(F.pad(value, around), inputs[1], bias, stride, 0, dilation, groups)
        case "BatchNormalization":
            _, scale, shift, mean, variance = inputs
            momentum, epsilon = 1 - attributes.get("momentum", 0.9), attributes.get("epsilon", 1e-5)
            return F.batch_norm(value, mean, variance, scale, shift, training, momentum, epsilon)
        case "Relu":
            return F.relu(value)
        case "LeakyRelu":
            return F.leaky_relu(value, attributes.get("alpha", 0.01))
        case "Clip":
            low, high = (inputs[1:] + [None, None])[:2]
            return torch.clamp(value, low, high)
        case "Sigmoid":
            return torch.sigmoid(value)
        case "HardSigmoid":
            return torch.clamp(attributes.get("alpha", 0.2) * value + attributes.get("beta", 0.5), 0, 1)
        case "HardSwish":
            return F.hardswish(value)
        case "Add":
            return value + inputs[1]
        case "Sub":
            return value - inputs[1]
        case "Mul":
            return value * inputs[1]
        case "Div":
            return value / inputs[1]
        case "MaxPool":
            kernel = attributes["kernel_shape"]
            around = padding(attributes, value.shape[2:], kernel, stride, dilation)
            padded = F.pad(value, around, value=float("-inf"))
            return F.max_pool2d(padded, kernel, stride, 0, dilation, bool(attributes.get("ceil_mode", 0)))
        case "AveragePool":
            return average(value, attributes, attributes["kernel_shape"], stride, dilation)
        case "GlobalAveragePool":
            return value.mean((2, 3), keepdim=True)
        case "ReduceMean":
            return value.mean((2, 3), keepdim=bool(attributes.get("keepdims", 1)))
        case "Pad":
            _, _, top, left, _, _, bottom, right = inputs[1].tolist()
            return F.pad(value, [left, right, top, bottom], value=float(inputs[2]))
        case "Flatten" | "Reshape" | "Squeeze":
            return value.flatten(1)
        case "Gemm":
            matrix = inputs[1].T if attributes.get("transB", 0) else inputs[1]
            product = attributes.get("alpha", 1.0) * (value @ matrix)
            return product + attributes.get("beta", 1.0) * inputs[2] if len(inputs) > 2 else product
        case "MatMul":
            return value @ inputs[1]
        case "LpNormalization":
            return F.normalize(value, dim=1)
        case "Concat":
            return torch.cat(inputs, 1)
        case "Dropout" | "Identity":
            return value
    raise NotImplementedError(operator)


def floats(name, values):
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def network(shape, nodes, tensors, generator, rows=None):
    """Images + offset, the nodes (from `x` to `y`), and a linear layer on what they give."""
    tensors = [floats("offset", np.zeros(shape)), *tensors]
    nodes = [helper.make_node("Add", ["image", "offset"], ["x"]), *nodes]
    if rows is None:
        nodes.append(helper.make_node("Flatten", ["y"], ["rows"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["y"], ["rows"]))
    graph = helper.make_graph(
        nodes,
        "operator",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    parameters = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in tensors}
    length = run(model, parameters, torch.zeros(shape), False)["rows"].shape[1]
    return with_head(model, "rows", length, generator)


def with_head(model, features, length, generator):
    graph = model.graph
    graph.initializer.append(floats("head.weight", generator.normal(size=(CLASSES, length)) / length**0.5))
    graph.initializer.append(floats("head.bias", generator.normal(size=CLASSES) * 0.1))
    graph.node.append(helper.make_node("Gemm", [features, "head.weight", "head.bias"], ["logits"], transB=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES]))
    return model


def operators(generator):
    """Name, and a network of one operator."""
    shape = [3, 4, 9, 8]
    draw = lambda *size: generator.normal(size=size) * 0.5

    def case(name, *nodes, tensors=(), size=shape, rows=None):
        return name, network(size, list(nodes), list(tensors), generator, rows)

    def one(name, operator, inputs=(), tensors=(), size=shape, rows=None, **attributes):
        return case(name, helper.make_node(operator, ["x", *inputs], ["y"], **attributes), tensors=tensors, size=size, rows=rows)

    def convolution(name, kernel, bias=False, **attributes):
        tensors = [floats("kernel", draw(*kernel))] + ([floats("bias", draw(kernel[0]))] if bias else [])
        return one(name, "Conv", [tensor.name for tensor in tensors], tensors, **attributes)

    def pool(name, operator, **attributes):
        return one(name, operator, **attributes)

    integers = lambda name, values: numpy_helper.from_array(np.asarray(values, np.int64), name)
    statistics = [
        floats("scale", 1 + draw(4)),
        floats("shift", draw(4)),
        floats("mean", draw(4)),
        floats("variance", 0.5 + np.abs(draw(4))),
    ]
    names = [tensor.name for tensor in statistics]
    yield convolution("Conv", (5, 4, 3, 3))
    yield convolution("Conv with bias, stride 2, pads 1", (5, 4, 3, 3), True, strides=[2, 2], pads=[1, 1, 1, 1])
    yield convolution("Conv with uneven pads", (5, 4, 3, 2), True, pads=[0, 1, 2, 0])
    yield convolution("Conv SAME_UPPER", (5, 4, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
    yield convolution("Conv SAME_LOWER", (5, 4, 2, 3), strides=[2, 1], auto_pad="SAME_LOWER")
    yield convolution("Conv in 2 groups", (6, 2, 3, 3), True, group=2)
    yield convolution("Conv depthwise", (4, 1, 5, 5), group=4, pads=[2, 2, 2, 2])
    yield convolution("Conv dilated", (5, 4, 3, 3), dilations=[2, 3])
    yield convolution("Conv 1 x 1", (5, 4, 1, 1), True)
    yield convolution("Conv 1 x 1, stride 2", (5, 4, 1, 1), strides=[2, 2])
    yield one("BatchNormalization", "BatchNormalization", names, statistics, epsilon=1e-3, momentum=0.8)
    yield one("Relu", "Relu")
    yield one("LeakyRelu", "LeakyRelu", alpha=0.1)
    yield one("Clip from below and above", "Clip", ["low", "high"], [floats("low", -0.5), floats("high", 0.7)])
    yield one("Clip from below", "Clip", ["low"], [floats("low", -0.2)])
    yield one("Sigmoid", "Sigmoid")
    yield one("HardSigmoid", "HardSigmoid", alpha=0.3, beta=0.4)
    yield one("HardSwish", "HardSwish")
    yield case(
        "Mul of two values",
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["y"]),
    )
    yield one("Mul by a constant", "Mul", ["factor"], [floats("factor", draw(1, 4, 1, 1))])
    yield case(
        "Mul of a map by one value a channel",
        helper.make_node("GlobalAveragePool", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["y"]),
    )
    yield case(
        "Add of two values",
        helper.make_node("Relu", ["x"], ["branch"]),
        helper.make_node("Add", ["x", "branch"], ["y"]),
    )
    yield one("Add of a parameter", "Add", ["shift"], [floats("shift", draw(4, 1, 1))])
    yield one("Add of a number", "Add", ["three"], [floats("three", 3.0)])
    yield one("Sub of a constant", "Sub", ["shift"], [floats("shift", draw(4, 1, 1))])
    yield one("Div by a constant", "Div", ["factor"], [floats("factor", 1 + np.abs(draw(1, 4, 1, 1)))])
    for operator in ("Sub", "Div"):
        yield case(
            f"{operator} of a map and one value a channel",
            helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
            helper.make_node("Sigmoid", ["mean"], ["gate"]),
            helper.make_node(operator, ["x", "gate"], ["y"]),
        )
        yield case(
            f"{operator} of a constant and a map",
            helper.make_node("Sigmoid", ["x"], ["gate"]),
            helper.make_node(operator, ["one", "gate"], ["y"]),
            tensors=[floats("one", 1.0)],
        )
    yield pool("MaxPool", "MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    yield pool("MaxPool with pads", "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    yield pool("MaxPool with uneven pads", "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    yield pool("MaxPool ceil_mode", "MaxPool", kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1)
    yield pool("MaxPool dilated", "MaxPool", kernel_shape=[2, 2], dilations=[2, 2])
    for included in (0, 1):
        what = f"AveragePool, padding {'counted' if included else 'left out'}"
        count = {"count_include_pad": included}
        yield pool(what, "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], **count)
        yield pool(f"{what}, uneven", "AveragePool", kernel_shape=[3, 2], strides=[2, 2], pads=[0, 1, 2, 0], **count)
        yield pool(f"{what}, ceil_mode", "AveragePool", kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1, **count)
        yield pool(
            f"{what}, ceil_mode and pads",
            "AveragePool",
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            ceil_mode=1,
            **count,
        )
        yield pool(f"{what}, dilated", "AveragePool", kernel_shape=[2, 2], dilations=[3, 2], pads=[1, 0, 1, 1], **count)
        yield pool(f"{what}, SAME_UPPER", "AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", **count)
    yield one("GlobalAveragePool", "GlobalAveragePool")
    yield one("ReduceMean", "ReduceMean", ["axes"], [integers("axes", [2, 3])], rows=True, keepdims=0)
    yield one("Pad", "Pad", ["pads", "value"], [integers("pads", [0, 0, 1, 2, 0, 0, 0, 3]), floats("value", 0.3)])
    yield one("Flatten", "Flatten", rows=True, axis=1)
    yield one("Reshape", "Reshape", ["shape"], [integers("shape", [0, -1])], rows=True)
    yield one("Squeeze", "Squeeze", ["axes"], [integers("axes", [2, 3])], size=[3, 6, 1, 1], rows=True)
    flat = helper.make_node("Flatten", ["x"], ["flat"], axis=1)
    small = [3, 2, 3, 2]

    def on_rows(name, operator, inputs=(), tensors=(), **attributes):
        node = helper.make_node(operator, ["flat", *inputs], ["y"], **attributes)
        return case(name, flat, node, tensors=tensors, size=small, rows=True)

    yield on_rows("Gemm", "Gemm", ["matrix"], [floats("matrix", draw(12, 5))])
    yield on_rows(
        "Gemm with all it takes",
        "Gemm",
        ["matrix", "bias"],
        [floats("matrix", draw(5, 12)), floats("bias", draw(5))],
        transB=1,
        alpha=0.7,
        beta=1.3,
    )
    yield on_rows("MatMul", "MatMul", ["matrix"], [floats("matrix", draw(12, 5))])
    yield on_rows("LpNormalization", "LpNormalization", axis=1, p=2)
    yield on_rows("Add to rows", "Add", ["shift"], [floats("shift", draw(12))])
    yield case(
        "Concat",
        helper.make_node("Relu", ["x"], ["branch"]),
        helper.make_node("Concat", ["x", "branch"], ["y"], axis=1),
    )
    yield one("Identity", "Identity")
    yield one("Dropout of nothing", "Dropout", ["ratio"], [floats("ratio", 0.0)])


def batch_of(shape, generator):
    labels = np.arange(shape[0]) % CLASSES
    targets = np.full((shape[0], CLASSES), 0.1 / CLASSES) + 0.9 * np.eye(CLASSES)[labels]
    return {
        "inputs": generator.normal(size=shape).astype(np.float32),
        "targets": targets.astype(np.float32),
        "weights": generator.uniform(0.5, 2, size=shape[0]).astype(np.float32),
    }


def ours(binary, model, batch, options):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(model, folder / "network.onnx")
        save_file(batch, folder / "batch.safetensors")
        command = [binary, *(folder / name for name in ("network.onnx", "batch.safetensors", "after.safetensors"))]
        subprocess.run([*command, json.dumps(options)], check=True)
        return load_file(folder / "after.safetensors")


def optimizer_of(options, decayed, plain):
    (name, values), = options["optimizer"].items()
    decay = values["weight_decay"]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=options["rate"], momentum=values["momentum"])
    return torch.optim.AdamW(groups, lr=options["rate"])


def theirs(forward, parameters, trained, batch, options):
    """`forward(images, training)` gives logits and lets the running statistics in `parameters` follow."""
    images = torch.from_numpy(batch["inputs"])
    targets, weights = torch.from_numpy(batch["targets"]), torch.from_numpy(batch["weights"])
    for name in trained:
        parameters[name].requires_grad_(True)
    optimizer = optimizer_of(
        options,
        [parameters[name] for name, decays in trained.items() if decays],
        [parameters[name] for name, decays in trained.items() if not decays],
    )
    with torch.no_grad():
        answer = {"before": forward(images, False)}
    losses = []
    for _ in range(options["steps"]):
        optimizer.zero_grad()
        logits = forward(images, options["statistics"] == "batch")
        loss = -(F.log_softmax(logits, 1) * targets * (weights / weights.sum())[:, None]).sum()
        loss.backward()
        losses.append(loss.detach())
        if options["clip_norm"]:
            torch.nn.utils.clip_grad_norm_([parameters[name] for name in trained], options["clip_norm"])
        optimizer.step()
    with torch.no_grad():
        answer["after"] = forward(images, False)
    answer["loss"] = torch.stack(losses)
    for name, value in parameters.items():
        answer[f"parameter/{name}"] = value.detach()
        for key, memory in (("momentum_buffer", "momentum"), ("exp_avg", "mean"), ("exp_avg_sq", "square")):
            if key in optimizer.state.get(value, {}):
                answer[f"{memory}/{name}"] = optimizer.state[value][key]
    return {name: value.numpy().ravel() for name, value in answer.items()}


def difference(mine, other, without=()):
    """The largest, with the name of its tensor; kinds of tensors in `without` are left out."""
    other = {name: values for name, values in other.items() if name.split("/")[0] not in without}
    scales = {}
    for name, values in other.items():
        kind = name.split("/")[0]
        scales[kind] = max(scales.get(kind, 0.0), float(np.abs(values).max()))
    worst = (0.0, "")
    for name, values in other.items():
        floor = NOISE * scales[name.split("/")[0]]
        # Logits that differ in the last bits are compared with the largest of them.
        scale = max(float(np.abs(values).max()), floor, 1e-12)
        if name not in mine:
            sys.exit(f"{name} is missing")
        worst = max(worst, (float(np.abs(mine[name] - values).max()) / scale, name))
    return worst


ROLES = {"Conv": {1: True, 2: False}, "Gemm": {1: True, 2: False}, "MatMul": {1: True}}


def trained_of(model):
    """Names of what is trained, and whether weight decay applies; by the operators that use it."""
    trained, known = {}, {tensor.name for tensor in model.graph.initializer}
    single = {tensor.name for tensor in model.graph.initializer if np.prod(tensor.dims) == 1}
    for node in model.graph.node:
        roles = ROLES.get(node.op_type, {})
        if node.op_type == "BatchNormalization":
            roles = {1: False, 2: False}
        if node.op_type == "Add":
            roles = {position: False for position in (0, 1) if node.input[position] not in single}
        for position, decays in roles.items():
            if position < len(node.input) and node.input[position] in known:
                trained[node.input[position]] = decays
    return trained


def interpreted(model):
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}
    trained = trained_of(model)
    statistics = {
        name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]
    }
    parameters = {name: value for name, value in tensors.items() if name in trained or name in statistics}
    forward = lambda images, training: run(model, parameters, images, training)["logits"]
    return forward, parameters, trained


def smoothed(model):
    """The network with x sigmoid(x) in place of each clip and ReLU."""
    nodes = []
    for node in model.graph.node:
        if node.op_type in ("Clip", "Relu"):
            gate = f"{node.output[0]}.gate"
            nodes.append(helper.make_node("Sigmoid", [node.input[0]], [gate]))
            nodes.append(helper.make_node("Mul", [node.input[0], gate], [node.output[0]]))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def resnet18(backbone, folder, generator, smooth):
    """torchvision's module with a new last layer, and our network from the same weights; with x sigmoid(x) for ReLUs if `smooth`."""
    torch.manual_seed(5)
    module = torchvision.models.resnet18()
    with torch.no_grad():
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    weights = Path(folder) / "resnet18.pth"
    torch.save(module.state_dict(), weights)
    model = with_head(onnx.load(backbone("resnet18", weights)), "features", 512, generator)
    module.fc = torch.nn.Linear(512, CLASSES)
    head = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    with torch.no_grad():
        module.fc.weight.copy_(torch.from_numpy(head["head.weight"].copy()))
        module.fc.bias.copy_(torch.from_numpy(head["head.bias"].copy()))
    if smooth:
        model = smoothed(model)
        for block in module.modules():
            if hasattr(block, "relu"):
                block.relu = torch.nn.SiLU()
    ours_of = {"fc.weight": "head.weight", "fc.bias": "head.bias"}
    parameters = {ours_of.get(name, name): value for name, value in module.named_parameters()}
    trained = {name: value.dim() > 1 for name, value in parameters.items()}
    parameters.update((name, value) for name, value in module.named_buffers() if "running" in name)

    def forward(images, training):
        return module.train(training)(images)

    return model, forward, parameters, trained


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=Path, default=Path("target/debug/examples"))
    parser.add_argument("--cache", default=str(Path.home() / ".cache/ikat"))
    arguments = parser.parse_args()
    binary = arguments.examples / "refine_step"

    def backbone(name, *weights):
        command = [arguments.examples / "backbone", arguments.cache, name, *weights]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return answer.stdout.splitlines()[2]

    generator = np.random.default_rng(7)
    worst = 0.0

    def check(name, mine, other, without=()):
        nonlocal worst
        found, where = difference(mine, other, without)
        worst = max(worst, found)
        print(f"{name}: largest relative difference {found:.1e} in {where}", flush=True)

    plain = {"sgd": {"momentum": 0.9, "weight_decay": 0.0}}
    adamw = {"adam-w": {"weight_decay": 0.05}}
    for name, model in operators(generator):
        shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
        batch = batch_of(shape, generator)
        for statistics in ("frozen", "batch") if name == "BatchNormalization" else ("frozen",):
            options = {"output": "logits", "optimizer": plain, "statistics": statistics, "rate": 0.5, "steps": 1, "clip_norm": None}
            what = f"{name} ({statistics})" if name == "BatchNormalization" else name
            check(what, ours(binary, model, batch, options), theirs(*interpreted(model), batch, options))
            if name == "Conv with bias, stride 2, pads 1":
                options.update(optimizer=adamw, rate=0.01, steps=3)
                what = f"{name}: three steps of AdamW"
                check(what, ours(binary, model, batch, options), theirs(*interpreted(model), batch, options))

    print()
    sgd = {"sgd": {"momentum": 0.9, "weight_decay": 5e-4}}
    options = {"output": "logits", "optimizer": sgd, "statistics": "batch", "rate": 0.01, "steps": 1, "clip_norm": None}
    with tempfile.TemporaryDirectory() as folder:
        batch = batch_of([6, 3, 96, 96], generator)
        lite0 = lambda: with_head(onnx.load(backbone("efficientnet-lite0")), "features", 1280, np.random.default_rng(3))
        for clip_norm in (None, 0.1):
            options["clip_norm"] = clip_norm
            clipped = f", gradient clipped to {clip_norm}" if clip_norm else ""
            model, *reference = resnet18(backbone, folder, np.random.default_rng(3), smooth=True)
            what = f"resnet18 with smooth activations{clipped}"
            check(what, ours(binary, model, batch, options), theirs(*reference, batch, options))
            model = smoothed(lite0())
            what = f"efficientnet-lite0 with smooth activations{clipped}"
            check(what, ours(binary, model, batch, options), theirs(*interpreted(model), batch, options))
        model, *reference = resnet18(backbone, folder, np.random.default_rng(3), smooth=False)
        what = "resnet18, all but the gradients"
        check(what, ours(binary, model, batch, options), theirs(*reference, batch, options), ("momentum",))
        model = lite0()
        what = "efficientnet-lite0, all but the gradients"
        check(what, ours(binary, model, batch, options), theirs(*interpreted(model), batch, options), ("momentum",))
    print(f"\nworst {worst:.1e}")
    sys.exit(0 if worst <= LIMIT else 1)


if __name__ == "__main__":
    main()
