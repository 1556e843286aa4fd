// Values kept from job to job; the manifest must grant `state`.
import host from "weir:pipeline/state@0.1.0";
import { asking } from "./refusal.js";

export { Refusal } from "./refusal.js";
export const get = asking((key) => {
  const value = host.get(key);
  return value == null ? undefined : Uint8Array.from(value);
});
export const set = asking((key, value) => host.set(key, value));
export const remove = asking((key) => host.delete(key));
