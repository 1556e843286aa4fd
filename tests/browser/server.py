"""Runs a `weir serve` process with its own data folder, which can be killed and restarted at the same address."""

import json
import os
import signal
import socket
import subprocess
import urllib.request


class Server:
    def __init__(self, weir, folder, settings=()):
        self.weir, self.folder, self.settings = weir, folder, settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.base = f"http://{self.address}"
        self.key = None
        self.start()

    def start(self):
        sets = [part for setting in self.settings for part in ("--set", setting)]
        self.process = subprocess.Popen(
            [self.weir, "serve", "--json", "--listen", self.address, "--data", os.path.join(self.folder, "data"), *sets],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"weir serve ended with {self.process.wait()}")
        self.key = json.loads(line)["admin_key"] or self.key

    def kill(self):
        """Kills the process without a shutdown, as a power failure would."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def request_json(self, path, body=None):
        """Sends a request to the API with the same key and returns the JSON response."""
        request = urllib.request.Request(self.base + path, data=json.dumps(body).encode() if body is not None else None)
        request.add_header("authorization", f"Bearer {self.key}")
        if body is not None:
            request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request) as response:
            return json.load(response)
