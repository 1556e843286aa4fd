// Talking to the host: every request carries the key, every refusal becomes an error that says what the host said.

const KEY = "weir-key";

let key = sessionStorage.getItem(KEY);
let refused = () => {};

export const hasKey = () => key !== null;

export function setKey(text) {
  key = text;
  sessionStorage.setItem(KEY, text);
}

export function forgetKey() {
  key = null;
  sessionStorage.removeItem(KEY);
}

/** Calls `then` when the host does not take the key any more. */
export function onRefusedKey(then) {
  refused = then;
}

/** What the host refused, with the fields of its problem details. */
export class Refusal extends Error {
  constructor(status, problem, retryAfter) {
    super(problem?.detail || problem?.title || `The host answered ${status}.`);
    this.name = "Refusal";
    this.status = status;
    this.kind = (problem?.type || "").split("/").pop();
    this.retryAfter = retryAfter;
  }
}

function refusal(status, text, retryAfter) {
  let problem = null;
  try {
    problem = JSON.parse(text);
  } catch {
    // Something between here and the host answered.
  }
  const error = new Refusal(status, problem, Number(retryAfter) || 0);
  if (status === 401 && key !== null) refused(error);
  return error;
}

/** A request; the response if it went well. */
export async function fetched(method, path, { body, headers = {}, signal, cache = "no-store" } = {}) {
  const all = { authorization: `Bearer ${key}`, ...headers };
  if (body !== undefined) all["content-type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers: all,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache,
    credentials: "omit",
    redirect: "error",
  });
  if (!response.ok) throw refusal(response.status, await response.text(), response.headers.get("retry-after"));
  return response;
}

async function json(method, path, options) {
  const response = await fetched(method, path, options);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, options) => json("GET", path, options);
export const post = (path, body, options) => json("POST", path, { body, ...options });
export const remove = (path, options) => json("DELETE", path, options);

/**
 * Sends a form, telling how many of its bytes have gone. It is the one thing `fetch` cannot say, so this is the older way.
 * The word for the request makes it count once, however often it is sent.
 */
export function send(path, form, word, { sent, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("authorization", `Bearer ${key}`);
    request.setRequestHeader("idempotency-key", word);
    request.upload.addEventListener("progress", (event) => sent(event.loaded, event.total));
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("retry-after")));
    });
    request.addEventListener("error", () => reject(new TypeError("network")));
    request.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}
