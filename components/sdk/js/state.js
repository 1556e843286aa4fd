// Values that are kept between jobs. The manifest must grant `state`.
import host from "weir:pipeline/state@0.1.0";
import { throwRefusals } from "./refusal.js";

export { Refusal } from "./refusal.js";
export const get = throwRefusals((key) => {
  const value = host.get(key);
  return value == null ? undefined : Uint8Array.from(value);
});
export const set = throwRefusals((key, value) => host.set(key, value));
export const remove = throwRefusals((key) => host.delete(key));
