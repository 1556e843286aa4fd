// The description of the interface, made readable.

import { by, describe, el } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
/** Schemas inside schemas are followed so far. */
const DEPTH = 6;

let api = null;

const resolve = (thing) => {
  for (let hops = 0; thing?.$ref && hops < 8; hops += 1) {
    thing = thing.$ref.replace(/^#\//, "").split("/").reduce((at, part) => at?.[part], api);
  }
  return thing || {};
};

/** Text with `code`, paragraph by paragraph. */
function prose(text) {
  return (text || "").split(/\n\s*\n/).filter(Boolean).map((part) => el("p", {}, ...inline(part)));
}

function inline(text) {
  return (text || "").split(/`([^`]+)`/).map((piece, at) => (at % 2 === 1 ? el("code", {}, piece) : piece));
}

/** A schema, and whether it may also be null or be left out. */
function known(schema) {
  const found = resolve(schema);
  const choices = found.oneOf || found.anyOf;
  if (choices) {
    const real = choices.map(resolve).filter((choice) => choice.type !== "null");
    if (real.length === 1) return { ...real[0], description: found.description || real[0].description };
  }
  if (found.allOf) return found.allOf.map(resolve).reduce((all, part) => ({ ...all, ...part, properties: { ...all.properties, ...part.properties }, required: [...(all.required || []), ...(part.required || [])] }), {});
  return found;
}

const typeOf = (schema) => [].concat(schema.type || []).find((type) => type !== "null");

function typeName(schema) {
  const found = known(schema);
  const name = schema?.$ref?.split("/").pop();
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (found.oneOf) return found.oneOf.map(typeName).join(" | ");
  const type = typeOf(found);
  if (type === "array") return `${typeName(found.items || {})}[]`;
  if (type === "object" || found.properties) return name || "object";
  return [type || "any", found.format && `(${found.format})`].filter(Boolean).join(" ");
}

function limits(schema) {
  const found = known(schema);
  const words = [];
  if (found.minimum !== undefined && found.maximum !== undefined) words.push(`${found.minimum} to ${found.maximum}`);
  else if (found.minimum) words.push(`at least ${found.minimum}`);
  else if (found.maximum !== undefined) words.push(`at most ${found.maximum}`);
  if (found.maxLength !== undefined) words.push(`at most ${found.maxLength} characters`);
  if (found.maxItems !== undefined) words.push(`at most ${found.maxItems}`);
  if (found.default !== undefined && found.default !== null) words.push(`default ${JSON.stringify(found.default)}`);
  return words.join(", ");
}

/** A value that fits a schema. */
function example(schema, depth = 0) {
  const found = known(schema);
  for (const given of [schema?.example, found.example, found.examples?.[0], found.default]) {
    if (given !== undefined && given !== null) return given;
  }
  if (depth > DEPTH) return null;
  if (found.enum) return found.enum[0];
  if (found.oneOf || found.anyOf) return example((found.oneOf || found.anyOf)[0], depth + 1);
  switch (typeOf(found)) {
    case "array":
      return [example(found.items || {}, depth + 1)];
    case "string":
      if (found.format === "uuid") return "018f6b1e-6a2c-7c3e-9d54-3f2a1b0c4d5e";
      if (found.format === "binary") return "@report.pdf";
      return "text";
    case "integer":
    case "number":
      return found.minimum || 1;
    case "boolean":
      return false;
    case "object":
    case undefined:
      return Object.fromEntries(Object.entries(found.properties || {}).map(([name, part]) => [name, example(part, depth + 1)]));
    default:
      return null;
  }
}

function table(head, rows) {
  return el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Table" },
    el("table", {},
      el("thead", {}, el("tr", {}, ...head.map((cell) => el("th", { scope: "col" }, cell)))),
      el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...[].concat(cell))))))));
}

/** The fields of an object, those of objects inside it indented below. */
function fields(schema, depth = 0, path = "") {
  const found = known(schema);
  const rows = [];
  for (const [name, part] of Object.entries(found.properties || {})) {
    const inner = known(part);
    const item = typeOf(inner) === "array" ? known(inner.items || {}) : inner;
    const needed = (found.required || []).includes(name) ? "" : " (optional)";
    const words = part.description || inner.description || "";
    const more = limits(part);
    rows.push([
      el("code", {}, path + name),
      `${typeName(part)}${needed}`,
      [...inline(words), more ? ` ${words.endsWith(".") || !words ? "" : "· "}${more}` : ""],
    ]);
    if (item.properties && depth < 3) rows.push(...fields(item, depth + 1, `${path}${name}${typeOf(inner) === "array" ? "[]" : ""}.`));
  }
  return rows;
}

const pretty = (value) => JSON.stringify(value, null, 2);

function code(text, label) {
  return el("pre", { tabindex: "0", "aria-label": label }, el("code", {}, text));
}

function curl(method, path, operation) {
  const filled = (operation.parameters || []).map(resolve).reduce((at, parameter) => {
    if (parameter.in === "path") return at.replace(`{${parameter.name}}`, `$${parameter.name.toUpperCase()}`);
    if (parameter.in === "query" && parameter.required) {
      return `${at}${at.includes("?") ? "&" : "?"}${parameter.name}=${example(parameter.schema || {})}`;
    }
    return at;
  }, path);
  const quote = filled.includes("&") || filled.includes("?") ? "\"" : "";
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${quote}${location.origin}${filled}${quote}`];
  const free = operation.security?.some((one) => Object.keys(one).length === 0);
  if (!free) lines.push("  -H \"Authorization: Bearer $WEIR_KEY\"");
  const bodies = operation.requestBody?.content || {};
  if (bodies["multipart/form-data"]) {
    const { properties = {} } = known(bodies["multipart/form-data"].schema || {});
    for (const [name, part] of Object.entries(properties)) {
      const inner = known(part);
      const file = typeOf(inner) === "array" || inner.format === "binary" || name === "file";
      lines.push(file ? `  -F "${name}=@report.pdf"` : `  -F '${name}=${JSON.stringify(example(part))};type=application/json'`);
    }
  } else if (bodies["application/json"]) {
    lines.push("  --json " + `'${JSON.stringify(bodies["application/json"].example ?? example(bodies["application/json"].schema || {}))}'`);
  }
  return lines.join(" \\\n");
}

