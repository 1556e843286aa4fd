// Weir's event streams through eventsource, the usual client of Server-Sent Events in JavaScript outside browsers.
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
// Events after which the line is cut.
const CUT_AFTER = 25;
const PATIENCE = 300_000;

function expect(holds, said) {
  if (!holds) throw new Error(said);
}

async function submit(path) {
  const form = new FormData();
  form.append("file", new Blob([await readFile(path)], { type: "application/pdf" }), basename(path));
  const answer = await fetch(`${address}/v1/jobs`, { method: "POST", headers: { authorization }, body: form });
  const said = await answer.text();
  expect(answer.status === 202, `the submission is answered ${answer.status}: ${said}`);
  return JSON.parse(said).id;
}

// Follows a job until the host tells the library to stay away, which it does with 204 when the job has ended. Each event is
// held to its order as it comes; `heard` is called with the number of each.
function follow(base, job, heard = () => {}) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`${base}/v1/jobs/${job}/events`, {
      fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, authorization } }),
    });
    const told = { last: 0, opened: 0, type: undefined };
    const give = (settle, value) => {
      clearTimeout(timer);
      source.close();
      settle(value);
    };
    const timer = setTimeout(give, PATIENCE, reject, new Error(`nothing more comes after event ${told.last}`));
    const take = (event) => {
      try {
        const data = JSON.parse(event.data);
        expect(told.type !== "job-ended", `event ${event.lastEventId} after the job's end`);
        expect(event.lastEventId === String(told.last + 1), `event ${event.lastEventId} follows ${told.last}`);
        expect(data.seq === told.last + 1, `event ${event.lastEventId} says that it is ${data.seq}`);
        expect(data.type === event.type, `event ${event.lastEventId} is called ${event.type} and ${data.type}`);
        expect(data.type !== "job-ended" || data.state === "done", `the job ended: ${event.data}`);
        told.last += 1;
        told.type = data.type;
        heard(told.last);
      } catch (error) {
        give(reject, error);
      }
    };
    for (const type of [...TYPES, "message"]) source.addEventListener(type, take);
    source.addEventListener("open", () => (told.opened += 1));
    source.addEventListener("error", (error) => {
      // The library comes back by itself, except where it was told not to.
      if (source.readyState !== EventSource.CLOSED) return;
      if (error.code === 204 && told.type === "job-ended") give(resolve, told);
      else give(reject, new Error(`the library gives up after event ${told.last}: ${error.code} ${error.message}`));
    });
  });
}

// A line to the host that can be cut, and what clients have asked to go on behind.
function line() {
  const { hostname, port } = new URL(address);
  const open = new Set();
  const asked = [];
  const server = createServer((client) => {
    const host = connect(Number(port), hostname);
    for (const end of [client, host]) {
      open.add(end);
      // A line that is cut is no accident here.
      end.on("error", () => {});
      end.on("close", () => {
        open.delete(end);
        client.destroy();
        host.destroy();
      });
    }
    client.on("data", (bytes) => {
      if (bytes.includes("GET /")) asked.push(/^last-event-id: (\d+)\r?$/im.exec(bytes.toString("latin1"))?.[1]);
    });
    client.pipe(host);
    host.pipe(client);
  });
  const cut = () => open.forEach((end) => end.destroy());
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const close = () => {
        server.close();
        cut();
      };
      resolve({ base: `http://127.0.0.1:${server.address().port}`, asked, cut, close });
    });
  });
}

async function toTheEnd(path) {
  const told = await follow(address, await submit(path));
  console.log(`javascript: a job's ${told.last} events to the end, in order and without gaps, then 204`);
}

async function withACut(path) {
  const through = await line();
  try {
    const told = await follow(through.base, await submit(path), (last) => last === CUT_AFTER && through.cut());
    const [first, second] = through.asked;
    expect(first === undefined, `the library began behind event ${first}`);
    expect(Number(second) >= CUT_AFTER, `after the cut the library went on behind event ${second}`);
    expect(told.opened === 2, `the library was answered ${told.opened} times`);
    expect(told.last > CUT_AFTER + 1, `the job's ${told.last} events were too few to cut the line in the middle`);
    console.log(`javascript: ${told.last} events, the line cut and taken up behind ${second}, each once and in order`);
  } finally {
    through.close();
  }
}

try {
  const [document, longDocument] = process.argv.slice(2);
  await toTheEnd(document);
  await withACut(longDocument);
} catch (error) {
  console.error(`javascript: ${error.message}`);
  process.exitCode = 1;
}
