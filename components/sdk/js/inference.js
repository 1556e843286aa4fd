// Calls models. The manifest must grant `inference`.
import host from "weir:pipeline/inference@0.1.0";
import { throwRefusals } from "./refusal.js";

export { Refusal } from "./refusal.js";
export const countTokens = throwRefusals((text) => host.countTokens(text));
export const similarities = throwRefusals((text, others) => host.similarities(text, others));
export const recognize = throwRefusals((document, page, region) => host.recognize(document, page, region));
export const generate = throwRefusals((prompt, maxTokens) => host.generate(prompt, maxTokens));
