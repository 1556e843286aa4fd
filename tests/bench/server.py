"""A `weir serve` of one's own, a client of it, and documents to hand in."""

import asyncio
import json
import signal
import subprocess
import time

BORDER = "weir-bench-border"


def form(files, options):
    head = f'--{BORDER}\r\ncontent-disposition: form-data; name="options"\r\n\r\n{json.dumps(options)}\r\n'
    parts = [head.encode()]
    for name, content in files:
        head = f'--{BORDER}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{BORDER}--\r\n".encode()])


class Samples:
    """Documents of text and scanned ones, each different."""

    def __init__(self, program, folder):
        self.program, self.path, self.seed = program, folder / "sample.pdf", 0

    def text(self, pages):
        self.seed += 1
        command = [self.program, "--only", "text", "--pages", str(pages), "--seed", str(self.seed), str(self.path)]
        subprocess.run(command, check=True)
        return self.path.read_bytes()

    def scan(self, pages):
        """Pages that are images and have no text of their own. A comment behind the end makes each document another."""
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
        """Once more over the same data, after it was stopped."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        said = json.loads(self.process.stdout.readline())
        host, port = said["address"].removeprefix("http://").rsplit(":", 1)
        self.place, self.admin = (host, int(port)), said.get("admin_key")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=60) != 0:
            raise SystemExit(f"the server ended with {self.process.returncode}")

    async def tenant(self, name, weight=1, scopes=("ingest", "read")):
        status, said = await self.ask("POST", "/v1/tenants", self.admin, {"id": name, "weight": weight})
        assert status == 201, said
        status, said = await self.ask("POST", f"/v1/tenants/{name}/keys", self.admin, {"scopes": list(scopes), "label": "bench"})
        assert status == 201, said
        return said["secret"]

    async def open(self, method, path, key, body=b"", kind="application/json"):
        reader, writer = await asyncio.open_connection(*self.place, limit=1 << 20)
        head = f"{method} {path} HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        if body:
            head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
        return status, reader, writer

    async def ask(self, method, path, key, body=None):
        sent = b"" if body is None else json.dumps(body).encode()
        return await self.whole(await self.open(method, path, key, sent))

    async def whole(self, opened):
        status, reader, writer = opened
        answer = await reader.read()
        writer.close()
        return status, json.loads(answer[answer.find(b"{") : answer.rfind(b"}") + 1] or b"{}")

    async def submit(self, key, *documents, pipeline="default"):
        files = [(f"{number}.pdf", content) for number, content in enumerate(documents)]
        body = form(files, {"pipeline": pipeline})
        opened = await self.open("POST", "/v1/jobs", key, body, f"multipart/form-data; boundary={BORDER}")
        return await self.whole(opened)

    async def done(self, key, path, body):
        """A change that is taken, and what it was answered with."""
        status, said = await self.ask("POST", path, key, body)
        assert status in (200, 201), said
        return said

    async def push(self, key, name, component):
        opened = await self.open("POST", f"/v1/components?name={name}", key, component, "application/wasm")
        status, said = await self.whole(opened)
        assert status in (200, 201), said

    async def ended(self, key, job):
        """The job at its end, which is a good one."""
        async for event in self.events(key, job):
            if event["type"] == "job-ended":
                assert event["state"] == "done", event
                return (await self.ask("GET", f"/v1/jobs/{job}", key))[1]
        raise SystemExit("a stream ended before its job")

    async def events(self, key, job):
        """What the stream of a job says, as it comes."""
        status, reader, writer = await self.open("GET", f"/v1/jobs/{job}/events", key)
        assert status == 200, status
        try:
            while line := await reader.readline():
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        finally:
            writer.close()

    async def seconds(self, key, *documents):
        """Until the first page can be found, and until the job has ended."""
        began, first = time.monotonic(), None
        status, job = await self.submit(key, *documents)
        assert status == 202, job
        async for event in self.events(key, job["id"]):
            if event["type"] == "page-done":
                first = first or time.monotonic() - began
            if event["type"] == "job-ended":
                assert event["state"] == "done", event
                return first, time.monotonic() - began
        raise SystemExit("a stream ended before its job")

    async def pages(self, key):
        _, usage = await self.ask("GET", "/v1/usage", key)
        return sum(day["pages"] for day in usage["days"])
