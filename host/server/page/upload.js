// Files on their way to the host: one request for all that were handed in together.

import { send } from "./api.js";
import { bytes, describe, el, say, show } from "./dom.js";

const RETRIES = 3;

/** Sends files as one job and shows how far each is; `taken` gets the job. */
export function upload(files, options, list, taken) {
  const rows = files.map((file) => new Row(file));
  const note = el("p", { class: "notice bad", role: "alert", hidden: true });
  const stop = el("button", { type: "button", class: "quiet" }, "Stop");
  const again = el("button", { type: "button", hidden: true }, "Try again");
  const node = el("section", { class: "panel card", "aria-label": "Upload" },
    el("ul", { class: "files" }, ...rows.map((row) => row.node)), note, el("div", { class: "actions" }, again, stop));
  list.append(node);
  // The same word each time: a request whose answer was lost does not become a second job.
  const word = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
  let under = null;

  const start = async () => {
    under = new AbortController();
    show(note, false);
    show(again, false);
    try {
      const job = await persist(() => send("/v1/jobs", form(files, options), word, {
        sent: (loaded, total) => spread(rows, loaded, total),
        signal: under.signal,
      }), under.signal);
      node.remove();
      taken(job);
    } catch (error) {
      if (error.name === "AbortError") {
        node.remove();
        return;
      }
      say(note, describe(error));
      show(note, true);
      show(again, true);
    }
  };
  stop.addEventListener("click", () => {
    under.abort();
    node.remove();
  });
  again.addEventListener("click", start);
  start();
}

function form(files, options) {
  const form = new FormData();
  // Options come first: the host knows them before the files arrive.
  form.append("options", new Blob([JSON.stringify(options)], { type: "application/json" }));
  files.forEach((file) => form.append("file", file, file.name));
  return form;
}

/** Comes again when the host asks for it, or when the connection broke. */
async function persist(attempt, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      const passing = error instanceof TypeError || error.status === 429 || error.status === 503;
      if (!passing || tries > RETRIES || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || tries)));
      signal.throwIfAborted();
    }
  }
}

/** The files go one after the other, so the bytes that have gone say how far each is. */
function spread(rows, loaded, total) {
  const all = rows.reduce((sum, row) => sum + row.file.size, 0);
  // What the form adds around the files stands mostly before the first.
  let left = Math.max(0, loaded - Math.max(0, total - all));
  for (const row of rows) {
    row.sent(Math.min(left, row.file.size));
    left = Math.max(0, left - row.file.size);
  }
}

class Row {
  constructor(file) {
    this.file = file;
    this.bar = el("progress", { max: Math.max(1, file.size), value: 0, "aria-label": `Upload of ${file.name}` });
    this.figure = el("span", { class: "hint" }, bytes(file.size));
    this.node = el("li", {}, el("span", { class: "name" }, file.name), this.figure, this.bar);
  }

  sent(count) {
    this.bar.value = count;
    const all = this.file.size;
    say(this.figure, count >= all ? `${bytes(all)}, sent` : `${bytes(count)} of ${bytes(all)}`);
  }
}
