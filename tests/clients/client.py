"""Reads Weir's event streams with httpx-sse, the usual Python client of Server-Sent Events.

    client.py DOCUMENT LONG-DOCUMENT, with WEIR_ADDRESS and WEIR_KEY in the environment
"""

import os
import sys

import httpx
from httpx_sse import connect_sse

QUESTION = {"query": "Which of the three roller gates is opened first?", "top_k": 5}
EXPECTED_PASSAGE = "Gate Two is opened first"
# Number of events after which the connection is dropped, each time.
DISCONNECT_AFTER = 15


class UnexpectedResult(Exception):
    pass


def check(condition, message):
    if not condition:
        raise UnexpectedResult(message)


class EventLog:
    """The events of a job. Checks the order of each new event."""

    def __init__(self):
        self.last, self.types, self.document = 0, [], None

    def add(self, event):
        check(event.data, f"the event after {self.last} has no data: {event!r}")
        data = event.json()
        check(event.id == str(self.last + 1), f"event {event.id} follows {self.last}")
        check(data["seq"] == self.last + 1, f"event {event.id} has seq {data['seq']}")
        check(data["type"] == event.event, f"event {event.id} has the types {event.event} and {data['type']}")
        self.last += 1
        self.types.append(event.event)
        if event.event == "document-done":
            self.document = data["document"]
        if event.event == "job-ended":
            check(data["state"] == "done", f"the job ended: {data}")

    def has_ended(self):
        return self.types[-1:] == ["job-ended"]


def submit(client, path):
    with open(path, "rb") as file:
        response = client.post("/v1/jobs", files={"file": (os.path.basename(path), file, "application/pdf")})
    check(response.status_code == 202, f"the submission got status {response.status_code}: {response.text}")
    return response.json()["id"]


def read_to_end(client, path):
    job, log = submit(client, path), EventLog()
    with connect_sse(client, "GET", f"/v1/jobs/{job}/events") as source:
        for event in source.iter_sse():
            check(not log.has_ended(), f"{event!r} after the job's end")
            log.add(event)
    check(log.has_ended(), f"the stream ended after {log.types[-1:]}")
    print(f"python: read all {log.last} events of a job, in order and without gaps")
    return log


def read_with_reconnects(client, path):
    """Drops the connection and reconnects after the last event, until the job has ended and there are no more events."""
    job, log, connections = submit(client, path), EventLog(), 0
    while True:
        headers = {"Last-Event-ID": str(log.last)} if log.last else {}
        with connect_sse(client, "GET", f"/v1/jobs/{job}/events", headers=headers) as source:
            if source.response.status_code == 204:
                break
            check(not log.has_ended(), "an ended job sent another event")
            connections += 1
            for received, event in enumerate(source.iter_sse(), 1):
                log.add(event)
                if received == DISCONNECT_AFTER:
                    break
    check(log.has_ended(), f"the stream ended after {log.types[-1:]}")
    check(connections > 2, f"the job's {log.last} events were too few to reconnect in the middle")
    print(f"python: {log.last} events over {connections} connections, each once and in order, then 204")


def check_search_stream(client, document):
    with connect_sse(client, "POST", "/v1/stream/query", json=QUESTION) as source:
        events = list(source.iter_sse())
    check([e.event for e in events] == ["hit"] * (len(events) - 1) + ["done"], f"the response is {events}")
    hits = [e.json() for e in events[:-1]]
    check(0 < len(hits) <= QUESTION["top_k"], f"{len(hits)} hits")
    check(events[-1].json()["hits"] == len(hits), f"{len(hits)} hits were sent, but the last event is {events[-1].data}")
    scores = [hit["score"] for hit in hits]
    check(scores == sorted(scores, reverse=True), f"the hits are not ordered by score: {scores}")
    check(any(hit["document"] == document and EXPECTED_PASSAGE in hit["text"] for hit in hits), f"no hit contains the expected passage: {hits}")
    print(f"python: {len(hits)} hits as a stream, with the expected passage, after {events[-1].json()['millis']} ms")


def main(document, long_document):
    headers = {"Authorization": f"Bearer {os.environ['WEIR_KEY']}"}
    with httpx.Client(base_url=os.environ["WEIR_ADDRESS"], headers=headers, timeout=120) as client:
        log = read_to_end(client, document)
        check_search_stream(client, log.document)
        read_with_reconnects(client, long_document)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (UnexpectedResult, httpx.HTTPError) as error:
        sys.exit(f"python: {error}")
