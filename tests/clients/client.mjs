// Reads Weir's event streams with eventsource, the usual JavaScript client of Server-Sent Events outside browsers.
//
//     client.mjs DOCUMENT LONG-DOCUMENT, with WEIR_ADDRESS and WEIR_KEY in the environment

import { readFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { basename } from "node:path";

import { EventSource } from "eventsource";

const address = process.env.WEIR_ADDRESS;
const authorization = `Bearer ${process.env.WEIR_KEY}`;
// Every type of event that a job of one document can have.
const TYPES = [
  "document-started", "batch-rasterized", "page-done", "page-failed", "page-retried", "policy-failed", "progress",
  "job-held", "model-wait-started", "model-wait-ended", "document-done", "document-failed", "document-cancelled", "job-ended",
];
// Number of events after which the connection is cut.
const DISCONNECT_AFTER = 25;
const TIMEOUT_MILLIS = 300_000;

function check(condition, message) {
  if (!condition) throw new Error(message);
}

async function submit(path) {
  const form = new FormData();
  form.append("file", new Blob([await readFile(path)], { type: "application/pdf" }), basename(path));
  const response = await fetch(`${address}/v1/jobs`, { method: "POST", headers: { authorization }, body: form });
  const body = await response.text();
  check(response.status === 202, `the submission got status ${response.status}: ${body}`);
  return JSON.parse(body).id;
}

// Follows a job until the host answers a reconnect with 204, which means that the job has ended. Checks the order of each event,
// and calls `onEvent` with its number.
function followJob(base, job, onEvent = () => {}) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`${base}/v1/jobs/${job}/events`, {
      fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, authorization } }),
    });
    const progress = { last: 0, opened: 0, type: undefined };
    const settleWith = (settle, value) => {
      clearTimeout(timer);
      source.close();
      settle(value);
    };
    const timer = setTimeout(settleWith, TIMEOUT_MILLIS, reject, new Error(`no event arrived in time after event ${progress.last}`));
    const onMessage = (event) => {
      try {
        const data = JSON.parse(event.data);
        check(progress.type !== "job-ended", `event ${event.lastEventId} after the job's end`);
        check(event.lastEventId === String(progress.last + 1), `event ${event.lastEventId} follows ${progress.last}`);
        check(data.seq === progress.last + 1, `event ${event.lastEventId} has seq ${data.seq}`);
        check(data.type === event.type, `event ${event.lastEventId} has the types ${event.type} and ${data.type}`);
        check(data.type !== "job-ended" || data.state === "done", `the job ended: ${event.data}`);
        progress.last += 1;
        progress.type = data.type;
        onEvent(progress.last);
      } catch (error) {
        settleWith(reject, error);
      }
    };
    for (const type of [...TYPES, "message"]) source.addEventListener(type, onMessage);
    source.addEventListener("open", () => (progress.opened += 1));
    source.addEventListener("error", (error) => {
      // The library reconnects by itself, except after a 204.
      if (source.readyState !== EventSource.CLOSED) return;
      if (error.code === 204 && progress.type === "job-ended") settleWith(resolve, progress);
      else settleWith(reject, new Error(`the library stopped after event ${progress.last}: ${error.code} ${error.message}`));
    });
  });
}

// Starts a proxy to the host whose connections can be cut, and which records the Last-Event-ID of each request.
function startProxy() {
  const { hostname, port } = new URL(address);
  const open = new Set();
  const lastEventIds = [];
  const server = createServer((client) => {
    const host = connect(Number(port), hostname);
    for (const end of [client, host]) {
      open.add(end);
      // Errors of cut connections are expected.
      end.on("error", () => {});
      end.on("close", () => {
        open.delete(end);
        client.destroy();
        host.destroy();
      });
    }
    client.on("data", (bytes) => {
      if (bytes.includes("GET /")) lastEventIds.push(/^last-event-id: (\d+)\r?$/im.exec(bytes.toString("latin1"))?.[1]);
    });
    client.pipe(host);
    host.pipe(client);
  });
  const cut = () => open.forEach((end) => end.destroy());
  return new Promise((resolve) => {
    server.listen_address(0, "127.0.0.1", () => {
      const close = () => {
        server.close();
        cut();
      };
      resolve({ base: `http://127.0.0.1:${server.address().port}`, lastEventIds, cut, close });
    });
  });
}

async function readToEnd(path) {
  const progress = await followJob(address, await submit(path));
  console.log(`javascript: read all ${progress.last} events of a job, in order and without gaps, then 204`);
}

async function readWithReconnect(path) {
  const proxy = await startProxy();
  try {
    const progress = await followJob(proxy.base, await submit(path), (last) => last === DISCONNECT_AFTER && proxy.cut());
    const [first, second] = proxy.asked;
    check(first === undefined, `the library's first request had the Last-Event-ID ${first}`);
    check(Number(second) >= DISCONNECT_AFTER, `after the cut the library reconnected with the Last-Event-ID ${second}`);
    check(progress.opened === 2, `the library opened ${progress.opened} connections`);
    check(progress.last > DISCONNECT_AFTER + 1, `the job's ${progress.last} events were too few to cut the connection in the middle`);
    console.log(`javascript: ${progress.last} events, with a cut connection and a reconnect after ${second}, each once and in order`);
  } finally {
    proxy.close();
  }
}

try {
  const [document, longDocument] = process.argv.slice(2);
  await readToEnd(document);
  await readWithReconnect(longDocument);
} catch (error) {
  console.error(`javascript: ${error.message}`);
  process.exitCode = 1;
}
