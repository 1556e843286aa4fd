// The values of the pipeline's manifest, under those the job was started with.
//
// A value that is not what it should be throws: to go on with a default would do something other than the tenant asked for,
// and nobody would notice.
import host from "weir:pipeline/settings@0.1.0";

export function get(name) {
  return host.get(name) ?? undefined;
}

export function getOr(name, value) {
  const text = get(name)?.trim();
  if (text === undefined) return value;
  switch (typeof value) {
    case "number":
      return number(name, text);
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
  const given = Number(text);
  if (text !== "" && given >= least && given <= most) return given;
  throw new Error(`the setting ${name} = '${text}' is not within ${least} to ${most}`);
}

export function choice(name, value, words) {
  const text = get(name)?.trim();
  if (text === undefined) return value;
  if (words.includes(text)) return text;
  throw new Error(`the setting ${name} = '${text}' is none of ${words.join(", ")}`);
}

function number(name, text) {
  const given = Number(text);
  if (text === "" || Number.isNaN(given)) throw new Error(`the setting ${name} = '${text}' is no number`);
  return given;
}
