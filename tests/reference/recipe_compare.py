"""Refines the same network with PyTorch, by the recipe and on the split of a run, and compares the accuracies.

    trainer train --classifier dnn --fold-batch-norm false --data DATA --out RUN --cache CACHE
    VENV/bin/python tests/reference/recipe_compare.py CACHE DATA RUN [RUN ...]     (needs torch, torchvision, onnx,
                                                                        onnxruntime, pillow and scikit-learn)

From a run come the split, the recipe, and the names of the trained values: those in which its network differs from the
pre-trained one. All else is done anew: images by Pillow, variations, the first head by scikit-learn's LinearSVC with C chosen
by cross-validation, AdamW, warm-up and cosine, label smoothing, weights of classes, clipped gradients, moving average of the
weights, and the choice of the epoch on a held-out part of the training part. Random numbers differ, so accuracies do too.
"""
import copy
import json
import math
import pathlib
import re
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageEnhance, ImageOps
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_predict
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, RandAugment

from refine_compare import attributes_of, operate

warnings.simplefilter("ignore")
GRID = [1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100]
HEAD = ("head.weight", "head.bias")


def unescape(path):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode()).decode()


def tensors(model):
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def pixels(path, longest):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    image.thumbnail((longest, longest), Image.BILINEAR)
    return image


