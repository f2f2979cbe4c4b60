"""A Lambda Runtime API on loopback, as AWS documents it, and a function started behind it."""

import http.server
import json
import os
import queue
import subprocess
import threading
import time


class Runtime:
    """Hands events to one function and takes its answers."""

    def __init__(self):
        runtime = self
        self.events = queue.Queue()
        self.answers = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                identifier, body = runtime.events.get()
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", identifier)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 60_000))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:0:function:scorer")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else b""
                if not body and self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                if self.path.endswith("/response") or self.path.endswith("/error"):
                    runtime.answers.put((time.perf_counter(), self.path.endswith("/response"), body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # A function that is killed breaks its connection.
        self.server.handle_error = lambda *_: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def start(self, command, environment, log=subprocess.DEVNULL):
        """Starts a function that writes its log to the file `log`; gives the process."""
        return subprocess.Popen(
            command,
            env={
                **os.environ,
                **environment,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": "scorer",
                "AWS_LAMBDA_FUNCTION_VERSION": "1",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
                "AWS_LAMBDA_LOG_GROUP_NAME": "scorer",
                "AWS_LAMBDA_LOG_STREAM_NAME": "scorer",
            },
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

    def invoke(self, event):
        """Hands over `event`, a JSON text; gives the answer and when it came, in seconds of `perf_counter`."""
        self.events.put(("00000000-0000-0000-0000-000000000000", event))
        at, good, body = self.answers.get(timeout=120)
        if not good:
            raise RuntimeError(f"the function failed: {body.decode()}")
        return json.loads(body), at

    def stop(self):
        self.server.shutdown()


def peak_megabytes(process):
    """Largest memory that the process ever held."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
