// The settings of the pipeline's manifest; options of the job override them.
//
// An invalid value throws. With a default instead, the component would silently do something that the tenant did not ask for.
import host from "weir:pipeline/settings@0.1.0";

export function get(name) {
  return host.get(name) ?? undefined;
}

export function getOr(name, value) {
  const text = get(name)?.trim();
  if (text === undefined) return value;
  switch (typeof value) {
    case "number":
      return parseNumber(name, text);
    case "boolean":
      if (text === "true" || text === "false") return text === "true";
      throw new Error(`the setting ${name} = '${text}' is neither true nor false`);
    default:
      return text;
  }
}

export function within(name, value, least, most) {
  const text = get(name)?.trim();
  if (text === undefined) return value;
  const parsed = Number(text);
  if (text !== "" && parsed >= least && parsed <= most) return parsed;
  throw new Error(`the setting ${name} = '${text}' is not within ${least} to ${most}`);
}

export function choice(name, value, words) {
  const text = get(name)?.trim();
  if (text === undefined) return value;
  if (words.includes(text)) return text;
  throw new Error(`the setting ${name} = '${text}' is none of ${words.join(", ")}`);
}

function parseNumber(name, text) {
  const parsed = Number(text);
  if (text === "" || Number.isNaN(parsed)) throw new Error(`the setting ${name} = '${text}' is not a number`);
  return parsed;
}