def prepared(image, preprocessing):
    side = preprocessing["resolution"]
    scale = side / max(image.size)
    size = [max(1, round(length * scale)) for length in image.size]
    canvas = Image.new("RGB", (side, side), tuple(preprocessing["background"]))
    canvas.paste(image.resize(size, Image.BILINEAR), ((side - size[0]) // 2, (side - size[1]) // 2))
    values = (np.asarray(canvas, np.float32) - preprocessing["mean"]) / preprocessing["std"]
    return values.transpose(2, 0, 1).astype(np.float32)


def varied(image, augmentation, generator):
    box = []
    for whole in image.size:
        share = augmentation["smallest_crop"] + (1 - augmentation["smallest_crop"]) * generator.random()
        length = min(max(round(whole * share), 1), whole)
        begin = generator.integers(0, whole - length + 1)
        box.append((begin, begin + length))
    image = image.crop((box[0][0], box[1][0], box[0][1], box[1][1]))
    if augmentation["flip"] and generator.random() < 0.5:
        image = ImageOps.mirror(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(1 + augmentation["jitter"] * (2 * generator.random() - 1))
    drawn = augmentation["rand_augment"]
    draw = RandAugment(drawn["operations"], drawn["magnitude"], 31, InterpolationMode.BILINEAR, fill=[128] * 3)
    return draw(image)


def divided(model, trained):
    """The nodes that depend on a trained value, and the one value that they take from the others."""
    touched, upper, produced = set(trained), [], {out for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        if touched.intersection(node.input):
            touched.update(node.output)
            upper.append(node)
    cuts = {name for node in upper for name in node.input if name in produced and name not in touched}
    assert len(cuts) == 1, cuts
    return upper, cuts.pop()


def session(model, output):
    model = copy.deepcopy(model)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def through(runtime, images):
    name = runtime.get_inputs()[0].name
    return [runtime.run(None, {name: image[None]})[0][0] for image in images]


def temperature(margins, truths):
    losses = lambda scale: F.cross_entropy(torch.tensor(scale * margins), torch.tensor(truths)).item()
    return min(np.exp(np.linspace(-3, 5, 161)), key=losses)


def first_head(features, labels, groups):
    rows = normalize(features)
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=1).split(rows, labels, groups))
    search = GridSearchCV(LinearSVC(class_weight="balanced", max_iter=5000), {"C": GRID}, cv=folds).fit(rows, labels)
    svm = search.best_estimator_
    margins = cross_val_predict(svm, rows, labels, cv=folds, method="decision_function")
    weights, biases = svm.coef_, svm.intercept_
    if len(weights) == 1:
        margins = np.stack([-margins, margins], 1)
        weights, biases = np.concatenate([-weights, weights]), np.concatenate([-biases, biases])
    scale = temperature(margins, labels)
    return (scale * weights).astype(np.float32), (scale * biases).astype(np.float32)


def refine(recipe, model, upper, cut, parameters, views, plain, labels, held_out, test, generator):
    """Accuracy on `test` of the network that did best on `held_out`."""
    constants = {name: torch.tensor(values) for name, values in tensors(model).items() if name not in parameters}
    rows = np.setdiff1d(np.arange(len(views[0])), held_out)
    counts = np.bincount(labels[rows])
    weights = torch.tensor(len(rows) / len(counts) / counts, dtype=torch.float32)
    average = {name: value.detach().clone() for name, value in parameters.items()}
    decay = recipe["optimizer"]["adam-w"]["weight_decay"]
    matrices = [value for value in parameters.values() if value.ndim > 1]
    vectors = [value for value in parameters.values() if value.ndim == 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0)

    def logits(inputs, parameters, training):
        values = {cut: inputs, **constants, **parameters}
        for node in upper:
            if node.output[0] == "logits" and training:
                values[node.input[0]] = F.dropout(values[node.input[0]], recipe["dropout"])
            if all(name in values or not name for name in node.input):
                gathered = [values[name] if name else None for name in node.input]
                values[node.output[0]] = operate(node.op_type, gathered, attributes_of(node), False)
        return values["logits"]

    def judged(rows):
        with torch.no_grad():
            return torch.cat([logits(torch.tensor(plain[part]), average, False) for part in np.array_split(rows, len(rows) // 16 + 1)])

    minibatch, epochs, peak = recipe["minibatch"], recipe["epochs"], recipe["schedule"]["cosine"]["peak"]
    per_epoch = math.ceil(len(rows) / minibatch)
    steps, step, best = per_epoch * epochs, 0, (math.inf, None, None)
    for epoch in range(epochs + 1):
        outcome = judged(held_out)
        scale = temperature(outcome.numpy(), labels[held_out])
        loss = F.cross_entropy(scale * outcome, torch.tensor(labels[held_out])).item()
        if loss < best[0]:
            accuracy = (judged(test).argmax(1).numpy() == labels[test]).mean()
            best = (loss, epoch, accuracy)
        if epoch == epochs:
            return best
        order = generator.permutation(rows)
        for at in range(0, len(order), minibatch):
            batch = order[at : at + minibatch]
            warm = steps / 10
            rate = peak * (step + 1) / warm if step < warm else peak * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            truth = torch.tensor(labels[batch])
            given = logits(torch.tensor(views[epoch % len(views)][batch]), parameters, True)
            losses = F.cross_entropy(given, truth, label_smoothing=recipe["label_smoothing"], reduction="none")
            optimizer.zero_grad()
            (weights[truth] * losses).sum().div(weights[truth].sum()).backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), recipe["clip_norm"])
            optimizer.step()
            step += 1
            share = min(recipe["average"], (1 + step) / (10 + step))
            with torch.no_grad():
                for name, value in parameters.items():
                    average[name].mul_(share).add_(value, alpha=1 - share)


def compare(cache, data, run):
    recipe = json.loads((run / "parameters.json").read_text())["recipe"]
    manifest = json.loads((run / "bundle/manifest.json").read_text())
    model = onnx.load(run / "bundle/model.onnx")
    name = manifest["backbone"]["name"]
    original = tensors(onnx.load(next((cache / "backbones").glob(f"{name}-*-trainable.onnx"))))
    trained = {key for key, values in tensors(model).items() if key in original and not np.array_equal(values, original[key])}
    for initializer in model.graph.initializer:
        if initializer.name in trained:
            initializer.CopyFrom(numpy_helper.from_array(original[initializer.name], initializer.name))
    upper, cut = divided(model, trained)
    rows = [line.split("\t") for line in (run / "split.tsv").read_text().splitlines()[1:]]
    classes = manifest["classes"]
    labels = np.array([classes.index(unescape(row[1])) for row in rows])
    groups = np.array([row[3] for row in rows])
    train = np.array([at for at, row in enumerate(rows) if row[2] == "train"])
    test = np.array([at for at, row in enumerate(rows) if row[2] == "test"])
    # The training part first, so that a row of the views is a row of the plain images too.
    order = np.concatenate([train, test])
    labels, groups, count = labels[order], groups[order], len(train)
    longest = round(recipe["augmentation"]["scale"] * manifest["preprocessing"]["resolution"])
    images = [pixels(data / unescape(rows[at][0]), longest) for at in order]
    generator = np.random.default_rng(recipe["seed"])
    torch.manual_seed(recipe["seed"])
    prepare = lambda image: prepared(image, manifest["preprocessing"])
    lower = session(model, cut)
    plain = np.stack(through(lower, map(prepare, images)))
    vary = lambda image: prepare(varied(image, recipe["augmentation"], generator))
    views = [np.stack(through(lower, map(vary, images[:count]))) for _ in range(recipe["views"])]
    normalized = next(node for node in model.graph.node if node.op_type == "LpNormalization")
    features = np.stack(through(session(model, normalized.input[0]), map(prepare, images[:count])))
    folds = StratifiedGroupKFold(round(1 / recipe["validation"]), shuffle=True, random_state=recipe["seed"])
    seen, held_out = next(folds.split(features, labels[:count], groups[:count]))
    head = first_head(features.reshape(count, -1)[seen], labels[seen], groups[seen])
    parameters = {key: torch.tensor(original[key], requires_grad=True) for key in trained if "running" not in key}
    parameters.update({key: torch.tensor(values, requires_grad=True) for key, values in zip(HEAD, head)})
    tested = np.arange(count, len(order))
    loss, epoch, theirs = refine(
        recipe, model, upper, cut, parameters, views, plain, labels, held_out, tested, generator
    )
    ours = json.loads((run / "metrics.json").read_text())["accuracy"]
    print(
        f"{run}: Ikat {100 * ours:.1f} %, PyTorch {100 * theirs:.1f} % (epoch {epoch} of {recipe['epochs']}, "
        f"{len(parameters)} tensors trained above {cut}); {100 * (ours - theirs):+.1f} points",
        flush=True,
    )


for run in sys.argv[3:]:
    compare(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(run))
