// Functions that every component may use. Each capability that a manifest has to grant is a separate file (`weir-sdk/state.js`,
// `rasterizer.js`, `inference.js`), because importing a capability makes the component require its grant.
export { policy } from "./policy.js";
export { offsets } from "./text.js";
export * as log from "./log.js";
export * as settings from "./settings.js";
