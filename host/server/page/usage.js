// What the tenant has used today, against what it may use.

import { get } from "./api.js";
import { by, bytes, complain, count, duration, el } from "./dom.js";

const NAMES = {
  concurrent_jobs: ["Jobs at once", count],
  queued_jobs: ["Jobs waiting", count],
  requests_per_second: ["Requests a second", count],
  upload_bytes: ["One upload", bytes],
  pages_per_day: ["Pages today", count],
  stored_bytes: ["Kept", bytes],
  inference_millis_per_day: ["Models today", (millis) => duration(millis / 1000)],
  guest_millis_per_day: ["Components today", (millis) => duration(millis / 1000)],
  llm_calls_per_day: ["Language model calls today", count],
  llm_tokens_per_day: ["Language model tokens today", count],
  llm_cost_micros_per_day: ["Language model price today", (micros) => (micros / 1e6).toFixed(2)],
  guest_memory_bytes: ["Component memory", bytes],
};

function quota({ quota: name, used, limit }) {
  const [title, format] = NAMES[name] || [name, count];
  const id = `quota-${name}`;
  if (used === null || used === undefined) {
    return el("div", { class: "quota" }, el("span", {}, title), el("span", { class: "figure" }, limit ? `at most ${format(limit)}` : "no limit"));
  }
  const figure = limit ? `${format(used)} of ${format(limit)}` : `${format(used)}, no limit`;
  const meter = limit
    ? el("meter", { id, min: 0, max: limit, high: limit * 0.8, optimum: 0, value: Math.min(used, limit) })
    : null;
  return el("div", { class: "quota" }, el("label", { for: id }, title), el("span", { class: "figure" }, figure), meter);
}

const COLUMNS = [
  ["Day (UTC)", ({ day }) => day],
  ["Pages", ({ pages }) => count(pages)],
  ["Jobs", ({ jobs }) => count(jobs)],
  ["Searches", ({ searches }) => count(searches)],
  ["Taken in", ({ upload_bytes: taken }) => bytes(taken)],
  ["Models", ({ inference_millis: millis }) => duration(millis / 1000)],
  ["Language model calls", ({ llm_calls: calls }) => count(calls)],
  ["Language model tokens", ({ llm_prompt_tokens: asked, llm_answer_tokens: answered }) => count(asked + answered)],
  ["Components", ({ guest_millis: millis }) => duration(millis / 1000)],
  ["Requests", ({ requests }) => count(requests)],
  ["Refused", ({ refusals }) => count(refusals)],
];

function days(used) {
  const row = (day) => el("tr", {}, ...COLUMNS.map(([, cell]) => el("td", {}, cell(day))));
  return el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, ...COLUMNS.map(([title]) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, ...[...used].reverse().map(row)));
}

export async function showUsage() {
  try {
    const usage = await get("/v1/usage");
    by("usage").replaceChildren(
      el("div", { class: "panel quotas" }, ...usage.quotas.map(quota)),
      el("div", { class: "panel wide", tabindex: "0", role: "region", "aria-label": "Use by day" }, days(usage.days)));
  } catch (error) {
    complain(error);
  }
}

export function clearUsage() {
  by("usage").replaceChildren();
}
