// HTTP requests to the host. Each request carries the key. An error response becomes an `ApiError`.

const KEY_STORAGE_NAME = "weir-key";

let key = sessionStorage.getItem(KEY_STORAGE_NAME);
let handleRejectedKey = () => {};

export const hasKey = () => key !== null;

export function setKey(text) {
  key = text;
  sessionStorage.setItem(KEY_STORAGE_NAME, text);
}

export function clearKey() {
  key = null;
  sessionStorage.removeItem(KEY_STORAGE_NAME);
}

/** Sets the function that is called when the host rejects the key. */
export function onKeyRejected(handler) {
  handleRejectedKey = handler;
}

/** An error response of the host, with the fields of its problem details. */
export class ApiError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem?.detail || problem?.title || `The host responded with status ${status}.`);
    this.name = "ApiError";
    this.status = status;
    this.kind = (problem?.type || "").split("/").pop();
    this.retryAfter = retryAfter;
  }
}

function createApiError(status, text, retryAfter) {
  let problem = null;
  try {
    problem = JSON.parse(text);
  } catch {
    // The response is from a proxy and not from the host.
  }
  const error = new ApiError(status, problem, Number(retryAfter) || 0);
  if (status === 401 && key !== null) handleRejectedKey(error);
  return error;
}

/** Sends a request and returns the response. Throws an `ApiError` for an error response. */
export async function request(method, path, { body, headers = {}, signal, cache = "no-store" } = {}) {
  const allHeaders = { authorization: `Bearer ${key}`, ...headers };
  if (body !== undefined) allHeaders["content-type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers: allHeaders,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache,
    credentials: "omit",
    redirect: "error",
  });
  if (!response.ok) throw createApiError(response.status, await response.text(), response.headers.get("retry-after"));
  return response;
}

async function requestJson(method, path, options) {
  const response = await request(method, path, options);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

export const getJson = (path, options) => requestJson("GET", path, options);
export const postJson = (path, body, options) => requestJson("POST", path, { body, ...options });
export const deleteResource = (path, options) => requestJson("DELETE", path, options);

/**
 * Posts a form and reports the upload progress to `onProgress(sentBytes, totalBytes)`. Uses `XMLHttpRequest`, since `fetch` does not
 * report upload progress. Requests with the same idempotency key create one job.
 */
export function uploadForm(path, form, idempotencyKey, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", path);
    xhr.setRequestHeader("authorization", `Bearer ${key}`);
    xhr.setRequestHeader("idempotency-key", idempotencyKey);
    xhr.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    xhr.addEventListener("load", () => {
      if (xhr.status >= 200 && xhr.status < 300) resolve(JSON.parse(xhr.responseText));
      else reject(createApiError(xhr.status, xhr.responseText, xhr.getResponseHeader("retry-after")));
    });
    xhr.addEventListener("error", () => reject(new TypeError("network error")));
    xhr.addEventListener("abort", () => reject(new DOMException("upload canceled", "AbortError")));
    signal.addEventListener("abort", () => xhr.abort(), { once: true });
    xhr.send(form);
  });
}
