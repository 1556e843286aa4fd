// Image statistics, a preview and the text of a page. The manifest must grant `rasterizer`.
import host from "weir:pipeline/rasterizer@0.1.0";
import { throwRefusals } from "./refusal.js";

export { Refusal } from "./refusal.js";
export const statistics = throwRefusals((document, page) => host.statistics(document, page));
export const preview = throwRefusals((document, page, longestSide) => host.preview(document, page, longestSide));
export const text = throwRefusals((document, page) => host.text(document, page));
