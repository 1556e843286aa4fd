// Renders the OpenAPI description as a page.

import { byId, createElement, errorMessage } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const MAX_EXAMPLE_DEPTH = 6;

let api = null;

/** Follows references within the description. */
const resolveReference = (value) => {
  for (let hops = 0; value?.$ref && hops < 8; hops += 1) {
    value = value.$ref.replace(/^#\//, "").split("/").reduce((node, part) => node?.[part], api);
  }
  return value || {};
};

/** Creates paragraphs from a text with `code`. */
function renderParagraphs(text) {
  return (text || "").split(/\n\s*\n/).filter(Boolean).map((part) => createElement("p", {}, ...renderInline(part)));
}

/** Returns the parts of a text, with elements for `code`. */
function renderInline(text) {
  return (text || "").split(/`([^`]+)`/).map((part, index) => (index % 2 === 1 ? createElement("code", {}, part) : part));
}

/** Resolves references, `allOf`, and a choice between one schema and null. */
function resolveSchema(schema) {
  const found = resolveReference(schema);
  const choices = found.oneOf || found.anyOf;
  if (choices) {
    const real = choices.map(resolveReference).filter((choice) => choice.type !== "null");
    if (real.length === 1) return { ...real[0], description: found.description || real[0].description };
  }
  if (found.allOf) return found.allOf.map(resolveReference).reduce((all, part) => ({ ...all, ...part, properties: { ...all.properties, ...part.properties }, required: [...(all.required || []), ...(part.required || [])] }), {});
  return found;
}

const typeOf = (schema) => [].concat(schema.type || []).find((type) => type !== "null");

function typeName(schema) {
  const found = resolveSchema(schema);
  const name = schema?.$ref?.split("/").pop();
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (found.oneOf) return found.oneOf.map(typeName).join(" | ");
  const type = typeOf(found);
  if (type === "array") return `${typeName(found.items || {})}[]`;
  if (type === "object" || found.properties) return name || "object";
  return [type || "any", found.format && `(${found.format})`].filter(Boolean).join(" ");
}

function describeLimits(schema) {
  const found = resolveSchema(schema);
  const words = [];
  if (found.minimum !== undefined && found.maximum !== undefined) words.push(`${found.minimum} to ${found.maximum}`);
  else if (found.minimum) words.push(`at least ${found.minimum}`);
  else if (found.maximum !== undefined) words.push(`at most ${found.maximum}`);
  if (found.maxLength !== undefined) words.push(`at most ${found.maxLength} characters`);
  if (found.maxItems !== undefined) words.push(`at most ${found.maxItems}`);
  if (found.default !== undefined && found.default !== null) words.push(`default ${JSON.stringify(found.default)}`);
  return words.join(", ");
}

/** Builds an example value for a schema. */
function buildExample(schema, depth = 0) {
  const found = resolveSchema(schema);
  for (const given of [schema?.example, found.example, found.examples?.[0], found.default]) {
    if (given !== undefined && given !== null) return given;
  }
  if (depth > MAX_EXAMPLE_DEPTH) return null;
  if (found.enum) return found.enum[0];
  if (found.oneOf || found.anyOf) return buildExample((found.oneOf || found.anyOf)[0], depth + 1);
  switch (typeOf(found)) {
    case "array":
      return [buildExample(found.items || {}, depth + 1)];
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
      return Object.fromEntries(Object.entries(found.properties || {}).map(([name, part]) => [name, buildExample(part, depth + 1)]));
    default:
      return null;
  }
}

function createTable(head, rows) {
  return createElement("div", { class: "scrollable", tabindex: "0", role: "group", "aria-label": "Table" },
    createElement("table", {},
      createElement("thead", {}, createElement("tr", {}, ...head.map((cell) => createElement("th", { scope: "col" }, cell)))),
      createElement("tbody", {}, ...rows.map((cells) => createElement("tr", {}, ...cells.map((cell) => createElement("td", {}, ...[].concat(cell))))))));
}

/** Returns table rows for the fields of an object, including the fields of nested objects. */
function createFieldRows(schema, depth = 0, path = "") {
  const found = resolveSchema(schema);
  const rows = [];
  for (const [name, part] of Object.entries(found.properties || {})) {
    const inner = resolveSchema(part);
    const item = typeOf(inner) === "array" ? resolveSchema(inner.items || {}) : inner;
    const needed = (found.required || []).includes(name) ? "" : " (optional)";
    const words = part.description || inner.description || "";
    const more = describeLimits(part);
    rows.push([
      createElement("code", {}, path + name),
      `${typeName(part)}${needed}`,
      [...renderInline(words), more ? ` ${words.endsWith(".") || !words ? "" : "· "}${more}` : ""],
    ]);
    if (item.properties && depth < 3) rows.push(...createFieldRows(item, depth + 1, `${path}${name}${typeOf(inner) === "array" ? "[]" : ""}.`));
  }
  return rows;
}

const formatJson = (value) => JSON.stringify(value, null, 2);

function createCodeBlock(text, label) {
  return createElement("pre", { tabindex: "0", "aria-label": label }, createElement("code", {}, text));
}

function buildCurlCommand(method, path, operation) {
  const filled = (operation.parameters || []).map(resolveReference).reduce((at, parameter) => {
    if (parameter.in === "path") return at.replace(`{${parameter.name}}`, `$${parameter.name.toUpperCase()}`);
    if (parameter.in === "query" && parameter.required) {
      return `${at}${at.includes("?") ? "&" : "?"}${parameter.name}=${buildExample(parameter.schema || {})}`;
    }
    return at;
  }, path);
  const quote = filled.includes("&") || filled.includes("?") ? "\"" : "";
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${quote}${location.origin}${filled}${quote}`];
  const free = operation.security?.some((one) => Object.keys(one).length === 0);
  if (!free) lines.push("  -H \"Authorization: Bearer $WEIR_KEY\"");
  const bodies = operation.requestBody?.content || {};
  if (bodies["multipart/form-data"]) {
    const { properties = {} } = resolveSchema(bodies["multipart/form-data"].schema || {});
    for (const [name, part] of Object.entries(properties)) {
      const inner = resolveSchema(part);
      const file = typeOf(inner) === "array" || inner.format === "binary" || name === "file";
      lines.push(file ? `  -F "${name}=@report.pdf"` : `  -F '${name}=${JSON.stringify(buildExample(part))};type=application/json'`);
    }
  } else if (bodies["application/json"]) {
    lines.push("  --json " + `'${JSON.stringify(bodies["application/json"].example ?? buildExample(bodies["application/json"].schema || {}))}'`);
  }
  return lines.join(" \\\n");
}

