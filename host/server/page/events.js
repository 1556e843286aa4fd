// Server-Sent Events over fetch: the browser's own EventSource cannot send a key.

import { fetched } from "./api.js";

/** A browser has six connections to a host over HTTP/1.1; a few streams leave some for everything else. */
const STREAMS = 3;
const FIRST_WAIT_MILLIS = 500;
const LONGEST_WAIT_MILLIS = 30_000;
/** A tab that was out of sight for longer may have lost its connections without noticing. */
const ASLEEP_MILLIS = 30_000;

/** The events of a response, as `{ id, event, data }`, by the rules of the HTML standard. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let [id, event, data] = ["", "", []];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { id, event: event || "message", data: data.join("\n") };
          [event, data] = ["", []];
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") data.push(text);
        else if (field === "event") event = text;
        else if (field === "id" && !text.includes("\0")) id = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

let free = STREAMS;
const waiting = [];

async function place(signal) {
  if (free > 0) {
    free -= 1;
    return;
  }
  await new Promise((resolve, reject) => {
    waiting.push(resolve);
    signal.addEventListener("abort", () => {
      const at = waiting.indexOf(resolve);
      if (at >= 0) waiting.splice(at, 1);
      reject(signal.reason);
    }, { once: true });
  });
}

function leave() {
  const next = waiting.shift();
  if (next) next();
  else free += 1;
}

function pause(millis, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, millis);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

/** A signal that also ends when the connection must be doubted: back from sleep, or back online. */
function doubted(signal) {
  const doubt = new AbortController();
  let hiddenAt = document.hidden ? Date.now() : null;
  const seen = () => {
    if (document.hidden) hiddenAt = Date.now();
    else if (hiddenAt !== null && Date.now() - hiddenAt > ASLEEP_MILLIS) doubt.abort();
    else hiddenAt = null;
  };
  const online = () => doubt.abort();
  document.addEventListener("visibilitychange", seen);
  addEventListener("online", online);
  const end = () => {
    document.removeEventListener("visibilitychange", seen);
    removeEventListener("online", online);
  };
  return { signal: AbortSignal.any([signal, doubt.signal]), end };
}

/**
 * Hands each event of a stream behind number `after` to `told`, once and in order, through broken connections, until the
 * host says that there is nothing more to come, or until `signal` ends. `told` answers whether the stream may end here;
 * `connected` is told whether there is a connection.
 */
export async function follow(path, { signal, after, told, connected = () => {} }) {
  let last = after ? String(after) : "";
  let wait = FIRST_WAIT_MILLIS;
  await place(signal);
  try {
    for (;;) {
      const doubt = doubted(signal);
      let [asked, over] = [0, false];
      try {
        const headers = last ? { "last-event-id": last } : {};
        const response = await fetched("GET", path, {
          headers: { accept: "text/event-stream", ...headers },
          signal: doubt.signal,
        });
        if (response.status === 204) return;
        connected(true);
        for await (const event of events(response)) {
          wait = FIRST_WAIT_MILLIS;
          if (event.id) last = event.id;
          over = told(JSON.parse(event.data));
        }
      } catch (error) {
        signal.throwIfAborted();
        if (error.status && error.status !== 429 && error.status < 500) throw error;
        asked = (error.retryAfter || 0) * 1000;
      } finally {
        doubt.end();
      }
      // A job that has ended may have been begun again: whether there is more is asked once, at once.
      if (over) continue;
      connected(false);
      // Not all at once: a host that comes back is asked by everybody.
      await pause(Math.max(asked, wait * (0.5 + Math.random())), signal);
      wait = Math.min(wait * 2, LONGEST_WAIT_MILLIS);
    }
  } finally {
    leave();
  }
}
