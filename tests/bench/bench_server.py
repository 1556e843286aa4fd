"""Runs a `weir serve` process, an HTTP client for it, and a generator of documents."""

import asyncio
import json
import signal
import subprocess
import time

BOUNDARY = "weir-bench-border"


def multipart_form(files, options):
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="options"\r\n\r\n{json.dumps(options)}\r\n'
    parts = [head.encode()]
    for name, content in files:
        head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


class SampleDocuments:
    """Generates text documents and scanned documents, each different."""

    def __init__(self, program, folder):
        self.program, self.path, self.seed = program, folder / "sample.pdf", 0

    def text_document(self, pages):
        self.seed += 1
        command = [self.program, "--only", "text", "--pages", str(pages), "--seed", str(self.seed), str(self.path)]
        subprocess.run(command, check=True)
        return self.path.read_bytes()

    def scanned_document(self, pages):
        """Returns a document of images without a text layer. A comment after the end of the file makes each document different."""
        self.seed += 1
        subprocess.run([self.program, "--only", "scanned-book", "--pages", str(pages), str(self.path)], check=True)
        return self.path.read_bytes() + f"\n% {self.seed}\n".encode()


class Server:
    def __init__(self, weir, folder, settings):
        sets = [part for setting in settings for part in ("--set", setting)]
        self.command = [weir, "serve", "--json", "--listen", "127.0.0.1:0", "--data", str(folder / "data"), *sets]
        self.weir = weir
        self.start()

    def start(self):
        """Starts the server, or starts it again with the same data folder."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        response = json.loads(self.process.stdout.readline())
        host, port = response["address"].removeprefix("http://").rsplit(":", 1)
        self.address, self.admin = (host, int(port)), response.get("admin_key")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=60) != 0:
            raise SystemExit(f"the server ended with {self.process.returncode}")

    async def create_tenant(self, name, weight=1, scopes=("ingest", "read")):
        status, response = await self.request_json("POST", "/v1/tenants", self.admin, {"id": name, "weight": weight})
        assert status == 201, response
        status, response = await self.request_json("POST", f"/v1/tenants/{name}/keys", self.admin, {"scopes": list(scopes), "label": "bench"})
        assert status == 201, response
        return response["secret"]

    async def open_request(self, method, path, key, body=b"", kind="application/json"):
        reader, writer = await asyncio.open_connection(*self.address, limit=1 << 20)
        head = f"{method} {path} HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        if body:
            head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
        return status, reader, writer

    async def request_json(self, method, path, key, body=None):
        sent = b"" if body is None else json.dumps(body).encode()
        return await self.read_json(await self.open_request(method, path, key, sent))

    async def read_json(self, opened):
        status, reader, writer = opened
        answer = await reader.read()
        writer.close()
        return status, json.loads(answer[answer.find(b"{") : answer.rfind(b"}") + 1] or b"{}")

    async def submit(self, key, *documents, pipeline="default"):
        files = [(f"{number}.pdf", content) for number, content in enumerate(documents)]
        body = multipart_form(files, {"pipeline": pipeline})
        opened = await self.open_request("POST", "/v1/jobs", key, body, f"multipart/form-data; boundary={BOUNDARY}")
        return await self.read_json(opened)

    async def post_ok(self, key, path, body):
        """Sends a POST that must succeed and returns the response."""
        status, response = await self.request_json("POST", path, key, body)
        assert status in (200, 201), response
        return response

    async def push_component(self, key, name, component):
        opened = await self.open_request("POST", f"/v1/components?name={name}", key, component, "application/wasm")
        status, response = await self.read_json(opened)
        assert status in (200, 201), response

    async def wait_for_job(self, key, job):
        """Waits until the job is done and returns it."""
        async for event in self.follow_events(key, job):
            if event["type"] == "job-ended":
                assert event["state"] == "done", event
                return (await self.request_json("GET", f"/v1/jobs/{job}", key))[1]
        raise SystemExit("an event stream ended before its job")

    async def follow_events(self, key, job):
        """Yields the events of a job as they arrive."""
        status, reader, writer = await self.open_request("GET", f"/v1/jobs/{job}/events", key)
        assert status == 200, status
        try:
            while line := await reader.readline():
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        finally:
            writer.close()

    async def time_job(self, key, *documents):
        """Submits a job. Returns the seconds until the first page is done and until the job has ended."""
        started, first = time.monotonic(), None
        status, job = await self.submit(key, *documents)
        assert status == 202, job
        async for event in self.follow_events(key, job["id"]):
            if event["type"] == "page-done":
                first = first or time.monotonic() - started
            if event["type"] == "job-ended":
                assert event["state"] == "done", event
                return first, time.monotonic() - started
        raise SystemExit("an event stream ended before its job")

    async def metered_pages(self, key):
        _, usage = await self.request_json("GET", "/v1/usage", key)
        return sum(day["pages"] for day in usage["days"])