function bodies(content = {}) {
  return Object.entries(content).flatMap(([media, { schema, example: given }]) => {
    const parts = [el("p", {}, el("code", {}, media))];
    const rows = fields(schema || {});
    if (rows.length > 0) parts.push(table(["Field", "Type", "Meaning"], rows));
    if (media.endsWith("json") && schema) parts.push(code(pretty(given ?? example(schema)), "Example"));
    return parts;
  });
}

function responses(all) {
  const rows = [];
  const good = [];
  for (const [status, given] of Object.entries(all)) {
    const response = resolve(given);
    const media = Object.keys(response.content || {}).join(", ");
    rows.push([el("code", {}, status), inline(response.description), media]);
    if (/^2/.test(status)) good.push(...bodies(response.content));
  }
  return [table(["Status", "When", "Body"], rows), ...good];
}

function operation(method, path, what) {
  const id = what.operationId || `${method}${path}`;
  const parameters = (what.parameters || []).map(resolve);
  const node = el("section", { class: "operation", id, "aria-labelledby": `${id}-title` },
    el("h3", { id: `${id}-title` }, el("a", { href: `#${id}` }, el("span", { class: `method ${method}` }, method.toUpperCase()), " ", el("code", {}, path))),
    el("p", { class: "lead" }, ...inline(what.summary)),
    ...prose(what.description));
  if (parameters.length > 0) {
    node.append(el("h4", {}, "Parameters"), table(["Name", "In", "Type", "Meaning"], parameters.map((parameter) => [
      el("code", {}, parameter.name),
      `${parameter.in}${parameter.required ? "" : " (optional)"}`,
      typeName(parameter.schema || {}),
      [...inline(parameter.description), " ", limits(parameter.schema || {})],
    ])));
  }
  if (what.requestBody) node.append(el("h4", {}, "Body"), ...bodies(what.requestBody.content));
  node.append(el("h4", {}, "Example"), code(curl(method, path, what), "Example with curl"));
  node.append(el("h4", {}, "Answers"), ...responses(what.responses));
  return node;
}

function draw() {
  by("introduction").append(...prose(api.info.description));
  const groups = new Map((api.tags || []).map((tag) => [tag.name, { ...tag, operations: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS) {
      const what = item[method];
      if (!what) continue;
      const tag = what.tags?.[0] || "other";
      if (!groups.has(tag)) groups.set(tag, { name: tag, operations: [] });
      groups.get(tag).operations.push({ method, path, what });
    }
  }
  for (const group of groups.values()) {
    if (group.operations.length === 0) continue;
    by("operations").append(
      el("h2", { id: `group-${group.name}` }, group.name),
      el("p", {}, ...inline(group.description)),
      ...group.operations.map(({ method, path, what }) => operation(method, path, what)));
    by("contents").append(el("h2", {}, el("a", { href: `#group-${group.name}` }, group.name)),
      el("ul", {}, ...group.operations.map(({ method, path, what }) => el("li", {},
        el("a", { href: `#${what.operationId}`, title: path }, el("span", { class: `method ${method}` }, method.toUpperCase()), " ", what.summary.replace(/\.$/, ""))))));
  }
  // The place the address names was not there when the page began.
  if (location.hash) by(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`The host answered ${response.status}.`);
  api = await response.json();
  draw();
} catch (error) {
  by("introduction").append(el("p", { class: "notice bad" }, describe(error)));
}
