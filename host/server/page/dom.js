// Creates elements and formats values. Untrusted text becomes text nodes and attributes, never markup.

/**
 * Creates an element: `createElement("p", { class: "hint", onclick: f }, "text", child)`. Properties that are null, undefined or
 * false are omitted.
 */
export function createElement(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets the text of an element if it differs, so that screen readers announce only changes. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setVisible(node, visible) {
  node.hidden = !visible;
}

/** Announces a text to screen readers with low priority. */
export function announce(text) {
  setText(byId("live-region"), text);
}

const ALERT_MILLIS = 12_000;

/** Shows an error in an alert at the bottom of the window. Aborted requests are ignored. */
export function showError(error) {
  if (error?.name === "AbortError") return;
  const close = createElement("button", { type: "button", class: "secondary", "aria-label": "Dismiss" }, "✕");
  const alert = createElement("div", { class: "notice error" }, createElement("span", {}, errorMessage(error)), close);
  const removeAlert = () => alert.remove();
  close.addEventListener("click", removeAlert);
  setTimeout(removeAlert, ALERT_MILLIS);
  byId("alerts").append(alert);
}

/** Returns an error as a sentence for people. */
export function errorMessage(error) {
  if (error instanceof TypeError) return "The host cannot be reached.";
  return error?.message || String(error);
}

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

export function formatBytes(count) {
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${UNITS[unit]}`;
}

export const formatNumber = (number) => number.toLocaleString("en");

/** Returns a number with its noun, such as `3 pages`. */
export const pluralize = (number, singular, plural = `${singular}s`) => `${formatNumber(number)} ${number === 1 ? singular : plural}`;

/** Creates an element with labels such as `team=north, year=2024`. Returns `null` without labels. */
export function createLabelList(labels) {
  const all = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  return all.length === 0 ? null : createElement("span", { class: "hint" }, all.join(", "));
}

export function formatDuration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

const TIME_FORMAT = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const DATE_TIME_FORMAT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Creates a `time` element. The tooltip shows the time to the second. */
export function createTimeElement(millis) {
  const date = new Date(millis);
  const isToday = date.toDateString() === new Date().toDateString();
  const text = (isToday ? TIME_FORMAT : DATE_TIME_FORMAT).format(date);
  return createElement("time", { datetime: date.toISOString(), title: date.toLocaleString() }, text);
}

/** Asks for confirmation in a dialog and returns whether it was given. The first, focused button cancels. */
export function confirmAction(question, verb) {
  const dialog = byId("confirm");
  setText(byId("confirm-text"), question);
  setText(byId("confirm-button"), verb);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
