// A closer look at a page; the manifest must grant `rasterizer`.
import host from "weir:pipeline/rasterizer@0.1.0";
import { asking } from "./refusal.js";

export { Refusal } from "./refusal.js";
export const statistics = asking((document, page) => host.statistics(document, page));
export const preview = asking((document, page, longestSide) => host.preview(document, page, longestSide));
export const text = asking((document, page) => host.text(document, page));
