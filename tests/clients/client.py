"""Weir's streams through httpx-sse, the usual client of Server-Sent Events in Python.

    client.py DOCUMENT LONG-DOCUMENT, with WEIR_ADDRESS and WEIR_KEY in the environment
"""

import os
import sys

import httpx
from httpx_sse import connect_sse

QUESTION = {"query": "Which of the three roller gates is opened first?", "top_k": 5}
ANSWER = "Gate Two is opened first"
# Events after which the connection is dropped, each time.
DROP_AFTER = 15


class Deviation(Exception):
    pass


def expect(holds, said):
    if not holds:
        raise Deviation(said)


class Log:
    """The events of a job, held to their order as they come."""

    def __init__(self):
        self.last, self.types, self.document = 0, [], None

    def take(self, event):
        expect(event.data, f"an event without data after {self.last}: {event!r}")
        data = event.json()
        expect(event.id == str(self.last + 1), f"event {event.id} follows {self.last}")
        expect(data["seq"] == self.last + 1, f"event {event.id} says that it is {data['seq']}")
        expect(data["type"] == event.event, f"event {event.id} is called {event.event} and {data['type']}")
        self.last += 1
        self.types.append(event.event)
        if event.event == "document-done":
            self.document = data["document"]
        if event.event == "job-ended":
            expect(data["state"] == "done", f"the job ended: {data}")

    def ended(self):
        return self.types[-1:] == ["job-ended"]


def submit(client, path):
    with open(path, "rb") as file:
        answer = client.post("/v1/jobs", files={"file": (os.path.basename(path), file, "application/pdf")})
    expect(answer.status_code == 202, f"the submission is answered {answer.status_code}: {answer.text}")
    return answer.json()["id"]


def to_the_end(client, path):
    job, log = submit(client, path), Log()
    with connect_sse(client, "GET", f"/v1/jobs/{job}/events") as source:
        for event in source.iter_sse():
            expect(not log.ended(), f"{event!r} after the job's end")
            log.take(event)
    expect(log.ended(), f"the stream ends after {log.types[-1:]}")
    print(f"python: a job's {log.last} events to the end, in order and without gaps")
    return log


def with_drops(client, path):
    """Leaves in the middle and comes back behind the last event, until the job has ended and there is nothing more."""
    job, log, visits = submit(client, path), Log(), 0
    while True:
        headers = {"Last-Event-ID": str(log.last)} if log.last else {}
        with connect_sse(client, "GET", f"/v1/jobs/{job}/events", headers=headers) as source:
            if source.response.status_code == 204:
                break
            expect(not log.ended(), "a job that has ended is told of again")
            visits += 1
            for heard, event in enumerate(source.iter_sse(), 1):
                log.take(event)
                if heard == DROP_AFTER:
                    break
    expect(log.ended(), f"nothing more comes after {log.types[-1:]}")
    expect(visits > 2, f"the job's {log.last} events were too few to leave in the middle")
    print(f"python: {log.last} events over {visits} connections, each once and in order, then 204")


def query(client, document):
    with connect_sse(client, "POST", "/v1/stream/query", json=QUESTION) as source:
        events = list(source.iter_sse())
    expect([e.event for e in events] == ["hit"] * (len(events) - 1) + ["done"], f"the answer is {events}")
    hits = [e.json() for e in events[:-1]]
    expect(0 < len(hits) <= QUESTION["top_k"], f"{len(hits)} hits")
    expect(events[-1].json()["hits"] == len(hits), f"{len(hits)} hits are counted as {events[-1].data}")
    scores = [hit["score"] for hit in hits]
    expect(scores == sorted(scores, reverse=True), f"the best is not first: {scores}")
    expect(any(hit["document"] == document and ANSWER in hit["text"] for hit in hits), f"the answer is not among {hits}")
    print(f"python: {len(hits)} hits as a stream, the answer among them, after {events[-1].json()['millis']} ms")


def main(document, long_document):
    headers = {"Authorization": f"Bearer {os.environ['WEIR_KEY']}"}
    with httpx.Client(base_url=os.environ["WEIR_ADDRESS"], headers=headers, timeout=120) as client:
        log = to_the_end(client, document)
        query(client, log.document)
        with_drops(client, long_document)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (Deviation, httpx.HTTPError) as error:
        sys.exit(f"python: {error}")
