"""The scoring function as one would write it in Python: Pillow, numpy and ONNX Runtime, the model in S3.

As a program it serves the Lambda Runtime API at AWS_LAMBDA_RUNTIME_API with the bundle at IKAT_MODEL
(s3://bucket/prefix/name) or in the folder IKAT_BUNDLE.
"""

import base64
import http.client
import io
import json
import os

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def options(threads):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    return settings


def letterbox(image, side, background):
    """The whole picture on a square, scaled with Pillow's antialiasing."""
    scale = side / max(image.size)
    size = [max(1, round(length * scale)) for length in image.size]
    square = Image.new("RGB", (side, side), tuple(background))
    square.paste(image.resize(size, Image.Resampling.BILINEAR), [(side - length) // 2 for length in size])
    return square


class Function:
    """A bundle in memory; `read` gives the bytes of one of its files."""

    def __init__(self, read, threads=1, providers=("CPUExecutionProvider",)):
        manifest = json.loads(read("manifest.json"))
        classifier = json.loads(read("svm.json"))
        self.classes = manifest["classes"]
        self.preprocessing = manifest["preprocessing"]
        self.scale = manifest["calibration"]["scale"]
        self.weights = np.array(classifier["weights"], np.float32)
        self.intercepts = np.array(classifier["intercepts"], np.float32)
        self.session = onnxruntime.InferenceSession(
            read("model.onnx"), options(threads), providers=providers
        )
        if self.session.get_providers()[0] != providers[0]:
            raise SystemExit(f"ONNX Runtime has no {providers[0]} here")
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def tensor(self, data):
        """The network's input for an encoded image."""
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        constants = self.preprocessing
        pixels = np.asarray(letterbox(image, constants["resolution"], constants["background"]), np.float32)
        pixels = (pixels - np.float32(constants["mean"])) / np.float32(constants["std"])
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]

    def features(self, tensors):
        """The network's vectors for a batch of inputs."""
        return self.session.run([self.output], {self.input: tensors})[0]

    def handle(self, event):
        """Answers an event with an image in base64."""
        vector = self.features(self.tensor(base64.b64decode(event["image"])))[0]
        vector = vector / np.linalg.norm(vector)
        scores = np.exp(self.scale * (self.weights @ vector + self.intercepts))
        scores = scores / scores.sum()
        best = int(scores.argmax())
        return {
            "label": self.classes[best],
            "score": float(scores[best]),
            "scores": dict(zip(self.classes, map(float, scores))),
        }


def reader_of_s3(address):
    """Reads the files of the live version of a model in S3."""
    import boto3

    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = boto3.client("s3")

    def get(key):
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()

    version = json.loads(get(f"{prefix}/live.json"))["version"]
    return lambda name: get(f"{prefix}/versions/{version}/{name}")


def reader_of_folder(folder):
    """Reads the files of a bundle on this machine."""

    def read(name):
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()

    return read


def serve():
    if "IKAT_BUNDLE" in os.environ:
        function = Function(reader_of_folder(os.environ["IKAT_BUNDLE"]))
    else:
        function = Function(reader_of_s3(os.environ["IKAT_MODEL"]))
    # One connection for all, as Lambda's own client keeps it.
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    invocation = "/2018-06-01/runtime/invocation"
    while True:
        api.request("GET", f"{invocation}/next")
        response = api.getresponse()
        identifier = response.headers["Lambda-Runtime-Aws-Request-Id"]
        answer = function.handle(json.load(response))
        api.request("POST", f"{invocation}/{identifier}/response", json.dumps(answer).encode())
        api.getresponse().read()


if __name__ == "__main__":
    serve()
