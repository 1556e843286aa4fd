// Making elements. Text from outside becomes text nodes and attributes, never markup.

/** An element: `el("p", { class: "hint", onclick: f }, "text", child)`; a property that is null or false is left out. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const by = (id) => document.getElementById(id);

/** Sets an element's text if it differs, so that screen readers hear only what is new. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows or hides. */
export function show(node, shown) {
  node.hidden = !shown;
}

/** Tells screen readers, politely. */
export function announce(text) {
  say(by("live"), text);
}

const SHOWN_MILLIS = 12_000;

/** Tells everybody that something went wrong. */
export function complain(error) {
  if (error?.name === "AbortError") return;
  const close = el("button", { type: "button", class: "quiet", "aria-label": "Dismiss" }, "✕");
  const note = el("div", { class: "notice bad" }, el("span", {}, describe(error)), close);
  const drop = () => note.remove();
  close.addEventListener("click", drop);
  setTimeout(drop, SHOWN_MILLIS);
  by("alerts").append(note);
}

/** An error in a sentence. */
export function describe(error) {
  if (error instanceof TypeError) return "The host cannot be reached.";
  return error?.message || String(error);
}

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

export function bytes(count) {
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${UNITS[unit]}`;
}

export const count = (number) => number.toLocaleString("en");

export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** Labels as `team=north, year=2024`; `null` without any. */
export function labelList(labels) {
  const all = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  return all.length === 0 ? null : el("span", { class: "hint" }, all.join(", "));
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

const TODAY = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const BEFORE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A time as an element that says it to the second when asked. */
export function when(millis) {
  const date = new Date(millis);
  const today = date.toDateString() === new Date().toDateString();
  return el("time", { datetime: date.toISOString(), title: date.toLocaleString() }, (today ? TODAY : BEFORE).format(date));
}

/** Asks; the button to be pressed without thinking is the one that changes nothing. */
export function confirmed(question, verb) {
  const dialog = by("confirm");
  say(by("confirm-text"), question);
  say(by("confirm-yes"), verb);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