function renderBodies(content = {}) {
  return Object.entries(content).flatMap(([media, { schema, example: given }]) => {
    const parts = [createElement("p", {}, createElement("code", {}, media))];
    const rows = createFieldRows(schema || {});
    if (rows.length > 0) parts.push(createTable(["Field", "Type", "Description"], rows));
    if (media.endsWith("json") && schema) parts.push(createCodeBlock(formatJson(given ?? buildExample(schema)), "Example"));
    return parts;
  });
}

function renderResponses(all) {
  const rows = [];
  const good = [];
  for (const [status, given] of Object.entries(all)) {
    const response = resolveReference(given);
    const media = Object.keys(response.content || {}).join(", ");
    rows.push([createElement("code", {}, status), renderInline(response.description), media]);
    if (/^2/.test(status)) good.push(...renderBodies(response.content));
  }
  return [createTable(["Status", "Description", "Body"], rows), ...good];
}

function renderOperation(method, path, operation) {
  const id = operation.operationId || `${method}${path}`;
  const parameters = (operation.parameters || []).map(resolveReference);
  const node = createElement("section", { class: "operation", id, "aria-labelledby": `${id}-title` },
    createElement("h3", { id: `${id}-title` }, createElement("a", { href: `#${id}` }, createElement("span", { class: `method ${method}` }, method.toUpperCase()), " ", createElement("code", {}, path))),
    createElement("p", { class: "operation-summary" }, ...renderInline(operation.summary)),
    ...renderParagraphs(operation.description));
  if (parameters.length > 0) {
    node.append(createElement("h4", {}, "Parameters"), createTable(["Name", "In", "Type", "Description"], parameters.map((parameter) => [
      createElement("code", {}, parameter.name),
      `${parameter.in}${parameter.required ? "" : " (optional)"}`,
      typeName(parameter.schema || {}),
      [...renderInline(parameter.description), " ", describeLimits(parameter.schema || {})],
    ])));
  }
  if (operation.requestBody) node.append(createElement("h4", {}, "Body"), ...renderBodies(operation.requestBody.content));
  node.append(createElement("h4", {}, "Example"), createCodeBlock(buildCurlCommand(method, path, operation), "Example with curl"));
  node.append(createElement("h4", {}, "Responses"), ...renderResponses(operation.responses));
  return node;
}

function renderPage() {
  byId("introduction").append(...renderParagraphs(api.info.description));
  const groups = new Map((api.tags || []).map((tag) => [tag.name, { ...tag, operations: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const tag = operation.tags?.[0] || "other";
      if (!groups.has(tag)) groups.set(tag, { name: tag, operations: [] });
      groups.get(tag).operations.push({ method, path, operation });
    }
  }
  for (const group of groups.values()) {
    if (group.operations.length === 0) continue;
    byId("operations").append(
      createElement("h2", { id: `group-${group.name}` }, group.name),
      createElement("p", {}, ...renderInline(group.description)),
      ...group.operations.map(({ method, path, operation }) => renderOperation(method, path, operation)));
    byId("table-of-contents").append(createElement("h2", {}, createElement("a", { href: `#group-${group.name}` }, group.name)),
      createElement("ul", {}, ...group.operations.map(({ method, path, operation }) => createElement("li", {},
        createElement("a", { href: `#${operation.operationId}`, title: path }, createElement("span", { class: `method ${method}` }, method.toUpperCase()), " ", operation.summary.replace(/\.$/, ""))))));
  }
  // The target of the fragment did not exist when the browser loaded the page.
  if (location.hash) byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`The host responded with status ${response.status}.`);
  api = await response.json();
  renderPage();
} catch (error) {
  byId("introduction").append(createElement("p", { class: "notice error" }, errorMessage(error)));
}
