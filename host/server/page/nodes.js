// The view of nodes: the processes that share the ledger, and the jobs that each of them runs. Only for keys with the scope admin.

import { getJson } from "./api.js";
import { byId, createElement, createTimeElement, formatDuration, setVisible, showError } from "./dom.js";

const REFRESH_MILLIS = 5000;

let isShown = false;
let refreshTimer;

const ROLES = {
  api: "serves clients",
  worker: "runs jobs",
  both: "serves clients, runs jobs",
};

function createJobList(jobs) {
  if (!jobs.length) return "none";
  return createElement("ul", { class: "plain-list" },
    ...jobs.map(({ tenant, job }) => createElement("li", {}, `${tenant} / ${job}`)));
}

const COLUMNS = [
  ["Node", ({ name }) => name],
  ["State", ({ alive }) => createElement("span", { class: "badge", "data-state": alive ? "done" : "failed" }, alive ? "alive" : "lost")],
  ["Role", ({ role }) => ROLES[role] || role],
  ["Version", ({ version }) => version],
  ["Started", ({ started_millis: millis }) => createTimeElement(millis)],
  ["Lease renewed", ({ renewed_millis_ago: millis }) => `${formatDuration(millis / 1000)} ago`],
  ["Jobs", ({ jobs }) => createJobList(jobs)],
];

function createNodeTable(nodes) {
  const createRow = (node) => createElement("tr", {}, ...COLUMNS.map(([, format]) => createElement("td", {}, format(node))));
  return createElement("table", { class: "numeric-table" },
    createElement("thead", {}, createElement("tr", {}, ...COLUMNS.map(([title]) => createElement("th", { scope: "col" }, title)))),
    createElement("tbody", {}, ...nodes.map(createRow)));
}

async function refresh() {
  try {
    const { nodes } = await getJson("/v1/nodes");
    if (!isShown) return;
    byId("nodes").replaceChildren(
      createElement("div", { class: "panel scrollable", tabindex: "0", role: "region", "aria-label": "Nodes" }, createNodeTable(nodes)));
  } catch (error) {
    if (isShown) showError(error);
  }
  if (isShown) refreshTimer = setTimeout(refresh, REFRESH_MILLIS);
}

export async function showNodes() {
  hideNodes();
  isShown = true;
  await refresh();
}

export function hideNodes() {
  isShown = false;
  clearTimeout(refreshTimer);
}

export function clearNodes() {
  hideNodes();
  byId("nodes").replaceChildren();
}

/** Shows the link to this view if the key may use it. */
export function showNodesLink(scopes) {
  setVisible(byId("nodes-link"), scopes.includes("admin"));
}
