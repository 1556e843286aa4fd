// Server-Sent Events over `fetch`, since the browser's `EventSource` cannot send the key.

import { request } from "./api.js";

/** Maximum number of open streams. Browsers allow six HTTP/1.1 connections per host, so this leaves some for other requests. */
const MAX_STREAMS = 3;
const INITIAL_RETRY_MILLIS = 500;
const MAX_RETRY_MILLIS = 30_000;
/** A tab that was hidden for longer may have lost its connections without notice. */
const MAX_HIDDEN_MILLIS = 30_000;

/** Parses the events of a response into `{ id, event, data }`, as the HTML standard specifies. */
export async function* parseEvents(response) {
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

let freeStreams = MAX_STREAMS;
const waiters = [];

async function acquireStream(signal) {
  if (freeStreams > 0) {
    freeStreams -= 1;
    return;
  }
  await new Promise((resolve, reject) => {
    waiters.push(resolve);
    signal.addEventListener("abort", () => {
      const index = waiters.indexOf(resolve);
      if (index >= 0) waiters.splice(index, 1);
      reject(signal.reason);
    }, { once: true });
  });
}

function releaseStream() {
  const next = waiters.shift();
  if (next) next();
  else freeStreams += 1;
}

function sleep(millis, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, millis);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

/** Returns a signal that aborts with `signal`, and when the connection may be dead: after a long time hidden, or back online. */
function watchConnection(signal) {
  const controller = new AbortController();
  let hiddenAt = document.hidden ? Date.now() : null;
  const onVisibilityChange = () => {
    if (document.hidden) hiddenAt = Date.now();
    else if (hiddenAt !== null && Date.now() - hiddenAt > MAX_HIDDEN_MILLIS) controller.abort();
    else hiddenAt = null;
  };
  const onOnline = () => controller.abort();
  document.addEventListener("visibilitychange", onVisibilityChange);
  addEventListener("online", onOnline);
  const stopWatching = () => {
    document.removeEventListener("visibilitychange", onVisibilityChange);
    removeEventListener("online", onOnline);
  };
  return { signal: AbortSignal.any([signal, controller.signal]), stopWatching };
}

/**
 * Passes each event of a stream after number `after` to `onEvent`, once and in order. Reconnects after errors, until the host reports
 * the end of the stream or `signal` aborts. `onEvent` returns whether the event may be the last one. `onConnectionChange` gets
 * whether there is a connection.
 */
export async function followEvents(path, { signal, after, onEvent, onConnectionChange = () => {} }) {
  let lastId = after ? String(after) : "";
  let retryMillis = INITIAL_RETRY_MILLIS;
  await acquireStream(signal);
  try {
    for (;;) {
      const connection = watchConnection(signal);
      let [requestedMillis, ended] = [0, false];
      try {
        const headers = lastId ? { "last-event-id": lastId } : {};
        const response = await request("GET", path, {
          headers: { accept: "text/event-stream", ...headers },
          signal: connection.signal,
        });
        if (response.status === 204) return;
        onConnectionChange(true);
        for await (const event of parseEvents(response)) {
          retryMillis = INITIAL_RETRY_MILLIS;
          if (event.id) lastId = event.id;
          ended = onEvent(JSON.parse(event.data));
        }
      } catch (error) {
        signal.throwIfAborted();
        if (error.status && error.status !== 429 && error.status < 500) throw error;
        requestedMillis = (error.retryAfter || 0) * 1000;
      } finally {
        connection.stopWatching();
      }
      // An ended job may have been started again, so ask the host once more without delay.
      if (ended) continue;
      onConnectionChange(false);
      // The random delay spreads the reconnects of many clients after a restart of the host.
      await sleep(Math.max(requestedMillis, retryMillis * (0.5 + Math.random())), signal);
      retryMillis = Math.min(retryMillis * 2, MAX_RETRY_MILLIS);
    }
  } finally {
    releaseStream();
  }
}
