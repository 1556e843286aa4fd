// The view of usage: the quotas of the tenant and its usage by day.

import { getJson } from "./api.js";
import { byId, createElement, formatBytes, formatDuration, formatNumber, showError } from "./dom.js";

const formatMillis = (millis) => formatDuration(millis / 1000);

const QUOTAS = {
  concurrent_jobs: ["Running jobs", formatNumber],
  queued_jobs: ["Queued jobs", formatNumber],
  requests_per_second: ["Requests per second", formatNumber],
  upload_bytes: ["Size of an upload", formatBytes],
  pages_per_day: ["Pages today", formatNumber],
  stored_bytes: ["Stored data", formatBytes],
  inference_millis_per_day: ["Model time today", formatMillis],
  guest_millis_per_day: ["Component CPU time today", formatMillis],
  llm_calls_per_day: ["Language model calls today", formatNumber],
  llm_tokens_per_day: ["Language model tokens today", formatNumber],
  llm_cost_micros_per_day: ["Language model cost today", (micros) => (micros / 1e6).toFixed(2)],
  guest_memory_bytes: ["Component memory", formatBytes],
};

function createQuota({ quota: name, used, limit }) {
  const [title, format] = QUOTAS[name] || [name, formatNumber];
  const id = `quota-${name}`;
  if (used === null || used === undefined) {
    const value = limit ? `at most ${format(limit)}` : "no limit";
    return createElement("div", { class: "quota" },
      createElement("span", {}, title), createElement("span", { class: "quota-value" }, value));
  }
  const value = limit ? `${format(used)} of ${format(limit)}` : `${format(used)}, no limit`;
  const meter = limit
    ? createElement("meter", { id, min: 0, max: limit, high: limit * 0.8, optimum: 0, value: Math.min(used, limit) })
    : null;
  return createElement("div", { class: "quota" },
    createElement("label", { for: id }, title), createElement("span", { class: "quota-value" }, value), meter);
}

const COLUMNS = [
  ["Day (UTC)", ({ day }) => day],
  ["Pages", ({ pages }) => formatNumber(pages)],
  ["Jobs", ({ jobs }) => formatNumber(jobs)],
  ["Searches", ({ searches }) => formatNumber(searches)],
  ["Uploaded", ({ upload_bytes: bytes }) => formatBytes(bytes)],
  ["Model time", ({ inference_millis: millis }) => formatMillis(millis)],
  ["Language model calls", ({ llm_calls: calls }) => formatNumber(calls)],
  ["Language model tokens", ({ llm_prompt_tokens: prompt, llm_answer_tokens: response }) => formatNumber(prompt + response)],
  ["Component CPU time", ({ guest_millis: millis }) => formatMillis(millis)],
  ["Requests", ({ requests }) => formatNumber(requests)],
  ["Refused requests", ({ refusals }) => formatNumber(refusals)],
];

function createUsageTable(days) {
  const createRow = (day) => createElement("tr", {}, ...COLUMNS.map(([, format]) => createElement("td", {}, format(day))));
  return createElement("table", { class: "numeric-table" },
    createElement("thead", {}, createElement("tr", {}, ...COLUMNS.map(([title]) => createElement("th", { scope: "col" }, title)))),
    createElement("tbody", {}, ...[...days].reverse().map(createRow)));
}

export async function showUsage() {
  try {
    const usage = await getJson("/v1/usage");
    byId("usage").replaceChildren(
      createElement("div", { class: "panel quotas" }, ...usage.quotas.map(createQuota)),
      createElement("div", { class: "panel scrollable", tabindex: "0", role: "region", "aria-label": "Usage by day" },
        createUsageTable(usage.days)));
  } catch (error) {
    showError(error);
  }
}

export function clearUsage() {
  byId("usage").replaceChildren();
}
