// What every component may use. The capabilities that a manifest has to grant are files of their own (`weir-sdk/state.js`,
// `rasterizer.js`, `inference.js`): importing one is what makes a component need it.
export { policy } from "./policy.js";
export { offsets } from "./text.js";
export * as log from "./log.js";
export * as settings from "./settings.js";
