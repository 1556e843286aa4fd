// Uploads files as one job and shows the progress of each file.

import { uploadForm } from "./api.js";
import { createElement, errorMessage, formatBytes, setText, setVisible } from "./dom.js";

const MAX_RETRIES = 3;

/** Uploads files as one job, with a progress card in `list`. Calls `onJobCreated` with the job. */
export function startUpload(files, options, list, onJobCreated) {
  const rows = files.map((file) => new UploadRow(file));
  const errorNotice = createElement("p", { class: "notice error", role: "alert", hidden: true });
  const cancelButton = createElement("button", { type: "button", class: "secondary" }, "Cancel upload");
  const retryButton = createElement("button", { type: "button", hidden: true }, "Retry upload");
  const card = createElement("section", { class: "panel card", "aria-label": "Upload" },
    createElement("ul", { class: "upload-files" }, ...rows.map((row) => row.node)), errorNotice,
    createElement("div", { class: "actions" }, retryButton, cancelButton));
  list.append(card);
  // All attempts use the same key, so that a lost response does not lead to a second job.
  const idempotencyKey = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
  let controller = null;

  const start = async () => {
    controller = new AbortController();
    setVisible(errorNotice, false);
    setVisible(retryButton, false);
    try {
      const job = await retryUpload(() => uploadForm("/v1/jobs", buildForm(files, options), idempotencyKey, {
        onProgress: (sentBytes, totalBytes) => showProgress(rows, sentBytes, totalBytes),
        signal: controller.signal,
      }), controller.signal);
      card.remove();
      onJobCreated(job);
    } catch (error) {
      if (error.name === "AbortError") {
        card.remove();
        return;
      }
      setText(errorNotice, errorMessage(error));
      setVisible(errorNotice, true);
      setVisible(retryButton, true);
    }
  };
  cancelButton.addEventListener("click", () => {
    controller.abort();
    card.remove();
  });
  retryButton.addEventListener("click", start);
  start();
}

function buildForm(files, options) {
  const form = new FormData();
  // The options come first, so that the host knows them before the files arrive.
  form.append("options", new Blob([JSON.stringify(options)], { type: "application/json" }));
  files.forEach((file) => form.append("file", file, file.name));
  return form;
}

/** Retries an upload on 429, 503 and network errors. */
async function retryUpload(upload, signal) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await upload();
    } catch (error) {
      const isTemporary = error instanceof TypeError || error.status === 429 || error.status === 503;
      if (!isTemporary || attempt > MAX_RETRIES || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || attempt)));
      signal.throwIfAborted();
    }
  }
}

/** Computes the progress of each file from the sent bytes of the form, since files are sent one after the other. */
function showProgress(rows, sentBytes, totalBytes) {
  const fileBytes = rows.reduce((sum, row) => sum + row.file.size, 0);
  // Most of what the form adds around the files is sent before the first file.
  let remaining = Math.max(0, sentBytes - Math.max(0, totalBytes - fileBytes));
  for (const row of rows) {
    row.showSentBytes(Math.min(remaining, row.file.size));
    remaining = Math.max(0, remaining - row.file.size);
  }
}

class UploadRow {
  constructor(file) {
    this.file = file;
    this.progressBar = createElement("progress", { max: Math.max(1, file.size), value: 0, "aria-label": `Upload of ${file.name}` });
    this.sizeText = createElement("span", { class: "hint" }, formatBytes(file.size));
    this.node = createElement("li", {}, createElement("span", { class: "name" }, file.name), this.sizeText, this.progressBar);
  }

  showSentBytes(sentBytes) {
    this.progressBar.value = sentBytes;
    const size = this.file.size;
    setText(this.sizeText, sentBytes >= size ? `${formatBytes(size)}, sent` : `${formatBytes(sentBytes)} of ${formatBytes(size)}`);
  }
}
