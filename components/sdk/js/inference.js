// Models; the manifest must grant `inference`.
import host from "weir:pipeline/inference@0.1.0";
import { asking } from "./refusal.js";

export { Refusal } from "./refusal.js";
export const countTokens = asking((text) => host.countTokens(text));
export const similarities = asking((text, others) => host.similarities(text, others));
export const recognize = asking((document, page, region) => host.recognize(document, page, region));
export const generate = asking((prompt, maxTokens) => host.generate(prompt, maxTokens));
